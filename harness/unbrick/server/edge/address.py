"""Hosts in addresses: which of them mean this machine alone."""

from __future__ import annotations

import contextlib
import ipaddress
from urllib.parse import urlsplit


def is_ip_address(host: str) -> bool:
    """Whether a host is an IP address, and no name."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def is_loopback(host: str) -> bool:
    """Whether a host, a name or an IP address, can only mean this machine."""
    if is_ip_address(host):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


def is_of_another_site(origin: str | None, host: str | None) -> bool:
    """Whether a browser says (``Origin``) that a page of another site has asked for ``host``."""
    try:
        return origin is not None and urlsplit(origin).netloc != host
    except ValueError:
        return True


def split_host(netloc: str) -> str:
    """The host of ``host`` or ``host:port``, in small letters; empty: it is neither."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").removesuffix(".")
    except ValueError:
        return ""

"""Enrolment files: what the server has to know of terminals that left the factory.

A line has a terminal's serial and its link key in hexadecimal (``factory.derive_link_key``). Who
reads such a file can speak as these terminals, so nobody but its owner may.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from unbrick.errors import SetupError
from unbrick.image.examine import TEXT_LIMIT, is_text
from unbrick.image.factory import Identity, derive_link_key

SUFFIX = ".enrolment"
"""Added to the name of a NOR's file it is that of the terminal's enrolment."""

LINK_KEY_SIZE = 32
"""Bytes of a link key."""

_MODE = 0o600


@dataclass(frozen=True)
class Enrolment:
    """A terminal, and the key of its link."""

    serial: str
    link_key: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"{self.serial} {self.link_key.hex()}"


def enrol_identity(identity: Identity) -> Enrolment | None:
    """What a server has to know of a terminal; None: it has no key, and cannot be enrolled."""
    if not identity.key:
        return None
    return Enrolment(identity.serial, derive_link_key(identity.key))


def parse_link_key(text: str) -> bytes:
    """A link key as a person writes it.

    Raises:
        SetupError: it is none.
    """
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != LINK_KEY_SIZE:
        raise SetupError(
            f"a link key has {2 * LINK_KEY_SIZE} hexadecimal digits",
            hint="take the second word of a line of an enrolment file",
        )
    return key


def find_enrolment_file(nor: Path) -> Path:
    """Where the enrolment of the terminal is whose NOR is in a file, unless somebody moved it."""
    return nor.with_name(nor.name + SUFFIX)


def read_enrolments(path: Path) -> list[Enrolment]:
    """The terminals of an enrolment file. Of a serial that is there twice the last line counts.

    Raises:
        SetupError: it cannot be read, or is none.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SetupError(
            f"cannot read {path}: {reason}", hint="`unbrick image factory` writes such a file"
        ) from error
    found = {item.serial: item for item in _parse(path, lines)}
    return list(found.values())


def _parse(path: Path, lines: Iterable[str]) -> Iterator[Enrolment]:
    for number, line in enumerate(lines, 1):
        serial, _, key = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if not is_text(serial):
            raise SetupError(
                f"line {number} of {path} has no serial and link key",
                hint=f"write a serial of 1 to {TEXT_LIMIT} characters, a space, and the key",
            )
        try:
            yield Enrolment(serial, parse_link_key(key))
        except SetupError as error:
            raise SetupError(f"line {number} of {path}: {error}", hint=error.hint) from None


def add_enrolment(path: Path, enrolment: Enrolment) -> None:
    """Write a terminal into an enrolment file, in place of an earlier line about it.

    Raises:
        SetupError: the file cannot be written, or is none.
    """
    others = read_enrolments(path) if path.exists() else []
    kept = [item for item in others if item.serial != enrolment.serial]
    new = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE), "w") as file:
            file.writelines(f"{item}\n" for item in (*kept, enrolment))
        new.replace(path)
    except OSError as error:
        raise SetupError(
            f"cannot write {path}: {error.strerror}", hint="choose another place"
        ) from error

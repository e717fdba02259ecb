"""Follows every link of a site in a folder: files, anchors, and what a browser would load."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}
"""The elements that a browser loads something for, and where they name it."""

_URL = re.compile(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""")


class Page(HTMLParser):
    """What a page links to, what it loads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        has = {name: value or "" for name, value in attrs}
        self.anchors |= {has[name] for name in ("id", "name") if name in has}
        if tag == "a" and "href" in has:
            self.links.append(has["href"])
        elif tag == "link" and "href" in has and "search" not in has.get("rel", ""):
            self.loads.append(has["href"])
        elif has.get(LOADED.get(tag, "")):
            self.loads.append(has[LOADED[tag]])


def find_complaints(folder: Path) -> list[str]:
    """Links of the site in ``folder`` that lead nowhere, and what is loaded from elsewhere."""
    folder = folder.resolve()
    pages = {file: Page(file.read_text(encoding="utf-8")) for file in folder.rglob("*.html")}
    found = []
    for file, page in sorted(pages.items()):
        name = file.relative_to(folder)
        found += [
            f"{name}: {link} leads nowhere" for link in page.links if _lost(link, file, pages)
        ]
        found += [f"{name}: {load} is {why}" for load, why in _bad_loads(page.loads, file)]
    for sheet in sorted(folder.rglob("*.css")):
        loads = ["".join(url) for url in _URL.findall(sheet.read_text(encoding="utf-8"))]
        found += [
            f"{sheet.relative_to(folder)}: {load} is {why}"
            for load, why in _bad_loads(loads, sheet)
        ]
    return found


def _lost(link: str, file: Path, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if target in pages:
        return unquote(parts.fragment) not in pages[target].anchors
    return not target.is_file()


def _bad_loads(loads: list[str], file: Path) -> Iterator[tuple[str, str]]:
    for load in loads:
        parts = urlsplit(load)
        if parts.scheme == "data":
            continue
        if parts.scheme or parts.netloc:
            yield load, "loaded from elsewhere"
        elif parts.path and not (file.parent / unquote(parts.path)).is_file():
            yield load, "not there"

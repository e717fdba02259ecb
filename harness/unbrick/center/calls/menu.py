"""The menu of a call: what is said and what each key does, from a small YAML file (row B4)."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from unbrick.errors import SetupError
from unbrick.wire.messages import MAX_TEXT

KEYS = "0123456789*#"
"""What a telephone has."""

UPGRADE, REPEAT, END = "upgrade", "repeat", "end"
NEEDED, UNNECESSARY, UNDER_WAY, STARTED = "needed", "unnecessary", "under-way", "started"

PLACEHOLDERS = frozenset(("old", "new", "serial"))
_MORE = {"wrong-key": frozenset(("key",)), "refused": frozenset(("why",))}
_FIRST = (NEEDED, UNNECESSARY, UNDER_WAY, STARTED)
_ACTIONS = (UPGRADE, REPEAT, END)
_PHRASES = (
    *("wrong-key", "silence", "moment", "goodbye", "no-choice", "unknown", "no-answer", "refused"),
)
_MAX_FILE, _MAX_TEXT, _MAX_SECONDS, _MAX_PATIENCE = 65_536, 1_000, 600, 10
_FILLED = 16
"""Bytes that a version or a serial takes in a text message, more often than not less."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")

DEFAULT = Path(__file__).with_name("menu.yaml")


class MenuError(SetupError):
    """The file is no menu."""


@dataclass(frozen=True)
class MenuEntry:
    """One menu: what is said, and for each key an action or the name of another menu."""

    say: str
    keys: Mapping[str, str]


@dataclass(frozen=True)
class Menu:
    """All that a caller may hear. ``silence`` is in seconds."""

    silence: float
    patience: int
    entries: Mapping[str, MenuEntry]
    phrases: Mapping[str, str]
    message: str


def fill(text: str, values: Mapping[str, str]) -> str:
    """A text of the menu with its placeholders replaced; ``values`` are not looked into."""
    return "".join(
        literal + (values[name] if name is not None else "")
        for literal, name, _, _ in string.Formatter().parse(text)
    )


def read_menu(path: Path = DEFAULT) -> Menu:
    """The menu in a file.

    Raises:
        MenuError: it cannot be read, or is no menu; says in which line, and what is wanted.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE + 1)
    except OSError as error:
        raise MenuError(
            f"the menu {path} cannot be read: {error.strerror}",
            hint="give the file of a menu, or leave --menu away",
        ) from error
    return parse_menu(data, str(path))


def parse_menu(data: bytes, name: str = "menu") -> Menu:
    """The menu that a YAML text describes; ``name`` is for messages.

    Raises:
        MenuError: as for ``read_menu``.
    """
    if len(data) > _MAX_FILE:
        raise MenuError(f"{name} has more than {_MAX_FILE} bytes", hint="a menu is shorter")
    try:
        root = yaml.compose(data.decode("utf-8"), Loader=yaml.SafeLoader)
    except (UnicodeDecodeError, RecursionError) as error:
        raise MenuError(f"{name} is no YAML text", hint="write it in UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        why = getattr(error, "problem", None) or "is no YAML"
        raise MenuError(f"{where}: {why}", hint="mend the YAML there") from error
    return _Reader(name).menu(root)


class _Reader:
    """Makes a menu of YAML's nodes, which know their lines; walks no deeper than a menu is."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _wrong(self, node: yaml.Node | None, what: str, hint: str) -> MenuError:
        where = f"{self._name}, line {node.start_mark.line + 1}" if node else self._name
        return MenuError(f"{where}: {what}", hint=hint)

    def menu(self, root: yaml.Node | None) -> Menu:
        parts = self._mapping(root, "the menu")
        self._only(root, parts, ("silence", "patience", "menus", "phrases", "message"))
        menus = self._mapping(parts["menus"], "menus")
        for first in _FIRST:
            if first not in menus:
                raise self._wrong(parts["menus"], f"there is no menu {first!r}", "add it")
        entries = {name: self._entry(name, node, menus) for name, node in menus.items()}
        self._reachable(entries, menus)
        phrases = self._mapping(parts["phrases"], "phrases")
        self._only(parts["phrases"], phrases, _PHRASES)
        return Menu(
            silence=self._number(parts["silence"], "silence", _MAX_SECONDS),
            patience=self._number(parts["patience"], "patience", _MAX_PATIENCE),
            entries=entries,
            phrases={
                name: self._text(node, name, PLACEHOLDERS | _MORE.get(name, frozenset()))
                for name, node in phrases.items()
            },
            message=self._message(parts["message"]),
        )

    def _entry(self, name: str, node: yaml.Node, menus: Mapping[str, yaml.Node]) -> MenuEntry:
        if not _NAME.fullmatch(name) or name in _ACTIONS:
            hint = f"use small letters, digits and hyphens, and none of {', '.join(_ACTIONS)}"
            raise self._wrong(node, f"{name!r} cannot be a menu's name", hint)
        parts = self._mapping(node, f"menu {name}")
        self._only(node, parts, ("say", "keys"))
        keys = {}
        for key, target in self._mapping(parts["keys"], f"the keys of {name}").items():
            if len(key) != 1 or key not in KEYS:
                raise self._wrong(target, f"no telephone has a key {key!r}", f"use one of {KEYS}")
            does = target.value if isinstance(target, yaml.ScalarNode) else None
            if does not in _ACTIONS and does not in menus:
                hint = f"use {', '.join(_ACTIONS)}, or one of {', '.join(menus)}"
                raise self._wrong(target, f"key {key} of {name} does nothing that is known", hint)
            if does == UPGRADE and name in (UNNECESSARY, UNDER_WAY, STARTED):
                raise self._wrong(target, f"there is nothing to upgrade in {name}", "drop that key")
            keys[key] = str(does)
        return MenuEntry(self._text(parts["say"], f"say of {name}", PLACEHOLDERS), keys)

    def _reachable(self, entries: Mapping[str, MenuEntry], nodes: Mapping[str, yaml.Node]) -> None:
        """Every menu is come to, and an upgrade is offered only where there is one."""
        offered = _from(entries, (NEEDED,))
        other = _from(entries, (UNNECESSARY, UNDER_WAY, STARTED))
        for name, entry in entries.items():
            if name not in offered | other:
                raise self._wrong(nodes[name], f"no key leads to {name}", "add one, or drop it")
            if name in other and UPGRADE in entry.keys.values():
                hint = "let no key of unnecessary, under-way or started lead there"
                raise self._wrong(nodes[name], f"{name} offers an upgrade where none is due", hint)
        if not any(UPGRADE in entries[name].keys.values() for name in offered):
            raise self._wrong(nodes[NEEDED], "no key starts the upgrade", "give one to needed")

    def _mapping(self, node: yaml.Node | None, what: str) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self._wrong(node, f"{what} must be names with values", "write `name: value`")
        values: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._wrong(key, f"{what} has a name that is no text", "write `name: value`")
            if key.value in values:
                raise self._wrong(key, f"{key.value!r} is there twice", "drop one of them")
            values[key.value] = value
        return values

    def _only(
        self, node: yaml.Node | None, values: Mapping[str, yaml.Node], names: tuple[str, ...]
    ) -> None:
        for name in names:
            if name not in values:
                raise self._wrong(node, f"{name!r} is missing", "add it")
        for name in values:
            if name not in names:
                hint = f"there are only {', '.join(names)}"
                raise self._wrong(values[name], f"{name!r} means nothing here", hint)

    def _message(self, node: yaml.Node) -> str:
        text = self._text(node, "message", PLACEHOLDERS)
        size = len(fill(text, dict.fromkeys(PLACEHOLDERS, "x" * _FILLED)).encode())
        if size > MAX_TEXT:
            hint = f"{MAX_TEXT} bytes go into one, with {_FILLED} for each placeholder"
            raise self._wrong(node, f"message is too long for a text message: {size} bytes", hint)
        return text

    def _number(self, node: yaml.Node, what: str, most: int) -> int:
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        number = int(text) if re.fullmatch(r"[0-9]{1,4}", text) else 0
        if not 1 <= number <= most:
            raise self._wrong(node, f"{what} is no number from 1 to {most}", "write one")
        return number

    def _text(self, node: yaml.Node, what: str, allowed: frozenset[str]) -> str:
        text = node.value.strip() if isinstance(node, yaml.ScalarNode) else ""
        if not text or len(text) > _MAX_TEXT or not text.isprintable():
            hint = f"write one line of 1 to {_MAX_TEXT} characters, or fold it with >-"
            raise self._wrong(node, f"{what} is no text that can be said", hint)
        choice = f"use only {', '.join(f'{{{name}}}' for name in sorted(allowed))}"
        try:
            fields = list(string.Formatter().parse(text))
        except ValueError as error:
            raise self._wrong(node, f"{what}: {error}", choice) from error
        for _, name, form, conversion in fields:
            if name is not None and (name not in allowed or form or conversion):
                raise self._wrong(node, f"{what} has {{{name}}}, which means nothing there", choice)
        return text


def _from(entries: Mapping[str, MenuEntry], first: tuple[str, ...]) -> set[str]:
    """The menus that can be come to from ``first``."""
    seen: set[str] = set()
    todo = list(first)
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += [does for does in entries[name].keys.values() if does in entries]
    return seen

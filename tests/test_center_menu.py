"""The menu of a call: the one that comes with the center, and files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unbrick.center.calls.menu import DEFAULT, MenuError, fill, parse_menu, read_menu


def changed(**changes: Any) -> bytes:
    """The menu that comes with the center, with some of it replaced; ``None`` takes it away.

    A name such as ``menus__needed__say`` leads to what is replaced.
    """
    values = yaml.safe_load(DEFAULT.read_text(encoding="utf-8"))
    for path, value in changes.items():
        at: Any = values
        parts = [part.replace("_", "-") for part in path.split("__")]
        *way, last = (int(part) if part.isdigit() else part for part in parts)
        for part in way:
            at = at[part]
        if value is None:
            del at[last]
        else:
            at[last] = value
    return yaml.safe_dump(values, sort_keys=False).encode()


def test_the_menu_that_comes_with_the_center_offers_the_upgrade_with_1() -> None:
    menu = read_menu()
    assert menu.entries["needed"].keys["1"] == "upgrade"
    said = fill(menu.entries["needed"].say, {"old": "1.0.0", "new": "1.1.0", "serial": "X"})
    assert "Press 1 to upgrade" in said
    assert "{" not in said


def test_values_are_not_looked_into() -> None:
    assert fill("{why}, {{so}}", {"why": "{key}"}) == "{key}, {so}"


ENTRY = {"say": "x", "keys": {}}


@pytest.mark.parametrize(
    ("data", "line", "what", "hint"),
    [
        (b"", "", "must be names with values", "name: value"),
        (b"- a", "1", "must be names with values", "name: value"),
        (b"[[" * 5000, "", "no YAML text", "UTF-8"),
        (b"a: \xff", "", "no YAML text", "UTF-8"),
        (b"a: [1", "1", "", "mend"),
        (b"a: b: c", "1", "mapping values are not allowed here", "mend"),
        (b" " * 70_000, "", "more than 65536 bytes", "shorter"),
        (b"silence: 1\nsilence: 2", "2", "'silence' is there twice", "drop"),
        (b"? [a]\n: b", "1", "a name that is no text", "name: value"),
        (changed(patience=None), "1", "'patience' is missing", "add it"),
        (changed(colour="red"), "", "'colour' means nothing here", "there are only silence"),
        (changed(silence=0), "1", "no number from 1 to 600", "write one"),
        (changed(silence=601), "1", "no number from 1 to 600", "write one"),
        (changed(patience="many"), "2", "no number from 1 to 10", "write one"),
        (changed(menus__started=None), "", "no menu 'started'", "add it"),
        (changed(menus__needed__keys__1="Upgrade"), "", "key 1 of needed does nothing", "upgrade,"),
        (changed(menus__needed__keys__1=[1]), "", "key 1 of needed does nothing", "upgrade,"),
        (changed(menus__needed__keys={"11": "end"}), "", "no telephone has a key '11'", "0123"),
        (changed(menus__needed__keys={"": "end"}), "", "no telephone has a key ''", "0123"),
        (changed(menus__needed__keys={"9": "repeat"}), "", "no key leads to about", "add one"),
        (
            changed(menus__needed__keys__1="repeat", menus__about__keys__1="repeat"),
            *("", "no key starts the upgrade", "give one"),
        ),
        (changed(menus__started__keys={"1": "upgrade"}), "", "nothing to upgrade in started", ""),
        (changed(menus__started__keys={"1": "about"}), "", "about offers an upgrade", "let no key"),
        (changed(menus__lost=ENTRY), "", "no key leads to lost", "add one"),
        (changed(menus__end=ENTRY), "", "'end' cannot be a menu's name", "none of upgrade"),
        (changed(menus__needed__say="{newest}"), "", "{newest}, which means nothing", "{new}"),
        (changed(menus__needed__say="{key}"), "", "{key}, which means nothing", "{new}"),
        (changed(menus__needed__say="{new.x}"), "", "{new.x}, which means nothing", "{new}"),
        (changed(menus__needed__say="{new!r}"), "", "{new}, which means nothing", "{new}"),
        (changed(menus__needed__say="{new:>9}"), "", "{new}, which means nothing", "{new}"),
        (changed(menus__needed__say="{"), "", "say of needed: ", "{new}"),
        (changed(menus__needed__say="a\tb"), "", "no text that can be said", "one line"),
        (changed(phrases__goodbye="x" * 1001), "", "no text that can be said", "1000"),
        (changed(message="x" * 161), "", "too long for a text message: 161 bytes", "160 bytes"),
        (changed(message="x" * 140 + "{new}{old}"), "", "172 bytes", "16 for each placeholder"),
        (changed(phrases__goodbye=None), "", "'goodbye' is missing", "add it"),
    ],
)
def test_what_is_wrong_with_a_menu_is_said_with_its_line(
    data: bytes, line: str, what: str, hint: str
) -> None:
    with pytest.raises(MenuError) as caught:
        parse_menu(data, "my.yaml")
    assert str(caught.value).startswith(f"my.yaml, line {line}" if line else "my.yaml")
    assert what in str(caught.value)
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MenuError, match="cannot be read: No such file"):
        read_menu(tmp_path / "none.yaml")


@given(st.binary(max_size=200))
def test_no_file_does_harm(data: bytes) -> None:
    with pytest.raises(MenuError):
        parse_menu(data)

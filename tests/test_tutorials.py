"""Every tutorial of docs/tutorials is true: a machine follows it, as ``tutorial.py`` says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tutorial import File, Player, Turn, TutorialError, missing, parse

TUTORIALS = sorted((Path(__file__).parents[1] / "docs" / "tutorials").glob("*.md"))


def play(text: str, folder: Path) -> None:
    with Player(folder) as player:
        for step in parse(text):
            player.play(step)


@pytest.mark.slow(first=True)
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_the_tutorial_is_true(tutorial: Path, firmware: Path, tmp_path: Path) -> None:
    text = tutorial.read_text(encoding="utf-8")
    if absent := missing(text):
        pytest.skip(f"{tutorial.name} needs {', '.join(absent)}, not installed")
    folder = tmp_path / "reader"
    folder.mkdir()
    shutil.copytree(firmware, folder / "build" / "firmware")
    play(text, folder)


TRUE = r"""
Words.

```sh hello.sh
echo hello
printf 'bye, %s\n' "$1"
```

```console
$ sh hello.sh you
hello
bye, you
$ cat \
    hello.sh | wc -l
...2
$ seq 5
1
...
5
$ printf '\033[1mbold\033[0m  \r\nover\rwritten  \n'
bold
written
```

```console other
$ echo listens on 127.0.0.1:$((40000 + 321)); cat
listens on 127.0.0.1:7
```

```console
$ echo 127.0.0.1:7
127.0.0.1:7
$ cd /
$ pwd
/
```

```console other
^C
$ echo back
back
```
"""


def test_what_is_true_passes(tmp_path: Path) -> None:
    play(TRUE, tmp_path)
    assert (tmp_path / "hello.sh").read_text() == "echo hello\nprintf 'bye, %s\\n' \"$1\"\n"


def test_a_key_is_pressed_when_the_program_runs(tmp_path: Path) -> None:
    """And not while the shell is still busy: it ignores this one."""
    busy = "for ((i = 0; i < 200000; i++)); do :; done"
    shown = f"$ echo begins; {busy}; cat\nbegins\n^\\\n...\n$ echo back\nback"
    play(f"```console\n{shown}\n```\n", tmp_path)


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        ("$ echo hello\nhullo", "hello"),
        ("$ echo one; echo two\none", "two"),
        ("$ true\nsaid nothing", "said nothing"),
        ("$ seq 9\n1\n...\n8", "9"),
        ("$ echo 127.0.0.1:5 127.0.0.1:6\n127.0.0.1:7 127.0.0.1:7", "127"),
        ("$ no-such-command\n", "not found"),
    ],
)
def test_what_is_not_true_fails(shown: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(TutorialError, match="(?s)line 2: this must.*" + why):
        play(f"```console\n{shown}\n```\n", tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("```console\n$ true", "never closed"),
        ("```python\nprint()\n```", "line 1: a block of 'python' that names no file"),
    ],
)
def test_a_tutorial_that_leaves_something_untried_is_refused(text: str, why: str) -> None:
    with pytest.raises(TutorialError, match=why):
        parse(text)


def test_a_file_stays_in_the_folder(tmp_path: Path) -> None:
    with Player(tmp_path) as player, pytest.raises(TutorialError, match="outside"):
        player.play(File(1, "../there", ""))


def test_lines_are_told_apart() -> None:
    shown = "```console w\nsaid\n$ go \\\n  on\n^Aq\n> \n```\n"
    first, go, key, enter = parse(shown)
    assert isinstance(first, Turn)
    assert (first.window, first.expected, first.typed) == ("w", ["said"], "")
    assert isinstance(go, Turn)
    assert (go.prompt, go.typed) == ("$ ", "go on\r")
    assert isinstance(key, Turn)
    assert (key.prompt, key.typed) == ("", "\x01q")
    assert isinstance(enter, Turn)
    assert (enter.prompt, enter.typed, enter.last) == ("> ", "\r", True)


def test_what_a_tutorial_needs_and_is_missing_is_found() -> None:
    assert missing("<!-- needs: sh no-such-program -->") == ["no-such-program"]

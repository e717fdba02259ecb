"""Files that one process owns: a second one is told who has them, and a death frees them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from processes import Running, unbrick

from unbrick.errors import SetupError
from unbrick.lock import lock_file, owned

HOLD = """
import sys
from pathlib import Path
from unbrick.lock import owned

with owned(Path(sys.argv[1]), hint="take another"):
    print("mine", flush=True)
    sys.stdin.read()
"""


def hold(path: Path) -> subprocess.Popen[str]:
    """A process that owns ``path`` until its input ends."""
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "mine\n"
    return process


def test_a_second_process_is_told_who_has_it(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    with hold(path) as holder:
        said = rf"a file is in use by process {holder.pid} \(`unbrick '.*a file'`\)$"
        with pytest.raises(SetupError, match=said) as error, owned(path, hint="take another"):
            pass
        assert error.value.hint == "end that one, or take another"
        assert holder.stdin is not None
        holder.stdin.close()
        assert holder.wait() == 0
    with owned(path, hint=""):
        pass
    assert list(tmp_path.iterdir()) == [], "nothing is left beside it"


def test_death_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with hold(path) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert lock_file(path).exists()
    with owned(path, hint=""):
        assert lock_file(path).read_text().startswith(f"{os.getpid()} ")
    assert not lock_file(path).exists()


def test_it_is_owned_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("file")
    with hold(tmp_path / "file") as holder:
        with pytest.raises(SetupError, match="link is in use by"), owned(tmp_path / "link", ""):
            pass
        holder.kill()


def test_the_owner_may_own_it_again(tmp_path: Path) -> None:
    with owned(tmp_path, hint=""):
        with owned(tmp_path, hint=""):
            pass
        assert lock_file(tmp_path).exists(), "the first one has it still"
    assert not lock_file(tmp_path).exists()


@pytest.mark.parametrize(
    "content", [b"", b"\x1b[31m 12", b"12 \x1b[31m\n", b"twelve unbrick run\n"]
)
def test_what_a_lock_file_says_is_not_trusted(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with hold(path) as holder:
        lock_file(path).write_bytes(content)
        with pytest.raises(SetupError, match=r"in use by another process$"), owned(path, hint=""):
            pass
        lock_file(path).write_bytes(b"12 " + b"x" * 10_000)
        with pytest.raises(SetupError, match=r"process 12 \(`x{297}…`\)$"), owned(path, hint=""):
            pass
        holder.kill()


def test_a_place_where_nothing_can_be_locked_is_said(tmp_path: Path) -> None:
    lock_file(tmp_path / "file").mkdir()
    said = "file cannot be used: Is a directory"
    with pytest.raises(SetupError, match=said), owned(tmp_path / "file", hint="take another"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("run", "--nor"), "terminal.nor"),
        (("console", "--nor"), "terminal.nor"),
        (("hil-test", "--keep"), "kept"),
        (("up", "--state"), "state"),
        (("campaign", "phonebook", "--out"), "found"),
        (("server", "start", "--coap-port", 0, "--http-port", 0, "--database"), "server.db"),
        (("center", "start", "--port", 0, "--accounts"), "center.db"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_what_a_command_owns_no_other_may_use(
    words: tuple[object, ...], name: str, firmware: Path, tmp_path: Path
) -> None:
    if "." not in name:
        (tmp_path / name).mkdir()
    config = tmp_path / "unbrick.toml"
    config.write_text(f'firmware = "{firmware}"\n')
    with owned(tmp_path / name, hint=""):
        done = unbrick(*words, name, cwd=tmp_path, stdin=subprocess.DEVNULL)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"unbrick: {name} is in use by process {os.getpid()} (`unbrick")
    assert f"End that one, or give another {words[-1]}" in said
    assert not (tmp_path / name).is_file(), "nothing was made"


@pytest.mark.slow
def test_two_terminals_do_not_share_a_nor(firmware: Path, tmp_path: Path) -> None:
    nor = tmp_path / "terminal.nor"
    words = ("run", "--firmware", firmware, "--nor", nor)
    with Running(*words, "--serial", "FIRST") as first:
        first.wait_for("ready: wire")
        done = unbrick(*words)
        assert done.returncode == 2
        assert f"in use by process {first.pid} (`unbrick run --firmware" in done.stderr
        assert "ready" not in done.stdout
        assert first.end() == 0
    assert b"FIRST" in nor.read_bytes()
    files = ["terminal.nor", "terminal.nor.enrolment"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files


@pytest.mark.slow
def test_a_lock_does_not_outlive_a_server_that_is_killed(tmp_path: Path) -> None:
    words = ("server", "start", "--coap-port", 0, "--http-port", 0)
    database = ("--database", tmp_path / "server.db")
    with ExitStack() as stack:
        first = stack.enter_context(Running(*words, *database))
        first.wait_for("server: ready")
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        second = stack.enter_context(Running(*words, *database))
        second.wait_for("server: ready")
        assert second.end() == 0

"""Row C7: a person at the console of a terminal, with the bench behind a key."""

from __future__ import annotations

import fcntl
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
from typing import TYPE_CHECKING

import pexpect
import pytest
from patience import PATIENCE_S, until
from person import ESCAPE, Person, close
from processes import Running, unbrick

from unbrick.image.factory import make_factory_image
from unbrick.layout import reference_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from unbrick.firmware.signed import Releases

LAYOUT = reference_layout()
PAGE = 4096
USER = LAYOUT.partition("userdata")


@pytest.mark.slow
def test_claim_c7_a_person_plays_with_a_terminal(
    emulator: str, sit_down: Callable[..., Person], tmp_path: Path
) -> None:
    nor = tmp_path / "nor.bin"
    person = sit_down("--engine", emulator, "--nor", nor, "--serial", "T-78")
    person.sees("link: registered")
    assert "T-78" in person.says("id")
    # A line is half typed while the bench is asked for something.
    person.types("pb add Alice 11")
    person.sees("pb add Alice 11")
    person.tells_the_bench("help", "cut [next [N]]   cut the power now")
    person.sees("\r\n> pb add Alice 11")
    person.types("2\r")
    person.sees("added 1")
    person.sees("> ")
    person.types("\x03")  # Ctrl-C is the terminal's, too
    person.tells_the_bench("message lunch is ready")
    person.sees("message: lunch is ready")
    person.tells_the_bench("nor")
    person.sees("application")
    person.sees("unbrick-terminal 1.0.0+0")
    person.sees("\r\n> ")
    # The power goes, and what is typed meanwhile is there when it is back.
    person.tells_the_bench("cut", "power cut")
    person.types("pb list\r")
    person.tells_the_bench("on")
    person.sees("boot: unbrick boot")
    person.sees("> pb list\r\n")
    assert "Alice" in person.sees("\r\n> ")
    person.tells_the_bench("save state.bin", "saved the NOR to state.bin (not saved: SRAM")
    assert "deleted" in person.says("pb del 1")
    person.tells_the_bench("load state.bin", "power cut\r\nloaded the NOR from state.bin")
    person.sees("terminal: ")
    person.sees("\r\n> ")
    assert "Alice" in person.says("pb list")
    person.tells_the_bench("cut next", "the power goes")
    person.types("pb add Bob 1\r")
    person.sees("power cut")
    person.tells_the_bench("on")
    person.sees("\r\n> ")
    assert "Alice" in person.says("pb list")
    person.sees("link: registered")
    # Without the link there is no update; with it there is.
    person.tells_the_bench("link down", "the link is down")
    person.tells_the_bench("update 1.1.0", "server: update 1 to 1.1.0 is announced")
    assert "announced" not in person.says("update")
    person.tells_the_bench("link up", "the link is up")
    person.sees("update: announced 1.1.0")
    person.sees("server: update 1 succeeded, the terminal runs 1.1.0+0")
    assert "1.1.0" in person.says("version")
    person.tells_the_bench("quit")
    assert person.is_gone() == 0
    assert b"Alice" in nor.read_bytes()[USER.offset : USER.end]


def test_the_power_is_cut_at_the_operation_that_was_meant(
    sit_down: Callable[..., Person],
) -> None:
    person = sit_down()
    assert "added 1" in person.says("pb add Alice 1")
    person.tells_the_bench("cut next 1000")
    person.tells_the_bench("cut never")
    person.tells_the_bench("cut next 2", "the power goes just before it")
    assert "added 2" in person.says("pb add Bob 1")  # one operation
    person.types("pb add Carl 1\r")
    person.sees("power cut just before flash operation")
    person.tells_the_bench("on")
    person.sees("\r\n> ")
    listing = person.says("pb list")
    assert "Bob" in listing
    assert "Carl" not in listing
    person.tells_the_bench("cut next 0", "'0' is no number of operations: type cut next 3")
    person.tells_the_bench("cut sometimes", "cannot cut 'sometimes': type cut, cut next")


def test_what_the_bench_cannot_do_is_said(sit_down: Callable[..., Person], tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(LAYOUT.board.nor.modelled))
    (tmp_path / "notes.txt").write_text("not to be lost")
    person = sit_down("--modem", "tcp:0")
    for line, answer in (
        ("jump", "no command 'jump': type help"),
        ("link up", "the modem is a port: link and server are elsewhere"),
        ("update 1.1.0", "the modem is a port"),
        ("gdb", "there is no debugger's port: start this with --gdb PORT"),
        ("save", "which file?"),
        ("save 'x", "which file?"),
        ("save no/such/folder", "cannot write no/such/folder: there is no folder no/such"),
        ("load nothing.bin", "cannot read nothing.bin: No such file"),
        ("load /etc/passwd", "/etc/passwd is no NOR image, which has 4194304 bytes: it has"),
        ("load .", ". is no file: `save FILE` of the console writes one"),
        ("load zeros", "zeros is no NOR image: it has neither boot nor the identity of a terminal"),
        ("save notes.txt", "notes.txt is there already, and is no NOR image: choose another file"),
        ("help on", "on               give the power back"),
    ):
        person.tells_the_bench(line, answer)
    assert "UB-000001" in person.says("id"), "the terminal has noticed nothing"
    assert (tmp_path / "notes.txt").read_text() == "not to be lost"


@pytest.mark.parametrize("command", ["run", "console"])
@pytest.mark.parametrize("what", ["notes", "folder", "zeros", "pipe"])
def test_a_file_that_is_no_nor_is_neither_taken_nor_lost(
    command: str, what: str, firmware: Path, tmp_path: Path
) -> None:
    file = tmp_path / what
    if what == "folder":
        file.mkdir()
    elif what == "pipe":
        os.mkfifo(file)
    else:
        file.write_bytes(bytes(LAYOUT.board.nor.modelled if what == "zeros" else 100))
    before = file.stat()
    done = unbrick(command, "--firmware", firmware, "--nor", file, input="id\n")
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (said,) = [line for line in done.stderr.splitlines() if "Usage" not in line][-1:]
    assert ("no NOR image" in said) or ("is a directory" in said)
    after = file.stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)


def test_a_state_is_loaded_whatever_has_become_of_it(
    sit_down: Callable[..., Person], unbrick_releases: Releases, tmp_path: Path
) -> None:
    """What a bug has made of boot or of the identity is worth a look, too."""
    cells = make_factory_image(unbrick_releases.boot, unbrick_releases.signed["1.0.0"], "T-80")
    identity = LAYOUT.partition("identity")
    blank = b"\xff" * identity.offset
    (tmp_path / "no-boot").write_bytes(blank + cells[identity.offset :])
    (tmp_path / "no-identity").write_bytes(
        cells[: identity.offset] + b"\xff" * identity.size + cells[identity.end :]
    )
    person = sit_down()
    person.tells_the_bench("load no-identity", "power cut\r\nloaded the NOR from no-identity")
    person.sees("terminal: unbrick-terminal 1.0.0")
    person.tells_the_bench("load no-boot", "power cut\r\nloaded the NOR from no-boot")


def test_the_server_refuses_what_it_cannot_do(sit_down: Callable[..., Person]) -> None:
    person = sit_down()
    person.sees("link: registered")
    person.tells_the_bench("update 9.9.9", "there is no release 9.9.9: choose from 1.0.0")
    person.tells_the_bench("message " + "x" * 200)
    person.sees("160")
    person.tells_the_bench("link sideways", "up or down?")
    assert "no messages" in person.says("messages")


def test_a_command_is_edited_and_left(sit_down: Callable[..., Person]) -> None:
    person = sit_down()
    person.types(ESCAPE)
    person.sees("bench> ")
    person.types("cud\x7f\x15help onn\x7f\r")
    person.sees("give the power back")
    person.types("pb ad" + ESCAPE + "cut\x03d Alice 112\r")  # left without a command
    person.sees("added 1")
    person.types(ESCAPE + ESCAPE)  # for the terminal, which ignores it
    assert "Alice" in person.says("pb list")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_leaves_everything_in_order(
    number: int, sit_down: Callable[..., Person], tmp_path: Path
) -> None:
    nor = tmp_path / "nor.bin"
    person = sit_down("--nor", nor)
    person.says("pb add Alice 112")
    assert termios.tcgetattr(person.window.child_fd) != person.before
    person.window.kill(number)
    assert person.is_gone() == 0
    assert b"Alice" in nor.read_bytes(), "what was in the NOR is kept"


def test_an_error_leaves_the_window_in_order(sit_down: Callable[..., Person]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        person = sit_down("--gdb", port, prompt=False)
        person.sees(f"unbrick: nothing can listen on port {port}: ")
        assert person.is_gone() == 2


def test_a_stopped_console_goes_on_raw(sit_down: Callable[..., Person]) -> None:
    person = sit_down()
    raw = termios.tcgetattr(person.window.child_fd)
    termios.tcsetattr(person.window.child_fd, termios.TCSANOW, person.before)  # as a shell does
    person.window.kill(signal.SIGCONT)
    assert "UB-000001" in person.says("id")
    assert termios.tcgetattr(person.window.child_fd) == raw


# Nothing typed is lost, nothing printed is lost --------------------------------------------------


def undisturbed(said: str) -> str:
    """What the terminal has said, without what it said about the link in between."""
    return re.sub(r"(> [^\r\n]*)\rlink: [a-z ]*\r\n\1", r"\1", said)


@pytest.mark.slow
def test_nothing_pasted_is_lost(emulator: str, sit_down: Callable[..., Person]) -> None:
    person = sit_down("--engine", emulator)
    words = [f"w{number:04}-{'x' * (number % 97)}" for number in range(180)]
    paste = "".join(f"{word}\r" for word in words)
    assert len(paste) > 8000
    sender = threading.Thread(target=person.window.send, args=(paste,))
    sender.start()
    said = ""
    for word in words:
        answer = f'no command "{word}": type help\r\n'
        said += person.sees(answer) + answer
    sender.join(PATIENCE_S)
    said += person.sees("> ") + "> "
    expected = "".join(f'{word}\r\nno command "{word}": type help\r\n> ' for word in words)
    assert undisturbed("> " + said) == "> " + expected


@pytest.mark.slow
def test_nothing_printed_is_lost_by_a_slow_reader(emulator: str, firmware: Path) -> None:
    """The reader takes a page each time that the pipe is full, and the rest at last."""
    times = 250 if emulator != "inprocess" else 60  # its line has a rate: 11,520 bytes a second
    command = [sys.executable, "-m", "unbrick.cli", "console", "--engine", emulator]
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 2 * PAGE)
    with (
        subprocess.Popen(
            [*command, "--firmware", str(firmware)],
            stdin=subprocess.PIPE,
            stdout=writer,
            stderr=subprocess.DEVNULL,
        ) as console,
        os.fdopen(reader, "rb", buffering=0) as pipe,
    ):
        assert console.stdin is not None
        console.stdin.write(b"help\n" * times)
        console.stdin.close()
        pieces = []
        for _ in range(5):
            until(lambda: not select.select([], [writer], [], 0)[1], "a full pipe")
            pieces.append(pipe.read(PAGE))
        os.close(writer)
        said = undisturbed((b"".join(pieces) + pipe.read()).decode())
        assert console.wait(PATIENCE_S) == 0
    start, *answers = said.split("> help\r\n")
    assert start.startswith("boot: ")
    assert len(answers) == times
    assert answers[-1] == answers[0] + "> "
    assert len(answers[0].splitlines()) > 10
    assert len(set(answers[:-1])) == 1, "every answer is the same, to the byte"


@pytest.mark.slow
def test_a_script_works_from_top_to_bottom(emulator: str, firmware: Path, tmp_path: Path) -> None:
    nor = tmp_path / "nor.bin"
    script = (
        "pb add Alice 112\npb list\n"
        f"{ESCAPE}cut\n{ESCAPE}on\nreboot\npb add Bob 7\r\npb list\n"
        f"{ESCAPE}save {tmp_path / 'saved.bin'}\n"
        "pb del 1\n"
    )
    done = unbrick(
        *("console", "--engine", emulator, "--firmware", firmware, "--nor", nor), input=script
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("boot: unbrick boot") == 3
    assert re.search(r"\n  1  Alice +112\n  2  Bob +7\n", done.stdout)
    assert done.stdout.rstrip().endswith(("deleted 1\n>", "link: registered\n>"))
    assert "power cut" in done.stderr
    assert "power cut" not in done.stdout, "what the terminal says is alone on standard output"
    saved = (tmp_path / "saved.bin").read_bytes()
    assert len(saved) == len(nor.read_bytes()) == LAYOUT.board.nor.modelled
    assert saved != nor.read_bytes()


def test_a_script_that_quits_is_not_waited_for(firmware: Path) -> None:
    done = unbrick("console", "--firmware", firmware, input=f"id\n{ESCAPE}quit\nversion\n")
    assert done.returncode == 0, done.stderr
    assert "UB-000001" in done.stdout
    assert "digest" not in done.stdout


# As people work ----------------------------------------------------------------------------------


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Callable[..., str]]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is missing (apt install tmux)")
    environment = {k: v for k, v in os.environ.items() if k not in {"TMUX", "TMUX_PANE"}}
    environment["LC_ALL"] = "C.UTF-8"

    def run(*words: object) -> str:
        return subprocess.run(
            ["tmux", "-S", str(tmp_path / "tmux"), "-f", os.devnull, *map(str, words)],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
            env=environment,
        ).stdout

    yield run
    run("kill-server")


def test_a_person_in_tmux(tmux: Callable[..., str], firmware: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} -m unbrick.cli console --firmware {firmware}"
    tmux("new-session", "-d", "-x", 110, "-y", 40, "-c", tmp_path, "sh")

    def sees(text: str) -> str:
        panes: list[str] = []

        def seen() -> bool:
            panes.append(tmux("capture-pane", "-p", "-J"))
            return text in panes[-1]

        until(seen, text)
        return panes[-1]

    tmux("send-keys", "PS1='done: '; stty -a > before; " + command, "Enter")
    sees("link: registered")
    tmux("send-keys", "pb add Älice 112", "BSpace", "3", "Enter")
    sees("added 1")
    tmux("send-keys", "C-a")
    sees("bench> ")
    tmux("send-keys", "nor", "Enter")
    pane = sees("userdata")
    assert re.search(r"0x100000 application +█+", pane)
    tmux("send-keys", "pb list", "Enter")
    sees("  1  Älice")
    assert "113" in sees("> ")
    tmux("send-keys", "C-a", "quit", "Enter")
    sees("quit\ndone:")  # what is typed before is still the console's
    tmux("send-keys", "stty -a > after; echo over-$?", "Enter")
    sees("over-0")
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("program", ["picocom"])
def test_a_pseudo_terminal_for_other_programs(
    program: str, emulator: str, firmware: Path, sit_down: Callable[..., Person]
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is missing (apt install {program})")
    bench = sit_down("--engine", emulator, "--pty", prompt=False)
    bench.window.expect(r"console: (\S+)\r\n")
    path = bench.window.match.group(1)
    bench.sees("bench> ")
    window = pexpect.spawn(
        program, ["-b", "115200", path], timeout=PATIENCE_S, encoding="utf-8", echo=False
    )
    try:
        window.expect_exact("Terminal ready")  # it throws away what came before
        window.send("\r")
        window.expect_exact("> ")
        words = [f"v{number:03}" for number in range(200)]
        window.send("".join(f"{word}\r" for word in words))  # faster than any line
        for word in words:
            window.expect_exact(f'no command "{word}": type help\r\n')
        bench.types("cut\n")
        bench.sees("power cut")
        bench.sees("bench> ")
        window.send("id\r")
        bench.types("on\n")
        window.expect_exact("boot: unbrick boot")
        window.expect_exact("> id\r\nserial:   UB-000001")
        window.send("\x01\x18")  # C-a C-x leaves picocom
        window.expect(pexpect.EOF)
    finally:
        close(window)
    bench.types("quit\n")
    assert bench.is_gone() == 0


@pytest.mark.slow
def test_a_terminal_is_restored_over_the_pseudo_terminal(
    emulator: str, firmware: Path, unbrick_releases: Releases, tmp_path: Path
) -> None:
    nor, image = tmp_path / "nor.bin", tmp_path / "terminal.bin"
    nor.write_bytes(make_factory_image(unbrick_releases.boot, None, "T-79"))
    image.write_bytes(unbrick_releases.signed["1.1.0"])
    with Running(
        *("console", "--engine", emulator, "--firmware", firmware, "--nor", nor, "--pty")
    ) as console:
        path = console.wait_for(r"console: (\S+)\n")[1]
        done = unbrick("restore", path, image)
        assert done.returncode == 0, done.stderr
        assert console.end() == 0
    application = LAYOUT.partition("application")
    assert nor.read_bytes()[application.offset :].startswith(unbrick_releases.signed["1.1.0"])


def test_a_pseudo_terminal_without_a_person_at_the_bench(firmware: Path) -> None:
    with Running("console", "--firmware", firmware, "--pty", "--modem", "pty") as console:
        console.wait_for(r"console: /dev/\S+\nmodem: /dev/")
        assert console.end() == 0

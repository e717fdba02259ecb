"""Plays a tutorial of ``docs/tutorials`` as its reader would, and compares what comes.

A tutorial is Markdown. What is outside of fenced blocks is for people. The blocks are played in
order in a fresh folder, with ``unbrick`` and ``pytest`` on the ``PATH``, in which there is nothing
but the firmware, built already (``build/firmware``):

``console``
    A window with a shell. ``console NAME`` is a further window, which stays open, with what runs
    in it, until the tutorial ends; more blocks may go on in it.

    - A line that begins with one of ``PROMPTS`` is typed: the prompt is waited for, the rest of the
      line is typed, and Enter. A line that ends in a backslash goes on in the next.
    - A line that begins with ``^`` and a letter (or one of ``@[\\]^_``) is that control key,
      pressed when everything above it has come; what follows is typed as it is, without Enter.
      It may stand after a prompt, too.
    - Every other line must come, just so, before anything else. ``...`` stands for any text within
      a line and, alone on a line, for any lines. Colours and blanks at a line's end do not count.
    - ``/dev/pts/3`` and ``127.0.0.1:40123`` are what differs from run to run: any other number is
      right, and from then on the one in the tutorial stands for the one that came, also in
      commands. The server's default ports are free ones.
    - At the end of a block without a NAME the shell must be back, and have said nothing more.

``LANGUAGE FILE``
    The block is written to the file.

``text``, ``mermaid``
    Only shown. Any other block without a file is an error: what is shown must be tried.

``<!-- needs: PROGRAM ... -->`` skips the tutorial, visibly, where a program is missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass, field
from pathlib import Path

from patience import PATIENCE_S

PROMPTS = ("$ ", ">>> ", "(gdb) ", "bench> ", "> ")
SHOWN_ONLY = ("text", "mermaid")
SETTLED_S = 0.3  # seconds without output, after which a prompt is taken for the last one
COLUMNS, ROWS = 110, 50
SHELL_PROMPT = "\x02$ "  # the shell's, so that no output can be taken for it
TAIL = 2000  # characters of a window that a failure shows

_FENCE = re.compile(r"^```(\w*) *(.*?)\s*$")
_KEY = re.compile(r"^\^([A-Z@\[\\\]^_])(.*)$")
_NEEDS = re.compile(r"^<!-- needs: (.*?) -->$", re.MULTILINE)
_VARIES = re.compile(r"/dev/pts/\d+|127\.0\.0\.1:\d+")
_ANY_LINES = r"(?:[^\n]*\n)*?"
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[=>])")


class TutorialError(AssertionError):
    """The tutorial is not true, or not written as it must be."""


@dataclass(frozen=True)
class File:
    """A block that is written to a file."""

    line: int
    path: str
    text: str


@dataclass
class Turn:
    """Something typed, or nothing, and what must come of it.

    Attributes:
        line: in the tutorial.
        window: its name; empty for the one that the tutorial begins with.
        prompt: that is waited for; empty for a key and for output alone.
        typed: text with its Enter, or a key; empty for output alone.
        expected: lines, as in the tutorial.
        last: whether it is the last of its block.
    """

    line: int
    window: str
    prompt: str = ""
    typed: str = ""
    expected: list[str] = field(default_factory=list)
    last: bool = False


def needs(text: str) -> list[str]:
    """Programs that a tutorial says it needs."""
    return [name for match in _NEEDS.finditer(text) for name in match.group(1).split()]


def parse(text: str) -> list[File | Turn]:
    """The blocks of a tutorial.

    Raises:
        TutorialError: a block is not closed, or it is not said what to do with it.
    """
    steps: list[File | Turn] = []
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        match = _FENCE.match(line)
        if match is None:
            continue
        language, name = match.groups()
        body = []
        for _, inner in lines:
            if inner.rstrip() == "```":
                break
            body.append(inner)
        else:
            raise TutorialError(f"line {number}: the block is never closed")
        if language == "console":
            steps += _turns(number + 1, name, body)
        elif name:
            steps.append(File(number, name, "\n".join(body) + "\n"))
        elif language not in SHOWN_ONLY:
            raise TutorialError(f"line {number}: a block of {language!r} that names no file")
    return steps


def _turns(first: int, window: str, body: list[str]) -> list[Turn]:
    turns = [Turn(first, window)]
    goes_on = False
    for number, line in enumerate(body, first):
        prompt = next((prompt for prompt in PROMPTS if line.startswith(prompt)), "")
        typed = line[len(prompt) :]
        key = _KEY.match(typed)
        if goes_on:
            turns[-1].typed += line.lstrip()
        elif key:
            control = chr(ord(key.group(1)) & 0x1F)
            turns.append(Turn(number, window, prompt, control + key.group(2)))
        elif prompt:
            turns.append(Turn(number, window, prompt, typed))
        else:
            turns[-1].expected.append(line)
        if goes_on or (prompt and not key):
            goes_on = turns[-1].typed.endswith("\\")
            turns[-1].typed = turns[-1].typed[:-1] if goes_on else turns[-1].typed + "\r"
    if not turns[0].expected:
        del turns[0]
    if turns:
        turns[-1].last = True
    return turns


class Window:
    """A shell on a pseudo-terminal.

    Attributes:
        unread: what has come after the last that was looked for.
        skip: expression for what need not be shown: how a key looks, or what ``...`` stands for.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.unread = ""
        self.skip = ""
        self._partial = b""
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "--noediting", "-i"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env=environment,
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509 - one system call, no locks
        )
        os.close(slave)
        os.set_blocking(self.master, False)

    def take(self) -> None:
        """Read what has come."""
        with contextlib.suppress(BlockingIOError, OSError):
            while data := os.read(self.master, 65536):
                self._partial += data
        self._decode()

    def _decode(self) -> None:
        """Turn bytes into text, but not those of a character that is not all there."""
        for keep in range(4):
            cut = len(self._partial) - keep
            try:
                text = self._partial[:cut].decode()
            except UnicodeDecodeError:
                continue
            self._partial = self._partial[cut:]
            break
        else:
            text, self._partial = self._partial.decode(errors="replace"), b""
        self.unread += text

    def runs_a_program(self) -> bool:
        """Whether another program than the shell is in front, and gets what is typed."""
        front = os.tcgetpgrp(self.master)
        if front == self._shell.pid:
            return False
        try:
            return _command_line(front) != _command_line(self._shell.pid)
        except FileNotFoundError:  # the first of a pipe, which is over
            return True

    def close(self) -> None:
        """End what runs in the window, and the window."""
        with contextlib.suppress(OSError):
            os.killpg(os.tcgetpgrp(self.master), signal.SIGTERM)
        deadline = time.monotonic() + 10
        with contextlib.suppress(OSError):  # the programs in front end first, and keep their files
            while os.tcgetpgrp(self.master) != self._shell.pid and time.monotonic() < deadline:
                self.take()
                time.sleep(0.02)
        with contextlib.suppress(OSError):
            os.killpg(os.tcgetpgrp(self.master), signal.SIGKILL)
        os.close(self.master)
        self._shell.kill()
        self._shell.wait()


def _command_line(pid: int) -> bytes:
    """The command of a process: the shell's, too, in a child that has not begun its own yet."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _take_terminal() -> None:
    """In the child: standard input becomes the controlling terminal, so that keys are signals."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def plain(text: str) -> str:
    """What a reader sees of ``text``: no colours, carriage returns or blanks at a line's end."""
    text = re.sub(r"\r+\n", "\n", _ESCAPES.sub("", text))
    text = re.sub(r"[^\n]*\r(?!\n|$)", "", text)
    return re.sub(r"[ \t]+\n", "\n", text)


class Player:
    """Plays the steps of one tutorial in ``folder``; a context that ends all its windows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._windows: dict[str, Window] = {}
        self._stands_for: dict[str, str] = {}
        self._environment = _environment(folder, self._stands_for)

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_exc: object) -> None:
        for window in reversed(self._windows.values()):
            window.close()

    def play(self, step: File | Turn) -> None:
        """Do one step.

        Raises:
            TutorialError: something else came than the tutorial shows.
        """
        if isinstance(step, File):
            path = self._folder / step.path
            if not path.resolve().is_relative_to(self._folder.resolve()):
                raise TutorialError(f"line {step.line}: {step.path} is outside of the folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.text)
            return
        if step.window not in self._windows:
            self._windows[step.window] = Window(self._folder, self._environment)
        window = self._windows[step.window]
        if step.prompt:
            self._await(
                window,
                _prompt(step.prompt),
                step,
                f"the prompt {step.prompt!r}",
                prompt=step.prompt != "$ ",
            )
        expected = ""
        if step.typed:
            typed = self._real(step.typed)
            if not step.prompt:
                self._await_program(window, step)
            os.write(window.master, typed.encode())
            if typed[0] >= " " or (step.prompt and typed == "\r"):
                expected = re.escape(typed.rstrip()) + "\n"
            else:
                window.skip += rf"(?:\^{re.escape(chr(ord(typed[0]) | 0x40))})?\n*"
        fresh: list[str] = []
        expected += "".join(self._pattern(line, fresh) for line in step.expected)
        if expected:
            what = "\n".join([step.typed.strip(), *step.expected])
            match = self._await(window, expected, step, what)
            self._stands_for.update(zip(fresh, match.groups(), strict=True))
        if step.expected and step.expected[-1].strip() == "...":
            window.skip = _ANY_LINES
        if step.last and not step.window:
            self._await(window, f"(?={_prompt('$ ')})", step, "the shell, and nothing else")

    def _await_program(self, window: Window, step: Turn) -> None:
        """Wait until somebody is there to be sent a key: a program, or the shell at its prompt.

        A shell that has shown what comes before the program has not always started it yet; the
        key would be the shell's, and lost.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not (window.unread.endswith(SHELL_PROMPT) or window.runs_a_program()):
            self._take_all()
            if time.monotonic() > deadline:
                raise TutorialError(
                    f"line {step.line}: no program runs that {step.typed!r} could reach\n"
                    f"--- {step.window or 'the window'} shows:\n{window.unread[-TAIL:]}"
                )

    def _real(self, text: str) -> str:
        return _VARIES.sub(lambda found: self._stands_for.get(found.group(), found.group()), text)

    def _pattern(self, line: str, fresh: list[str]) -> str:
        """The expression that a line of the tutorial must match, with its end.

        What is met for the first time and varies becomes a group, and is appended to ``fresh``.
        """
        if line.strip() == "...":
            return _ANY_LINES
        pieces, at = [], 0
        for found in re.finditer(rf"\.\.\.|{_VARIES.pattern}", line.rstrip()):
            pieces.append(re.escape(line[at : found.start()]))
            at = found.end()
            word = found.group()
            if word == "...":
                pieces.append(r"[^\n]*?")
            elif word in self._stands_for:
                pieces.append(re.escape(self._stands_for[word]))
            elif word in fresh:
                pieces.append(rf"(?:\{fresh.index(word) + 1})")
            else:
                fresh.append(word)
                pieces.append(f"({_VARIES.pattern})")
        return "".join(pieces) + re.escape(line.rstrip()[at:]) + "\n"

    def _await(
        self, window: Window, pattern: str, step: Turn, what: str, *, prompt: bool = False
    ) -> re.Match[str]:
        """Wait until the window's text goes on as ``pattern`` says, and take that as read."""
        compiled = re.compile(window.skip + pattern)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self._take_all()
            seen = plain(window.unread)
            match = compiled.match(seen)
            if match and not (prompt and self._says_more(window)):
                break
            if time.monotonic() > deadline or self._hopeless(window, seen):
                raise TutorialError(
                    f"line {step.line}: this must come now:\n{what}\n"
                    f"--- but {step.window or 'the window'} shows:\n{seen[-TAIL:]}"
                )
        window.unread, window.skip = seen[match.end() :], ""
        return match

    def _hopeless(self, window: Window, seen: str) -> bool:
        """Whether nothing more can come: the shell waits, and it is not what was waited for."""
        if not seen.endswith(SHELL_PROMPT) or seen.startswith(SHELL_PROMPT):
            return False
        return not self._says_more(window)

    def _says_more(self, window: Window) -> bool:
        """Whether more comes after what looks like the end; a prompt may be followed by another."""
        return bool(select.select([window.master], [], [], SETTLED_S)[0])

    def _take_all(self) -> None:
        """Read all windows: what runs in one must not stand still because nobody looks."""
        masters = [window.master for window in self._windows.values()]
        select.select(masters, [], [], 0.05)
        for window in self._windows.values():
            window.take()


def _prompt(prompt: str) -> str:
    return re.escape(SHELL_PROMPT if prompt == "$ " else prompt) + r"\Z"


def _environment(folder: Path, stands_for: dict[str, str]) -> dict[str, str]:
    """What the reader's shell has, and nothing of what runs this test."""
    coap, http = _free_ports(2)
    stands_for["127.0.0.1:5683"] = f"127.0.0.1:{coap}"
    stands_for["127.0.0.1:8080"] = f"127.0.0.1:{http}"
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    kept = ("LANG", "TMPDIR", "QEMU_SYSTEM_ARM", "RENODE", "UNBRICK_CACHE", "UNBRICK_FIRMWARE")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "PATH": find_path(),
        "HOME": str(folder),
        "XDG_CACHE_HOME": cache,  # of the compiler and of downloads
        "TERM": "dumb",
        "PS1": SHELL_PROMPT,
        "PYTHONUNBUFFERED": "1",
        "UNBRICK_SERVER": f"http://127.0.0.1:{http}",
        "UNBRICK_SERVER_START_HTTP_PORT": str(http),
        "UNBRICK_SERVER_START_COAP_PORT": str(coap),
        "UNBRICK_BRIDGE_SERVER_ADDRESS": f"127.0.0.1:{coap}",
    }


def _free_ports(count: int) -> list[int]:
    """Ports that nothing uses now, for TCP and UDP, and that the system gives to nobody."""
    ports: list[int] = []
    for port in random.sample(range(20_000, 32_000), 500):
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise OSError("no ports are free")


def find_path() -> str:
    """Where a tutorial's programs are: those of this environment first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def missing(text: str) -> list[str]:
    """Programs that a tutorial needs and that are not here."""
    return [name for name in needs(text) if shutil.which(name, path=find_path()) is None]

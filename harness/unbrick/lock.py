"""Files that one process owns, such as a terminal's NOR or the folder of a campaign.

A file is owned by a lock of the kernel (``flock(2)``) on a lock file beside it, because the file
itself may be replaced. The kernel releases the lock when the process is gone, however it went. The
lock file says which process holds it, for the message to a second one. It goes with the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from unbrick.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_HOLDER_SIZE = 300
"""Bytes of a lock file that are read. So no more of a command is shown."""

_own: set[Path] = set()
"""Lock files that this process holds."""


def lock_file(path: Path) -> Path:
    """The lock file of ``path``: in a folder, or beside a file."""
    return path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for a lock on a file, which is made, and hold it while the block runs."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def owned(path: Path, hint: str) -> Iterator[None]:
    """Own a file or a folder while the block runs. The process may own it already.

    Args:
        path: need not exist, but the folder that it is in must.
        hint: another thing to do than to end the other process.

    Raises:
        SetupError: another process has it, or no lock file can be made beside it.
    """
    lock = lock_file(path.resolve())
    if lock in _own:
        yield
        return
    descriptor = _take(lock, path, hint)
    _own.add(lock)
    try:
        yield
    finally:
        _own.remove(lock)
        with contextlib.suppress(OSError):
            lock.unlink()  # Before the lock goes: nobody can have taken it yet.
        os.close(descriptor)


def _take(lock: Path, path: Path, hint: str) -> int:
    """Take the lock; returns the descriptor that holds it."""
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise SetupError(f"{path} cannot be used: {error.strerror}", hint=hint) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            who = _holder(descriptor)
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                raise SetupError(f"{path} cannot be locked: {error.strerror}", hint=hint) from error
            raise SetupError(
                f"{path} is in use by {who}", hint=f"end that one, or {hint}"
            ) from None
        if _is_still(lock, descriptor):
            break
        os.close(descriptor)  # It belonged to the last process, which has removed it meanwhile.
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()} {_command()}\n".encode())
    return descriptor


def _is_still(lock: Path, descriptor: int) -> bool:
    """Whether the lock file is the one that was opened."""
    try:
        return os.path.samestat(lock.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _command() -> str:
    """The command line of this process."""
    return shlex.join(["unbrick", *sys.argv[1:]])


def _holder(descriptor: int) -> str:
    """The process and the command that have the lock, as the lock file says."""
    text, end, _ = os.pread(descriptor, MAX_HOLDER_SIZE, 0).decode(errors="replace").partition("\n")
    pid, _, command = text.partition(" ")
    command += "" if end else "…"
    if not pid.isdecimal() or not command.isprintable():
        return "another process"
    return f"process {pid} (`{command}`)"

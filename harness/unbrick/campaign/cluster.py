"""Carries a campaign to a Dask cluster: its sessions run on other machines, with the same result.

A target is sent once to each worker, with the contents of all its files. A worker that comes later
gets it, too. When a worker dies, the scheduler has its sessions run by another one.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import signal
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import Client, LocalCluster, WorkerPlugin

from unbrick.campaign.run import Workers, count_cores
from unbrick.campaign.store import digest_tool
from unbrick.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unbrick.campaign.target import Fate, Outcome, Run, State, Target

LOCAL = "local"
"""The address of a cluster of this machine's own processes, made for one campaign."""

CONNECT_TIMEOUT_S = 20.0
"""Seconds by the clock until a scheduler must have answered."""


class _Packer(pickle.Pickler):
    """Packs a file's contents in place of its path."""

    def persistent_id(self, obj: Any) -> tuple[str, bytes] | None:
        """A path's name and the file's contents; None: it is no path of a file."""
        if isinstance(obj, Path) and obj.is_file():
            return obj.name, obj.read_bytes()
        return None


class _Unpacker(pickle.Unpickler):
    """Makes files again, each in a folder of its own, and paths of these."""

    def __init__(self, packed: bytes, folder: Path) -> None:
        super().__init__(io.BytesIO(packed))
        self._folder = folder

    def persistent_load(self, pid: tuple[str, bytes]) -> Path:
        """Where the file is from now on."""
        name, contents = pid
        path = Path(tempfile.mkdtemp(dir=self._folder), name)
        path.write_bytes(contents)
        return path


def pack_target(target: Target) -> bytes:
    """A target with the contents of its files, for :func:`unpack_target`.

    Raises:
        OSError: one of them cannot be read.
    """
    packed = io.BytesIO()
    _Packer(packed).dump(target.portable())
    return packed.getvalue()


def unpack_target(packed: bytes, folder: Path) -> Target:
    """The target that was packed, its files below ``folder``. It is trusted, as any pickle is."""
    make: Callable[[], Target] = _Unpacker(packed, folder).load()
    return make()


_ARRIVED: dict[str, Target] = {}
_FOLDERS: dict[str, tempfile.TemporaryDirectory[str]] = {}
_ONE_AT_A_TIME = threading.Lock()
"""A process has one engine for a target, and a Dask worker may have many threads."""


@dataclass
class Luggage(WorkerPlugin):
    """A plugin of Dask's workers: it brings a target to each of them.

    Attributes:
        name: of the plugin and the target.
        tool: digest of the tool that the target comes from.
        packed: the target.
    """

    name: str
    tool: str
    packed: bytes

    def setup(self, worker: object) -> None:
        """Take the target in.

        Raises:
            SetupError: the worker has another version of this tool.
        """
        if digest_tool() != self.tool:
            raise SetupError(
                f"the worker {getattr(worker, 'name', worker)} has another version of unbrick",
                hint="install the same one on every machine",
            )
        folder = _FOLDERS[self.name] = tempfile.TemporaryDirectory(prefix="unbrick-")
        _ARRIVED[self.name] = unpack_target(self.packed, Path(folder.name))

    def teardown(self, worker: object) -> None:
        """Leave nothing behind."""
        del worker
        _ARRIVED.pop(self.name, None)
        if self.name in _FOLDERS:
            _FOLDERS.pop(self.name).cleanup()


def run_there(name: str, state: State, fate: Fate) -> Outcome:
    """Run a session of the target that a worker has taken in under ``name``.

    Raises:
        SetupError: it has taken in none.
    """
    if name not in _ARRIVED:
        raise SetupError(
            "the firmware has not come to a worker", hint="see what the worker says, and restart it"
        )
    with _ONE_AT_A_TIME:
        return _ARRIVED[name].run(state, fate)


def _bring(client: Client, leaving: ExitStack, target: Target) -> Run:
    """Send a target to every worker, and to those that come later; ``leaving`` takes it back.

    Raises:
        SetupError: a worker has another version of this tool.
    """
    packed = pack_target(target)
    name = hashlib.sha256(packed).hexdigest()
    leaving.callback(client.unregister_worker_plugin, name)
    client.register_plugin(Luggage(name, digest_tool(), packed))
    return partial(run_there, name)


@contextmanager
def open_cluster(address: str, jobs: int | None = None) -> Iterator[Workers]:
    """Connect with a cluster, or make one of this machine's processes.

    Args:
        address: of the scheduler, such as ``tcp://10.0.0.1:8786``; or ``LOCAL``.
        jobs: how many processes a local cluster has; None: one for each core that this may use.

    Raises:
        SetupError: no scheduler answers there, it has no worker, or ``jobs`` are not for it.
    """
    if address != LOCAL and jobs is not None:
        raise SetupError("a cluster has processes of its own", hint="leave out --jobs")
    with ExitStack() as stack:
        if address == LOCAL:
            with _ctrl_c_left():
                made = LocalCluster(
                    n_workers=jobs or count_cores(),
                    threads_per_worker=1,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                )
            address = stack.enter_context(made).scheduler_address
        try:
            client = Client(address, timeout=CONNECT_TIMEOUT_S)
        except (OSError, ValueError) as error:
            raise SetupError(
                f"no Dask scheduler answers at {address}: {error}".replace("\n", " "),
                hint="start one with `dask scheduler`, and give the address that it says",
            ) from error
        stack.enter_context(client)
        threads = client.nthreads()
        if not threads:
            raise SetupError(
                f"the Dask scheduler at {address} has no worker",
                hint=f"start some with: dask worker {address} --nthreads 1",
            )
        yield Workers(client.get_executor(pure=False), len(threads), partial(_bring, client, stack))


@contextmanager
def _ctrl_c_left() -> Iterator[None]:
    """Ctrl-C goes to every process of a terminal: those that are started here leave it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

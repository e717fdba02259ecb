"""U-Boot, which nobody here wrote, drives the models of parallel NOR, and says what it finds."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import IO

import pytest
from click.testing import CliRunner

from unbrick.campaign.run import run_campaign
from unbrick.campaign.search import Bounds
from unbrick.cli.main import cli
from unbrick.errors import SetupError
from unbrick.target.target import FileTarget
from unbrick.target.trial import try_target

EXAMPLE = Path(__file__).parents[1] / "examples" / "u-boot"
BANK = 0x400_0000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    sys.path.insert(0, str(EXAMPLE))  # as for a program that is started there
    try:
        spec = importlib.util.spec_from_file_location("u_boot_prepare", EXAMPLE / "prepare.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(EXAMPLE))
    try:
        module.find_u_boot()
    except SetupError as error:
        pytest.skip(f"{error} ({error.hint})")
    return module


def put_other_flash(board: Path, model: str, blocks: tuple[int, int], numbers: str) -> Path:
    """The board with other chips in both banks; `blocks`: how many are modelled, and their size."""
    text = board.read_text(encoding="utf-8")
    head, _, rest = text.partition("[devices.boot]")
    uart = rest[rest.index("[devices.uart]") :]
    for count in (4, 2):
        old = f"blocks = [{{ count = {count}, size = 0x4_0000 }}]"
        assert old in head
        many = blocks[0] * count // 4
        head = head.replace(old, f"blocks = [{{ count = {many}, size = {blocks[1]} }}]")
    devices = (
        f'[devices.{name}]\nmodel = "nor_cfi_{model}"\n{numbers}\n'
        for name in ("boot", "environment")
    )
    board.write_text(head + "".join(devices) + uart, encoding="utf-8")
    return board


INTEL = "maker = 0x89\ndevice = 0x18\nprogram_us = 128\nbuffer_us = 128\nerase_us = 1_024_000\n"
INTEL += "locks = 0\n"
AMD = "maker = 1\ndevice = 0x227E\nextended = 0x2221_2201\nprogram_us = 60\nbuffer_us = 240\n"
AMD += "erase_us = 500_000\nbuffer = 32\n"
CHIPS = {
    "intel-x32": ("intel", (4, 0x4_0000), INTEL + "chips = 2\nbuffer = 1024\nsize = 0x400_0000"),
    "intel-x16": ("intel", (8, 0x2_0000), INTEL + "buffer = 1024\nsize = 0x200_0000"),
    "intel-x8": ("intel", (8, 0x2_0000), INTEL + "width = 8\nsize = 0x200_0000"),
    "amd-x32": ("amd", (4, 0x4_0000), AMD + "chips = 2\nsize = 0x400_0000"),
    "amd-x16": ("amd", (8, 0x2_0000), AMD + "size = 0x200_0000"),
}
"""Model, blocks and numbers of the chips of each board."""

FOUND = {
    "intel-x32": ("(32 x 16)  Size: 64 MB in 256", "Intel Extended", "0x89, Device ID: 0x0018"),
    "intel-x16": ("(16 x 16)  Size: 32 MB in 256", "Intel Extended", "0x89, Device ID: 0x0018"),
    "intel-x8": ("(8 x 8)  Size: 32 MB in 256", "Intel Extended", "0x89, Device ID: 0x18"),
    "amd-x32": ("(32 x 16)  Size: 64 MB in 256", "AMD Standard", "0x01, Device ID: 0x227E"),
    "amd-x16": ("(16 x 16)  Size: 32 MB in 256", "AMD Standard", "0x01, Device ID: 0x227E"),
}
"""What `flinfo` must say."""


@pytest.mark.parametrize("name", CHIPS)
def test_it_probes_erases_copies_and_saves(name: str, prepare: ModuleType, tmp_path: Path) -> None:
    board = put_other_flash(prepare.write_board(tmp_path), *CHIPS[name])
    prompt = prepare.Prompt(board)
    assert "bad CRC, using default environment" in prompt.greeting
    found = prompt.type("flinfo")
    for words in FOUND[name]:
        assert words in found
    prompt.type("mw.b 40100000 a5 1234")
    assert "Un-Protect" in prompt.type("protect off all")
    assert "Erased" in prompt.type("erase 4040000 +40000")
    assert "done" in prompt.type("cp.b 40100000 4040000 1234")
    assert "4660 byte(s) were the same" in prompt.type("cmp.b 40100000 4040000 1234")
    assert prompt.type("setenv note kept; saveenv").endswith("OK")
    kinds = {fault.kind for fault in prompt.engine.faults}
    assert kinds <= {"flash-width", "flash-stray", "flash-command"}, prompt.engine.faults
    prompt.engine.power_off()
    assert "bad CRC" not in prompt.start()
    assert prompt.type("printenv note") == "note=kept"


def test_it_does_not_notice_that_a_block_is_locked(prepare: ModuleType, tmp_path: Path) -> None:
    """This build unlocks nothing, and tells no error of the status register."""
    model, blocks, numbers = CHIPS["intel-x16"]
    locked = numbers.replace("locks = 0", "locks = 1")
    prompt = prepare.Prompt(put_other_flash(prepare.write_board(tmp_path), model, blocks, locked))
    prompt.type("mw.b 40100000 a5 1000")
    prompt.type("protect off all")
    assert prompt.type("cp.b 40100000 4040000 1000") == "Copy to Flash... done"
    assert prompt.engine.ops == []
    assert {fault.kind for fault in prompt.engine.faults} >= {"flash-protected"}
    assert "Total of 0 byte(s)" in prompt.type("cmp.b 40100000 4040000 1000")


def test_a_reset_starts_it_anew(prepare: ModuleType, tmp_path: Path) -> None:
    prompt = prepare.Prompt(prepare.write_board(tmp_path))
    prompt.engine.wire.write(b"reset\r")
    assert prompt.start().count("U-Boot 2023.01") == 1
    assert prompt.engine.resets == 1


# Beside QEMU


class Emulator:
    """U-Boot on QEMU's `virt`.

    Args:
        folder: for the files of both banks.
        u_boot: its file.
    """

    def __init__(self, folder: Path, u_boot: Path) -> None:
        self.banks = [folder / "bank0.bin", folder / "bank1.bin"]
        data = u_boot.read_bytes()
        for path, content in zip(self.banks, (data, b""), strict=True):
            path.write_bytes(content.ljust(BANK, b"\xff"))
        drives = (f"if=pflash,format=raw,file={path}" for path in self.banks)
        command = ["qemu-system-arm", "-M", "virt", "-cpu", "cortex-a15", "-m", "32M"]
        command += ["-display", "none", "-net", "none", "-monitor", "none", "-serial", "stdio"]
        for drive in drives:
            command += ["-drive", drive]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.greeting = self._listen(b"autoboot:")
        self._write(b"\r")
        self.greeting += self._listen(b"=> ")

    def type(self, line: str) -> str:
        self._write(line.encode() + b"\r")
        return self._listen(b"=> ").removeprefix(line).removesuffix("=> ").strip()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()

    def _write(self, data: bytes) -> None:
        stream: IO[bytes] | None = self.process.stdin
        assert stream
        stream.write(data)
        stream.flush()

    def _listen(self, text: bytes) -> str:
        said = b""
        assert self.process.stdout
        while text not in said:
            byte = self.process.stdout.read(1)
            assert byte, f"QEMU ended: {said!r}"
            said += byte
        return said.replace(b"\r", b"").decode(errors="replace")


COMMANDS = (
    *("version", "flinfo", "mw.b 40100000 a5 1000", "md.l 4040000 8", "protect off all"),
    *("erase 4040000 +40000", "cp.b 40100000 4040000 1000", "cmp.b 40100000 4040000 1000"),
    *("md.b 4040ff8 10", "protect on all", "erase 4040000 +40000", "md.b 4040ff8 10"),
)
"""Of what is copied, U-Boot on QEMU writes whole buffers alone."""


def test_it_says_and_does_the_same_as_on_qemu(prepare: ModuleType, tmp_path: Path) -> None:
    if not shutil.which("qemu-system-arm"):
        pytest.skip("qemu-system-arm is not there (Debian: apt install qemu-system-arm)")
    other = CHIPS["intel-x16"][2].replace("buffer = 1024", "buffer = 2048")
    board = put_other_flash(prepare.write_board(tmp_path), "intel", (8, 0x2_0000), other)
    prompt, qemu = prepare.Prompt(board), Emulator(tmp_path, prepare.find_u_boot())
    try:
        ours, theirs = prompt.greeting.splitlines(), qemu.greeting.splitlines()
        differing = [pair for pair in zip(ours, theirs, strict=True) if len(set(pair)) > 1]
        assert all(line.startswith(("Core: ", "Hit any")) for pair in differing for line in pair)
        for command in COMMANDS:
            assert prompt.type(command) == qemu.type(command), command
    finally:
        qemu.close()
    image = prompt.engine.read_nor()
    size = prompt.engine.chip.main.size
    assert image[:size] == qemu.banks[0].read_bytes()[:size]
    assert image[size:] == qemu.banks[1].read_bytes()[: len(image) - size]


# The environment


@pytest.fixture(scope="module")
def saved(prepare: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target, with an environment that was saved."""
    folder = tmp_path_factory.mktemp("u-boot")
    for name in ("saveenv.toml", "prompt.py"):
        shutil.copy(EXAMPLE / name, folder)
    prepare.prepare(folder / "build")
    return folder / "saveenv.toml"


@pytest.fixture(scope="module")
def target(saved: Path) -> FileTarget:
    return FileTarget.load(saved)


def test_without_a_power_cut_the_environment_is_saved(target: FileTarget) -> None:
    trial = try_target(target)
    assert trial.troubles == ()
    assert trial.start[0] == 0
    assert {fault.kind for fault in trial.faults} == {"flash-width"}
    assert [(part.erases, part.programs) for part in trial.flashed] == [(1, 128)]


@pytest.mark.parametrize(
    ("cut", "status"), [("0", 0), ("0-begun", 1), ("1", 1), ("128", 1), ("129", 0)]
)
def test_a_cut_from_the_erase_to_the_last_program_loses_it(
    cut: str, status: int, saved: Path
) -> None:
    """There is one copy of the environment. U-Boot says so, and goes on with its default."""
    done = CliRunner().invoke(cli, ["replay", str(saved), f"saveenv/{cut}"])
    assert done.exit_code == status, done.output
    lost = "bad CRC, using default environment"
    assert (lost in done.output, "the environment is lost" in done.output) == (status == 1,) * 2


def test_a_search_finds_it(target: FileTarget) -> None:
    bounds = Bounds(depth=1, shapes="none", states=12, stop_early=True)
    result = run_campaign(target, bounds=bounds)
    assert result.violations
    told = {case.outcome.violation for case in result.violations}
    assert told == {("not-updated", "the environment is lost")}

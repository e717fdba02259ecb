"""OpenBLT's prebuilt bootloaders: what a power cut leaves is started (docs/openblt.md).

They are no part of this repository: UNBRICK_CORPUS names the folder that has them.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from corpus import judge, why_no_clone

from unbrick.errors import SetupError
from unbrick.target.target import FileTarget

PREPARE = runpy.run_path(
    str(Path(__file__).parents[1] / "examples" / "openblt" / "prepare.py"), run_name="prepare"
)
NO_CLONE = why_no_clone(PREPARE["find_corpus"])
BOARDS = {board.name: board for board in PREPARE["BOARDS"]}

STARTS_THE_INCOMPLETE = {
    "f103/3204": "fault",  # in the first block, behind the checksum
    "f103/3336": "fault",  # behind the first block, before the last one
    "f405/2050": "wrong-image",
    "l476/1206-weak+1": "fault",  # the checksum's own double word
    "l476/1222": "wrong-image",
}
"""Power cuts after which a program is started that is not whole, and what comes of it."""


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileTarget]:
    """All target files by name."""
    if NO_CLONE:
        pytest.skip(NO_CLONE)
    found = PREPARE["prepare"](tmp_path_factory.mktemp("openblt"))
    return {name: FileTarget.load(path, tried=False) for name, path in found.items()}


def test_the_corpus_is_there(targets: dict[str, FileTarget]) -> None:
    assert set(targets) == {f"{name}{late}" for name in BOARDS for late in ("", "-late")}


def test_another_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNBRICK_CORPUS", str(tmp_path))
    with pytest.raises(SetupError, match=r"openblt_stm32f103\.srec is missing"):
        PREPARE["find_corpus"]()


@pytest.mark.parametrize(
    ("board", "file"),
    [
        ("f103", "ARMCM3_STM32F1_Nucleo_F103RB_IAR/Boot/bin/openblt_stm32f103.srec"),
        ("f405", "ARMCM4_STM32F4_Olimex_STM32P405_IAR/Boot/bin/openblt_olimex_stm32p405.srec"),
        ("l476", "ARMCM4_STM32L4_Nucleo_L476RG_IAR/Boot/bin/openblt_stm32l476.srec"),
    ],
)
def test_files_have_the_names_of_openblt(board: str, file: str) -> None:
    assert PREPARE["name_file"](BOARDS[board], "openblt", "IAR") == file


def test_vectors_and_checksum_have_the_sum_zero(tmp_path: Path) -> None:
    path = tmp_path / "program.bin"
    path.write_bytes(bytes(range(256)) * 2)
    board = BOARDS["f103"]
    program = PREPARE["make_program"](board, path)
    words = [program[at : at + 4] for at in (*range(0, 28, 4), board.checksum)]
    assert sum(int.from_bytes(word, "little") for word in words) % (1 << 32) == 0
    assert len(program) == 512


@pytest.mark.slow
class TestCuts:
    """What docs/openblt.md says; :func:`test_the_corpus_is_there` tells when it cannot run."""

    __test__ = not NO_CLONE

    @pytest.mark.parametrize("board", BOARDS)
    def test_the_update_works(self, targets: dict[str, FileTarget], board: str) -> None:
        assert judge(targets[board], board) == ""

    @pytest.mark.parametrize(("case", "kind"), STARTS_THE_INCOMPLETE.items())
    def test_a_program_that_is_not_whole_is_started(
        self, targets: dict[str, FileTarget], case: str, kind: str
    ) -> None:
        assert judge(targets[case.partition("/")[0]], case) == kind

    def test_a_torn_vector_of_the_l476_is_the_end(self, targets: dict[str, FileTarget]) -> None:
        assert judge(targets["l476-late"], "l476-late/1159-scattered") == "not-updated"
        assert judge(targets["l476-late"], "l476-late/1159") == ""

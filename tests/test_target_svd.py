"""What firmware waits for in vain is told by the name that the vendor's SVD file has for it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from processes import Running, unbrick
from small_firmware import build_small

from unbrick.errors import SetupError
from unbrick.target.load import load_target
from unbrick.target.target import FileTarget

SVD = """<?xml version="1.0" encoding="utf-8"?>
<device schemaVersion="1.1">
  <name>toy</name><version>1</version><description>a toy</description>
  <addressUnitBits>8</addressUnitBits><width>32</width><size>32</size>
  <peripherals>
    <peripheral>
      <name>{name}</name><baseAddress>{base:#x}</baseAddress>
      <registers>
        <register><name>READY</name><addressOffset>0x100</addressOffset></register>
      </registers>
    </peripheral>
  </peripherals>
</device>
"""

POLLED = {"stm32f103xb": 0x4001_2500, "nrf52832": 0x4002_9100}
"""A register of each chip that nobody models: beside an ADC, and where another nRF52 has QSPI."""

WAITS = """
void start(void) {
    REGISTER(0x20000000) = 1;
    while (REGISTER(POLLED) == 0) {
    }
}
"""


def build_waiting(folder: Path, chip: str, further: str = "") -> Path:
    """A target that polls a register in vain."""
    return build_small(folder, chip, WAITS.replace("POLLED", hex(POLLED[chip])), further)


def write_svd(folder: Path, chip: str, name: str) -> Path:
    """A file with a name for that register."""
    path = folder / f"{name.lower()}.svd"
    path.write_text(SVD.format(name=name, base=POLLED[chip] - 0x100), encoding="utf-8")
    return path


def message(chip: str, name: str) -> str:
    """The beginning of what is told."""
    return (
        f"the firmware waits in vain for {name}.READY at {POLLED[chip]:#010x}, which has no model"
    )


@pytest.mark.slow
@pytest.mark.parametrize("chip", POLLED)
def test_a_run_and_a_console_tell_the_register_once_with_its_name_and_its_line(
    chip: str, tmp_path: Path
) -> None:
    write_svd(tmp_path, chip, "OWN")
    target = build_waiting(tmp_path, chip, 'svd = "own.svd"')
    with Running("run", target) as running:
        said = running.wait_for(rf"{message(chip, 'OWN')}: read ([\d,]+) times in start ")
        assert int(said[1].replace(",", "")) >= 1000
        assert running.end() == 0
        assert "".join(running.output).count("in vain") == 1
    done = unbrick("console", target, "--svd", write_svd(tmp_path, chip, "GIVEN"), input="")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(message(chip, "GIVEN")) == 1
    assert "(small.c:4)" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("chip", POLLED)
def test_a_campaign_and_a_replay_name_what_the_firmware_waits_for(
    chip: str, tmp_path: Path
) -> None:
    target = build_waiting(tmp_path, chip)
    done = unbrick("campaign", target, "--jobs", 1)
    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert "bricked: it does not say 'ready' within 5 s; the firmware waits in vain for 0x" in said
    done = unbrick("replay", target, "--svd", write_svd(tmp_path, chip, "GIVEN"))
    assert done.returncode == 1, done.stderr
    assert message(chip, "GIVEN") in done.stdout


@pytest.mark.slow
def test_a_driver_that_is_not_answered_is_told_with_the_register(tmp_path: Path) -> None:
    svd = write_svd(tmp_path, "nrf52832", "OWN")
    target = build_waiting(tmp_path, "nrf52832")
    with target.open("a") as file:
        file.write('[update]\ntype = "u"\nafter = "hello"\nwithin = "20 ms"\n')
    done = unbrick("campaign", target, "--jobs", 1, "--svd", svd)
    assert done.returncode == 2
    assert "not-updated: the device did not say 'hello' in 0.02 s; the firmware" in done.stderr
    assert message("nrf52832", "OWN") in done.stderr


def test_the_names_change_neither_the_identity_nor_what_other_processes_get(tmp_path: Path) -> None:
    svd = write_svd(tmp_path, "nrf52832", "OWN")
    plain = FileTarget.load(build_waiting(tmp_path, "nrf52832"))
    named = FileTarget.load(build_waiting(tmp_path, "nrf52832", 'svd = "own.svd"'))
    given = FileTarget.load(plain.path, svd=svd)
    assert plain.identity == named.identity == given.identity
    assert load_target(named.path).svd == tmp_path / "own.svd"
    assert pickle.loads(pickle.dumps(given)).svd == svd  # noqa: S301 - our own


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot read {path}: No such file or directory"),
        ("no XML", "{path} is no SVD file: it describes no device"),
    ],
)
def test_a_file_that_is_none_is_refused_before_anything_runs(
    content: str | None, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.svd"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    target = build_waiting(tmp_path, "stm32f103xb", 'svd = "own.svd"')
    with pytest.raises(SetupError) as error:
        load_target(target)
    assert str(error.value) == text.format(path=path)
    assert error.value.hint == "name the .svd file of the chip's vendor"
    plain = build_waiting(tmp_path, "stm32f103xb")
    for command in ("run", "console", "campaign", "replay"):
        done = unbrick(command, plain, "--svd", path, input="")
        assert done.returncode == 2
        assert text.format(path=path) in done.stderr


@pytest.mark.parametrize(
    "words", [["run"], ["console"], ["campaign", "staged"], ["replay", "staged/1"]]
)
def test_names_of_registers_are_for_targets_from_a_file(words: list[str], firmware: Path) -> None:
    done = unbrick(*words, "--svd", "x.svd", "--firmware", firmware, input="")
    assert done.returncode == 2
    assert done.stderr == (
        "unbrick: --svd is for the chip of a target's file. Leave it out, or name a TARGET.toml\n"
    )

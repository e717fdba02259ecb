"""The example for Zephyr's Twister: by Twister itself, or its pytest part, called as Twister does.

Twister comes with Zephyr and is seldom here. So its plugin for pytest is played by one that has the
same options (Zephyr's `scripts/pylib/pytest-twister-harness`). ZEPHYR_BASE names a Zephyr, with
MCUboot and the modules of nRF beside it; then Twister itself builds and runs.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from corpus import why_no_clone
from test_ab_updater import build

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "twister"
FIND = runpy.run_path(str(ROOT / "examples" / "mcuboot" / "prepare.py"))["find_corpus"]
NO_CLONE = why_no_clone(FIND)
PLUGIN = """
def pytest_addoption(parser):
    parser.addoption("--twister-harness", action="store_true")
    for name in ("--build-dir", "--platform", "--device-type", "--base-timeout",
                 "--device-serial-pty"):
        parser.addoption(name)
"""


def call(folder: Path, made: Path) -> subprocess.CompletedProcess[str]:
    """Run the tests of the example in ``folder`` on what was built into ``made``."""
    plugin = folder / "plugin" / "twister_harness"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").touch()
    (plugin / "plugin.py").write_text(PLUGIN)
    config = yaml.safe_load((folder / "testcase.yaml").read_text(encoding="utf-8"))
    (test,) = config["tests"].values()
    assert test["harness"] == "pytest"
    roots = [folder / root for root in test["harness_config"]["pytest_root"]]
    words = ["--twister-harness", "-s", "-v", f"--build-dir={made}"]
    words += [f"--junit-xml={made}/report.xml", f"--platform={test['platform_allow']}"]
    words += [*map(str, roots), "--log-cli-level=DEBUG", "--base-timeout=60"]
    words += ["--device-type=hardware", "--device-serial-pty=true", "-p", "twister_harness.plugin"]
    path = os.pathsep.join((str(plugin.parent), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", "pytest", *words, "-p", "no:cacheprovider"]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def verdicts(made: Path) -> dict[str, bool]:
    """The tests in the report that Twister reads, and whether they passed."""
    report = ET.parse(made / "report.xml")  # noqa: S314 - pytest's own
    return {case.attrib["name"]: len(case) == 0 for case in report.iter("testcase")}


def list_environment() -> dict[str, str]:
    """Where Twister finds this Python's packages, and Zephyr a compiler if nobody has said one."""
    paths = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    found = {"ZEPHYR_TOOLCHAIN_VARIANT": "cross-compile", **os.environ}
    found.setdefault("CROSS_COMPILE", (shutil.which("arm-none-eabi-gcc") or "")[: -len("gcc")])
    return found | {"PATH": os.pathsep.join(paths)}


@pytest.mark.slow
@pytest.mark.skipif("ZEPHYR_BASE" not in os.environ, reason="ZEPHYR_BASE names no Zephyr")
@pytest.mark.parametrize("within", ["2 min", "5 ms"])
def test_twister_itself_builds_and_runs_it(within: str, example: Path, tmp_path: Path) -> None:
    zephyr = Path(os.environ["ZEPHYR_BASE"])
    shutil.copytree(zephyr / "samples" / "hello_world" / "src", example / "src")
    for name in ("CMakeLists.txt", "prj.conf"):
        shutil.copy(zephyr / "samples" / "hello_world" / name, example)
    target = example / "target.toml"
    target.write_text(target.read_text(encoding="utf-8").replace('"2 min"', f'"{within}"'))
    renamed = (zephyr / "boards" / "nordic").is_dir()  # Zephyr 3.7 and later
    board = "nrf52840dk/nrf52840" if renamed else "nrf52840dk_nrf52840"
    case = example / "testcase.yaml"
    case.write_text(case.read_text(encoding="utf-8").replace("nrf52840dk/nrf52840", board))
    out = tmp_path / "out"
    words = ["--device-testing", "--device-serial-pty", "true", "--west-flash"]
    words += ["--force-toolchain", "-T", str(example), "-p", board, "-O", str(out)]
    command = [sys.executable, str(zephyr / "scripts" / "twister"), *words]
    done = subprocess.run(
        command, cwd=tmp_path, env=list_environment(), capture_output=True, text=True, check=False
    )
    (suite,) = json.loads((out / "twister.json").read_text(encoding="utf-8"))["testsuites"]
    assert (suite["status"] == "passed") == (within == "2 min"), done.stdout + done.stderr
    assert suite["runnable"]
    assert (done.returncode == 0) == (within == "2 min")
    names = {case["identifier"].rpartition(".test_")[2] for case in suite["testcases"]}
    if within == "2 min":
        assert {name.partition("[")[0] for name in names} == {
            "no_power_cut_bricks_it",
            "it_comes_back_after_one",
        }


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example's folder, with another target: no part of Zephyr is here."""
    folder = tmp_path / "app"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("bug", [None, "header-trusted"])
def test_twister_is_told_whether_a_power_cut_bricks_it(
    bug: str | None, example: Path, tmp_path: Path
) -> None:
    made = tmp_path / "twister-out"
    made.mkdir()
    (made / "domains.yaml").write_text("default: app\n")
    built = build(made, "stm32f103", bug or "")
    shutil.move(built, example / "target.toml")
    test = example / "pytest" / "test_power_cuts.py"
    source = test.read_text(encoding="utf-8")
    cut = "    unbrick_target.cut_before_operation"
    assert cut in source
    # This updater is sent its update: nothing is staged.
    test.write_text(source.replace(cut, f"    unbrick_target.start_update()\n{cut}"))
    done = call(example, made)
    found = {name.partition("[")[0]: passed for name, passed in verdicts(made).items()}
    assert found == {
        "test_no_power_cut_bricks_it": bug is None,
        "test_it_comes_back_after_one": True,
    }, done.stdout
    assert done.returncode == (bug is not None)
    assert ("unbrick replay" in done.stdout) == (bug is not None)


@pytest.mark.slow
@pytest.mark.skipif(bool(NO_CLONE), reason=NO_CLONE)
def test_the_target_of_the_example_is_mcuboot_on_zephyr(example: Path, tmp_path: Path) -> None:
    made = tmp_path / "twister-out"
    for file, name in (
        ("oss_mcuboot_pr2100_fixed.elf", "mcuboot/zephyr/zephyr.elf"),
        ("zephyr_slot1_padded.bin", "mine/zephyr/zephyr.signed.bin"),
    ):
        (made / name).parent.mkdir(parents=True)
        shutil.copy(FIND() / file, made / name)
    (made / "domains.yaml").write_text("default: mine\nbuild_dir: elsewhere\n")
    done = call(example, made)
    assert done.returncode == 0, done.stdout
    assert list(verdicts(made).values()) == [True, True]

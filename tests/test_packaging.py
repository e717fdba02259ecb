"""What is handed on: the source distribution, the wheels, and what each extra brings."""

from __future__ import annotations

import ast
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from wheels import build, copy_checkout

import unbrick
from unbrick.cli import main as cli_main
from unbrick.compile import GLIBC, LIBRARIES, MACHINES
from unbrick.extras import EXTRAS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PACKAGE = Path(unbrick.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MANYLINUX2014 = {
    *("libgcc_s.so.1", "libstdc++.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libc.so.6"),
    *("libnsl.so.1", "libutil.so.1", "libpthread.so.0", "libresolv.so.2"),
    *("ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"),
}
"""Libraries that every system for such a wheel has (PEP 599, without those for graphics)."""

ELF_MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}

WITHOUT_EXTRAS = f"""
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(sum(EXTRAS.values(), ()))}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NotInstalled())
"""
"""A ``sitecustomize`` after which imports fail as in an install without any extra."""


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        list(map(str, command)), capture_output=True, text=True, check=False, **options
    )


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    archive = build("build_sdist", copy_checkout(folder / "tree"), folder / "dist")
    assert run("tar", "-xf", archive, "-C", folder).returncode == 0
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="session", params=MACHINES)
def wheel(request: pytest.FixtureRequest, sdist: Path) -> Path:
    """The wheel for each processor, made from the source distribution, in a tree built before."""
    stale = next(iter((sdist / "build").glob("lib*")), sdist / "build" / "lib") / "unbrick"
    stale.mkdir(parents=True, exist_ok=True)
    (stale / "stale.py").touch()
    platform = f"manylinux2014_{request.param}"
    return build("build_wheel", sdist, sdist.parent / platform, f"--plat-name={platform}")


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, as in ``site-packages``."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_source_distribution_has_all_that_the_repository_has(sdist: Path) -> None:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("what the repository has is only known to git, in a checkout")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout
    ours = {name for name in listed.splitlines() if (ROOT / name).exists()}
    made = {"PKG-INFO", "setup.cfg"}
    there = {name for name in files_in(sdist) if not name.startswith("build/")}
    assert {name for name in there if ".egg-info/" not in name} == ours | made


@pytest.mark.slow
def test_a_wheel_is_for_any_python_and_one_platform(wheel: Path, installed: Path) -> None:
    platform = wheel.parent.name
    assert wheel.name == f"unbrick-{unbrick.__version__}-py3-none-{platform}.whl"
    (said,) = installed.glob("*.dist-info/WHEEL")
    assert f"Tag: py3-none-{platform}\n" in said.read_text()
    assert "Root-Is-Purelib: false\n" in said.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("part", "library"), LIBRARIES.items())
def test_the_compiled_models_need_an_old_c_library_and_no_python(
    wheel: Path, installed: Path, part: str, library: str
) -> None:
    with (installed / "unbrick" / part / library).open("rb") as stream:
        elf = ELFFile(stream)
        assert wheel.stem.endswith(
            next(m for m, e in ELF_MACHINES.items() if e == elf["e_machine"])
        )
        needed = {tag.needed for tag in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")}
        versions = [
            version.name
            for section in elf.iter_sections()
            if isinstance(section, GNUVerNeedSection)
            for _, library in section.iter_versions()
            for version in library
        ]
    assert needed <= MANYLINUX2014
    assert "libc.so.6" in needed or part == "flash"  # Loops alone need nothing.
    for version in versions:
        numbers = re.fullmatch(r"GLIBC_(\d+)\.(\d+)(\.\d+)?", version)
        assert numbers, version
        assert (int(numbers[1]), int(numbers[2])) <= tuple(map(int, GLIBC.split(".")))


def test_a_wheel_carries_the_firmware_and_the_renode_platform(installed: Path) -> None:
    carried = installed / "unbrick" / "_data"
    for name in ("firmware", "renode"):
        ours = {file for file in files_in(ROOT / name) if not file.startswith("tests/")}
        assert files_in(carried / name) == ours
    for kind in ("*.py", "board/*/*.toml"):
        modules = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob(kind)}
        package = installed / "unbrick"
        assert {str(path.relative_to(package)) for path in package.rglob(kind)} == modules != set()


def test_a_wheel_carries_the_boot_roms(installed: Path) -> None:
    """Compiled for the chip, so alike in the wheels for all processors."""
    sources = PACKAGE / "board" / "roms"
    names = {path.parent.name for path in sources.glob("*/rom.ld")}
    made = {path.stem: path.read_bytes() for path in installed.glob("unbrick/board/roms/*.bin")}
    assert set(made) == names != set()
    for name, data in made.items():
        assert data == (sources / f"{name}.bin").read_bytes()


@pytest.mark.slow
def test_a_wheel_shows_the_demo_without_any_extra(
    wheel: Path, installed: Path, without_extras: dict[str, str], tmp_path: Path
) -> None:
    for name in ("good", "bug"):
        assert {"boot.elf", "app-v1.bin", "app-v2.bin"} <= {
            path.name for path in (installed / "unbrick" / "_data" / "demo" / name).rglob("*")
        }
    if not wheel.stem.endswith(platform.machine()):
        pytest.skip(f"{wheel.name} does not run on this processor")
    (tmp_path / "empty").mkdir()
    places = f"{without_extras['PYTHONPATH']}:{installed}"
    environment = {**without_extras, "PYTHONPATH": places}
    words = (sys.executable, "-m", "unbrick.cli", "demo")
    done = run(*words, env=environment, cwd=tmp_path / "empty")
    assert done.returncode == 0, done.stderr
    assert "3. One cut bricks it: bug/" in done.stdout


WHERE = """
from unbrick.folders import build_folder, firmware_folder, renode_folder
print(firmware_folder(), renode_folder(), build_folder(), sep="\\n")
"""


def where(folder: Path, package: Path, **variables: str) -> list[str]:
    """What an Unbrick that lies in ``package`` uses, in the current folder ``folder``."""
    given = {n: v for n, v in os.environ.items() if not n.startswith("UNBRICK_")}
    environment = {**given, "PYTHONPATH": str(package), **variables}
    return run(sys.executable, "-c", WHERE, cwd=folder, env=environment).stdout.splitlines()


@pytest.mark.slow
def test_an_installed_unbrick_builds_what_it_carries_in_the_cache(
    installed: Path, tmp_path: Path
) -> None:
    carried = installed / "unbrick" / "_data"
    firmware, renode, built = where(tmp_path, installed, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert [firmware, renode] == [str(carried / "firmware"), str(carried / "renode")]
    assert Path(built).parent == tmp_path / "cache" / "unbrick" / "firmware"
    assert not list(tmp_path.iterdir())


def test_an_unbrick_in_a_checkout_builds_its_sources_in_the_current_folder(tmp_path: Path) -> None:
    firmware, renode, built = where(tmp_path, ROOT / "harness")
    assert [firmware, renode] == [str(ROOT / "firmware"), str(ROOT / "renode")]
    assert built == "build/firmware"


@pytest.mark.slow
def test_sources_of_ones_own_are_built_in_the_current_folder(
    installed: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(ROOT / "firmware", tmp_path / "own")
    firmware, _, built = where(tmp_path, installed, UNBRICK_FIRMWARE=str(own))
    assert [firmware, built] == [str(own), "build/firmware"]


def third_party_imports() -> set[str]:
    """Every package that the harness imports, anywhere in its code."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"tomllib", "unbrick"}


@pytest.mark.slow
def test_what_only_mypy_needs_is_not_imported_when_the_code_runs() -> None:
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for block in ast.walk(tree):
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
                block.body = []
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert "typing_extensions" not in modules, path


def brought_by(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


@pytest.mark.slow
def test_each_import_is_of_a_package_that_is_always_there_or_of_a_known_extra() -> None:
    base = brought_by(PROJECT["dependencies"])
    extras = {name: brought_by(lines) for name, lines in PROJECT["optional-dependencies"].items()}
    distributions = {"labgrid": ["labgrid"], "tomli": ["tomli"], **packages_distributions()}
    known = {package: extra for extra, packages in EXTRAS.items() for package in packages}
    # Pytest loads our plugin, if it is there, and mypy looks into `typing_extensions`.
    for package in third_party_imports() - {"pytest", "typing_extensions"}:
        names = {canonicalize_name(name) for name in distributions[package]}
        if package in known:
            assert names & extras[known[package]], f"{known[package]} does not bring {package}"
            assert not names & base, f"{package} is always there"
        else:
            assert names & base, f"nothing brings {package}"
    assert set(known) <= third_party_imports() | {"psycopg", "python_multipart"}  # by others


def test_every_command_is_known_without_its_module() -> None:
    for module, names in cli_main._MODULES.items():
        assert {command.name for command in import_module(module).COMMANDS} == set(names)


@pytest.fixture
def without_extras(tmp_path: Path) -> dict[str, str]:
    """The environment of a process for which no extra is installed."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_EXTRAS)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["image", "--help"], ["run", "--help"]]
)
def test_what_needs_no_extra_works_without_one(
    arguments: list[str], without_extras: dict[str, str]
) -> None:
    done = run(sys.executable, "-m", "unbrick.cli", *arguments, env=without_extras)
    assert (done.returncode, done.stderr) == (0, "")


def test_campaigns_engines_and_reports_need_no_extra(without_extras: dict[str, str]) -> None:
    bench = (
        "campaign.run",
        "engine.inprocess",
        "engine.qemu",
        "engine.renode",
        "engine.gdb.server",
    )
    bench += ("engine.serial", "bench.bench", "console.session", "restore.port", "report.html")
    imports = "; ".join(f"import unbrick.{name}" for name in bench)
    done = run(sys.executable, "-c", imports, env=without_extras)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(("command", "code"), [("run", 1), ("console", 0)])
def test_a_target_of_ones_own_needs_no_extra(
    command: str, code: int, without_extras: dict[str, str], tmp_path: Path
) -> None:
    """Its first instruction is undefined, and is told as that."""
    target = tmp_path / "broken.toml"
    target.write_text(
        'chip = "stm32f103xb"\n[recovered]\nsays = "here"\n'
        '[[firmware]]\nhex = "00100020 09000008 00de"\nat = 0x0800_0000\n'
    )
    words = (sys.executable, "-m", "unbrick.cli", command, target)
    done = run(*words, env=without_extras, stdin=subprocess.DEVNULL)
    assert "undefined instruction" in done.stderr
    assert done.returncode == code


def test_names_of_registers_need_an_extra_that_is_named(
    without_extras: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "named.toml").write_text(
        'chip = "stm32f103xb"\nsvd = "chip.svd"\n[recovered]\nsays = "here"\n'
        '[[firmware]]\nhex = "00100020 09000008 00de"\nat = 0x0800_0000\n'
    )
    (tmp_path / "chip.svd").write_text("<device/>")
    words = (sys.executable, "-m", "unbrick.cli", "run", "named.toml")
    done = run(*words, env=without_extras, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "unbrick: this needs the package cmsis_svd, which is not installed. "
        "Run: pip install 'unbrick[svd]'\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["hil-test"],
        ["up", "--demo"],
        ["--config", "here.toml", "server", "start", "--http-port", "1"],
        ["firmware", "build"],
    ],
)
def test_a_command_whose_extra_is_missing_says_which(
    arguments: list[str], without_extras: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "here.toml").write_text('database = "x"\n[server]\ncoap-port = 7000\n')
    done = run(sys.executable, "-m", "unbrick.cli", *arguments, env=without_extras, cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(
        r"unbrick: this needs the package \w+, which is not installed. "
        r"Run: pip install 'unbrick\[system\]'\n",
        done.stderr,
    )


@pytest.mark.parametrize("arguments", [["run"], ["console"], ["campaign"], ["replay", "12"]])
def test_who_forgets_the_target_is_told_so_before_the_extra(
    arguments: list[str], without_extras: dict[str, str], tmp_path: Path
) -> None:
    done = run(sys.executable, "-m", "unbrick.cli", *arguments, env=without_extras, cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(
        r"unbrick: without a TARGET\.toml this needs the package \w+, which is not installed. "
        r"Name one of yours, or run: pip install 'unbrick\[system\]'\n",
        done.stderr,
    )


def test_a_fixture_whose_extra_is_missing_says_which(
    without_extras: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "test_user.py").write_text("def test_it(unbrick_system):\n    pass\n")
    options = ("-p", "no:cacheprovider", "-p", "no:randomly", "--rootdir", tmp_path)
    done = run(sys.executable, "-m", "pytest", *options, env=without_extras, cwd=tmp_path)
    assert "which is not installed (run: pip install 'unbrick[system]')" in done.stdout
    assert "Traceback" not in done.stdout


def needed(requirement: Requirement, found: set[str]) -> set[str]:
    """The names of all that an installed package with its extras needs here."""
    name = canonicalize_name(requirement.name)
    for extra in ("", *sorted(requirement.extras)):
        if f"{name}[{extra}]" in found:
            continue
        found.add(f"{name}[{extra}]")
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            lines = []
        for further in map(Requirement, lines):
            if further.marker is None or further.marker.evaluate({"extra": extra}):
                needed(further, found)
    return {entry.partition("[")[0] for entry in found}


def test_the_set_up_pins_all_that_it_installs_and_nothing_of_the_measurements() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    set_up, measurements = (
        {
            canonicalize_name(pin[1])
            for pin in re.finditer(r"^([\w.-]+)==[\w.]+ *(?:;.*)?$", section, re.MULTILINE)
        }
        for section in re.split("^# .*`make bench`.*$", text, flags=re.MULTILINE)
    )
    installed = needed(Requirement("unbrick[dev]"), set()) - {"unbrick"}
    assert installed <= set_up
    assert not installed & measurements
    assert "detools" in measurements

"""Makes the package complete: compiled models, the firmware, the Renode platform, and the demo.

Everything else is in ``pyproject.toml``. A wheel for another processor is cross-compiled::

    pip wheel . --no-deps --config-settings=--build-option=--plat-name=manylinux2014_aarch64
"""

import platform
import runpy
import shutil
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

PACKAGE = Path("harness") / "unbrick"
COMPILE = runpy.run_path(str(PACKAGE / "compile.py"))
CARRIED = ("firmware", "renode")
"""Folders that a wheel has in ``unbrick/_data`` (``unbrick.folders``)."""

DEMO = Path("examples") / "ab-updater" / "build.py"
"""What builds the firmware that ``unbrick demo`` plays, for a wheel has no compiler."""


class BuildPackage(build_py):
    """Put beside the modules what they need; an editable install finds it in the tree."""

    def run(self) -> None:
        if self.editable_mode:
            super().run()
            try:
                COMPILE["compile_all"](PACKAGE)
            except RuntimeError as error:
                # setuptools makes a warning of any other error, and the old libraries would stay.
                raise SystemExit(str(error)) from error
            return
        library = Path(self.build_lib)
        shutil.rmtree(library, ignore_errors=True)  # what an earlier build has left there
        super().run()
        wheel = self.get_finalized_command("bdist_wheel")
        machine = next((m for m in COMPILE["MACHINES"] if wheel.plat_name.endswith(m)), None)
        COMPILE["compile_all"](library / PACKAGE.relative_to("harness"), machine)
        for name in CARRIED:
            # The firmware's own tests run on a PC, from a checkout or the source distribution.
            leave = shutil.ignore_patterns("tests", "build", ".*")
            shutil.copytree(name, library / "unbrick" / "_data" / name, ignore=leave)
        runpy.run_path(str(DEMO))["build_demo"](library / "unbrick" / "_data" / "demo")


class PlatformWheel(bdist_wheel):
    """For any Python 3, since models are reached through ctypes, but for one platform."""

    def finalize_options(self) -> None:
        machine = platform.machine()
        if platform.system() == "Linux" and machine in COMPILE["MACHINES"]:
            self.plat_name = self.plat_name or f"manylinux2014_{machine}"
        super().finalize_options()

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class PlatformDistribution(Distribution):
    """The wheel holds compiled code."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    cmdclass={"build_py": BuildPackage, "bdist_wheel": PlatformWheel},
    distclass=PlatformDistribution,
)

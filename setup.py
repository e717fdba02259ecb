"""Compiles the C device models at install; everything else is in pyproject.toml."""

import runpy
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

ENGINE = Path("harness") / "unbrick" / "engine" / "inprocess"


class BuildWithDevices(build_py):
    """Put ``libdevices.so`` beside its source, in the tree when the install is editable."""

    def run(self) -> None:
        super().run()
        compile_devices = runpy.run_path(str(ENGINE / "compile.py"))["compile_devices"]
        built = Path(self.build_lib) / ENGINE.relative_to("harness")
        compile_devices(ENGINE if self.editable_mode else built)


class PlatformDistribution(Distribution):
    """The wheel holds compiled code, so it is for one platform."""

    def has_ext_modules(self) -> bool:
        return True


setup(cmdclass={"build_py": BuildWithDevices}, distclass=PlatformDistribution)

"""Wheels of this checkout, built as pip builds them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_OF_A_CHECKOUT = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "__pycache__", "*.egg-info", "*.so", ".*_cache", ".hypothesis"
)


def copy_checkout(to: Path) -> Path:
    """Copy what is handed on, without what was built in the checkout; returns ``to``."""
    return shutil.copytree(ROOT, to, ignore=_OF_A_CHECKOUT)


def build(hook: str, source: Path, out: Path, *options: str) -> Path:
    """Call a hook of the build backend (PEP 517) as pip does, without fetching anything.

    Args:
        hook: ``build_sdist`` or ``build_wheel``.
        source: the tree.
        out: the folder for what is made, which is there alone.
        options: of the build.

    Returns:
        What was made.
    """
    out.mkdir(exist_ok=True)
    script = (
        "import json, sys; from setuptools import build_meta; hook, out, options = sys.argv[1:]; "
        "getattr(build_meta, hook)(out, {'--build-option': json.loads(options)})"
    )
    command = [sys.executable, "-c", script, hook, str(out), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=source)
    assert done.returncode == 0, done.stderr
    (made,) = out.iterdir()
    return made

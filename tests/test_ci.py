"""What runs campaigns on CI servers: the script, the action for GitHub, the template for GitLab."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from patience import PATIENCE_S
from small_firmware import build_small

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "ci" / "campaign.sh"
ACTION = ROOT / "ci" / "github" / "action.yml"
TEMPLATE = ROOT / "ci" / "gitlab" / "unbrick.yml"
UNBRICK = Path(sys.executable).parent / "unbrick"

KNOWN_ACTIONS = {
    "actions/checkout@v4",
    "actions/upload-artifact@v4",
    "github/codeql-action/upload-sarif@v4",
}
"""Versions of actions that there are."""

UPDATE = 'console = "usart2"\n[update]\nafter = "old"\ntype = "u"\nwithin = "1 s"\n'

PYTHON = f"""#!/bin/sh
# Makes an environment with the Unbrick that is tested, and notes what pip is to install.
if [ "$2" = pip ]; then
    echo "$@" >>"$NOTES"
    exit 0
fi
mkdir -p "$3/bin"
cp "$0" "$3/bin/python"
ln -s {UNBRICK} "$3/bin/unbrick"
"""


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the target files `good/small.toml`, and `bad one/small.toml` with a bug."""
    folder = tmp_path_factory.mktemp("products")
    source = (ROOT / "robot_tests" / "updater.c").read_text(encoding="utf-8")
    for name, bug in (("good", ""), ("bad one", "#define MARK_FIRST\n")):
        (folder / name).mkdir()
        target = build_small(folder / name, "stm32f103xb", bug + source, UPDATE)
        text = target.read_text(encoding="utf-8")
        target.write_text(f'name = "{name.split()[0]}"\n{text}', encoding="utf-8")
    return folder


@dataclass
class Server:
    """A CI server: a workspace, and where scripts leave what it shows.

    Attributes:
        workspace: where scripts run.
        scratch: the server's own folder.
    """

    workspace: Path
    scratch: Path

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command, with variables of its own."""
        programs = self.scratch / "programs"
        environment = {
            "PATH": f"{programs}:{UNBRICK.parent}:{os.environ['PATH']}",
            "PYTHON": str(programs / "python"),
            "NOTES": str(self.scratch / "notes"),
            "RUNNER_TEMP": str(self.scratch / "temp"),
            "GITHUB_STEP_SUMMARY": str(self.scratch / "summary"),
            "GITHUB_OUTPUT": str(self.scratch / "output"),
        }
        return subprocess.run(
            command,
            cwd=self.workspace,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    def read(self, name: str) -> str:
        """What a script has left; empty: nothing."""
        file = self.scratch / name
        return file.read_text(encoding="utf-8") if file.exists() else ""


@pytest.fixture
def bare_server(tmp_path: Path) -> Server:
    """A server whose workspace is empty."""
    made = Server(tmp_path / "workspace", tmp_path / "scratch")
    made.workspace.mkdir()
    (made.scratch / "temp").mkdir(parents=True)
    (made.scratch / "programs").mkdir()
    python = made.scratch / "programs" / "python"
    python.write_text(PYTHON, encoding="utf-8")
    python.chmod(0o755)
    return made


@pytest.fixture
def server(bare_server: Server, products: Path) -> Server:
    """A server with the products in its workspace."""
    shutil.copytree(products, bare_server.workspace, dirs_exist_ok=True)
    return bare_server


@pytest.mark.slow
def test_the_script_reports_a_good_product(server: Server) -> None:
    done = server.run(str(SCRIPT), UNBRICK_TARGETS="\n good/small.toml \n")
    assert done.returncode == 0, done.stderr
    assert server.read("notes") == f"-m pip install --quiet {ROOT}\n"
    assert server.read("output") == "reported=true\n"
    assert "good" in server.read("summary")
    assert done.stdout.strip() in server.read("summary")
    made = {file.name for file in (server.workspace / "unbrick-report").iterdir()}
    assert {"report.html", "report.json", "report.sarif", "junit.xml"} <= made
    assert list((server.scratch / "temp").iterdir()) == []


@pytest.mark.slow
def test_the_script_fails_with_a_violation_and_reports_it(server: Server) -> None:
    done = server.run(
        str(SCRIPT),
        UNBRICK_TARGETS="good/small.toml\nbad one/small.toml",
        UNBRICK_OPTIONS="--preset full --stop-early",
        UNBRICK_REPORT="out",
        UNBRICK_INSTALL="a wheel",
    )
    assert done.returncode == 1, done.stderr
    assert server.read("notes") == "-m pip install --quiet a wheel\n"
    assert server.read("output") == "reported=true\n"
    assert "unbrick replay" in server.read("summary")
    report = json.loads((server.workspace / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["preset"] == "full"
    sarif = json.loads((server.workspace / "out" / "report.sarif").read_text(encoding="utf-8"))
    (result,) = sarif["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place == {
        "artifactLocation": {"uri": "bad%20one/small.toml"},
        "region": {"startLine": 1},
    }


def test_the_script_says_what_is_wrong(bare_server: Server) -> None:
    done = bare_server.run(str(SCRIPT), UNBRICK_TARGETS=" \n")
    assert done.returncode == 2
    assert done.stderr == "no target file is named (write `targets: path/to/target.toml`)\n"
    assert bare_server.read("notes") == ""
    done = bare_server.run(str(SCRIPT), UNBRICK_TARGETS="missing.toml")
    assert done.returncode == 2
    assert "missing.toml" in done.stderr
    assert bare_server.read("output") == ""


def load(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def fill_in(text: str, inputs: dict[str, str]) -> str:
    """A text of the action, with its inputs."""
    return re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda match: inputs[match.group(1)], text)


@pytest.mark.slow
@pytest.mark.parametrize(("product", "code"), [("good", 0), ("bad one", 1)])
def test_the_action_runs_the_script(server: Server, product: str, code: int) -> None:
    action = load(ACTION)
    inputs = {name: str(told.get("default", "")) for name, told in action["inputs"].items()}
    inputs["targets"] = f"{product}/small.toml"
    (step,) = (step for step in action["runs"]["steps"] if "run" in step)
    assert step["shell"] == "bash"
    variables = {name: fill_in(text, inputs) for name, text in step["env"].items()}
    variables["GITHUB_ACTION_PATH"] = str(ACTION.parent)
    done = server.run("bash", "-e", "-c", step["run"], **variables)
    assert done.returncode == code, done.stderr
    assert server.read("notes") == f"-m pip install --quiet {ROOT}\n"
    for upload in action["runs"]["steps"]:
        paths = upload.get("with", {})
        for path in fill_in(paths.get("path", paths.get("sarif_file", "")), inputs).split():
            assert list(server.workspace.glob(path)), path


def test_the_action_is_whole() -> None:
    action = load(ACTION)
    assert action["runs"]["using"] == "composite"
    assert all(told["description"] for told in action["inputs"].values())
    text = ACTION.read_text(encoding="utf-8")
    assert set(re.findall(r"\binputs\.([a-z-]+)", text)) == set(action["inputs"])
    assert {step["uses"] for step in action["runs"]["steps"] if "uses" in step} <= KNOWN_ACTIONS
    known = set(re.findall(r"^#   ([A-Z_]+)", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE))
    (step,) = (step for step in action["runs"]["steps"] if "run" in step)
    assert set(step["env"]) <= known
    left = re.findall(r'echo "(\w+)=', SCRIPT.read_text(encoding="utf-8"))
    assert set(re.findall(r"outputs\.(\w+)", text)) == set(left)


@pytest.mark.slow
@pytest.mark.parametrize(("product", "code"), [("good", 0), ("bad", 1)])
def test_the_template_runs_a_campaign(server: Server, product: str, code: int) -> None:
    (server.workspace / "bad one").rename(server.workspace / "bad")
    job = load(TEMPLATE)[".unbrick-campaign"]
    variables = {**job["variables"], "UNBRICK_TARGETS": f"{product}/small.toml"}
    done = server.run("bash", "-e", "-c", "\n".join(job["script"]), **variables)
    assert done.returncode == code, done.stderr
    assert server.read("notes") == "-m pip install --quiet unbrick\n"
    for path in [*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]]:
        assert list(server.workspace.glob(path)), path


def test_the_template_says_that_no_target_is_named(bare_server: Server) -> None:
    job = load(TEMPLATE)[".unbrick-campaign"]
    done = bare_server.run("bash", "-e", "-c", "\n".join(job["script"]), **job["variables"])
    assert done.returncode != 0
    assert "no target file is named" in done.stderr
    assert job["artifacts"]["when"] == "always"


def test_the_examples_of_the_page_fit() -> None:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    workflow, pipeline = (
        yaml.safe_load(block.partition("```")[0]) for block in page.split("```yaml\n")[1:]
    )
    *others, ours = (step for job in workflow["jobs"].values() for step in job["steps"])
    assert {step["uses"] for step in others if "uses" in step} <= KNOWN_ACTIONS
    folder = ours["uses"].removeprefix("OWNER/unbrick/").removesuffix("@REF")
    assert ROOT / folder == ACTION.parent
    inputs = load(ACTION)["inputs"]
    assert set(ours["with"]) <= set(inputs)
    assert set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == set(inputs)
    job = pipeline["power-cuts"]
    template = load(TEMPLATE)
    assert job["extends"] in template
    variables = template[job["extends"]]["variables"]
    assert set(job["variables"]) <= set(variables)
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE)) == set(variables)

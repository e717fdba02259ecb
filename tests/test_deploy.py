"""The systemd unit and the container file: as far as they can be tried without either.

With podman, ``test_container`` builds and runs a container.
"""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import Running

from unbrick.server.edge.client import ServerClient

ROOT = Path(__file__).parents[1]
UNIT, CONTAINER = ROOT / "deploy" / "unbrick-server.service", ROOT / "deploy" / "Containerfile"
MOST_EXPOSED = 2.0
"""Of 10: what ``systemd-analyze security`` may find at most."""


def read_unit() -> dict[str, list[str]]:
    """What the unit's section of the service says; some things it says more than once."""
    said: dict[str, list[str]] = {}
    for line in UNIT.read_text().partition("[Service]")[2].partition("[Install]")[0].splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            said.setdefault(name, []).append(value)
    return said


def read_container() -> list[tuple[str, str]]:
    """The instructions of the container file, with what follows them."""
    text = re.sub(r"^#.*\n", "", CONTAINER.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines]


def test_the_unit_is_well_formed() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_string(UNIT.read_text())
    assert parser.sections() == ["Unit", "Service", "Install"]
    service = read_unit()
    assert service["StateDirectory"] == ["unbrick"]
    assert service["WorkingDirectory"] == ["/var/lib/unbrick"]
    assert service["Restart"] == ["always"]


def test_systemd_takes_the_unit_and_finds_it_confined(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing (apt install systemd)")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/unbrick/bin/unbrick", sys.executable))
    command = ["systemd-analyze", "verify", "--man=no", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= MOST_EXPOSED


@pytest.mark.slow
def test_what_the_unit_starts_answers_and_ends_when_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (start,) = read_unit()["ExecStart"]
    assert start.endswith(" $UNBRICK_OPTIONS")
    program, *arguments = shlex.split(start)
    assert program == "/opt/unbrick/bin/unbrick"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with Running(*arguments[:-1], "--coap-port", 0, "--http-port", 0) as server:
        url = server.wait_for(r"ready, coap://\S+ (\S+)")[1]
        with ServerClient(url) as client:
            assert client.terminals() == []
        assert server.end() == 0
    assert (tmp_path / "unbrick-state" / "server.db").exists()


def test_the_container_file_is_well_formed() -> None:
    found = read_container()
    names = [name for name, _ in found]
    known = {"FROM", "COPY", "RUN", "USER", "WORKDIR", "ENV", "VOLUME", "EXPOSE"}
    assert set(names) <= known | {"ENTRYPOINT", "CMD", "HEALTHCHECK"}
    assert re.fullmatch(r"docker\.io/library/python:\d+\.\d+-slim-\w+", dict(found)["FROM"])
    assert dict(found)["USER"] == "unbrick"
    assert names.index("USER") > names.index("RUN")
    ours, rest = dict(found)["RUN"].split(" && ")[:2]
    assert {"--no-index", "--no-deps", "--no-cache-dir"} <= set(ours.split())
    assert "--no-cache-dir" in rest
    assert "--database" not in dict(found)["CMD"]  # So options after the image's name keep it.


@pytest.mark.slow
def test_what_the_container_starts_answers_and_is_found_healthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = dict(read_container())
    program, *arguments = json.loads(said["ENTRYPOINT"]) + json.loads(said["CMD"])
    assert program == "unbrick"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with Running(*arguments, "--coap-port", 0, "--http-port", 0) as server:
        url = server.wait_for(r"ready, coap://\S+ (\S+)")[1]
        _, *check = json.loads(said["HEALTHCHECK"].partition("CMD ")[2])
        here = [word.replace("http://127.0.0.1:8080", url) for word in check]
        subprocess.run([sys.executable, *here], check=True)
        assert server.end() == 0
        ended = subprocess.run([sys.executable, *here], check=False, capture_output=True)
        assert ended.returncode

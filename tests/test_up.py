"""``unbrick up``: every part as a process of its own, started and ended by one command (B11)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pexpect
import pytest
from patience import PATIENCE_S, until
from pexpect import fdpexpect
from processes import Running, unbrick

from unbrick.bench.process import Process
from unbrick.image.factory import read_identity
from unbrick.server.edge.client import ServerClient

PARTS = ("server", "terminal", "center", "bridge")


@pytest.fixture
def folder(tmp_path: Path, firmware: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that somebody types in; every port is a free one."""
    (tmp_path / "unbrick.toml").write_text(
        f'firmware = "{firmware}"\n'
        "[server]\ncoap-port = 0\nhttp-port = 0\n[center]\nport = 0\n[run]\nserial = 'T-77'\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def children(pid: int) -> list[int]:
    """The processes that one has started and that are alive."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = place.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(place.parent.name))
    return found


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def part(pid: int, words: str) -> int:
    """The process of a part, by the words that it is started with."""
    (found,) = [child for child in children(pid) if words in command_of(child)]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def registered(url: str) -> list[dict[str, Any]]:
    with ServerClient(url) as client:
        return client.terminals()


@pytest.mark.slow(first=True)
def test_claim_b11_one_command_starts_every_part_and_ends_them(folder: Path) -> None:
    with Running("up", "--demo") as everything:
        everything.wait_for("up: ready")
        pids = children(everything.pid)
        assert len(pids) == len(PARTS)
        url = everything.wait_for(r"server +(http://\S+), coap://")[1]
        page = everything.wait_for(r"center +(http://\S+)\n")[1]
        password = everything.wait_for(r"password (\S+)")[1]
        (terminal,) = until(lambda: registered(url))
        assert (terminal["serial"], terminal["version"]) == ("T-77", "1.0.0+0")
        with closing(httpx.Client(base_url=page, trust_env=False)) as browser:
            answer = browser.post("/sign-in", data={"name": "clerk", "password": password})
            assert answer.status_code == 303
            cookie = answer.headers["set-cookie"].partition(";")[0]
            seen = browser.get("/", headers={"cookie": cookie}).text
        assert "Ada Lovelace" in seen
        assert "T-77" in seen
        assert (folder / "unbrick-state" / "wire").is_char_device()
        assert everything.end(signal.SIGINT) == 0
    assert not any(alive(pid) for pid in pids)
    cells = (folder / "unbrick-state" / "terminal.nor").read_bytes()
    assert read_identity(cells).serial == "T-77"
    for name in PARTS:
        log = (folder / "unbrick-state" / f"{name}.log").read_text()
        assert "ready" in log
        assert "Traceback" not in log
    assert not (folder / "unbrick-state" / "wire").is_symlink()
    assert {path.name for path in folder.iterdir()} == {"unbrick.toml", "unbrick-state"}
    assert "Ada Lovelace" in unbrick("subscriber", "list").stdout, "other commands look there, too"
    assert "engineer" in unbrick("center", "operators").stdout


@pytest.mark.slow(first=True)
def test_claim_b4_a_call_from_the_terminals_console_upgrades_it(folder: Path) -> None:
    with Running("up", "--demo") as everything:
        everything.wait_for("up: ready")
        url = everything.wait_for(r"server +(http://\S+), coap://")[1]
        port = os.open(folder / "unbrick-state" / "wire", os.O_RDWR | os.O_NOCTTY)
        with closing(fdpexpect.fdspawn(port, timeout=PATIENCE_S, encoding="utf-8")) as user:
            user.expect_exact("message: Version 2.0.0 of your terminal's software is ready.")
            user.send("pb add Alice 112\r")
            user.expect_exact("added 1")
            user.send("call\r")
            user.expect_exact("call: Welcome. Version 2.0.0 is ready for your terminal")
            user.expect_exact("0 to end.")
            user.send("1\r")
            user.expect_exact("begins when this call has ended")
            user.send("hang up\r")
            user.expect_exact("update: 2.0.0 confirmed")
            user.expect_exact("user's data given back")
            user.send("pb list\r")
            user.expect_exact("Alice")

            def ended() -> dict[str, Any] | None:
                with ServerClient(url) as client:
                    (update,) = client.updates()
                    session = client.update(update["id"])["session"]
                    return session if session["state"] != "running" else None

            session = until(ended)
        assert session["state"] == "succeeded"
        assert session["backup"] is None
        assert everything.end() == 0


def command_after(everything: Running, line: str) -> str:
    """The command that is said after a line, to be pasted."""
    return everything.wait_for(rf"{re.escape(line)}\n  (\S.*)\n")[1]


@pytest.mark.slow(first=True)
def test_what_is_said_works_when_pasted_and_the_second_start_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = os.environ["XDG_STATE_HOME"]  # It is another shell, and the same user.
    plain = "/usr/bin:/bin"
    monkeypatch.setenv("PATH", plain)  # Neither shell has the environment's commands.
    fresh = {"PATH": plain, "HOME": str(folder), "TERM": "dumb", "XDG_STATE_HOME": state}
    with Running("up", "--demo") as everything:
        everything.wait_for("up: ready")
        pids = children(everything.pid)
        assert len(pids) == len(PARTS)
        url = everything.wait_for(r"server +(http://\S+), coap://")[1]
        first_seen = until(lambda: registered(url))[0]["first_seen"]
        assert "(said only now)" in "".join(everything.output)
        orders = command_after(everything, "Orders to the server, for example:")
        done = subprocess.run(
            ["sh", "-c", orders], env=fresh, capture_output=True, text=True, check=True
        )
        assert re.search(r"^T-77 .* 1\.0\.0\+0 ", done.stdout, re.MULTILINE)
        console = command_after(
            everything, "The terminal's console (Enter brings its prompt, Ctrl-] leaves):"
        )
        user = pexpect.spawn("sh", ["-c", console], env=fresh, encoding="utf-8", timeout=PATIENCE_S)
        user.expect_exact("--- Miniterm on unbrick-state/wire")
        user.send("\r")
        user.expect_exact("> ")
        user.send("id\r")
        user.expect_exact("T-77")
        user.send("\x1d")
        user.expect(pexpect.EOF)
        assert max(map(len, "".join(everything.output).splitlines())) <= 80 + 2 * len(sys.prefix)
        assert everything.end(signal.SIGTERM) == 0
    assert not any(alive(pid) for pid in pids)
    with Running("up", "--demo") as everything:
        everything.wait_for("up: ready")
        url = everything.wait_for(r"server +(http://\S+), coap://")[1]
        assert "(said only now)" not in "".join(everything.output)
        assert until(lambda: registered(url))[0]["first_seen"] == first_seen
        page = everything.wait_for(r"center +(http://\S+)\n")[1]
        change = command_after(everything, "  if you have it no more, this asks for a new one:")
        typed = "three or four\n" * 2
        subprocess.run(["sh", "-c", change], env=fresh, input=typed, text=True, check=True)
        with closing(httpx.Client(base_url=page, trust_env=False)) as browser:
            answer = browser.post("/sign-in", data={"name": "clerk", "password": "three or four"})
            assert answer.status_code == 303
        assert everything.end() == 0


@pytest.mark.slow
def test_another_state_folder_has_everything_and_git_ignores_it(folder: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is missing (apt install git)")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    with Running("up", "--demo", "--state", "elsewhere") as everything:
        everything.wait_for("up: ready")
        assert everything.end() == 0
    assert {path.name for path in folder.iterdir()} == {".git", "unbrick.toml", "elsewhere"}
    command = ["git", "status", "--porcelain"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "?? unbrick.toml\n"
    there = ("--database", Path("elsewhere", "server.db"))
    assert "Ada Lovelace" in unbrick("subscriber", "list", *there).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "name"), [("server start", "server"), ("bridge --modem", "bridge")]
)
def test_when_one_part_ends_so_do_the_others_and_it_is_said_which(
    folder: Path, words: str, name: str
) -> None:
    with Running("up") as everything:
        everything.wait_for("up: ready")
        pids = children(everything.pid)
        os.kill(part(everything.pid, words), signal.SIGKILL)
        said = everything.wait_for(rf"unbrick: the {name} has ended by signal 9, .*\n")[0]
        assert "ready" in said, "its last line"
        assert str(Path("unbrick-state") / f"{name}.log") in said
        assert everything.wait() == 1
    assert not any(alive(pid) for pid in pids)
    assert folder.is_dir()


@pytest.mark.slow
def test_a_port_that_is_taken_is_said_in_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = folder / "unbrick.toml"
        config.write_text(config.read_text().replace("http-port = 0", f"http-port = {port}"))
        done = unbrick("up")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("unbrick: server did not start: TCP port")
    assert "in use. is another server running?" in line.lower()
    assert "server.log" in line


def test_a_part_that_is_told_to_end_while_it_starts_has_not_failed(tmp_path: Path) -> None:
    assert Process(tmp_path / "terminal.log", "run").stop() == 0


@pytest.mark.slow
def test_a_part_with_a_wrong_option_is_said_in_one_line(folder: Path) -> None:
    config = folder / "unbrick.toml"
    config.write_text(config.read_text() + '[bridge]\nserver = "x"\n')
    with config.open("a") as stream:
        stream.write("drop = 7.0\n")
    done = unbrick("up")
    assert done.returncode == 1
    assert re.search(r"bridge did not start: .*7.0 is not in the range", done.stderr)


@pytest.mark.slow
def test_two_cannot_have_the_same_state_and_killed_it_leaves_no_part_behind(folder: Path) -> None:
    with Running("up") as everything:
        everything.wait_for("up: ready")
        pids = children(everything.pid)
        done = unbrick("up")
        assert done.returncode == 2
        said = f"unbrick-state is in use by process {everything.pid} (`unbrick up`). End that one"
        assert said in done.stderr
        os.kill(everything.pid, signal.SIGKILL)
        everything.wait()
        until(lambda: not any(alive(pid) for pid in pids))
    assert (folder / "unbrick-state" / "terminal.nor").exists(), "even so the NOR is kept"


@pytest.mark.slow
def test_claim_b11_every_part_starts_alone_in_any_order_and_ends_cleanly(
    tmp_path: Path, firmware: Path
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        coap = free.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as free_too:
        modem = free_too.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as free_as_well:
        http = free_as_well.getsockname()[1]
    url, database = f"http://127.0.0.1:{http}", tmp_path / "server.db"
    with (
        Running("bridge", "--modem", f"tcp:127.0.0.1:{modem}", "--server", f"127.0.0.1:{coap}")
        as bridge,
        Running("center", "start", "--port", 0, "--server-url", url, "--database", database,
                "--accounts", tmp_path / "center.db") as center,
    ):  # fmt: skip
        bridge.wait_for("bridge: ready")
        center.wait_for("center: ready")
        with Running(
            *("run", "--firmware", firmware, "--serial", "T-77", "--modem", f"tcp:{modem}"),
            *("--enrolment", tmp_path / "key"),
        ) as terminal:
            terminal.wait_for("ready: wire")
            with Running(
                *("server", "start", "--coap-port", coap, "--http-port", http),
                *("--database", database),
            ) as server:
                server.wait_for("server: ready")
                assert (
                    unbrick("server", "enrol", tmp_path / "key", "--server-url", url).returncode
                    == 0
                )
                assert until(lambda: registered(url))[0]["serial"] == "T-77"
                for process in (center, server, bridge, terminal):
                    assert process.end() == 0
                    assert "Traceback" not in "".join(process.output)

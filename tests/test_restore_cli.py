"""`unbrick restore` and `unbrick restorations` as a person and a script use them, on real ports."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from image_samples import signed, write_key
from scripted_terminal import ScriptedTerminal
from wired import wiring

from unbrick.cli import restore as cli_restore
from unbrick.cli.main import cli
from unbrick.image.format import inspect
from unbrick.image.hexfile import to_hex
from unbrick.restore.apparatus import Apparatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wired import Wired

    from unbrick.restore.port import Restoration


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_key(tmp_path_factory.mktemp("keys") / "key.pem")


@pytest.fixture
def image(key: Path, tmp_path: Path) -> Path:
    file = tmp_path / "terminal.bin"
    file.write_bytes(signed(key, 5000))
    return file


@pytest.fixture
def wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Wired]]:
    with wiring(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    def command(name: str, *arguments: object) -> Result:
        given = ["--record", tmp_path / "record.jsonl", *arguments]
        return CliRunner().invoke(cli, [name, *map(str, given)], env={"COLUMNS": "200"})

    return command


@pytest.fixture
def recorded(run: Callable[..., Result]) -> Callable[..., list[dict[str, object]]]:
    def entries(*arguments: object) -> list[dict[str, object]]:
        listed: list[dict[str, object]] = json.loads(
            run("restorations", "--json", *arguments).stdout
        )
        return listed

    return entries


def machine_has(monkeypatch: pytest.MonkeyPatch, *wires: Wired) -> None:
    names = [str(wired.path) for wired in wires]
    monkeypatch.setattr(cli_restore, "list_machine_ports", lambda: names)


@pytest.mark.slow
def test_claim_a12_restore_as_a_command(
    tmp_path: Path, image: Path, key: Path, wire: Callable[..., Wired], run: Callable[..., Result],
    recorded: Callable[..., list[dict[str, object]]],
) -> None:  # fmt: skip
    data = image.read_bytes()
    hex_file = tmp_path / "terminal.hex"
    hex_file.write_text(to_hex(data))
    wired = wire(ScriptedTerminal())
    done = run("restore", wired.path, hex_file, "--json", "--key", key)
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert values["serial"] == "T-0001"
    assert values["outcome"] == "restored"
    assert values["accepted"] == inspect(data).version
    assert values["read_back"] == hashlib.sha256(data).hexdigest()
    assert wired.terminal.image == data
    assert "restoration: no application" in done.stderr
    assert "give --key" not in done.stderr
    (entry,) = recorded()
    assert entry["outcome"] == "restored"
    assert (entry["serial"], entry["reason"]) == ("T-0001", "no application")
    assert entry["digest"] == inspect(data).digest.hex()
    assert (entry["version"], entry["transfers"]) == ("1.1.0+7", 1)
    again = run("restore", wired.path, hex_file)
    assert again.exit_code == 0, again.output
    assert "already: nothing was sent" in again.stdout
    assert "the signature is checked by the terminal alone: give --key" in again.stderr
    assert [entry["transfers"] for entry in recorded()] == [1, 0]


@pytest.mark.slow
def test_without_a_port_the_terminal_is_found_among_those_of_the_machine(
    image: Path, wire: Callable[..., Wired], run: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch, recorded: Callable[..., list[dict[str, object]]],
) -> None:  # fmt: skip
    runs, asks = wire(ScriptedTerminal(application=True)), wire(ScriptedTerminal(serial="T-2"))
    machine_has(monkeypatch, runs, asks)
    done = run("restore", image)
    assert done.exit_code == 0, done.output
    assert "terminal T-2 is restored, it runs unbrick-terminal 1.1.0" in done.stdout
    assert asks.terminal.image == image.read_bytes()
    assert not runs.terminal.asked, "nothing is typed at what did not ask"
    assert [entry["serial"] for entry in recorded()] == ["T-2"]


@pytest.mark.slow
def test_of_several_that_ask_none_is_chosen(
    image: Path, wire: Callable[..., Wired], run: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch, recorded: Callable[..., list[dict[str, object]]],
) -> None:  # fmt: skip
    both = wire(ScriptedTerminal()), wire(ScriptedTerminal())
    machine_has(monkeypatch, *both)
    done = run("restore", image)
    assert done.exit_code == 2
    assert "2 terminals ask to be restored: on " in done.stderr
    assert "Name the port of one, or restore all of them with --all" in done.stderr
    assert not any(wired.terminal.image for wired in both)
    assert recorded() == []


@pytest.mark.slow
def test_all_restores_a_whole_set_at_once_and_leaves_the_others_alone(
    image: Path, wire: Callable[..., Wired], run: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch, recorded: Callable[..., list[dict[str, object]]],
) -> None:  # fmt: skip
    asking = [wire(ScriptedTerminal(serial=f"T-{number}")) for number in range(3)]
    runs = wire(ScriptedTerminal(application=True))
    machine_has(monkeypatch, *asking, runs)
    done = run("restore", "--all", image, "--wait", 3)
    assert done.exit_code == 0, done.output
    assert len(re.findall(r"T-\d +restored", done.stdout)) == 3
    assert "nothing asks to be restored" in done.stdout
    assert all(wired.terminal.image == image.read_bytes() for wired in asking)
    assert not runs.terminal.asked
    assert sorted(str(entry["serial"]) for entry in recorded()) == ["T-0", "T-1", "T-2"]
    assert [entry["serial"] for entry in recorded("--serial", "T-1")] == ["T-1"]


def test_one_of_a_set_that_fails_is_the_exit_code_and_no_harm_to_the_others(
    image: Path, wire: Callable[..., Wired], run: Callable[..., Result],
    recorded: Callable[..., list[dict[str, object]]],
) -> None:  # fmt: skip
    good = wire(ScriptedTerminal(serial="T-good"))
    lies = wire(ScriptedTerminal(serial="T-lies", reads_back=lambda _image: "0" * 64))
    newer = wire(ScriptedTerminal(serial="T-newer", counter=9))
    done = run("restore", good.path, lies.path, newer.path, image, "--json")
    assert done.exit_code == 1
    assert "2 of 3 ports failed. Start it again" in done.stderr
    results = {result["serial"]: result for result in json.loads(done.stdout)}
    assert results["T-good"]["outcome"] == "restored"
    assert "is not what was sent" in results["T-lies"]["error"]
    assert "the image is too old" in results["T-newer"]["error"]
    assert not newer.terminal.image
    outcomes = {entry["serial"]: entry["outcome"] for entry in recorded()}
    assert outcomes == {"T-good": "restored", "T-lies": "failed", "T-newer": "failed"}


@pytest.mark.slow
def test_a_cable_that_is_pulled_and_connected_again(
    key: Path, tmp_path: Path, wire: Callable[..., Wired], run: Callable[..., Result]
) -> None:
    """Once in the middle of the transfer; the terminal never notices but by the silence."""
    image = tmp_path / "large.bin"
    image.write_bytes(signed(key, 60_000))
    wired = wire(ScriptedTerminal())

    def pull_once(data: bytes) -> bytes:
        receiver = wired.terminal._receiver
        if receiver is not None and len(receiver.data) > 20_000:
            wired.terminal.garbled = lambda data: data
            wired.pull()
            wired.plug()
        return data

    wired.terminal.garbled = pull_once
    done = run("restore", wired.path, image, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["transfers"] == 2
    assert wired.terminal.image == image.read_bytes()


@pytest.mark.slow
def test_ctrl_c_lets_the_terminal_wait_again(
    key: Path, tmp_path: Path, wire: Callable[..., Wired], run: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch, recorded: Callable[..., list[dict[str, object]]],
) -> None:  # fmt: skip
    image = tmp_path / "large.bin"
    image.write_bytes(signed(key, 100_000))
    wired = wire(ScriptedTerminal())
    with monkeypatch.context() as patched:
        show = cli_restore.Display.show

        def press(display: cli_restore.Display, over: list[Restoration]) -> None:
            show(display, over)
            if over[0].apparatus and over[0].apparatus.sent:
                raise KeyboardInterrupt

        patched.setattr(cli_restore.Display, "show", press)
        done = run("restore", wired.path, image)
    assert done.exit_code == 130, done.output
    assert not wired.terminal.image
    (entry,) = recorded()
    assert (entry["outcome"], entry["read_back"]) == ("cancelled", "")
    assert run("restore", wired.path, image).exit_code == 0
    assert wired.terminal.image == image.read_bytes()


def test_a_bug_in_one_thread_is_no_success(
    image: Path, wire: Callable[..., Wired], run: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch, recorded: Callable[..., list[dict[str, object]]],
) -> None:  # fmt: skip
    def crash(_self: Apparatus, _now: float) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Apparatus, "_read_back", crash)
    done = run("restore", wire(ScriptedTerminal()).path, image)
    assert done.exit_code == 3
    assert "ZeroDivisionError" in done.stderr
    assert [entry["outcome"] for entry in recorded()] == ["failed"]


@pytest.mark.slow
def test_what_is_wrong_is_said_with_the_next_step(
    tmp_path: Path, image: Path, key: Path, run: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch, wire: Callable[..., Wired],
) -> None:  # fmt: skip
    done = run("restore", tmp_path / "no-port", image)
    assert done.exit_code == 2
    assert "it does not exist" in done.stderr
    silent = wire(ScriptedTerminal(reads_back=None))
    silent.terminal.start = lambda _now: None  # type: ignore[method-assign]
    done = run("restore", silent.path, image, "--wait", 1)
    assert done.exit_code == 1
    assert "nothing answers on the wire in 1 s. Check that the terminal has power" in done.stderr
    machine_has(monkeypatch)
    done = run("restore", image)
    assert done.exit_code == 2
    assert "this machine has no serial port. Connect" in done.stderr
    machine_has(monkeypatch, silent, wire(ScriptedTerminal(application=True)))
    done = run("restore", "--all", image, "--wait", 1)
    assert done.exit_code == 1
    assert f"no terminal asked to be restored on {silent.path}, " in done.stderr
    other = write_key(tmp_path / "other.pem", seed=2)
    done = run("restore", silent.path, image, "--key", other)
    assert done.exit_code == 2
    assert "the image is signed with another key" in done.stderr
    (tmp_path / "file").write_text("")
    done = run("restore", silent.path, image, "--record", tmp_path / "file" / "record")
    assert done.exit_code == 2
    assert "cannot write the record" in done.stderr
    assert run("restorations", "--record", tmp_path).exit_code == 2


def test_the_record_survives_what_is_in_it(
    tmp_path: Path, image: Path, wire: Callable[..., Wired], run: Callable[..., Result],
    recorded: Callable[..., list[dict[str, object]]],
) -> None:  # fmt: skip
    record = tmp_path / "record.jsonl"
    assert f"no restorations are recorded in {record}" in run("restorations").stdout
    record.write_bytes(b'{"ended": 1}\n[]\nnull\n\xff\xff\n' + b"[" * 100_000 + b'\n{"cut o')
    wired = wire(ScriptedTerminal(serial="[red]T[/]"))
    assert run("restore", wired.path, image).exit_code == 0
    (entry,) = recorded()
    assert entry["serial"] == "[red]T[/]"
    listed = run("restorations")
    assert "[red]T[/]" in listed.stdout
    assert "are no entries" in listed.stderr
    lines = record.read_bytes().split(b"\n")
    assert json.loads(lines[-2]) == entry


def test_the_record_is_where_the_user_keeps_state(
    tmp_path: Path, image: Path, wire: Callable[..., Wired], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    wired = wire(ScriptedTerminal())
    assert CliRunner().invoke(cli, ["restore", str(wired.path), str(image)]).exit_code == 0
    record = tmp_path / "state" / "unbrick" / "restorations.jsonl"
    assert json.loads(record.read_text())["serial"] == "T-0001"

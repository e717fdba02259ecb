"""One file with the defaults of all commands."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from unbrick.cli import main as root
from unbrick.cli.config import make_default_map
from unbrick.cli.main import cli
from unbrick.errors import SetupError

SAID: list[dict[str, Any]] = []
REAL_MODULES = root._MODULES


@click.group()
def server() -> None:
    pass


@server.command("start")
@click.option("--coap-port", type=int, default=5683)
@click.option("--database", default="unbrick-server.db")
@click.option("--verbose", is_flag=True)
def server_start(**said: object) -> None:
    SAID.append(said)


@server.command("stop")
@click.option("--database", default="none")
def server_stop(**said: object) -> None:
    SAID.append(said)


@click.command("bridge")
@click.option("--server", "server_address", default="127.0.0.1:5683")
@click.option("--cut", type=(float, float), multiple=True)
def bridge(**said: object) -> None:
    SAID.append(said)


@pytest.fixture(autouse=True)
def _own_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(root, "_MODULES", {"of_the_test": ("server", "bridge")})
    monkeypatch.setitem(sys.modules, "of_the_test", SimpleNamespace(COMMANDS=[server, bridge]))
    monkeypatch.chdir(tmp_path)
    SAID.clear()


def said(*arguments: str, **environment: str) -> dict[str, Any]:
    """What reaches a command."""
    result = CliRunner().invoke(cli, arguments, env=environment)
    assert result.exit_code == 0, result.output
    return SAID.pop()


def write(text: str, name: str = "unbrick.toml") -> Path:
    Path(name).write_text(text, encoding="utf-8")
    return Path(name)


def test_without_a_file_the_defaults_are_the_options_own() -> None:
    assert said("server", "start")["coap_port"] == 5683


def test_claim_b11_one_file_sets_the_options_of_every_part() -> None:
    write(
        """
        database = "all.db"
        [server]
        coap-port = 7000
        verbose = true
        [bridge]
        server = "127.0.0.1:7000"
        cut = [[1.0, 2.0], [3, 4]]
        """
    )
    assert said("server", "start") == {"coap_port": 7000, "database": "all.db", "verbose": True}
    assert said("bridge") == {
        "server_address": "127.0.0.1:7000",
        "cut": ((1.0, 2.0), (3.0, 4.0)),
    }
    assert said("server", "stop") == {"database": "all.db"}


def test_a_section_is_for_all_commands_of_its_group_that_have_the_option() -> None:
    write('database = "all.db"\n[server]\ncoap-port = 7000\ndatabase = "servers.db"')
    assert said("server", "start")["database"] == "servers.db"
    assert said("server", "stop") == {"database": "servers.db"}


def test_an_option_may_be_called_like_a_group() -> None:
    write('server = "127.0.0.1:7"')
    assert said("bridge")["server_address"] == "127.0.0.1:7"
    assert said("server", "start")["coap_port"] == 5683


def test_the_command_line_comes_first_then_the_environment_then_the_file() -> None:
    write('[server]\ncoap-port = 1\ndatabase = "file.db"')
    environment = {"UNBRICK_SERVER_START_DATABASE": "environment.db"}
    values = said("server", "start", "--coap-port", "2", **environment)
    assert (values["coap_port"], values["database"]) == (2, "environment.db")


def test_another_file_can_be_named() -> None:
    write("[server]\ncoap-port = 1")
    other = write("[server]\ncoap-port = 2", "other.toml")
    assert said("--config", str(other), "server", "start")["coap_port"] == 2
    assert said("server", "start", UNBRICK_CONFIG=str(other))["coap_port"] == 2


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[sever]\ncoap-port = 1", "sever is not a command", "server"),
        ("[server]\ncoap-prt = 1", "[server] coap-prt is not an option", "coap-port"),
        ("[bridge]\nserver_address = 'x'", "[bridge] server_address is not", ""),
        ("databse = 'x'", "databse is not an option of any command", "database"),
        ("[server", "is no TOML", "docs"),
        ("x = '\0'", "is no TOML", "docs"),
        ("#" + "x" * 70_000, "more than", ""),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_the_next_step(
    text: str, message: str, hint: str
) -> None:
    file = write(text)
    with pytest.raises(SetupError) as caught:
        make_default_map(file, cli, click.Context(cli, **cli.context_settings))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hint in str(caught.value.hint)


def test_a_file_that_is_not_there_is_said_so() -> None:
    with pytest.raises(SetupError, match="cannot be read"):
        make_default_map(Path("none.toml"), cli, click.Context(cli, **cli.context_settings))


def test_a_value_of_the_wrong_kind_is_refused() -> None:
    write("[server]\ncoap-port = 'many'")
    result = CliRunner().invoke(cli, ["server", "start"])
    assert result.exit_code == 2
    assert "many" in result.output


def test_the_example_of_the_documentation_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root, "_MODULES", REAL_MODULES)
    page = Path(root.__file__).parents[3] / "docs" / "configuration.md"
    example = page.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    found = make_default_map(write(example), cli, click.Context(cli, **cli.context_settings))
    assert found["server"]["start"]["coap_port"] == 5683
    assert found["terminals"]["server_url"] == found["publish"]["server_url"]

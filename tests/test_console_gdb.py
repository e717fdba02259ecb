"""Row C7: a debugger at a terminal at whose console somebody sits."""

from __future__ import annotations

import shutil
import signal
from typing import TYPE_CHECKING

import pytest
from person import Debugger, Person, close

from unbrick.engine.base import Engine
from unbrick.engine.renode.engine import RenodeEngine
from unbrick.layout import reference_layout

if TYPE_CHECKING:
    from collections.abc import Callable

LAYOUT = reference_layout()


@pytest.fixture
def gdb() -> str:
    found = shutil.which("gdb-multiarch")
    if found is None:
        pytest.skip("gdb-multiarch is missing (apt install gdb-multiarch)")
    return found


@pytest.mark.slow
def test_claim_c7_gdb_breaks_in_the_agent_of_a_live_terminal(
    emulator: str, gdb: str, sit_down: Callable[..., Person]
) -> None:
    if emulator == "renode" and RenodeEngine.gdb_server is Engine.gdb_server:
        pytest.skip("the engine renode has no server for debuggers")
    person = sit_down("--engine", emulator, "--gdb", 0, prompt=False)
    person.window.expect(r"debug it with: (gdb-multiarch .*?)\r\n")
    command = person.window.match.group(1).replace("gdb-multiarch", f"{gdb} -nx", 1)
    person.sees("\r\n> ")
    debugger = Debugger(command)
    debugger.orders("break nor_program")
    debugger.orders("continue")
    debugger.sees("Continuing")
    person.types("pb add Alice 112\r")
    debugger.sees(r"Breakpoint 1, nor_program \(offset=2097152, .*length=20\)")
    debugger.orders("next")
    debugger.sees(r"\d+\s+while \(length > 0\)")
    debugger.orders("info registers pc")
    pc = int(debugger.sees(r"pc +(0x[0-9a-f]+) .*<nor_program\+")[1], 16)
    assert LAYOUT.agent.base <= pc < LAYOUT.agent.base + LAYOUT.agent.size
    # The terminal stands still, the bench does not; what is typed waits.
    person.tells_the_bench("nor")
    person.sees("spare")
    person.types("pb list\r")
    debugger.orders("disable 1")
    debugger.orders("break phonebook_add")
    debugger.orders("finish")
    debugger.sees(r"Value returned is")
    debugger.orders("continue")
    debugger.sees("Continuing")
    person.sees("added 1")
    person.sees("pb list\r\n")
    assert "Alice" in person.sees("\r\n> ")
    person.types("pb add Bob 2\r")
    debugger.sees(r"Breakpoint 2(\.\d+)?, phonebook_add")
    debugger.orders("detach")
    debugger.orders("quit")
    debugger.sees("")
    person.sees("added 2")
    person.tells_the_bench("gdb", "gdb-multiarch ")
    again = Debugger(command)
    again.orders("kill")
    again.sees("y or n")
    again.window.sendline("y")
    person.sees("`on` gives it back")
    person.tells_the_bench("on")
    person.sees("\r\n> ")
    assert "Bob" in person.says("pb list")
    close(again.window)
    person.tells_the_bench("quit")
    assert person.is_gone() == 0


@pytest.mark.slow
def test_a_console_ends_while_a_debugger_keeps_the_terminal(
    gdb: str, sit_down: Callable[..., Person]
) -> None:
    person = sit_down("--gdb", 0, prompt=False)
    person.window.expect(r"debug it with: (gdb-multiarch .*?)\r\n")
    command = person.window.match.group(1).replace("gdb-multiarch", f"{gdb} -nx", 1)
    person.sees("\r\n> ")
    debugger = Debugger(command)
    debugger.orders("info registers pc")
    debugger.sees("pc +0x")
    person.tells_the_bench("restart", "power cut")
    debugger.orders("stepi")
    debugger.orders("info registers pc")
    assert int(debugger.sees("pc +(0x[0-9a-f]+)")[1], 16) < LAYOUT.partition("boot").size
    person.window.kill(signal.SIGTERM)
    assert person.is_gone() == 0
    close(debugger.window)

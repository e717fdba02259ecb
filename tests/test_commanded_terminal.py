"""Rows B7 to B10 at the terminal: the real firmware, and a server that is a script."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiocoap
import pytest
from commander import APPLICATION, BLOCK, Commander

from unbrick.image.format import inspect
from unbrick.layout import reference_layout
from unbrick.link.faults import FaultPlan, Faults
from unbrick.wire.commands import Check, Erase, Write
from unbrick.wire.messages import Announcement, Kind, Phase, Result, TerminalState

if TYPE_CHECKING:
    from collections.abc import Callable

    from unbrick.reference.system import System

LAYOUT = reference_layout()
JOURNAL, USERDATA = LAYOUT.partition("journal"), LAYOUT.partition("userdata")
ENTRY = "Alice                            12345"
BLANK = hashlib.sha256(b"\xff" * BLOCK).digest()
NOTHING = hashlib.sha256(b"").digest()


@pytest.fixture(params=["inprocess", "qemu", "renode"])
def engine(request: pytest.FixtureRequest) -> str:
    """The engine's name."""
    return str(request.param)


@pytest.fixture
def commander(unbrick_system: System) -> Commander:
    """A terminal with 1.0.0, powered off, and who commands it."""
    return Commander(unbrick_system)


def application(system: System) -> bytes:
    """What lies in the application's partition."""
    return system.engine.read_nor()[APPLICATION.offset : APPLICATION.end]


@pytest.mark.slow
def test_claim_b7_b8_a_commanded_update_from_end_to_end(
    unbrick_make_system: Callable[..., System], engine: str
) -> None:
    system = unbrick_make_system(engine=engine)
    commander = Commander(system)
    image = system.releases.signed["1.1.0"]
    system.power_on()
    system.console.command("pb add Alice 12345")
    registration = commander.start()
    assert registration.last_update_id == commander.update_id
    assert registration.version == "1.0.0+0"  # nothing was erased yet
    commander.rewrite()
    assert application(system).startswith(image)
    assert commander.do(commander.finish()) is Result.SUCCESS
    system.console.expect("update: 1.1.0 confirmed", 60)
    assert system.bench.run_until(
        lambda: commander.server.registrations[-1].state is TerminalState.APPLICATION, 60
    )
    registration = commander.server.registrations[-1]
    assert registration.digest == inspect(image).digest
    assert (registration.last_update_id, registration.last_result) == (7, Result.SUCCESS)
    assert ENTRY in system.console.command("pb list")


def test_claim_b7_the_start_message_loads_the_resident_program_into_sram(
    commander: Commander,
) -> None:
    system = commander.system
    commander.start()
    program = system.releases.firmware.resident.binary.read_bytes()
    for line in (
        "update: commanded to 1.1.0",
        "boot: unbrick boot 1.0.0",
        f"boot: resident program loaded, {len(program)} bytes",
        "resident: commanded update 7 to 1.1.0+0",
        "link: registered as commanded",
    ):
        system.console.expect(line)
    sram = system.engine.read_sram()  # type: ignore[attr-defined]
    assert program[:0x8000] == sram[LAYOUT.resident.base - LAYOUT.board.sram.base :][:0x8000]
    assert application(system).startswith(system.releases.signed["1.0.0"])


REFUSED: list[tuple[dict[str, Any], Result]] = [
    ({"signature": bytes(64)}, Result.SIGNATURE_WRONG),
    ({"digest": bytes(32)}, Result.SIGNATURE_WRONG),
    ({"hardware_id": "toaster"}, Result.OTHER_HARDWARE),
    ({"security_counter": 0}, Result.OLDER_THAN_COUNTER),
    ({"size": 0}, Result.MALFORMED_ANNOUNCEMENT),
    ({"size": APPLICATION.size + 1}, Result.TOO_LARGE),
]


@pytest.mark.parametrize(("change", "result"), REFUSED)
def test_claim_b10_a_bad_start_message_is_refused(
    commander: Commander, change: dict[str, Any], result: Result
) -> None:
    commander.system.power_on()
    commander.system.wait_registered()
    before = commander.system.engine.read_nor()
    upgrade = commander.upgrade_to("1.1.0", backup=commander.backup(), **change)
    decision = commander.decide(upgrade)
    assert decision.result is result
    commander.system.console.expect(f"update: refused, {result.text}")
    assert commander.system.engine.read_nor() == before


def test_claim_b7_b10_what_was_stored_since_the_backup_is_not_put_at_risk(
    commander: Commander,
) -> None:
    system = commander.system
    system.power_on()
    system.wait_registered()
    before = commander.backup()
    system.console.command("pb add Alice 12345")
    decision = commander.decide(commander.upgrade_to("1.1.0", backup=before))
    assert decision.result is Result.USERDATA_CHANGED
    commander.start()  # with a backup of what there is now


@pytest.mark.parametrize("text", ["", "1.1", "1.1.0.0", "256.0.0", "1.1.0+", "1.1.0+0x", "a.b.c"])
def test_claim_b10_a_start_message_without_a_version_is_malformed(
    commander: Commander, text: str
) -> None:
    commander.system.power_on()
    commander.system.wait_registered()
    upgrade = commander.upgrade_to("1.1.0", version=text)
    answer = commander.ask("upgrade", upgrade.encode())
    assert answer.code == aiocoap.BAD_REQUEST


def test_claim_b7_while_a_file_is_received_no_update_is_commanded(commander: Commander) -> None:
    system = commander.system
    system.power_on()
    system.wait_registered()
    image = system.releases.signed["1.1.0"]
    digest = hashlib.sha256(image).digest()
    announcement = Announcement(
        3, Kind.FULL_IMAGE, len(image), digest, "1.1.0+0", inspect(image).digest, len(image)
    )
    answer = commander.ask("announce", announcement.encode())
    assert answer.code == aiocoap.CHANGED
    decision = commander.decide(commander.upgrade_to("1.1.0"))
    assert decision.result is Result.BUSY


def test_claim_b7_a_repeated_start_message_is_answered_by_the_resident_program(
    commander: Commander,
) -> None:
    commander.start()
    upgrade = commander.upgrade_to("1.1.0")
    assert commander.decide(upgrade).result is Result.SUCCESS
    commander.update_id = 8
    assert commander.decide(commander.upgrade_to("1.1.0")).result is Result.BUSY


def test_claim_b8_only_what_is_commanded_is_touched_and_read_back(commander: Commander) -> None:
    system = commander.system
    commander.start()
    before = system.engine.read_nor()
    at = APPLICATION.end - BLOCK
    assert commander.do(commander.erase(at)) is Result.SUCCESS
    assert commander.results[-1].digest == BLANK
    data = bytes(range(256)) * 3
    assert commander.do(commander.write(at + 5, data)) is Result.SUCCESS
    assert commander.results[-1].digest == hashlib.sha256(data).digest()
    expected = bytearray(before)
    expected[at + 5 : at + 5 + len(data)] = data
    assert commander.do(commander.check(at, bytes(expected[at : at + BLOCK]))) is Result.SUCCESS
    now = system.engine.read_nor()
    journal = slice(JOURNAL.offset, JOURNAL.end)  # says that the application is changed
    expected[journal] = now[journal]
    assert now == bytes(expected)
    for line in ("erased 0x001c0000", "wrote 768 bytes", "checked"):
        system.console.expect(f"resident: {line}")


def test_claim_b8_what_is_there_already_decides_what_can_be_written(commander: Commander) -> None:
    commander.start()
    at = APPLICATION.end - BLOCK
    assert commander.do(commander.erase(at)) is Result.SUCCESS
    assert commander.do(commander.write(at, b"\xf0" * 16)) is Result.SUCCESS
    before = commander.system.engine.read_nor()
    assert commander.do(commander.write(at, b"\x0f" * 16)) is Result.OTHER_CONTENT
    assert commander.results[-1].digest == hashlib.sha256(b"\xf0" * 16).digest()
    assert commander.system.engine.read_nor() == before
    assert commander.do(commander.check(at, b"\x0f" * 16)) is Result.OTHER_CONTENT
    assert commander.do(commander.write(at, b"\xf0" * 16)) is Result.SUCCESS  # once more


def test_claim_b8_what_reads_right_is_programmed_all_the_same(commander: Commander) -> None:
    """Cells may be weak after a torn operation; see also docs/campaign.md."""
    commander.start()
    image = commander.system.releases.signed["1.0.0"]
    engine = commander.system.engine
    count = engine.op_count  # type: ignore[attr-defined]
    assert commander.do(commander.write(APPLICATION.offset, image[:896])) is Result.SUCCESS
    assert engine.op_count > count  # type: ignore[attr-defined]


def test_claim_b9_the_terminal_answers_while_a_block_is_being_erased(
    commander: Commander,
) -> None:
    system = commander.system
    commander.start()
    engine = system.engine
    erase = commander.erase()
    assert commander.said(erase) is Result.SUCCESS
    answers: list[float] = []
    while not commander.results:
        status = commander.status()
        answers.append(engine.now)
        assert (status.phase, status.update_id) == (Phase.COMMANDED, 7)
        assert status.received == erase.step
    (operation,) = [op for op in engine.ops if op.offset == erase.offset]  # type: ignore[attr-defined]
    during = [t for t in answers if operation.start < t - system.link.latency < operation.end]
    assert operation.end - operation.start > 0.3
    assert len(during) >= 2, "the link was silent while the NOR was busy"
    assert engine.faults == []
    assert commander.status().file_size == 0


def test_claim_b9_a_status_tells_what_is_being_carried_out(commander: Commander) -> None:
    commander.start()
    erase = commander.erase()
    assert commander.said(erase) is Result.SUCCESS
    status = commander.status()
    assert (status.phase, status.update_id) == (Phase.COMMANDED, 7)
    assert (status.received, status.file_size) == (erase.step, 1)
    commander.result_of(erase.step)
    assert commander.status().file_size == 0


def bad_commands(commander: Commander) -> list[tuple[Any, Result]]:
    """Commands that must not be carried out, and what is said to them."""
    update_id, nonce = commander.update_id, commander.nonce
    app, journal = APPLICATION.offset, LAYOUT.partition("journal").offset
    malformed, turn = Result.MALFORMED_ANNOUNCEMENT, Result.OUT_OF_TURN
    return [
        (Erase(update_id, nonce, 50, 0, BLOCK), malformed),
        (Erase(update_id, nonce, 50, journal, BLOCK), malformed),
        (Erase(update_id, nonce, 50, LAYOUT.partition("identity").offset, BLOCK), malformed),
        (Erase(update_id, nonce, 50, USERDATA.end, BLOCK), malformed),
        (Erase(update_id, nonce, 50, app + 512, BLOCK), malformed),
        (Erase(update_id, nonce, 50, app, 2 * BLOCK), malformed),
        (Erase(update_id, nonce, 50, app, 4), malformed),
        (Erase(update_id, nonce, 50, 0xFFFC0000, BLOCK), malformed),
        (Erase(update_id + 1, nonce, 50, app, BLOCK), turn),
        (Erase(update_id, nonce ^ 1, 50, app, BLOCK), turn),
        (Write(update_id, nonce, 50, 0, b"x"), malformed),
        (Write(update_id, nonce, 50, app - 1, b"xx"), malformed),
        (Write(update_id, nonce, 50, APPLICATION.end - 1, b"xx"), malformed),
        (Write(update_id, nonce, 50, USERDATA.offset, b"\xff"), malformed),
        (Check(update_id, nonce, 50, USERDATA.offset, 1, bytes(32)), malformed),
        (Check(update_id, nonce, 50, APPLICATION.end - 1, 2, bytes(32)), malformed),
        (Write(update_id, nonce, 50, 0xFFFFFFFF, b"xx"), malformed),
        (Write(update_id, nonce ^ 0x80000000, 50, app, b"\0"), turn),
    ]


def test_claim_b10_bad_commands_are_refused_one_by_one(commander: Commander) -> None:
    commander.start()
    before = commander.system.engine.read_nor()
    for command, result in bad_commands(commander):
        assert commander.said(command) is result, command
    data = Write(7, commander.nonce, 50, APPLICATION.offset, b"\0").encode()
    forged = data.replace(hashlib.sha256(b"\0").digest()[:8], bytes(8))
    answer = commander.ask("write", forged)
    assert answer.payload == bytes((0xA1, 1, Result.MALFORMED_ANNOUNCEMENT))
    for path in ("erase", "write", "check", "finish", "leave", "upgrade"):
        for payload in (b"\xff", b"\xa0", b"\xa1\x01\x07", data[:-1]):
            if (path, payload) != ("leave", data):
                answer = commander.ask(path, payload)
                assert answer.code == aiocoap.BAD_REQUEST, (path, payload)
        assert commander.ask(path, b"", aiocoap.GET).code == aiocoap.METHOD_NOT_ALLOWED
    commander.system.bench.run_for(5)
    assert commander.results == []
    assert commander.system.engine.read_nor() == before


def test_claim_b10_a_repeated_erase_does_not_erase_what_has_been_written_since(
    commander: Commander,
) -> None:
    commander.start()
    at = APPLICATION.offset
    erase = commander.erase(at)
    assert commander.do(erase) is Result.SUCCESS
    count = len(commander.results)
    assert commander.said(erase) is Result.SUCCESS  # the same step: its result again
    assert commander.system.bench.run_until(lambda: len(commander.results) > count, 20)
    assert commander.results[-1] == commander.results[-2]
    assert [op.offset for op in commander.system.engine.ops].count(at) == 1  # type: ignore[attr-defined]
    assert commander.do(commander.write(at, b"new")) is Result.SUCCESS
    assert commander.said(erase) is Result.OUT_OF_TURN
    commander.system.bench.run_for(5)
    assert commander.system.engine.read_nor()[at : at + 3] == b"new"


def test_claim_b10_another_command_with_the_same_number_is_refused(commander: Commander) -> None:
    commander.start()
    assert commander.do(commander.erase(USERDATA.offset)) is Result.SUCCESS
    commander.step -= 1
    assert commander.said(commander.erase(USERDATA.offset + BLOCK)) is Result.OUT_OF_TURN
    commander.step -= 1
    assert commander.said(commander.write(APPLICATION.offset, b"x")) is Result.OUT_OF_TURN


def test_claim_b10_one_command_at_a_time(commander: Commander) -> None:
    commander.start()
    first = commander.erase(USERDATA.offset)
    assert commander.said(first) is Result.SUCCESS
    second = commander.erase(USERDATA.offset + BLOCK)
    assert commander.said(second) is Result.BUSY
    assert commander.said(first) is Result.SUCCESS  # it is being carried out
    commander.result_of(first.step)
    assert commander.do(second) is Result.SUCCESS
    assert [result.step for result in commander.results] == [1, 2]


def test_claim_b10_a_result_is_sent_until_the_server_has_taken_it(commander: Commander) -> None:
    commander.start()
    commander.server.answers["result"] = aiocoap.SERVICE_UNAVAILABLE
    write = commander.write(APPLICATION.end - 4, b"\0\0\0\0")
    assert commander.do(write) is Result.SUCCESS
    commander.system.bench.run_for(10)
    assert len(commander.results) > 2
    del commander.server.answers["result"]
    commander.system.bench.run_for(10)
    count = len(commander.results)
    commander.system.bench.run_for(30)
    assert len(commander.results) == count
    assert len({result.step for result in commander.results}) == 1


@pytest.mark.parametrize("seed", range(3))
def test_claim_b10_on_a_bad_link_every_command_is_carried_out_once(
    unbrick_make_system: Callable[..., System], seed: int
) -> None:
    plan = FaultPlan(drop=0.1, duplicate=0.2, reorder=0.2, corrupt=0.05)
    system = unbrick_make_system(faults=Faults(plan, seed))
    commander = Commander(system)
    commander.start()
    at = APPLICATION.offset
    pieces = [bytes((number,)) * 100 for number in range(20)]
    count = system.engine.op_count  # type: ignore[attr-defined]
    assert commander.do(commander.erase(at)) is Result.SUCCESS
    for number, piece in enumerate(pieces):
        assert commander.do(commander.write(at + 100 * number, piece)) is Result.SUCCESS
    written = [op.offset for op in system.engine.ops[count:]]  # type: ignore[attr-defined]
    assert written.count(at) == 2  # the erase, and the first write
    assert written == sorted(written), "something was carried out late"
    assert system.engine.read_nor()[at : at + 2000] == b"".join(pieces)
    assert sum(system.link.faults.counts.values()) > 20


def test_claim_b10_whatever_comes_over_the_link_stays_within_its_bounds(
    commander: Commander,
) -> None:
    """Commands of the right update and start, with bytes changed at random."""
    system = commander.system
    commander.start()
    before = system.engine.read_nor()
    chance = random.Random(10)
    for number in range(300):
        step = number + chance.randrange(1, 4)
        head = commander.update_id, commander.nonce, step
        offset = chance.randrange(0x0C0000, 0x300000)
        write = Write(*head, offset, chance.randbytes(chance.randrange(1, 40)))
        erase = Erase(*head, offset // BLOCK * BLOCK, BLOCK)
        check = Check(*head, offset, chance.randrange(1, 1 << 20), bytes(32))
        command = chance.choice((write, write, write, write, erase, check))
        payload = bytearray(command.encode())
        for _ in range(chance.randrange(3)):
            payload[chance.randrange(len(payload))] = chance.randrange(256)
        answer = commander.ask(command.path, bytes(payload))
        assert answer.code in {aiocoap.CHANGED, aiocoap.BAD_REQUEST}
    system.bench.run_for(5)
    after = system.engine.read_nor()
    for start, end in ((0, 0x80000), (0x100000 - BLOCK, 0x100000), (USERDATA.end, len(after))):
        assert after[start:end] == before[start:end]
    assert commander.status().phase is Phase.COMMANDED
    assert len({result.step for result in commander.results}) > 20, "some were sound"


def test_claim_b10_after_a_power_cut_commands_of_before_are_not_obeyed(
    commander: Commander,
) -> None:
    system = commander.system
    old = commander.start()
    assert commander.do(commander.erase()) is Result.SUCCESS
    stale = commander.erase()
    system.bench.restart()
    new = commander.wait_commanded()
    assert new.nonce != old.nonce
    assert (new.version, new.digest) == ("", bytes(32))
    assert commander.said(stale) is Result.OUT_OF_TURN
    commander.rewrite()
    assert commander.do(commander.finish()) is Result.SUCCESS
    system.console.expect("update: 1.1.0 confirmed", 60)


def test_every_start_has_a_nonce_of_its_own(commander: Commander) -> None:
    nonces = [commander.start().nonce]
    for _ in range(20):
        commander.system.bench.restart()
        nonces.append(commander.wait_commanded().nonce)
    assert len(set(nonces)) == 21


@pytest.mark.slow
def test_finishing_with_anything_but_the_image_commanded_is_refused(commander: Commander) -> None:
    commander.start()
    # The application of before is valid, but it is not what was commanded.
    assert commander.do(commander.finish()) is Result.IMAGE_HASH_WRONG
    image = commander.system.releases.signed["1.1.0"]
    assert commander.do(commander.erase()) is Result.SUCCESS
    assert commander.do(commander.finish()) is Result.IMAGE_MALFORMED
    for write in commander.writes(image):
        wrong = write.offset == APPLICATION.offset + 896 * 3
        data = bytes(len(write.data)) if wrong else write.data
        assert commander.do(replace(write, data=data)) is Result.SUCCESS
    assert commander.do(commander.finish()) is Result.IMAGE_HASH_WRONG
    commander.system.bench.restart()
    commander.wait_commanded()  # it has not forgotten what it was at
    commander.rewrite()
    assert commander.do(commander.finish()) is Result.SUCCESS
    assert commander.results[-1].digest == NOTHING
    commander.system.console.expect("update: 1.1.0 confirmed", 60)


def test_claim_b10_older_software_is_refused_also_when_the_start_message_lies(
    unbrick_make_system: Callable[..., System],
) -> None:
    commander = Commander(unbrick_make_system(installed="1.3.0"))
    commander.system.power_on()
    commander.system.wait_registered()
    older = commander.upgrade_to("1.0.0", backup=commander.backup())
    assert commander.decide(older).result is Result.OLDER_THAN_COUNTER
    assert commander.decide(replace(older, security_counter=99)).result is Result.SUCCESS
    commander.wait_commanded()
    commander.rewrite("1.0.0")
    assert commander.do(commander.finish()) is Result.OLDER_THAN_COUNTER
    assert commander.do(commander.leave()) is Result.SUCCESS
    commander.system.console.expect("restoration: rewrite was interrupted", 60)


def test_leaving_before_anything_was_erased_starts_the_application_again(
    commander: Commander,
) -> None:
    commander.start()
    assert commander.do(commander.leave()) is Result.SUCCESS
    commander.system.console.expect("terminal: unbrick-terminal 1.0.0", 60)
    commander.system.bench.run_for(5)
    registration = commander.server.registrations[-1]
    assert registration.state is TerminalState.APPLICATION
    assert (registration.last_update_id, registration.last_result) == (7, Result.INTERRUPTED)


def test_leaving_without_an_application_leads_into_restoration(commander: Commander) -> None:
    system = commander.system
    commander.start()
    assert commander.do(commander.erase()) is Result.SUCCESS
    assert commander.do(commander.leave()) is Result.SUCCESS
    system.console.expect("restoration: rewrite was interrupted", 60)
    system.console.expect("link: registered as in restoration", 60)
    registration = commander.server.registrations[-1]
    assert registration.state is TerminalState.RESTORATION
    assert (registration.last_update_id, registration.last_result) == (7, Result.REWRITE_FAILED)
    system.restore(system.releases.signed["1.0.0"])


def test_leaving_when_all_is_written_puts_the_new_application_on_trial(
    commander: Commander,
) -> None:
    commander.start()
    commander.rewrite()
    assert commander.do(commander.leave()) is Result.SUCCESS
    commander.system.console.expect("boot: trial start 1 of 3", 60)
    commander.system.console.expect("update: 1.1.0 confirmed", 60)


def test_without_a_server_the_terminal_starts_what_it_has(commander: Commander) -> None:
    system = commander.system
    commander.start()
    start = system.engine.now
    system.link.cut_off(math.inf)
    system.console.expect("resident: left, the server does not answer", 120)
    assert 59 < system.engine.now - start < 62
    system.console.expect("terminal: unbrick-terminal 1.0.0", 60)


def test_without_a_server_and_without_an_application_the_wire_is_heard(
    commander: Commander,
) -> None:
    system = commander.system
    commander.start()
    assert commander.do(commander.erase()) is Result.SUCCESS
    system.link.cut_off(math.inf)
    system.console.expect("restoration: the commanded update was broken off", 120)
    system.restore(system.releases.signed["1.0.0"])
    assert application(system).startswith(system.releases.signed["1.0.0"])


def test_a_server_that_comes_back_late_goes_on_all_the_same(commander: Commander) -> None:
    system = commander.system
    commander.start()
    assert commander.do(commander.erase()) is Result.SUCCESS
    system.link.cut_off(system.engine.now + 100)
    system.console.expect("restoration: send the signed image by YMODEM", 120)
    system.bench.run_for(60)
    image = system.releases.signed["1.1.0"]
    for write in commander.writes(image):
        assert commander.do(write) is Result.SUCCESS
    assert commander.do(commander.finish()) is Result.SUCCESS
    system.console.expect("update: 1.1.0 confirmed", 60)


def test_a_full_image_is_taken_instead_of_commands(commander: Commander) -> None:
    system = commander.system
    commander.start()
    assert commander.do(commander.erase()) is Result.SUCCESS
    system.server_returns(system.server)
    system.publish("1.1.0")
    system.start_update("1.1.0")
    system.console.expect("restoration: accepted 1.1.0+0", 300)
    system.console.expect("update: 1.1.0 confirmed", 60)

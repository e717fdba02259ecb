"""What the user has stored leaves the terminal sealed, and comes back to it (row B6): the real
application, with a scripted server on its link."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import aiocoap
import pytest
from scripted_server import SERIAL, USERDATA, World

from unbrick.engine.inprocess import InProcessEngine
from unbrick.errors import LinkError
from unbrick.image.format import inspect
from unbrick.layout import reference_layout
from unbrick.wire.commands import PIECE_SIZE, RestoreAnswer, Upgrade
from unbrick.wire.messages import Decision, Result
from unbrick.wire.userdata import PhonebookEntry, open_backup, seal, seal_backup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from unbrick.firmware.signed import Releases

LAYOUT = reference_layout()
UPDATE = 5
PEOPLE = (("Alice", "+441632960123"), ("José Núñez", "112"), ("Bob the builder", "*100#"))
CAPACITY = 200
JOURNAL = slice(LAYOUT.partition("journal").offset, LAYOUT.partition("journal").end)


@pytest.fixture
def engine(unbrick_releases: Releases) -> Iterator[InProcessEngine]:
    with InProcessEngine(unbrick_releases.elf_files) as made:
        yield made


@pytest.fixture
def world(engine: InProcessEngine, unbrick_releases: Releases) -> World:
    """A terminal with a few entries."""
    made = World(engine, unbrick_releases)
    made.start()
    made.add(*PEOPLE)
    return made


def people(world: World) -> list[tuple[str, str]]:
    return sorted((entry.name, entry.number) for entry in world.entries())


def many(count: int) -> list[PhonebookEntry]:
    """Entries as long as they can be."""
    return [
        PhonebookEntry(number, f"Somebody with number {number:010}", f"+{number:022}")
        for number in range(1, count + 1)
    ]


def flipped(sealed: bytes, bit: int) -> bytes:
    changed = bytearray(sealed)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# ---- Sealed ----


def test_claim_b6_what_the_user_has_stored_is_backed_up_and_given_back(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    world.start()
    world.add(*PEOPLE)
    before = world.entries()
    sealed = world.back_up(UPDATE)
    world.console.expect("update: user's data backed up, 3 entries\r\n")
    for name, number in PEOPLE:
        assert name.encode() not in sealed
        assert number.encode() not in sealed
    assert open_backup(sealed, world.key, SERIAL, UPDATE) == before
    world.erase_userdata()
    assert world.entries() == []
    assert world.give_back(UPDATE, sealed) == RestoreAnswer(Result.SUCCESS, len(sealed))
    world.console.expect("update: user's data given back, 3 entries, 3 of them stored\r\n")
    assert world.entries() == before
    world.restart()
    assert world.entries() == before


def test_claim_b6_nobody_else_can_read_or_change_it(world: World) -> None:
    sealed = world.back_up(UPDATE)
    assert sealed == seal_backup(world.entries(), world.key, SERIAL, UPDATE)
    for key, serial, update in (
        (bytes(32), SERIAL, UPDATE),
        (world.key, "UB-000008", UPDATE),
        (world.key, SERIAL, UPDATE + 1),
    ):
        with pytest.raises(LinkError, match="does not open"):
            open_backup(sealed, key, serial, update)
    for bit in range(0, len(sealed) * 8, 5):
        with pytest.raises(LinkError):
            open_backup(flipped(sealed, bit), world.key, SERIAL, UPDATE)


def test_claim_b6_the_terminal_takes_only_what_it_has_sealed_for_that_update(world: World) -> None:
    sealed = world.back_up(UPDATE)
    entries = world.entries()
    world.erase_userdata()
    before = world.engine.read_nor()
    refused = RestoreAnswer(Result.BACKUP_UNREADABLE)
    chance = random.Random(1)
    forged = [flipped(sealed, chance.randrange(len(sealed) * 8)) for _ in range(20)]
    forged += [flipped(sealed, bit) for bit in (0, 8 * 8, 20 * 8, len(sealed) * 8 - 1)]
    forged += [sealed[:-1], sealed[:36], sealed[:35], sealed[:1], sealed + b"\0"]
    forged.append(seal_backup(entries, world.key, "UB-000008", UPDATE))
    forged.append(seal_backup(entries, world.key, SERIAL, UPDATE + 1))
    forged.append(seal_backup(entries, bytes(32), SERIAL, UPDATE))
    for wrong in forged:
        assert world.give_back(UPDATE, wrong) == refused
    assert world.give_back(UPDATE + 1, sealed) == refused
    world.console.expect("update: user's data not given back, the backup cannot be opened\r\n")
    assert world.engine.read_nor() == before
    assert world.give_back(UPDATE, sealed).result is Result.SUCCESS


@pytest.mark.parametrize(
    "inside",
    [
        b"",
        b"\x82\x02\x80",
        b"\x82\x01\x81\x83\x01\x61a\x61x",
        seal_backup([], bytes(32), SERIAL, UPDATE),
        bytes(1000),
    ],
)
def test_what_is_sealed_but_no_phonebook_is_refused(world: World, inside: bytes) -> None:
    before = world.engine.read_nor()
    sealed = seal(inside, world.key, SERIAL, UPDATE)
    assert world.give_back(UPDATE, sealed) == RestoreAnswer(Result.BACKUP_UNREADABLE)
    assert world.engine.read_nor() == before


def test_the_same_data_makes_the_same_bytes_and_other_data_others(world: World) -> None:
    sealed = world.back_up(UPDATE)
    assert world.back_up(UPDATE) == sealed
    world.restart()
    assert world.back_up(UPDATE) == sealed
    others = [world.back_up(UPDATE + 1)]
    world.add(("Dora", "9"))
    others.append(world.back_up(UPDATE))
    nonces = {data[8:20] for data in (sealed, *others)}
    assert len(nonces) == len(others) + 1
    assert all(other[20:40] != sealed[20:40] for other in others)


def test_an_empty_phonebook_is_backed_up_too(
    engine: InProcessEngine, unbrick_releases: Releases
) -> None:
    world = World(engine, unbrick_releases)
    world.start()
    sealed = world.back_up(UPDATE)
    assert open_backup(sealed, world.key, SERIAL, UPDATE) == []
    assert world.give_back(UPDATE, sealed) == RestoreAnswer(Result.SUCCESS, len(sealed))


# ---- The start of a commanded update ----


def upgrade(world: World, sealed: bytes, update_id: int = UPDATE) -> Result:
    """What the terminal says to a start message with this backup."""
    image = world.releases.signed["2.0.0"]
    info = inspect(image)
    message = Upgrade(
        update_id,
        info.version,
        info.digest,
        len(image),
        info.signature,
        info.hardware_id,
        info.security_counter,
        hashlib.sha256(sealed).digest(),
    )
    answer = world.ask("upgrade", message.encode())
    assert answer.code == aiocoap.CHANGED
    return Decision.decode(answer.payload).result


def test_claim_b6_an_upgrade_is_refused_when_the_users_data_has_changed_since_its_backup(
    world: World,
) -> None:
    sealed = world.back_up(UPDATE)
    journal = world.engine.read_nor()[JOURNAL]
    assert upgrade(world, sealed, UPDATE + 1) is Result.USERDATA_CHANGED
    world.add(("Dora", "9"))
    assert upgrade(world, sealed) is Result.USERDATA_CHANGED
    world.console.expect("update: refused, the user's data has changed since its backup\r\n")
    world.console.command("pb del 4")
    world.console.command("pb del 2")
    assert upgrade(world, sealed) is Result.USERDATA_CHANGED
    assert world.engine.read_nor()[JOURNAL] == journal
    sealed = world.back_up(UPDATE)
    world.restart()  # Nothing of the backup is in the terminal's memory any more.
    assert upgrade(world, sealed) is Result.SUCCESS
    world.console.expect("update: commanded to 2.0.0\r\n")


@pytest.mark.parametrize(
    ("version", "key", "result"),
    [("1.0.0", b"", Result.BACKUP_UNREADABLE), ("2.0.0", None, Result.USERDATA_UNREADABLE)],
)
def test_an_upgrade_without_a_backup_is_refused(
    engine: InProcessEngine,
    unbrick_releases: Releases,
    version: str,
    key: bytes | None,
    result: Result,
) -> None:
    world = World(engine, unbrick_releases, key=key)
    world.start()
    world.add(*PEOPLE)
    world.install(version)
    sealed = seal_backup(world.entries(), bytes(32), SERIAL, UPDATE)
    journal = engine.read_nor()[JOURNAL]
    assert upgrade(world, sealed) is result
    assert engine.read_nor()[JOURNAL] == journal


# ---- Given back ----


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), [("1.0.0", "2.0.0"), ("2.0.0", "1.0.0")])
def test_claim_b6_software_with_another_format_takes_it_over(
    make_world: Callable[..., World], old: str, new: str
) -> None:
    world = make_world(installed=old)
    world.start()
    world.add(*PEOPLE)
    before = sorted(world.entries())
    sealed = world.back_up(UPDATE)
    world.install(new)
    assert "phonebook: written by other software" in world.console.text
    assert "written by other software" in world.console.command("pb list")
    kept = world.engine.read_nor()[USERDATA]
    assert world.backup_piece(UPDATE, 0).result is Result.USERDATA_UNREADABLE
    assert world.give_back(UPDATE, sealed) == RestoreAnswer(Result.USERDATA_UNREADABLE)
    assert world.engine.read_nor()[USERDATA] == kept
    world.erase_userdata()
    assert world.give_back(UPDATE, sealed).result is Result.SUCCESS
    assert sorted(world.entries()) == before
    assert world.engine.read_nor()[USERDATA] != kept


def test_what_is_there_stays_and_what_is_missing_comes(world: World) -> None:
    sealed = world.back_up(UPDATE)
    world.console.command("pb del 2")
    world.add(("Dora", "9"))
    assert world.give_back(UPDATE, sealed).result is Result.SUCCESS
    world.console.expect("given back, 3 entries, 1 of them stored")
    assert people(world) == sorted([*PEOPLE, ("Dora", "9")])


def test_claim_b6_giving_back_again_changes_nothing(world: World) -> None:
    sealed = world.back_up(UPDATE)
    world.erase_userdata()
    assert world.give_back(UPDATE, sealed).result is Result.SUCCESS
    before = world.engine.read_nor()
    for _ in range(3):
        assert world.give_back(UPDATE, sealed) == RestoreAnswer(Result.SUCCESS, len(sealed))
    assert world.engine.read_nor() == before
    world.console.expect("3 entries, 0 of them stored")


def test_claim_b6_power_may_be_cut_at_every_operation_of_giving_back(
    engine: InProcessEngine, unbrick_releases: Releases
) -> None:
    entries = many(4)
    world = World(engine, unbrick_releases, installed="2.0.0")
    world.start()
    world.add(("Dora", "9"))  # The first write after a start makes sure of what is there.
    world.restart()
    begin = engine.read_nor()
    sealed = seal_backup(entries, world.key, SERIAL, UPDATE)
    expected = sorted([*((entry.name, entry.number) for entry in entries), ("Dora", "9")])
    operations = 0
    while True:
        world.bench.cut_power()
        world.load(begin)
        world.start()
        first = engine.op_count
        engine.cut_before_op(first + operations)
        ticket = world.server.ask("restore", world.restore_request(UPDATE, sealed, 0))
        world.bench.run_until(
            lambda ticket=ticket: engine.cut_reached or ticket in world.server.responses, 60
        )
        if not engine.cut_reached:
            break
        operations += 1
        world.bench.cut_power()
        engine.cut_before_op(None)
        world.bench.run_for(1)  # What was sent before the cut still arrives.
        world.start()
        if world.server.responses.get(ticket) is None:
            assert world.give_back(UPDATE, sealed) == RestoreAnswer(Result.SUCCESS, len(sealed))
        assert people(world) == expected, f"operation {operations}"
        world.restart()
        assert people(world) == expected, f"operation {operations}"
    assert operations > len(entries)


@pytest.mark.slow
def test_claim_b6_a_full_phonebook_comes_along(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    world.start()
    entries = many(CAPACITY)
    sealed = seal_backup(entries, world.key, SERIAL, UPDATE)
    assert len(sealed) > 15 * PIECE_SIZE
    assert world.give_back(UPDATE, sealed) == RestoreAnswer(Result.SUCCESS, len(sealed))
    assert world.entries() == entries
    assert world.back_up(UPDATE) == sealed


def test_without_room_it_is_said_and_what_fits_is_stored(
    engine: InProcessEngine, unbrick_releases: Releases
) -> None:
    world = World(engine, unbrick_releases)
    world.start()
    world.add(("Dora", "9"))
    sealed = seal_backup(many(CAPACITY), world.key, SERIAL, UPDATE)
    assert world.give_back(UPDATE, sealed) == RestoreAnswer(Result.NO_ROOM)
    world.console.expect("update: user's data not given back, no room for the user's data\r\n")
    assert len(world.entries()) == CAPACITY
    world.console.command("pb del 1")
    assert world.give_back(UPDATE, sealed).result is Result.SUCCESS
    assert len(world.entries()) == CAPACITY


# ---- Piece by piece ----


def test_pieces_are_handed_out_of_what_was_sealed_last(world: World) -> None:
    world.give_back(UPDATE, seal_backup(many(30), world.key, SERIAL, UPDATE))
    out_of_turn = Result.OUT_OF_TURN
    assert world.backup_piece(UPDATE, PIECE_SIZE).result is out_of_turn
    size = world.backup_piece(UPDATE, 0).size
    last = size // PIECE_SIZE * PIECE_SIZE
    assert len(world.backup_piece(UPDATE, PIECE_SIZE).data) == PIECE_SIZE
    assert len(world.backup_piece(UPDATE, last).data) == size - last
    assert world.backup_piece(UPDATE, last + PIECE_SIZE).result is out_of_turn
    assert world.backup_piece(UPDATE + 1, PIECE_SIZE).result is out_of_turn
    # What is typed now is in the next backup, not in some pieces of this one.
    sealed = b"".join(
        world.backup_piece(UPDATE, at).data for at in range(0, PIECE_SIZE, PIECE_SIZE)
    )
    world.add(("Dora", "9"))
    sealed += b"".join(
        world.backup_piece(UPDATE, at).data for at in range(PIECE_SIZE, size, PIECE_SIZE)
    )
    assert len(open_backup(sealed, world.key, SERIAL, UPDATE)) == 33
    world.restart()
    assert world.backup_piece(UPDATE, PIECE_SIZE).result is out_of_turn


def test_pieces_are_given_back_in_their_order(world: World) -> None:
    sealed = seal_backup(many(50), world.key, SERIAL, UPDATE)
    wanted = RestoreAnswer
    assert len(sealed) > 3 * PIECE_SIZE
    assert world.restore_piece(UPDATE, sealed, PIECE_SIZE) == wanted(Result.SUCCESS, 0)
    assert world.restore_piece(UPDATE, sealed, 0) == wanted(Result.SUCCESS, PIECE_SIZE)
    assert world.restore_piece(UPDATE, sealed, 2 * PIECE_SIZE) == wanted(Result.SUCCESS, PIECE_SIZE)
    assert world.restore_piece(UPDATE, sealed, PIECE_SIZE) == wanted(Result.SUCCESS, 2 * PIECE_SIZE)
    assert world.restore_piece(UPDATE, sealed, PIECE_SIZE) == wanted(Result.SUCCESS, 2 * PIECE_SIZE)
    # Another backup begins anew, and so does the same one.
    other = seal_backup(many(49), world.key, SERIAL, UPDATE)
    assert world.restore_piece(UPDATE, other, 2 * PIECE_SIZE) == wanted(Result.SUCCESS, 0)
    assert world.restore_piece(UPDATE, sealed, 2 * PIECE_SIZE) == wanted(Result.SUCCESS, 0)
    assert world.give_back(UPDATE, sealed) == wanted(Result.SUCCESS, len(sealed))
    # The answer to the last piece was lost.
    last = len(sealed) // PIECE_SIZE * PIECE_SIZE
    assert world.restore_piece(UPDATE, sealed, last) == wanted(Result.SUCCESS, len(sealed))
    world.restart()
    assert world.restore_piece(UPDATE, sealed, last) == wanted(Result.SUCCESS, 0)
    assert len(world.entries()) == 53


def test_pieces_that_do_not_make_the_whole_are_refused(world: World) -> None:
    sealed = seal_backup(many(20), world.key, SERIAL, UPDATE)
    wrong = flipped(sealed, 0)
    checksum = hashlib.sha256(wrong).digest()
    assert world.restore_piece(UPDATE, sealed, 0, checksum).result is Result.SUCCESS
    answer = world.restore_piece(UPDATE, sealed, PIECE_SIZE, checksum)
    assert answer == RestoreAnswer(Result.FILE_DIGEST_WRONG)
    assert people(world) == sorted(PEOPLE)


MALFORMED = {
    "backup": ["", "a0", "a1 01 05", "a2 01 00 02 00", "a2 01 05 02 01", "a2 01 05 02 19 7000"],
    "restore": [
        "",
        "a4 01 05 02 01 03 5820" + "00" * 32 + "04 00",  # no data
        "a5 01 05 02 01 03 5820" + "00" * 32 + "04 00 05 40",  # none
        "a5 01 05 02 01 03 5820" + "00" * 32 + "04 00 05 42 0000",  # more than there is
        "a5 01 05 02 01 03 5820" + "00" * 32 + "04 01 05 41 00",  # beyond the end
        "a5 01 05 02 19 7000 03 5820" + "00" * 32 + "04 00 05 41 00",  # too large
        "a5 01 05 02 02 03 5820" + "00" * 32 + "04 01 05 41 00",  # an offset of no piece
        "a5 01 00 02 01 03 5820" + "00" * 32 + "04 00 05 41 00",  # no update
        "a5 01 05 02 00 03 5820" + "00" * 32 + "04 00 05 41 00",  # nothing
    ],
}


@pytest.mark.parametrize("path", sorted(MALFORMED))
def test_malformed_requests_are_refused(world: World, path: str) -> None:
    before = world.engine.read_nor()
    for payload in MALFORMED[path]:
        assert world.ask(path, bytes.fromhex(payload)).code.dotted == "4.00", payload
    assert world.engine.read_nor() == before


# ---- The terminal ----


def test_a_terminal_without_a_key_says_so(
    engine: InProcessEngine, unbrick_releases: Releases
) -> None:
    world = World(engine, unbrick_releases, key=b"")
    world.start()
    world.add(*PEOPLE)
    assert world.backup_piece(UPDATE, 0).result is Result.BACKUP_UNREADABLE
    world.console.expect("update: user's data not backed up, the backup cannot be opened")
    sealed = seal_backup(many(1), bytes(32), SERIAL, UPDATE)
    assert world.give_back(UPDATE, sealed) == RestoreAnswer(Result.BACKUP_UNREADABLE)
    assert people(world) == sorted(PEOPLE)


class Typist:
    """Types 1,000 characters a second that the line editor passes over."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write, self.next = write, 0.0

    def step(self, now: float) -> float:
        if now >= self.next:
            self.write(b"\0" * 10)
            self.next = now + 0.01
        return self.next


def test_nothing_that_is_typed_meanwhile_is_lost(world: World, engine: InProcessEngine) -> None:
    """Sealing, opening and storing take their time."""
    sealed = seal_backup(many(CAPACITY - 3), world.key, SERIAL, UPDATE)
    world.bench.peers.append(Typist(world.console.write))
    world.give_back(UPDATE, sealed)
    world.give_back(UPDATE, sealed)
    world.back_up(UPDATE)
    assert engine.overruns == (0, 0)


def test_in_clear_it_does_not_stay_in_memory(world: World, engine: InProcessEngine) -> None:
    entries = many(100)
    world.give_back(UPDATE, seal_backup(entries, world.key, SERIAL, UPDATE))
    sram = engine.read_sram()
    left = [entry for entry in entries if entry.name.encode() in sram]
    assert len(left) <= 2  # What is on the stack of the last ones.
    world.back_up(UPDATE)
    sram = engine.read_sram()
    left = [entry for entry in entries if entry.name.encode() in sram]
    assert len(left) <= 2
    assert world.key not in sram

"""Success is what was read back from the NOR; what the apparatus says when it cannot succeed."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any

import pytest
from image_samples import signed, write_key
from scripted_terminal import ScriptedTerminal

from unbrick.errors import RestoreError
from unbrick.image.format import inspect
from unbrick.restore.apparatus import Apparatus, RestorationStage

if TYPE_CHECKING:
    from collections.abc import Callable

TICK_S = 0.02


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return signed(write_key(tmp_path_factory.mktemp("keys") / "key.pem"), 5000)


class Desk:
    """An apparatus and a terminal, in virtual time."""

    def __init__(
        self,
        terminal: ScriptedTerminal,
        image: bytes,
        kind: type[Apparatus] = Apparatus,
        **options: Any,
    ) -> None:
        self.terminal, self.image, self.now = terminal, image, 0.0
        self.apparatus = kind(terminal, image, inspect(image), **options)
        terminal.start(0.0)

    def run(self, until: Callable[[], bool] = lambda: False, limit: float = 900.0) -> Desk:
        while not self.apparatus.finished and self.now < limit and not until():
            self.terminal.step(self.now)
            self.apparatus.step(self.now)
            self.now += TICK_S
        return self

    @property
    def error(self) -> str:
        assert self.apparatus.stage is RestorationStage.FAILED
        assert isinstance(self.apparatus.error, RestoreError)
        assert self.apparatus.error.hint
        return str(self.apparatus.error)


def says_the_truth(desk: Desk) -> bool:
    """What must hold whatever the terminal does: success is said only of what lies in the NOR."""
    return desk.apparatus.stage is not RestorationStage.DONE or desk.terminal.image == desk.image


class Careless(Apparatus):
    """A seeded bug: reports success without reading back."""

    def _read_back(self, now: float) -> None:
        del now
        self.stage = RestorationStage.DONE


WRONG: dict[str, Callable[[bytes], bytes]] = {
    "a bit": lambda image: image[:-1] + bytes([image[-1] ^ 1]),
    "cut off": lambda image: image[:-1],
    "longer": lambda image: image + b"\xff",
    "other": lambda image: hashlib.sha256(image).digest(),
}


@pytest.mark.parametrize("stores", WRONG.values(), ids=WRONG)
def test_a_terminal_that_confirms_but_holds_something_else_is_not_restored(
    image: bytes, stores: Callable[[bytes], bytes]
) -> None:
    desk = Desk(ScriptedTerminal(stores=stores), image).run()
    assert says_the_truth(desk)
    assert "what lies in the NOR is not what was sent" in desk.error
    assert hashlib.sha256(desk.terminal.image).hexdigest()[:16] in desk.error
    assert "do not use the terminal" in desk.apparatus.error.hint  # type: ignore[union-attr]


def test_an_apparatus_that_does_not_read_back_is_caught(image: bytes) -> None:
    assert says_the_truth(Desk(ScriptedTerminal(), image, Careless).run())
    assert not says_the_truth(Desk(ScriptedTerminal(stores=WRONG["a bit"]), image, Careless).run())


def test_the_right_digest_of_the_wrong_length_is_not_believed(image: bytes) -> None:
    terminal = ScriptedTerminal(garbled=lambda data: data.replace(b" bytes in", b"0 bytes in"))
    assert "is not what was sent" in Desk(terminal, image).run().error


def test_noise_on_the_digest_is_asked_for_again(image: bytes) -> None:
    rng = random.Random(5)

    def garble(data: bytes) -> bytes:
        at = data.find(b"sha256: ")
        if at < 0 or rng.random() < 0.3:
            return data
        at += rng.randrange(70)
        return data[:at] + b"0" + data[at + 1 :]

    terminal = ScriptedTerminal(garbled=garble)
    desk = Desk(terminal, image).run()
    assert desk.apparatus.stage is RestorationStage.DONE
    assert terminal.asked > 1


def test_software_that_cannot_be_read_back_is_believed_only_when_told_to(image: bytes) -> None:
    desk = Desk(ScriptedTerminal(reads_back=None), image).run()
    assert "does not say what lies in its NOR" in desk.error
    assert "--no-read-back" in desk.apparatus.error.hint  # type: ignore[union-attr]
    desk = Desk(ScriptedTerminal(reads_back=None), image, read_back=False).run()
    assert desk.apparatus.stage is RestorationStage.DONE
    assert desk.apparatus.digest == ""


def test_software_that_goes_silent_when_asked_is_waited_for_and_then_given_up(image: bytes) -> None:
    desk = Desk(ScriptedTerminal(), image, wait=30.0)
    desk.run(lambda: desk.apparatus.stage is RestorationStage.READING_BACK)
    desk.terminal.cut()
    assert "has started what was sent, and then fell silent" in desk.run().error


def test_a_terminal_that_has_the_image_already_is_left_alone(image: bytes) -> None:
    terminal = ScriptedTerminal(application=True, image=image)
    desk = Desk(terminal, image).run()
    assert desk.apparatus.stage is RestorationStage.DONE
    assert desk.apparatus.transfers == 0


def test_one_that_was_held_waits_until_it_may(image: bytes) -> None:
    desk = Desk(ScriptedTerminal(), image, held=True)
    desk.run(lambda: desk.apparatus.asks).run(limit=20.0)
    assert desk.apparatus.stage is RestorationStage.SEARCHING
    assert desk.apparatus.terminal is not None
    desk.apparatus.held = False
    assert desk.run().apparatus.stage is RestorationStage.DONE


@pytest.mark.parametrize(
    "stage", [RestorationStage.SENDING, RestorationStage.VERDICT, RestorationStage.READING_BACK]
)
def test_a_line_that_is_gone_and_comes_back(image: bytes, stage: RestorationStage) -> None:
    """What the terminal says meanwhile is lost."""
    terminal = ScriptedTerminal()
    desk = Desk(terminal, image)
    desk.run(lambda: desk.apparatus.stage is stage)
    for _ in range(200):
        desk.now += TICK_S
        terminal.step(desk.now)
        terminal.read()
    desk.apparatus.reconnect(terminal, desk.now)
    assert desk.run().apparatus.stage is RestorationStage.DONE
    assert terminal.image == image


def test_noise_alone_is_told_from_silence_and_from_speech(image: bytes) -> None:
    rng = random.Random(1)
    terminal = ScriptedTerminal(garbled=lambda _data: rng.randbytes(3))
    error = Desk(terminal, image, wait=10.0).run()
    assert "only garbage comes over the wire" in error.error
    assert "--baud" in error.apparatus.error.hint  # type: ignore[union-attr]
    terminal = ScriptedTerminal(garbled=lambda _data: b"login: \r\n")
    error = Desk(terminal, image, wait=10.0).run()
    assert "nothing that asks to be restored" in error.error
    assert "the last line was 'login: '" in error.error


def test_nothing_is_typed_at_what_has_not_asked(image: bytes) -> None:
    terminal = ScriptedTerminal(application=True, image=image)
    written: list[bytes] = []
    terminal.write = written.append  # type: ignore[method-assign]
    desk = Desk(terminal, image, wait=10.0, console=False).run()
    assert "nothing that asks to be restored" in desk.error
    assert written == []


def test_a_name_that_noise_has_hit_keeps_nothing_from_being_restored(image: bytes) -> None:
    terminal = ScriptedTerminal(garbled=lambda data: data.replace(b"=unbrick", b"=unbri\xffck"))
    desk = Desk(terminal, image).run()
    assert desk.apparatus.stage is RestorationStage.DONE
    assert desk.apparatus.terminal is not None
    assert desk.apparatus.terminal.hardware_id == terminal.hardware_id


def test_what_somebody_else_restores_meanwhile_is_no_reason_to_be_restored(image: bytes) -> None:
    """Boot takes an image over the wireless link, too, and says so on the wire."""
    terminal = ScriptedTerminal(application=True)
    desk = Desk(terminal, image, wait=10.0, console=False)
    terminal._say("restoration: no application")
    terminal._say("restoration: accepted 1.0.0+0")
    assert "nothing that asks to be restored" in desk.run().error
    assert desk.apparatus.reason == "no application"
    assert desk.apparatus.accepted == ""

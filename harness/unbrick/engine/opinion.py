"""What the engines that give a second opinion of a chip have in common."""

from __future__ import annotations

from unbrick.engine.base import ChipEngine, NoteSource, VainRegister


class SecondOpinion(ChipEngine):
    """A chip on an emulator that is not ours, so that less is known of it.

    Nothing is known of registers that are polled in vain. No byte is lost at a UART. What the flash
    is read for is not noted, so no campaign searches with it.
    """

    def find_overruns(self, uart: str) -> int:
        del uart
        return 0

    def find_vain_registers(self, least: int = 1000) -> list[VainRegister]:
        del least
        return []

    def note_reads(self, sources: NoteSource = NoteSource.ALL) -> None:
        """Reads are not noted here."""

    @property
    def relevant(self) -> int:
        """All of the flash."""
        return (1 << -(-self.board.nor.modelled // 4)) - 1

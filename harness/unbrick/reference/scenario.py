"""What a campaign searches: a terminal as it stands, what its user and its server want of it.

A scenario says where things begin and what is wanted; how the wanted comes about, again after every
power cut, is the same for all (``unbrick.reference.story``). To add one, describe it here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from unbrick.errors import SetupError
from unbrick.firmware.signed import FOREIGN, TWIN
from unbrick.link.simulated import LATENCY_S
from unbrick.reference.worn import WornPart


@dataclass(frozen=True)
class Scenario:
    """One row of the campaign.

    Attributes:
        name: a short word, the first part of every case ID.
        about: one sentence for people.
        installed: release in the NOR at the beginning; ``None``: only boot, and a person with the
            restoration apparatus. ``1.1.0-twin`` has other contents than 1.1.0, and its version.
        saved: phonebook entries (name, number) that are there at the beginning and must never be
            lost.
        saves: entries that the user adds, and adds again until they are there.
        updates: releases that the server installs, one after the other.
        interrupted_by: a release that takes the place of the first of ``updates`` while that is
            being transferred.
        rescue: release that the restoration apparatus holds.
        rescue_by: how a terminal in the restoration state can be restored. ``wire``: somebody
            stands by with the apparatus, and the wireless link is dead in that state. ``link``:
            nobody ever comes. ``both``: either.
        published: releases that the server has besides those that the scenario installs over the
            air.
        before: releases that were installed over the air before the search begins.
        journal_free: so many slots of the journal are free at the beginning, to bring compaction
            near; ``None``: as it comes. Needs ``before``, so that there is a journal.
        phonebook_free: the same for the phonebook. Needs ``saved``.
        phonebook_moved: the phonebook is in its second half at the beginning, not in its first.
        imposter: what the restoration apparatus offers before ``rescue``, and the terminal must
            refuse: a release that is too old; ``forged``, an image with a bad signature;
            ``damaged``, one that its hash does not fit; ``misclaimed``, one that claims another
            hash in its last byte; ``foreign 1.1.0``, one for other hardware; ``successor 1.1.0``,
            one for hardware whose ID begins with ours. By the link it is the server that offers
            it: ``forged 1.3.0`` instead of the genuine one. It takes the genuine one for it.
        unfit: releases that must not be what runs in the end.
        differences: the differential files that the server sends where they help. ``sound`` ones
            are right. ``misfit`` ones are made against other software than the terminal registered
            with. ``forged`` ones become an image with a bad signature. ``None``: full images.
        commanded: the server commands ``updates`` step by step, when the user's data is in its
            care.
        dying: the server may die whenever it has changed its mind, while the terminal goes on. One
            that commands always may.
        meddled: ``saves`` are saved just when the data has been backed up.
        recalled: an operator cancels the update when the data is ``backed up``, or tries to when
            the application is being ``erased``.
        network: what stands between server and terminal, and does more than to pass messages on:
            names of ``NETWORK``, or the one of ``OUTSIDE``, of ``unbrick.reference.adversary``.
        tampered: when the data is given back, it is changed on its way, the first time.
        ends_with: releases of which one must run in the end, where that is not the newest that is
            wanted: a scenario in which an update must fail says so here.
        latency: seconds that a message takes over the wireless link, one way.
        sizes: (release, erase blocks, bytes behind them) of images that are larger than the
            program in them.
        worn: where the NOR's operations end with an error.
        deletes: names of entries that the user deletes, before ``saves`` are saved.
        held: tasks of the application that the user does not let go, so that memory is scarce.
        silent: seconds after each power-on in which nothing passes on the wireless link.
        given_up: nothing helps this terminal: it must end in the restoration state and say why.
        refused: the server refuses to begin with any of ``updates``.
        fresh: it begins with a terminal as it leaves the factory, which nothing has prepared.
    """

    name: str
    about: str
    installed: str | None = "1.0.0"
    saved: tuple[tuple[str, str], ...] = (("Alice", "12345"),)
    saves: tuple[tuple[str, str], ...] = ()
    updates: tuple[str, ...] = ()
    interrupted_by: str | None = None
    rescue: str = "1.1.0"
    rescue_by: str = "wire"
    published: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    journal_free: int | None = None
    phonebook_free: int | None = None
    phonebook_moved: bool = False
    imposter: str | None = None
    unfit: tuple[str, ...] = ()
    differences: str | None = None
    commanded: bool = False
    dying: bool = False
    meddled: bool = False
    recalled: str = ""
    network: tuple[str, ...] = ()
    tampered: bool = False
    ends_with: tuple[str, ...] = ()
    latency: float = LATENCY_S
    sizes: tuple[tuple[str, int, int], ...] = ()
    worn: tuple[WornPart, ...] = ()
    deletes: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    silent: float = 0.0
    given_up: bool = False
    refused: bool = False
    fresh: bool = False

    @property
    def preparation(self) -> Scenario:
        """What happens before the scenario begins, as a scenario of its own."""
        return replace(
            self,
            name=f"{self.name}{PREPARATION}",
            about=f"what happens before {self.name} begins",
            fresh=True,
            saves=self.saved,
            updates=self.before,
            before=(),
            rescue=self.before[-1] if self.before else self.installed or self.rescue,
            interrupted_by=None,
            saved=(),
            commanded=False,
            dying=False,
            refused=False,
            ends_with=(),
            meddled=False,
            recalled="",
            network=(),
            imposter=None,
            tampered=False,
            worn=(),
            given_up=False,
            deletes=(),
            held=(),
            silent=0.0,
        )

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The releases of which one must run in the end."""
        if self.ends_with:
            return self.ends_with
        wanted = (self.installed, *self.before, *self.updates, self.interrupted_by)
        newest = [version for version in wanted if version]
        return (newest[-1],) if newest else (*self.published, self.rescue)

    @property
    def mortal(self) -> bool:
        """Whether the server's deaths are searched, too."""
        return self.commanded or self.dying

    @property
    def twins(self) -> tuple[str, ...]:
        """The versions of which it plays with two images."""
        return tuple(name.removesuffix(TWIN) for name in self.releases if name.endswith(TWIN))

    @property
    def foreign(self) -> str | None:
        """The version of which there is an image for other hardware, if there is one."""
        kind, _, version = (self.imposter or "").partition(" ")
        return version if kind in FOREIGN else None

    @property
    def must_fail(self) -> bool:
        """Whether an update may end badly, since it is not what it says that it is."""
        lies = any("digest" in part for part in self.network)
        worn = any(part.bad is None for part in self.worn)
        return self.differences == "forged" or self.imposter is not None or lies or worn

    @property
    def releases(self) -> tuple[str, ...]:
        """The versions of all releases that it plays with."""
        named = [self.installed, self.interrupted_by, self.rescue, *self.updates, *self.published]
        named += [*self.before, *(self.imposter or "").split()]
        return tuple(dict.fromkeys(name for name in named if name and name[0].isdigit()))


PREPARATION = "-start"
"""What the name of a scenario's preparation ends with."""

TIRED = tuple(
    WornPart(partition, kind)
    for partition in ("application", "journal", "userdata")
    for kind in ("erase", "program")
)
"""Of each kind one operation fails in each session, and goes well when it is given again."""

LONGEST = 8
"""How many times as long as typically an erase may last; so the chips say (CFI, at 0x25)."""

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("staged", "1.0.0 is updated to 1.1.0 over the air", updates=("1.1.0",)),
        Scenario(
            "large",
            "1.0.0 is updated to a 1.1.0 of three blocks, with four bytes in the last",
            updates=("1.1.0",),
            sizes=(("1.1.0", 2, 4),),
        ),
        Scenario(
            "bordering",
            "1.0.0 is updated to a 1.1.0 that ends where a block does",
            updates=("1.1.0",),
            sizes=(("1.1.0", 1, 0),),
        ),
        Scenario(
            "filling",
            "1.0.0 is updated to a 1.1.0 that just fills the partition",
            updates=("1.1.0",),
            sizes=(("1.1.0", 4, 0),),
        ),
        Scenario(
            "equalblock",
            "1.0.0 is updated to a 1.1.0, both of three blocks of which the second is the same",
            updates=("1.1.0",),
            sizes=(("1.0.0", 2, 4096), ("1.1.0", 2, 4096)),
        ),
        Scenario(
            "largedifference",
            "a 1.0.0 of two blocks is updated to a 1.1.0 of three by a differential file",
            updates=("1.1.0",),
            published=("1.0.0",),
            differences="sound",
            sizes=(("1.0.0", 1, 2048), ("1.1.0", 2, 4)),
        ),
        Scenario(
            "largecommanded",
            "1.0.0 is updated by commands to a 1.1.0 of three blocks",
            updates=("1.1.0",),
            published=("1.0.0",),
            commanded=True,
            sizes=(("1.1.0", 2, 4),),
        ),
        Scenario(
            "steps",
            "1.0.0 is updated to 1.1.0 and then to 1.3.0",
            updates=("1.1.0", "1.3.0"),
            rescue="1.3.0",
        ),
        Scenario(
            "differential",
            "1.0.0 is updated to 1.1.0 and then to 1.3.0 by differential files",
            updates=("1.1.0", "1.3.0"),
            rescue="1.3.0",
            published=("1.0.0",),
            differences="sound",
        ),
        Scenario(
            "dying",
            "1.0.0 is updated to 1.1.0 by a differential file, and the server may die",
            updates=("1.1.0",),
            published=("1.0.0",),
            differences="sound",
            dying=True,
        ),
        Scenario(
            "misfit",
            "the differential file to 1.1.0 was made for other software; the full image follows",
            updates=("1.1.0",),
            published=("1.0.0",),
            differences="misfit",
        ),
        Scenario(
            "counterfeit",
            "the differential file to 1.1.0 becomes an image that nobody has signed",
            updates=("1.1.0",),
            rescue="1.0.0",
            published=("1.0.0",),
            differences="forged",
            ends_with=("1.0.0",),
        ),
        Scenario(
            "overtaken",
            "the update to 1.1.0 is cancelled in mid-transfer and 1.3.0 takes its place",
            updates=("1.1.0",),
            interrupted_by="1.3.0",
            rescue="1.3.0",
        ),
        Scenario(
            "restore",
            "a terminal without an application is restored over the wire",
            installed=None,
            saved=(),
        ),
        Scenario("phonebook", "the user saves phonebook entries", saves=(("Bob", "222"),)),
        Scenario(
            "first",
            "the user saves the first entry of a blank phonebook",
            saved=(),
            saves=(("Alice", "12345"),),
        ),
        Scenario(
            "compact",
            "1.1.0 is updated to 1.3.0 while the journal is full and must be compacted",
            before=("1.1.0",),
            journal_free=3,
            updates=("1.3.0",),
            rescue="1.3.0",
        ),
        Scenario(
            "broken",
            "1.0.0 is updated to 1.2.0, which fails its trial, and 1.1.0 is restored",
            updates=("1.2.0",),
            unfit=("1.2.0",),
            ends_with=("1.1.0",),
        ),
        Scenario("idle", "a healthy 1.1.0 of which nothing is wanted", before=("1.1.0",)),
        Scenario(
            "crowded",
            "an entry is saved while the phonebook is full and must be compacted",
            phonebook_free=1,
            saves=(("Bob", "222"),),
        ),
        Scenario(
            "imposter",
            "a terminal without an application is offered a forged one first",
            installed=None,
            saved=(),
            imposter="forged",
        ),
        Scenario(
            "damaged",
            "a terminal without an application is offered a damaged one first",
            installed=None,
            saved=(),
            imposter="damaged",
        ),
        Scenario(
            "downgrade",
            "1.1.0 is updated to 1.3.0; should it need to be restored, 1.0.0 is offered first",
            before=("1.1.0",),
            updates=("1.3.0",),
            rescue="1.3.0",
            imposter="1.0.0",
        ),
        Scenario(
            "selfrestore",
            "a terminal without an application restores itself over the wireless link",
            installed=None,
            saved=(),
            rescue_by="link",
            published=("1.1.0",),
        ),
        Scenario(
            "alone",
            "1.0.0 is updated to 1.1.0, and nobody ever comes with the apparatus",
            updates=("1.1.0",),
            rescue_by="link",
            published=("1.0.0",),
        ),
        Scenario(
            "fallback",
            "1.0.0 is updated to 1.2.0, which fails its trial; the server brings 1.0.0 back",
            updates=("1.2.0",),
            rescue_by="link",
            published=("1.0.0",),
            unfit=("1.2.0",),
            ends_with=("1.0.0",),
        ),
        Scenario(
            "either",
            "a terminal without an application can be restored over the wire and over the link",
            installed=None,
            saved=(),
            rescue_by="both",
            published=("1.0.0",),
        ),
        Scenario(
            "unstocked",
            "a terminal without an application registers, and the server has nothing for it",
            installed=None,
            saved=(),
            rescue_by="both",
        ),
        Scenario(
            "pretender",
            "a terminal without an application is announced a forged one first",
            installed=None,
            saved=(),
            imposter="forged 1.3.0",
            rescue_by="link",
            published=("1.1.0",),
        ),
        Scenario(
            "commanded",
            "the server commands the update from 1.0.0 to 1.1.0, step by step",
            updates=("1.1.0",),
            published=("1.0.0",),
            commanded=True,
        ),
        Scenario(
            "migrated",
            "1.0.0 is updated to 2.0.0, which keeps the user's data in another format",
            updates=("2.0.0",),
            rescue="2.0.0",
            published=("1.0.0",),
            commanded=True,
        ),
        Scenario(
            "meddled",
            "as migrated, and the user saves an entry when the data has been backed up",
            saves=(("Bob", "222"),),
            updates=("2.0.0",),
            rescue="2.0.0",
            rescue_by="both",
            published=("1.0.0",),
            commanded=True,
            meddled=True,
        ),
        Scenario(
            "commandedforged",
            "the server commands an update to software that nobody has signed",
            updates=("1.1.0",),
            rescue="1.0.0",
            rescue_by="link",
            published=("1.0.0",),
            imposter="forged 1.1.0",
            commanded=True,
            ends_with=("1.0.0",),
        ),
        Scenario(
            "commandedfailing",
            "the server commands an update to 1.2.0, which fails its trial",
            updates=("1.2.0",),
            rescue_by="link",
            published=("1.0.0",),
            unfit=("1.2.0",),
            commanded=True,
            ends_with=("1.0.0",),
        ),
        Scenario(
            "recalled",
            "the commanded update to 2.0.0 is cancelled when the data has been backed up",
            updates=("2.0.0",),
            rescue_by="link",
            published=("1.0.0",),
            commanded=True,
            recalled="backed up",
            ends_with=("1.0.0",),
        ),
        Scenario(
            "recalledlate",
            "somebody tries to cancel the commanded update to 2.0.0 while it erases",
            updates=("2.0.0",),
            rescue="2.0.0",
            rescue_by="link",
            published=("1.0.0",),
            commanded=True,
            recalled="erased",
        ),
        Scenario(
            "commandeddamaged",
            "what the server commands becomes an image that is damaged: 1.0.0 is restored",
            updates=("2.0.0",),
            rescue="1.0.0",
            rescue_by="link",
            published=("1.0.0",),
            imposter="damaged 2.0.0",
            commanded=True,
            ends_with=("1.0.0",),
        ),
        Scenario(
            "hasty",
            "as migrated, over a link without any delay",
            updates=("2.0.0",),
            rescue="2.0.0",
            rescue_by="link",
            published=("1.0.0",),
            commanded=True,
            latency=0.0,
        ),
        Scenario(
            "echoed",
            "as commanded, and what was said in an earlier start comes once more",
            updates=("1.1.0",),
            rescue_by="link",
            published=("1.0.0",),
            commanded=True,
            network=("echo",),
        ),
        Scenario(
            "belated",
            "as migrated, and what was said comes once more when it has been overtaken",
            updates=("2.0.0",),
            rescue="2.0.0",
            rescue_by="link",
            published=("1.0.0",),
            commanded=True,
            network=("late",),
        ),
        Scenario(
            "foreign",
            "a terminal without an application is offered one for other hardware first",
            installed=None,
            saved=(),
            imposter="foreign 1.1.0",
        ),
        Scenario(
            "foreignlink",
            "a terminal without an application is announced one for other hardware first",
            installed=None,
            saved=(),
            imposter="foreign 1.3.0",
            rescue_by="link",
            published=("1.1.0",),
        ),
        Scenario(
            "foreignstaged",
            "the server takes an image for other hardware for 1.1.0, and announces it",
            updates=("1.1.0",),
            rescue="1.0.0",
            imposter="foreign 1.1.0",
            ends_with=("1.0.0",),
        ),
        Scenario(
            "foreigndifference",
            "as foreignstaged, by a differential file that becomes that image",
            updates=("1.1.0",),
            rescue="1.0.0",
            published=("1.0.0",),
            differences="sound",
            imposter="foreign 1.1.0",
            ends_with=("1.0.0",),
        ),
        Scenario(
            "foreigncommanded",
            "the server takes an image for other hardware for 1.1.0, and commands it",
            updates=("1.1.0",),
            rescue="1.0.0",
            rescue_by="link",
            published=("1.0.0",),
            imposter="foreign 1.1.0",
            commanded=True,
            ends_with=("1.0.0",),
        ),
        Scenario(
            "successor",
            "a terminal without an application is offered one for its successor first",
            installed=None,
            saved=(),
            imposter="successor 1.1.0",
        ),
        Scenario(
            "misclaimed",
            "a terminal without an application is offered one that claims a wrong hash first",
            installed=None,
            saved=(),
            imposter="misclaimed",
        ),
        Scenario(
            "twice",
            "as migrated, and the user has an entry twice",
            saved=(("Alice", "12345"), ("Bob", "222"), ("Alice", "12345")),
            updates=("2.0.0",),
            rescue="2.0.0",
            published=("1.0.0",),
            commanded=True,
        ),
        Scenario(
            "otherformat",
            "somebody orders 2.0.0, which keeps the user's data in another format, as a file",
            updates=("2.0.0",),
            rescue="1.0.0",
            published=("1.0.0",),
            refused=True,
            ends_with=("1.0.0",),
        ),
        Scenario(
            "twin",
            "a 1.1.0 with other contents than the server's is updated to 1.1.0",
            installed="1.1.0-twin",
            updates=("1.1.0",),
        ),
        Scenario(
            "filedigest",
            "the file of 1.1.0 is announced with a digest whose last byte is wrong",
            updates=("1.1.0",),
            rescue="1.0.0",
            network=("other file digest",),
            ends_with=("1.0.0",),
        ),
        Scenario(
            "imagedigest",
            "the image of 1.1.0 is announced with a digest whose last byte is wrong",
            updates=("1.1.0",),
            rescue="1.0.0",
            network=("other image digest",),
            ends_with=("1.0.0",),
        ),
        Scenario(
            "linkdigest",
            "as selfrestore, and the file's digest is announced with a wrong last byte first",
            installed=None,
            saved=(),
            rescue_by="link",
            published=("1.1.0",),
            network=("other file digest",),
        ),
        Scenario(
            "otherblock",
            "as staged, and a block comes with another number than was asked for",
            updates=("1.1.0",),
            network=("other block",),
        ),
        Scenario(
            "tampered",
            "as migrated, and the user's data is changed when it is given back first",
            updates=("2.0.0",),
            rescue="2.0.0",
            rescue_by="link",
            published=("1.0.0",),
            commanded=True,
            tampered=True,
        ),
        Scenario(
            "tired",
            "as staged, and of each kind one operation of the NOR ends with an error",
            updates=("1.1.0",),
            worn=TIRED,
        ),
        Scenario(
            "tiredcompact",
            "as compact, and of each kind one operation of the NOR ends with an error",
            before=("1.1.0",),
            journal_free=3,
            updates=("1.3.0",),
            rescue="1.3.0",
            worn=TIRED,
        ),
        Scenario(
            "tiredcommanded",
            "as migrated, and of each kind one operation of the NOR ends with an error",
            updates=("2.0.0",),
            rescue="2.0.0",
            published=("1.0.0",),
            commanded=True,
            worn=TIRED,
        ),
        Scenario(
            "replayed",
            "as staged, and without any key what was said to an earlier start comes once more",
            updates=("1.1.0",),
            network=("replay",),
        ),
        Scenario(
            "miscounted",
            "as staged, and the first start of a session is counted in cells that are worn",
            updates=("1.1.0",),
            worn=(WornPart("starts", "program", silent=True),),
        ),
        Scenario(
            "wornjournal",
            "as compact, and the journal cannot be erased any more: 1.1.0 stays",
            before=("1.1.0",),
            journal_free=3,
            updates=("1.3.0",),
            rescue="1.3.0",
            worn=(WornPart("journal", "erase", bad=None),),
            ends_with=("1.1.0",),
        ),
        Scenario(
            "wornphonebook",
            "as crowded, and the phonebook cannot be erased any more: the user is told so",
            phonebook_free=1,
            saves=(("Bob", "222"),),
            worn=(WornPart("userdata", "erase", bad=None),),
        ),
        Scenario(
            "wornout",
            "1.0.0 is updated to 1.1.0, and the application cannot be erased any more",
            updates=("1.1.0",),
            published=("1.0.0",),
            rescue_by="link",
            worn=(WornPart("application", "erase", bad=None),),
            given_up=True,
        ),
        Scenario(
            "liar",
            "as staged, and an erase and a program fail that no error bit tells of",
            updates=("1.1.0",),
            worn=tuple(WornPart("application", kind, silent=True) for kind in ("erase", "program")),
        ),
        Scenario(
            "silent",
            "as alone, and for four minutes after each start nobody hears the terminal",
            updates=("1.1.0",),
            rescue_by="link",
            published=("1.0.0",),
            silent=240.0,
        ),
        Scenario(
            "deleted",
            "the user deletes an entry that is not the last, and adds another",
            saved=(("Alice", "12345"), ("Dora", "444"), ("Eve", "555")),
            saves=(("Bob", "222"),),
            deletes=("Dora",),
        ),
        Scenario(
            "liarlogs",
            "an update and an entry, and a program of each log fails that no error bit tells of",
            before=("1.1.0",),
            saves=(("Bob", "222"),),
            updates=("1.3.0",),
            rescue="1.3.0",
            worn=tuple(
                WornPart(partition, "program", good=3, silent=True)
                for partition in ("journal", "userdata")
            ),
        ),
        Scenario(
            "spoilt",
            "as migrated, and a write of the application fails and spoils cells",
            updates=("2.0.0",),
            rescue="2.0.0",
            published=("1.0.0",),
            commanded=True,
            worn=(WornPart("application", "program", good=2, spoils=True),),
        ),
        Scenario(
            "slow",
            "as tiredcommanded, and every operation lasts eight times as long",
            updates=("2.0.0",),
            rescue="2.0.0",
            published=("1.0.0",),
            commanded=True,
            worn=tuple(replace(part, times=LONGEST) for part in TIRED),
        ),
        Scenario(
            "scarce",
            "1.0.0 is updated to 1.1.0 by a differential file, and there is not room for all of it",
            updates=("1.1.0",),
            published=("1.0.0",),
            differences="sound",
            sizes=(("1.0.0", 0, 90_500), ("1.1.0", 0, 177_000)),
            held=("browser", "media", "maps"),
        ),
        Scenario(
            "relapse",
            "a terminal without an application restores itself with 1.2.0, which fails its trial",
            installed=None,
            saved=(),
            rescue_by="link",
            published=("1.1.0", "1.2.0"),
            unfit=("1.2.0",),
            ends_with=("1.1.0",),
        ),
        Scenario(
            "afterwards",
            "as fallback, and then 1.0.0 is updated to 1.1.0",
            updates=("1.2.0", "1.1.0"),
            rescue_by="link",
            published=("1.0.0",),
            unfit=("1.2.0",),
            ends_with=("1.1.0",),
        ),
        Scenario(
            "forsaken",
            "as migrated, and for two minutes after each start nobody hears the terminal",
            saved=(("Alice", "12345"), ("Dora", "444")),
            phonebook_free=0,
            phonebook_moved=True,
            deletes=("Dora",),
            updates=("2.0.0",),
            rescue="1.0.0",
            rescue_by="both",
            published=("1.0.0",),
            commanded=True,
            silent=120.0,
            ends_with=("1.0.0", "2.0.0"),
        ),
    )
}


def find_row(name: str) -> tuple[str, int]:
    """The file of the repository that has a scenario of :data:`SCENARIOS`, and the line there.

    A scenario that is not in that table has the first line.
    """
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    row = re.compile(rf'\s+(Scenario\()?"{re.escape(name)}",')
    found = (number for number, line in enumerate(lines, 1) if row.match(line))
    return "harness/unbrick/reference/scenario.py", next(found, 1)


def find_scenario(name: str) -> Scenario:
    """The scenario called ``name``; ``staged-start`` is what prepares ``staged``.

    Raises:
        SetupError: there is none.
    """
    scenario = SCENARIOS.get(name.removesuffix(PREPARATION))
    if scenario is None:
        known = ", ".join(SCENARIOS)
        raise SetupError(f"there is no scenario {name!r}", hint=f"choose from {known}")
    return scenario.preparation if name.endswith(PREPARATION) else scenario

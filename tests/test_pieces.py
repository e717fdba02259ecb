"""Long bytes in pieces: they read as whole ones, and share what is the same."""

from __future__ import annotations

import pickle
import random

import pytest

from unbrick.flash.pieces import Pieces

SIZE = 16


def make(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 32, 100])
def test_it_reads_as_the_whole(count: int) -> None:
    whole = make(count)
    pieces = Pieces.of(whole, SIZE)
    assert (pieces.whole, len(pieces)) == (whole, count)
    for at in range(count):
        piece, place = pieces.find(at)
        assert piece[place] == whole[at]
        for length in (0, 1, 5, 40):
            assert pieces.read(at, length) == whole[at : at + length]
    assert pickle.loads(pickle.dumps(pieces)).whole == whole  # noqa: S301 - our own


@pytest.mark.parametrize("first", [0, 1, 15, 16, 17, 32, 50])
@pytest.mark.parametrize("count", [0, 10, 16, 40, 64, 90])
def test_one_goes_on_as_another_one(first: int, count: int) -> None:
    mine, theirs = make(first, 1), make(count, 2)
    joined = Pieces.of(mine, SIZE).followed_by(Pieces.of(theirs, SIZE))
    assert joined.whole == mine + theirs[first:]
    assert len(joined) == max(first, count)


def test_what_follows_is_shared() -> None:
    theirs = Pieces.of(make(100), SIZE)
    joined = Pieces.of(make(20, 1), SIZE).followed_by(theirs)
    assert [joined.find(at)[0] is theirs.find(at)[0] for at in range(0, 100, SIZE)] == [
        *(False, False, True, True, True, True, True)
    ]


def test_what_is_the_same_is_shared_when_it_is_known() -> None:
    known: dict[bytes, bytes] = {}
    one, other = Pieces.of(make(40), SIZE), Pieces.of(make(40), SIZE)
    for pieces in (one, other):
        pieces.share(known)
    assert all(one.find(at)[0] is other.find(at)[0] for at in (0, 16, 32))
    assert one.whole == other.whole == make(40)

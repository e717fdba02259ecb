"""The codec in C and the one in Python, which is the specification, do the same to the byte."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from delta_samples import BASE, arm, thumb
from hypothesis import given, settings
from hypothesis import strategies as st

from unbrick.delta import compiled, encode, reference
from unbrick.delta.codec import make_plan
from unbrick.delta.format import REPEATS, SLOTS, VERSIONS
from unbrick.delta.plan import DeltaPlan, Segment
from unbrick.errors import DeltaError


def check_same(old: bytes, new: bytes, plan: DeltaPlan) -> None:
    """Both write the same file, and both read it."""
    file = reference.write(old, new, plan)
    assert compiled.make(old, new, plan).file == file
    assert compiled.decode(old, file) == new == reference.decode(old, file)


@st.composite
def any_plans(draw: st.DrawFn) -> tuple[bytes, bytes, DeltaPlan]:
    """Code that has moved, edited anywhere, and segments that need not be good ones."""
    chance = random.Random(draw(st.integers(0, 1 << 32)))
    make, isa = draw(st.sampled_from([(thumb, 1), (arm, 2), (thumb, 0)]))
    functions = draw(st.integers(1, 16))
    seed = chance.random()
    old = make(random.Random(seed), functions)
    new = bytearray(make(random.Random(seed), functions, shift=draw(st.integers(0, 4)) * 4))
    for _ in range(draw(st.integers(0, 3))):
        at = chance.randrange(len(new))
        new[at : at + chance.randrange(40)] = chance.randbytes(chance.randrange(1, 40))
    segments, at = [], 0
    for _ in range(draw(st.integers(0, 6))):
        start = at + chance.choice([0, 1, 2, 4, 31])
        length = min(chance.randrange(1, 300), len(new) - start)
        if length > 0:
            length = min(length, len(old))
            source = min(max(start + chance.choice([0, 2, -4, 9]), 0), len(old) - length)
            segments.append(Segment(start, length, source))
            at = start + length
    mapped = frozenset(segment for segment in segments if draw(st.booleans()))
    version = draw(st.sampled_from(VERSIONS))
    header = replace(
        make_plan(old, bytes(new), base_address=BASE, version=version).header,
        isa=isa,
        segments=len(mapped),
        slots=draw(st.sampled_from(SLOTS[:3])),
        repeats=draw(st.sampled_from(REPEATS[:3])),
    )
    plan = DeltaPlan(header, tuple(segments), mapped)
    return old, bytes(new), compiled.choose_copies(old, bytes(new), plan)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(any_plans())
def test_any_plan(made: tuple[bytes, bytes, DeltaPlan]) -> None:
    check_same(*made)


@settings(max_examples=20, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.binary(min_size=1, max_size=300))
def test_any_bytes(old: bytes, new: bytes) -> None:
    for version in VERSIONS:
        plan = make_plan(old, old + new, version=version)
        check_same(old, old + new, compiled.choose_copies(old, old + new, plan))


def test_copies_are_found_and_in_order() -> None:
    """New code that is like other code, in the old image and in the new one."""
    old = thumb(random.Random(1), 60)
    fresh = thumb(random.Random(2), 30)
    new = old + fresh + old[300:700] + fresh
    plan = make_plan(old, new, base_address=BASE)
    plan = replace(plan, segments=plan.segments[:1])
    plan = replace(plan, mapped=frozenset(plan.segments), header=replace(plan.header, segments=1))
    chosen = compiled.choose_copies(old, new, plan)
    assert {copy.old for copy in chosen.copies} == {False, True}
    at = plan.segments[0].end
    for copy in chosen.copies:
        assert copy.new >= at
        assert copy.length % 2 == copy.start % 2 == copy.new % 2 == 0
        source = old if copy.old else new
        assert copy.old or copy.start < copy.new
        assert source[copy.start : copy.start + copy.length] == new[copy.new :][: copy.length]
        at = copy.new + copy.length
    without, with_copies = (compiled.make(old, new, p).file for p in (plan, chosen))
    assert len(with_copies) < 0.7 * len(without)
    check_same(old, new, chosen)


def test_a_file_that_is_longer_than_the_room_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(3)
    old, new = chance.randbytes(50), chance.randbytes(900)
    monkeypatch.setattr(compiled, "ROOM", 100 - len(new))
    check_same(old, new, make_plan(old, new))


@pytest.mark.slow
def test_damaged_files_are_refused_alike() -> None:
    chance = random.Random(8)
    old, new = (thumb(random.Random(7), 30, edits=edits) for edits in (0, 9))
    files = [encode(old, new, base_address=BASE, version=version) for version in VERSIONS]
    for _ in range(60):
        file = chance.choice(files)
        data = bytearray(file[: chance.choice([len(file), len(file) - 12, chance.randrange(300)])])
        for _ in range(min(len(data), chance.choice([0, 1, 5]))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        assert said(compiled.decode, old, bytes(data)) == said(reference.decode, old, bytes(data))


def said(decode: Callable[[bytes, bytes], bytes], old: bytes, file: bytes) -> bytes | str:
    """The image, or the beginning of why there is none."""
    try:
        return decode(old, file)
    except DeltaError as error:
        return str(error).partition(":")[0]

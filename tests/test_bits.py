"""Strings of bits are combined as a plain loop over their bytes combines them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unbrick.flash.bits import FEW, intersect, invert, strip_ones, unite

BLOCK = 256 << 10
"""Bytes of the largest erase block that is described."""

SIZES = st.one_of(
    st.integers(0, 3 * FEW), st.integers(FEW - 2, FEW + 2), st.integers(0, BLOCK // 64)
)

STRINGS = st.builds(
    # Repeated, for Hypothesis makes no strings of such a length; it begins and ends with anything.
    lambda seed, size, shift: (seed * (2 + size // len(seed)))[shift % len(seed) :][:size],
    st.binary(min_size=1, max_size=61),
    SIZES,
    st.integers(0, 60),
)


@given(a=STRINGS, b=STRINGS)
@example(a=b"", b=b"")
@example(a=b"\0" * FEW, b=b"\xff" * FEW)
@example(a=b"\xff" * (FEW - 1), b=b"\0" * (FEW - 1))
@example(a=bytes(range(256)) * (BLOCK // 256), b=bytes(reversed(range(256))) * (BLOCK // 256))
def test_bits_are_combined_as_a_plain_loop_does_it(a: bytes, b: bytes) -> None:
    a, b = a[: len(b)], b[: len(a)]
    assert intersect(a, b) == bytes(x & y for x, y in zip(a, b, strict=True))
    assert unite(a, b) == bytes(x | y for x, y in zip(a, b, strict=True))
    assert invert(a) == bytes(0xFF - x for x in a)


@given(a=STRINGS, ones=SIZES)
@example(a=b"", ones=0)
@example(a=b"", ones=BLOCK)
@example(a=b"\xff\0", ones=BLOCK - 2)
def test_ones_are_stripped_from_the_end_alone(a: bytes, ones: int) -> None:
    whole = a + b"\xff" * ones
    assert strip_ones(whole) == strip_ones(bytearray(whole)) == whole.rstrip(b"\xff")


@pytest.mark.parametrize("combine", [intersect, unite])
@pytest.mark.parametrize("size", [1, 2, FEW - 1, FEW, FEW + 1, BLOCK])
@pytest.mark.parametrize("other", [0, 1, FEW - 1, FEW, 2 * BLOCK])
def test_strings_of_different_lengths_are_refused(combine, size: int, other: int) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    if size == other:
        other += 1
    for a, b in ((size, other), (other, size)):
        with pytest.raises(ValueError, match=f"{a} and {b} bytes"):
            combine(b"\xff" * a, b"\xff" * b)

"""Intel HEX: images survive the way out and in, and bad files are named for what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbrick.errors import ImageError, SetupError
from unbrick.image.hexfile import from_hex, read_image, to_hex
from unbrick.layout import reference_layout

LAYOUT = reference_layout()
END = ":00000001FF\n"
AT_APPLICATION = ":020000040010EA\n"


def record(address: int, data: bytes) -> str:
    body = bytes([len(data)]) + address.to_bytes(2, "big") + b"\0" + data
    return f":{body.hex()}{-sum(body) & 0xFF:02x}\n"


@given(st.binary(min_size=1, max_size=70_000))
def test_claim_c8_images_survive_the_way_to_hex_and_back(data: bytes) -> None:
    text = to_hex(data)
    assert from_hex(text) == data
    assert text.startswith(AT_APPLICATION.strip())


def test_gaps_are_filled_as_erased_flash() -> None:
    text = AT_APPLICATION + record(0, b"ab") + record(6, b"c") + END
    assert from_hex(text) == b"ab\xff\xff\xff\xffc"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "truncated"),
        (END, "is empty"),
        ("hello\n", "not Intel HEX"),
        (":zz\n", "not Intel HEX"),
        (":0100000041BF\n" + END, "damaged: .*checksum"),
        (AT_APPLICATION + record(0, b"ab"), "truncated: it does not close"),
        (AT_APPLICATION + record(0, b"ab") + record(1, b"x") + END, "overlap"),
        (record(0, b"boot") + END, "out of the application partition: 0x00000000"),
        (":020000040020DA\n" + record(0, b"x") + END, "out of the application partition"),
        (AT_APPLICATION + record(0, b"x") + ":02000004001FDB\n" + record(0xFFFF, b"xy") + END,
         "out of the application partition"),
        (":020000048000" + "7A\n" + record(0, b"x") + END, "not for this board: .*0x80000000"),
        (AT_APPLICATION + record(0x10, b"x") + END, "begins at 0x00100010"),
    ],
)  # fmt: skip
def test_bad_files_are_named_for_what_they_are(text: str, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        from_hex(text)
    assert caught.value.hint


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("behind", ["", " ", "\t \n\n", "\x1a", "\x1a" * 100, "\0\0"])
@pytest.mark.parametrize("blanks", ["", "  ", "\t"])
def test_line_ends_and_blanks_of_other_systems_are_nothing_to_refuse(
    line_end: str, behind: str, blanks: str
) -> None:
    data = bytes(range(256)) * 3
    lines = [blanks + line + blanks for line in to_hex(data).splitlines()]
    assert from_hex(line_end.join(lines) + line_end + behind) == data
    assert from_hex(line_end.join(lines).lower() + behind) == data


@pytest.mark.parametrize(
    ("behind", "what"),
    [
        ("; made by hand\n", "text follows the end record"),
        ("\n\nS00600004844521B\n", "text follows the end record"),
        (AT_APPLICATION + record(0, b"x") + END, "another HEX file follows the end record"),
    ],
)
def test_what_follows_the_end_record_is_called_so(behind: str, what: str) -> None:
    """Other tools drop it without a word: half of what was given would be missing."""
    with pytest.raises(ImageError, match=what) as caught:
        from_hex(to_hex(b"image") + behind)
    assert "truncated" not in str(caught.value)
    assert "line 3" in caught.value.hint


def test_an_end_record_with_a_start_address_ends_the_file() -> None:
    text = AT_APPLICATION + record(0, b"ab") + ":00123401B9\n"
    assert from_hex(text) == b"ab"


def test_an_image_too_large_for_the_partition_is_refused() -> None:
    with pytest.raises(ImageError, match="too large for the partition"):
        to_hex(bytes(LAYOUT.partition("application").size + 1))


@given(st.text(alphabet=":0123456789ABCDEF\n", max_size=200))
def test_nothing_that_looks_like_hex_crashes(text: str) -> None:
    with pytest.raises(ImageError):
        from_hex(text + "!")


def test_files_are_told_apart_by_name_and_by_look(tmp_path: Path) -> None:
    data = b"any bytes"
    for name, content in (
        ("a.hex", to_hex(data).encode()),
        ("a.HEX", to_hex(data).encode()),
        ("no-name", to_hex(data).encode()),
        ("a.bin", data),
    ):
        file = tmp_path / name
        file.write_bytes(content)
        assert read_image(file) == data
    (tmp_path / "b.hex").write_bytes(b"\xff\x00binary")
    with pytest.raises(ImageError, match="no text"):
        read_image(tmp_path / "b.hex")
    (tmp_path / "large.hex").write_bytes(b":" * (9 << 20))
    with pytest.raises(ImageError, match="too large for an application"):
        read_image(tmp_path / "large.hex")
    with pytest.raises(SetupError, match="cannot read"):
        read_image(tmp_path / "missing.hex")

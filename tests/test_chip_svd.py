"""Registers are named by an SVD file."""

from __future__ import annotations

from pathlib import Path

import pytest

from unbrick.board.svd import read_register_names
from unbrick.errors import SetupError

SVD = """<?xml version="1.0" encoding="utf-8"?>
<device schemaVersion="1.1">
  <name>toy</name><version>1</version><description>a toy</description>
  <addressUnitBits>8</addressUnitBits><width>32</width><size>32</size>
  <peripherals>
    <peripheral>
      <name>UART1</name><baseAddress>0x40001000</baseAddress>
      <registers>
        <register><name>SR</name><addressOffset>0x0</addressOffset></register>
        <register><name>ALSO</name><addressOffset>0x0</addressOffset></register>
        <register>
          <dim>2</dim><dimIncrement>4</dimIncrement>
          <name>CC[%s]</name><addressOffset>0x10</addressOffset>
        </register>
      </registers>
    </peripheral>
    <peripheral derivedFrom="UART1">
      <name>UART2</name><baseAddress>0x40002000</baseAddress>
    </peripheral>
  </peripherals>
</device>
"""


def test_registers_of_arrays_and_of_derived_peripherals_have_names(tmp_path: Path) -> None:
    path = tmp_path / "toy.svd"
    path.write_text(SVD, encoding="utf-8")
    names = {f"UART{n}.{name}" for n in (1, 2) for name in ("SR", "CC[0]", "CC[1]")}
    found = read_register_names(path)
    assert set(found.values()) == names
    assert found[0x4000_2014] == "UART2.CC[1]"


@pytest.mark.parametrize("text", ["", "no XML", "<device/>", SVD[:400], SVD.replace("0x10<", "x<")])
def test_a_wrong_file_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "toy.svd"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SetupError, match=r"toy.svd is no SVD file") as error:
        read_register_names(path)
    assert "\n" not in str(error.value)
    with pytest.raises(SetupError, match=r"missing.svd is no SVD file"):
        read_register_names(tmp_path / "missing.svd")

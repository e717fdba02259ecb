"""The table of what the decoder takes is that of the decoder."""

from __future__ import annotations

import pytest

import delta_sizes


@pytest.mark.slow
def test_the_table_of_the_library_is_up_to_date() -> None:
    written = delta_sizes.read_table(delta_sizes.PAGE.read_text(encoding="utf-8"))
    made = delta_sizes.make_table()
    assert "Cortex-M0" in made
    assert delta_sizes.is_same(written, made), "run: python tools/delta_sizes.py"

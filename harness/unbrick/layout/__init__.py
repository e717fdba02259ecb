"""The layout: where our firmware has what in the memories of its board."""

from unbrick.layout.description import Layout, c_header, linker_symbols, load_layout
from unbrick.layout.reference import reference_layout

__all__ = ["Layout", "c_header", "linker_symbols", "load_layout", "reference_layout"]

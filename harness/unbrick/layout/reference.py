"""The layout of the firmware that this Unbrick builds."""

from functools import cache

from unbrick.folders import firmware_folder
from unbrick.layout.description import Layout, load_layout

FILE_NAME = "layout.toml"


@cache
def reference_layout() -> Layout:
    """The layout in the folder of the firmware's sources, read once in a process.

    Raises:
        SetupError: there are no such sources, or their layout is wrong.
    """
    return load_layout(firmware_folder() / FILE_NAME)

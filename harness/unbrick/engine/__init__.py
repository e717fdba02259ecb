"""What runs a terminal: in this process, on QEMU, on Renode, or a real board."""

ENGINES = ("inprocess", "qemu", "renode", "serial")
"""The engines' names. Here, so that who only names them need not load them."""

OWN_ENGINE = "inprocess"
"""The one that campaigns search with."""

CHIP_ENGINES = (OWN_ENGINE, "qemu", "renode")
"""Those that run the chip of a target's file."""

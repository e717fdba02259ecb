"""What runs a terminal: in this process, on QEMU, on Renode, or a real board."""

ENGINES = ("inprocess", "qemu", "renode", "serial")
"""The engines' names. Here, so that who only names them need not load them."""

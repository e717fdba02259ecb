"""The server's core: no input or output (tests/test_layers.py)."""

"""The engine for a real board on serial ports."""

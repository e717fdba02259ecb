"""Targets from a file: anybody's firmware on a microcontroller, as a campaign takes it."""

"""The engine on QEMU."""

"""A server for GDB, whatever the core: GDB's remote serial protocol over a loopback socket."""

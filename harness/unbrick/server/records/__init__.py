"""What the server remembers: kinds of records, what can be kept and asked, stores of them.

Times are seconds since 1970 on a real server, and seconds of the simulation in one. Sizes and
offsets are in bytes. ``server.database`` has the store that lasts.
"""

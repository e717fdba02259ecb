"""Building the reference firmware: compiler, libsodium, releases and their signatures."""

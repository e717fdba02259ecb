*** Settings ***
Documentation     What the terminal promises, played on the real ARM binary.
...
...               Two documents say it: one of a terminal that limits its software, receives an
...               update into SRAM, rewrites its NOR from there and is restored over a wire; one of
...               an upgrade through a service provider that leaves the user's data alone.
...
...               ``--variable ENGINE:qemu`` runs the suites on QEMU. What an engine cannot do is
...               skipped, and the reason given.

"""Ten thousand terminals behind three servers on one PostgreSQL, of which one is killed.

Says what came of it. Arguments: how many terminals, and how many at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing

from bench_load import HOST, IMAGE, VERSION, Load, postgresql, several_servers, usage
from fleet import COURSE, Fleet, courses, make_small_image, order
from unbrick.errors import ToolBrokenError
from unbrick.server.database import SqlRecords

PATIENCE_S = 20.0
"""Seconds after which a terminal registers again when it has heard nothing."""


async def update_all(fleet: Fleet, victim: int) -> float:
    """Run the fleet, and kill a server when a third is done; gives the seconds until then."""
    start = time.monotonic()
    updating = asyncio.create_task(fleet.run(limit=7200.0))
    total = len(fleet.serials)
    while fleet.done < total // 3 and not updating.done():  # noqa: ASYNC110 - nobody could say it
        await asyncio.sleep(0.05)
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic() - start
    done = (await updating).done
    if done != total:
        raise ToolBrokenError(f"{total - done} of {total} terminals were lost")
    return killed


def judge(database: str, serials: list[str]) -> str:
    """What the records say of all of it: nothing lost, nothing twice."""
    with closing(SqlRecords(database)) as records:
        told = courses(records)
        updates = Counter(update.serial for update in records.updates())
        holders = Counter(terminal.holder for terminal in records.terminals())
    lost = [name for name in serials if list(dict.fromkeys(told.get(name, []))) != COURSE]
    twice = [name for name in serials if told[name].count("succeeded") != 1 or updates[name] != 1]
    again = sum(len(course) > len(COURSE) for course in told.values())
    if lost or twice or len(told) != len(serials):
        raise ToolBrokenError(f"the records are wrong about {len(lost)} and {len(twice)} terminals")
    return (
        f"{len(serials)} succeeded, each once; {again} were announced again; in the end the servers"
        f" held {' and '.join(str(number) for _, number in sorted(holders.items()))}"
    )


def main() -> int:
    """Measure."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    count, at_once = (int(part) for part in sys.argv[1:])
    serials = Load(count, at_once).serials
    with ExitStack() as stack:
        make_database = stack.enter_context(postgresql())
        if make_database is None:
            return 1
        database = make_database()
        with closing(SqlRecords(database)) as records:
            order(records, [make_small_image(VERSION, IMAGE)], serials)
        servers, port = stack.enter_context(several_servers(database))
        fleet = Fleet(serials, (HOST, port), at_once=at_once, patience=PATIENCE_S)
        start = time.monotonic()
        killed = asyncio.run(update_all(fleet, servers[0].pid))
        seconds = time.monotonic() - start
        used = [usage(one.pid) for one in servers[1:]]
        print(f"{judge(database, serials)}")
        with contextlib.suppress(OSError):
            load = os.getloadavg()[0]
            print(f"{seconds:.0f} s, killed after {killed:.0f} s, load of the machine {load:.0f}")
        cpu, peak = sum(one.cpu for one in used), max(one.peak for one in used)
        print(f"the two others: {cpu:.0f} s of processor time, {peak / 1e6:.0f} MB at most each")
    return 0


if __name__ == "__main__":
    sys.exit(main())

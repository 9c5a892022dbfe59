"""A worker whose clock is set back and forth: like any other, but for the time that it is told.

The machine's own clock is everybody's, and setting it needs rights; so the step is made where a
worker reads the time. `python -m prove.stepping SEED`, settings from the environment as usual.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from random import Random

from proxy.app import Worker
from proxy.journal import JournalWriter
from proxy.listening import open_sockets
from proxy.settings import read_settings

STEP_SECONDS = 0.2
FARTHEST_SECONDS = 40 * 86400


def stepping(chance: Random, now_ns: Callable[[], int]) -> Callable[[], int]:
    """Return a clock that is set anew every few moments, by up to 40 days in either direction."""
    step, due = 0, 0

    def clock() -> int:
        nonlocal step, due
        now = now_ns()
        if now >= due:
            step = int(chance.uniform(-FARTHEST_SECONDS, FARTHEST_SECONDS) * 1e9)
            due = now + int(STEP_SECONDS * 1e9)
        return now + step

    return clock


def main() -> None:
    """Serve until SIGTERM."""
    settings = read_settings({})
    journal = JournalWriter(settings.data_dir / "journal", name="stepping")
    listener = open_sockets(settings.listen, 1, setting="METER_LISTEN")[0]
    clock = stepping(Random(int(sys.argv[1])), time.time_ns)
    worker = Worker(settings, journal=journal, name="stepping", log_call=None, clock_ns=clock)

    async def run() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run(listener)

    asyncio.run(run())
    journal.close()


if __name__ == "__main__":
    main()

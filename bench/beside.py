"""Calls beside other work: what an export, a hundred dashboards or a backlog do to their latency.

    .venv/bin/python bench/beside.py --layout pinned --rates 100,500 --rounds 3

Calls come at a fixed rate, each timed from when it was due, in rounds of two: first with nothing
beside them, then beside the work. Load and upstream stand for other machines, so where we may they
run before everything else on their core (SCHED_FIFO): what is measured is the proxy's waiting and
not theirs. The worker has a core of its own (`pinned`), or the kernel decides (`free`).
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from itertools import count
from pathlib import Path

import aiohttp
from draining import write_journal
from filling import ledger
from tables import spread
from targets import OTHERS, Target, fixed_upstream, free_port, openai_meter, pids_under, pinned

BENCH = Path(__file__).parent
TOKEN = "of-a-bench"  # noqa: S105 - of a dashboard that lives for minutes
KINDS = ("nothing", "export", "dashboards", "backlog")
DASHBOARDS = 100
BACKLOG_ROWS_PER_SECOND = 30_000  # more than are recorded
SHARES = ("p50", "p99", "p999")
PRIORITY = 10

_numbers = count()
Beside = Callable[[], "contextmanager[None]"]


def first_of_all(pid: int) -> bool:
    """Let a process run before all ordinary ones, where we may; return whether it does."""
    with suppress(OSError):
        for one in pids_under(pid):
            os.sched_setscheduler(one, os.SCHED_FIFO, os.sched_param(PRIORITY))
        return True
    return False


class Bench:
    """What runs, and the work that can be done beside calls."""

    def __init__(self, target: Target, page: int, directory: Path, seconds: float) -> None:
        self.target, self.page, self.directory, self.seconds = target, page, directory, seconds
        self.done: dict[str, float] = {}  # of the work beside, a second

    def calls(self, rate: float) -> dict[str, float]:
        """Make calls; return how long they took."""
        program = (sys.executable, BENCH / "openloop.py", str(self.target.port))
        words = (f"--rate={rate}", f"--seconds={self.seconds}")
        with subprocess.Popen(pinned(OTHERS, *program, *words), stdout=subprocess.PIPE) as running:
            first_of_all(running.pid)
            said, _ = running.communicate(timeout=self.seconds * 4 + 90)
        found: dict[str, float] = json.loads(said)
        return found

    @contextmanager
    def nothing(self) -> Iterator[None]:
        """Do nothing beside: how far two rounds of the same are from each other."""
        yield

    @contextmanager
    def export(self) -> Iterator[None]:
        """Take file after file."""
        address = f"http://127.0.0.1:{self.page}/api/usage/export?range=all"
        ended, rows, begun = threading.Event(), 0, time.monotonic()
        flags = ("-sS", "-m", "60", "-H", f"Authorization: Bearer {TOKEN}", address)
        running: list[subprocess.Popen[bytes]] = []

        def take() -> None:
            nonlocal rows
            while not ended.is_set():
                running[:] = [
                    subprocess.Popen(pinned(OTHERS, "curl", *flags), stdout=subprocess.PIPE)
                ]
                pipe = running[0].stdout
                while pipe is not None and (piece := pipe.read(1 << 18)):
                    rows += piece.count(b"\n")
                running[0].wait(10)

        thread = threading.Thread(target=take)
        thread.start()
        time.sleep(0.5)
        yield
        self.done["export"] = rows / (time.monotonic() - begun)
        ended.set()
        running[0].terminate()
        thread.join(60)

    @contextmanager
    def dashboards(self) -> Iterator[None]:
        """Have pages open that follow the ledger, as browsers do."""
        program = (sys.executable, __file__, "--open", str(self.page))
        with subprocess.Popen(
            pinned(OTHERS, *program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as running:
            assert running.stdout is not None  # noqa: S101 (it was asked for)
            assert running.stdout.readline() == "open\n"  # noqa: S101 (or nothing was measured)
            yield
            said, _ = running.communicate("", timeout=60)
        self.done["dashboards"] = float(said)

    @contextmanager
    def backlog(self) -> Iterator[None]:
        """Have a journal drained that a dead worker has left."""
        wanted = int(BACKLOG_ROWS_PER_SECOND * (self.seconds + 3))
        staged = self.directory / f"staged-{next(_numbers)}"
        write_journal(staged, wanted, 20_000, 14_400.0)
        recorder = recorder_below(os.getpid())
        before, begun = self.target.rows() or 0, time.monotonic()
        os.kill(recorder, signal.SIGSTOP)  # until all of it is there
        for file in sorted((staged / "journal").iterdir()):
            file.rename(self.directory / "data" / "journal" / file.name)
        os.kill(recorder, signal.SIGCONT)
        shutil.rmtree(staged)
        time.sleep(0.5)
        yield
        rows = (self.target.rows() or 0) - before
        self.done["backlog"] = rows / (time.monotonic() - begun)
        if rows >= wanted:
            print("the backlog ended before the calls did", flush=True)


def recorder_below(pid: int) -> int:
    """Return the process id of the recorder that runs below a process."""
    for one in pids_under(pid):
        if b"\0recorder\0" in Path(f"/proc/{one}/cmdline").read_bytes():
            return one
    raise SystemExit("no recorder runs")


def let_go(pids: list[int]) -> None:
    """Let processes run on every core."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                os.sched_setaffinity(int(task.name), range(os.cpu_count() or 1))


def measure(bench: Bench, kind: str, rate: float, rounds: int) -> None:
    """Print what calls take without and with one kind of work beside them, and the ratios."""
    found: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    for _ in range(rounds):
        for name, beside in (("without", nullcontext), ("with", getattr(bench, kind))):
            with beside():
                found[name].append(bench.calls(rate))
            if name == "with":
                bench.target.settled()
            print(f"  {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    for name, rows in found.items():
        cells = [spread([row[f"{share}_us"] for row in rows]) for share in SHARES]
        failed = sum(row["failed"] for row in rows)
        print(f"| {kind}, {rate:g} | {name} | {' | '.join(cells)} | {failed:g} |")
    pairs = list(zip(found["without"], found["with"], strict=True))
    cells = [spread([b[f"{s}_us"] / a[f"{s}_us"] for a, b in pairs], 2) for s in SHARES]
    done = f"{bench.done[kind]:,.0f} a second" if kind in bench.done else ""
    print(f"| {done} | ratio | {' | '.join(cells)} | |", flush=True)


async def keep_open(port: int) -> None:
    """Keep pages open until standard input ends; print how many were fetched a second."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(0, ended.set)
    fetched, begun, opened = count(), time.monotonic(), count(1)
    async with (
        aiohttp.ClientSession(
            f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=600),
        ) as client,
        asyncio.TaskGroup() as tasks,
    ):

        async def page() -> None:
            async with client.get("/admin/live") as events:
                async for line in events.content:
                    if not line.startswith(b"data: "):
                        continue
                    if next(opened) == DASHBOARDS:
                        print("open", flush=True)
                    async with client.get("/admin?range=today") as answer:
                        await answer.read()
                    next(fetched)
                    await asyncio.sleep(json.loads(line[6:])["pause"])

        pages = [tasks.create_task(page()) for _ in range(DASHBOARDS)]
        await ended.wait()
        print(next(fetched) / (time.monotonic() - begun), flush=True)
        for each in pages:
            each.cancel()


@contextmanager
def running(options: argparse.Namespace) -> Iterator[Bench]:
    """Start everything, with a ledger of some rows."""
    with ExitStack() as stack:
        place = tempfile.TemporaryDirectory(prefix="meter-bench-", dir="/tmp")
        directory, page = options.keep or Path(stack.enter_context(place)), free_port()
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        upstream, _ = stack.enter_context(fixed_upstream(directory))
        settings = {
            "METER_LOG_CALLS": "false",
            "METER_DASHBOARD_LISTEN": f"127.0.0.1:{page}",
            "METER_API_TOKENS": TOKEN,
            "METER_ADMIN_PASSWORD": TOKEN,
        }
        if {"export", "dashboards"} & set(options.only):
            with ledger(directory / "data", options.rows, 20_000):
                pass  # filled, and stopped again
        meter = openai_meter(upstream, directory, options.python, **settings)
        target = stack.enter_context(meter)
        below = pids_under(os.getpid())[1:]
        nginx = [pid for pid in below if b"nginx" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        before = min(map(first_of_all, nginx), default=False)
        if options.layout == "free":
            let_go([pid for pid in below if pid not in nginx])
        print(f"{options.layout}; load and upstream run before others: {before}")
        yield Bench(target, page, directory, options.seconds)


def main() -> None:
    """Measure what was asked for."""
    split: Callable[[str], list[str]] = partial(str.split, sep=",")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=split, default=list(KINDS), help=", ".join(KINDS))
    parser.add_argument("--rates", type=split, default=["100", "500"], help="calls a second")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rows", type=int, default=500_000, help="of the ledger")
    parser.add_argument("--keep", type=Path, help="directory of the ledger; kept and used again")
    parser.add_argument("--layout", choices=("pinned", "free"), default="pinned")
    parser.add_argument("--python", default=sys.executable, help="what openai-meter runs on")
    parser.add_argument("--open", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open is not None:
        asyncio.run(keep_open(options.open))
        return
    with running(options) as bench:
        print("| beside, calls a second | | p50 µs | p99 µs | p99.9 µs | failed |")
        print("|---|---|---:|---:|---:|---:|")
        for kind in options.only:
            for rate in options.rates:
                measure(bench, kind, float(rate), options.rounds)


if __name__ == "__main__":
    main()

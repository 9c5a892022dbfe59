"""Run the proof: `python -m prove --faults 100 --seed 7`; it ends with a table and a status.

The seed decides which faults happen in which order, after which pauses, and what each call is. How
these meet is up to the machine, so that a seed is replayed, and a run is not.
"""

import argparse
import asyncio
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from prove.checking import ROLLED, ROLLUPS, ROWS, SUMS, Verdict, judge, judge_sums
from prove.clients import Clients, Fate
from prove.faults import FAULTS, Fault
from prove.stage import PATIENCE_SECONDS, WORKERS, Stage, free_port, setting
from prove.upstream import Upstream

CLIENTS = 24
PAUSE_SECONDS = 0.4  # between two faults, on average
LONG_RUN = 200  # faults
OUTAGE_SECONDS = 300.0  # at most


def main() -> int:
    """Run it and return the exit status: 0 where everything that has to be 0 is."""
    parser = argparse.ArgumentParser(prog="prove", description=__doc__)
    parser.add_argument("--faults", type=int, default=25, help="how many")
    parser.add_argument("--seconds", type=float, default=0.0, help="end after so long; 0: never")
    parser.add_argument("--seed", type=int, default=None, help="what is chosen; default: anew")
    parser.add_argument("--rate", type=float, default=40.0, help="calls a second")
    parser.add_argument("--only", default="", help="only faults whose name has this in it")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    print(f"prove: seed {seed}, {options.faults} faults, {options.rate:g} calls/s", flush=True)
    with tempfile.TemporaryDirectory(prefix="meter-prove-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        run = Run(Path(name), options, seed)
        asyncio.run(run.run())
        verdict = run.verdict
        print(run.table())
        for finding in verdict.findings()[:50]:
            print(f"  {finding}")
        if not verdict.holds:
            kept = Path(tempfile.mkdtemp(prefix="meter-prove-failed-", dir="/tmp")) / "log"
            kept.write_text((Path(name) / "log").read_text())
            print(f"\nthe log of all processes: {kept}")
    print(f"\n{'holds' if verdict.holds else 'DOES NOT HOLD'}, seed {seed}")
    return 0 if verdict.holds else 1


class Run:
    """One run: its plan, what has happened, and what came of it."""

    def __init__(self, directory: Path, options: argparse.Namespace, seed: int) -> None:
        self.verdict = Verdict()
        self.happened: Counter[str] = Counter()
        self.troubles: list[str] = []  # faults that did not go as they should
        self.seconds = 0.0
        self._directory = directory
        self._options = options
        self._seed = seed
        self._clients: Clients | None = None

    async def run(self) -> None:
        """Do the faults under load, let everything settle, and judge."""
        chance = Random(self._seed)
        async with Upstream(self._seed) as upstream:
            clients = Clients(free_port(), upstream, self._seed, self._options.rate)
            self._clients = clients
            async with setting(self._directory, upstream, clients, Random(self._seed + 1)) as stage:
                begun = time.monotonic()
                async with asyncio.TaskGroup() as tasks:
                    load = tasks.create_task(clients.run(CLIENTS))
                    try:
                        await self._do_faults(stage, chance)
                    finally:
                        await stage.until(
                            lambda: stage.postgres_up, "Postgres is back", OUTAGE_SECONDS
                        )
                        clients.stop()
                        await asyncio.wait([load], timeout=PATIENCE_SECONDS)
                await self._settle(stage)
                self.seconds = time.monotonic() - begun
                await self._judge(stage)

    async def _do_faults(self, stage: Stage, chance: Random) -> None:
        possible = [fault for fault in FAULTS if self._options.only in fault.name]
        possible = [fault for fault in possible if stage.has_disk or not fault.needs_disk]
        if self._options.faults < LONG_RUN:
            possible = [fault for fault in possible if not fault.takes_minutes]
        left = plan(possible, self._options.faults, chance)
        ends = time.monotonic() + (self._options.seconds or 10**9)
        number = 0
        while left:
            await asyncio.sleep(chance.expovariate(1 / PAUSE_SECONDS))
            if time.monotonic() > ends:
                return
            fault = await self._next(stage, left)
            number += 1
            now = time.strftime("%H:%M:%S")
            print(f"{number:5} {now} {fault.name}", flush=True)
            with (self._directory / "log").open("a") as log:
                log.write(f"--- {now} {number} {fault.name}\n")
            try:
                await fault.do(stage)
            except (AssertionError, OSError, TimeoutError) as exc:
                self.troubles.append(f"{number}, {fault.name}: {exc!r}")
                print(f"      {exc!r}", flush=True)
            else:
                self.happened[fault.name] += 1

    async def _next(self, stage: Stage, left: list[Fault]) -> Fault:
        """Take the next fault; while Postgres is away, the next one that can do without it."""
        for place, fault in enumerate(left):
            if stage.postgres_up or not fault.needs_postgres:
                return left.pop(place)
        await stage.until(lambda: stage.postgres_up, "Postgres is back", OUTAGE_SECONDS)
        return left.pop(0)

    async def _settle(self, stage: Stage) -> None:
        """Wait until all is recorded: a clean stop waits for it, as long as that takes."""
        await stage.until(lambda: len(stage.workers()) >= WORKERS, "all workers run")
        await stage.one_recorder()
        wanted = set(map(str, stage.upstream.asked))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            rows = await stage.ask(
                "SELECT DISTINCT metadata ->> 'call' AS call FROM user_api_usage"
            )
            if wanted <= {row["call"] for row in rows}:
                break
            await asyncio.sleep(0.5)
        status = await stage.stop()
        if status != 0:
            self.troubles.append(f"serve ended with status {status}")

    async def _judge(self, stage: Stage) -> None:
        rows = await stage.ask(ROWS)
        self.verdict = judge(rows, stage.upstream, stage.clients, stage.torn)
        self.verdict.troubles += self.troubles
        raw = (await stage.ask(SUMS))[0]
        rolled = {name: (await stage.ask(ROLLED + name))[0] for name in ROLLUPS}
        self.verdict.wrong_rollups += judge_sums(raw, rolled)
        process = await stage.command("proxy", "verify")
        status = await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
        await asyncio.sleep(0.2)
        said = [line for line in stage.lines if line.startswith("verify: ")]
        if status != 0:
            self.verdict.wrong_rollups += said or [f"verify ended with status {status}"]

    def table(self) -> str:
        """Return what is to be known of the run."""
        verdict, clients = self.verdict, self._clients
        assert clients is not None
        fates = Counter(clients.fates.values())
        lines = [
            "",
            f"seed {self._seed}, {self.seconds:.0f} s, {os.cpu_count()} cores",
            "",
            "| faults | happened |",
            "|---|---:|",
            *(f"| {fault.name} | {self.happened[fault.name]} |" for fault in FAULTS),
            f"| **all** | **{sum(self.happened.values())}** |",
            "",
            "| calls, as their clients saw them | |",
            "|---|---:|",
            *(f"| {fate.value} | {fates[fate]} |" for fate in Fate if fate is not Fate.OURS),
            "",
            "| ledger | |",
            "|---|---:|",
            f"| calls that the upstream saw | {verdict.seen} |",
            f"| rows of calls | {verdict.rows} |",
            f"| … of these noted, but never sent | {verdict.unsent} |",
            f"| charges of background responses | {verdict.charges} |",
            f"| calls whose end was torn off the journal | {verdict.torn} |",
            *(f"| outcome {name} | {count} |" for name, count in sorted(verdict.outcomes.items())),
            *(f"| usage {name} | {count} |" for name, count in sorted(verdict.sources.items())),
            "",
            "| has to be 0 | |",
            "|---|---:|",
            *(f"| {name} | **{count}** |" for name, count in verdict.counts.items()),
        ]
        return "\n".join(lines)


def plan(faults: list[Fault], number: int, chance: Random) -> list[Fault]:
    """Return so many faults: each of them once, as far as that goes, and then by weight."""
    once = list(faults)
    chance.shuffle(once)
    rest = max(0, number - len(once))
    weights = [fault.weight for fault in faults]
    return once[:number] + chance.choices(faults, weights=weights, k=rest)


if __name__ == "__main__":
    sys.exit(main())

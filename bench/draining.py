"""A backlog: how fast the recorder brings what an outage has left in the journal into Postgres.

Writes the journal of a worker that died (an opening and a closing for each call), starts a Postgres
and a recorder, and samples rows, lag and memory until everything is in the ledger.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg

from proxy.core.model import Closing, Opening
from proxy.embedded import EmbeddedPostgres
from proxy.heartbeat import FILE_NAME
from proxy.journal import JournalWriter

ENDPOINTS = (
    "analyze_homework",
    "generate_hint",
    "verify_answer",
    "chat_response",
    "validate_image",
)
MODELS = (  # of each endpoint: a feature has its model
    ("gpt-4o", "gpt-4o-2024-08-06"),
    ("gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
    ("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14"),
    ("gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
    ("gpt-4.1", "gpt-4.1-2025-04-14"),
)
SAMPLE_SECONDS = 2.0


def calls(count: int, users: int, seconds: float) -> Iterator[tuple[Opening, Closing]]:
    """Yield calls of the last so many seconds, as they might have come."""
    dice = random.Random(1)  # noqa: S311 (nothing secret)
    begin = int((time.time() - seconds) * 1000)
    for number in range(count):
        moment = begin + int(seconds * 1000 * number / count)
        feature = dice.randrange(len(ENDPOINTS))
        asked, model = MODELS[feature]
        prompt, cached, output = dice.randrange(50, 4000), dice.randrange(50), dice.randrange(900)
        user = int(users * dice.random() ** 2)  # some are busier than others
        opening = Opening(
            event_id=moment.to_bytes(6, "big") + (0x7000_8000 << 48 | number).to_bytes(10, "big"),
            operation_name="chat",
            method="POST",
            api_path="/v1/chat/completions",
            upstream="api.openai.com",
            user_id=f"student-{user:06d}",
            endpoint=ENDPOINTS[feature],
            metadata={"course": f"c{user % 40}", "session": f"{user:x}-{moment // 900_000:x}"},
            request_model=asked,
            stream=number % 2 == 0,
            request_bytes=1900,
            worker="worker-0",
        )
        yield (
            opening,
            Closing(
                opening=opening,
                outcome="ok",
                status=200,
                response_model=model,
                response_service_tier="default",
                response_id=f"chatcmpl-{number:024d}",
                upstream_request_id=f"req_{number:032x}",
                usage=(
                    b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
                    b'"prompt_tokens_details":{"cached_tokens":%d,"audio_tokens":0},'
                    b'"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,'
                    b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
                    % (prompt, output, prompt + output, cached)
                ),
                latency_us=dice.randrange(300_000, 9_000_000),
                time_to_first_byte_us=dice.randrange(200_000, 900_000),
                request_body_bytes=1900,
                response_body_bytes=4200,
            ),
        )


def write_journal(directory: Path, count: int, users: int, seconds: float) -> None:
    """Write the journal of a worker that is dead by now."""
    journal = JournalWriter(directory / "journal", name="worker-0")
    batch: list[Opening | Closing] = []
    for opening, closing in calls(count, users, seconds):
        batch += (opening, closing)
        if len(batch) >= 1000:
            journal.append_many(batch)
            batch.clear()
    journal.append_many(batch)
    journal.close()


def memory_of(pid: int) -> float:
    """Return the resident memory of a process, in megabytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def processor_of(pid: int) -> float:
    """Return the seconds of processor time that a process has had."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def processor_below(pid: int) -> float:
    """Return the seconds of processor time of a process and all that are below it."""
    found = processor_of(pid)
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            try:
                found += processor_below(int(child))
            except (OSError, ValueError):
                continue  # it has just ended
    return found


async def drain(directory: Path, dsn: str, server: int, count: int, wrap: list[str]) -> None:
    """Run a recorder until all is in the ledger, and tell how it goes."""
    environment = {name: value for name, value in os.environ.items() if name[:6] != "METER_"}
    environment |= {"METER_DATA_DIR": str(directory), "METER_DATABASE_URL": dsn}
    began = time.monotonic()
    process = subprocess.Popen(  # noqa: ASYNC220 (before anything is under way)
        [*wrap, sys.executable, "-m", "proxy", "recorder"],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    connection = await asyncpg.connect(dsn)
    idle = processor_below(server)
    try:
        print(f"{'s':>5} {'rows':>9} {'rows/s':>8} {'MB':>6} {'lag MB':>7}")
        rows, before = 0, began
        peak = 0.0
        while rows < count:
            await asyncio.sleep(SAMPLE_SECONDS)
            try:
                now_rows = await connection.fetchval("SELECT calls FROM ledger_status")
            except asyncpg.UndefinedTableError:
                continue
            now, memory = time.monotonic(), memory_of(process.pid)
            peak = max(peak, memory)
            state = json.loads((directory / FILE_NAME).read_text())
            speed = (now_rows - rows) / (now - before)
            lag = state["lag_bytes"] / 1e6
            print(f"{now - began:5.0f} {now_rows:9d} {speed:8.0f} {memory:6.0f} {lag:7.1f}")
            rows, before = now_rows, now
        took = time.monotonic() - began
        cpu = processor_of(process.pid)
        print(
            f"{rows} rows in {took:.1f} s: {rows / took:.0f} rows/s, start-up included; "
            f"recorder {cpu / rows * 1e6:.1f} µs of processor a row, {peak:.0f} MB at most; "
            f"Postgres {(processor_below(server) - idle) / rows * 1e6:.1f} µs a row"
        )
    finally:
        await connection.close()
        process.terminate()
        process.wait(30)


def main() -> None:
    """Make a backlog and drain it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--hours", type=float, default=4.0, help="over which the calls came")
    parser.add_argument("--wrap", default="", help="a command to run the recorder under")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="meter-drain-", dir="/tmp"))
    directory.chmod(0o755)
    postgres = EmbeddedPostgres(directory / "postgres")
    try:
        dsn = postgres.start()
        began = time.monotonic()
        write_journal(directory, options.calls, options.users, options.hours * 3600)
        size = sum(path.stat().st_size for path in (directory / "journal").iterdir()) / 1e6
        print(
            f"{2 * options.calls} records, {size:.0f} MB, "
            f"written in {time.monotonic() - began:.0f} s"
        )
        asyncio.run(drain(directory, dsn, postgres.pid or 0, options.calls, options.wrap.split()))
    finally:
        postgres.stop()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()

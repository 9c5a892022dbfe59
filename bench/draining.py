"""A backlog: how fast the recorder brings what an outage has left in the journal into Postgres.

Writes the journal of a worker that died (an opening and a closing for each call), starts a Postgres
and a recorder, and samples rows, lag, age and memory until everything is in the ledger. With
`--beside` it is `openai-meter serve` that drains it, and calls are timed while it does and after.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
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
BESIDE_SECONDS = 15.0
ENOUGH_MEGABYTES = 250.0  # to drain for so long
PORT, UPSTREAM_PORT = 18482, 18483
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 150\r\n\r\n"
    + json.dumps(
        {
            "id": "chatcmpl-1",
            "model": "gpt-4o-mini-2024-07-18",
            "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17},
        }
    )
    .encode()
    .ljust(150)
)


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
    began = time.monotonic()
    process = subprocess.Popen(  # noqa: ASYNC220 (before anything is under way)
        [*wrap, sys.executable, "-m", "proxy", "recorder"],
        env=environment(directory) | {"METER_DATABASE_URL": dsn},
        stdout=subprocess.DEVNULL,
    )
    connection = await asyncpg.connect(dsn)
    idle = processor_below(server)
    memories: list[float] = []
    try:
        print(f"{'s':>5} {'rows':>9} {'rows/s':>8} {'MB':>6} {'lag MB':>7} {'age s':>7}")
        rows, before, told = 0, began, 0
        while rows < count:
            await asyncio.sleep(SAMPLE_SECONDS)
            try:
                now_rows = await connection.fetchval("SELECT calls FROM ledger_status")
            except asyncpg.UndefinedTableError:
                continue
            memories.append(memory_of(process.pid))
            if now_rows < count and now_rows - told < count / 40:
                continue
            now, state = time.monotonic(), json.loads((directory / FILE_NAME).read_text())
            speed = (now_rows - rows) / (now - before)
            lag, age = state["lag_bytes"] / 1e6, state["backlog_seconds"]
            print(
                f"{now - began:5.0f} {now_rows:9d} {speed:8.0f} {memories[-1]:6.0f} "
                f"{lag:7.1f} {age:7.0f}",
                flush=True,
            )
            rows = told = now_rows
            before = now
        took = time.monotonic() - began
        cpu = processor_of(process.pid)
        print(
            f"{rows} rows in {took:.1f} s: {rows / took:.0f} rows/s, start-up included; "
            f"recorder {cpu / rows * 1e6:.1f} µs of processor a row, {max(memories):.0f} MB at "
            f"most; Postgres {(processor_below(server) - idle) / rows * 1e6:.1f} µs a row"
        )
    finally:
        await connection.close()
        process.terminate()
        process.wait(30)


async def beside(directory: Path, rate: float) -> None:
    """Have `serve` drain it, and time calls at a steady rate while it does, and afterwards."""
    upstream = await asyncio.start_server(answer, "127.0.0.1", UPSTREAM_PORT)
    process = subprocess.Popen(  # noqa: ASYNC220 (before anything is under way)
        [sys.executable, "-m", "proxy", "serve"],
        env=environment(directory)
        | {
            "METER_WORKERS": "1",
            "METER_LOG_CALLS": "false",
            "METER_LISTEN": f"127.0.0.1:{PORT}",
            "METER_DASHBOARD_LISTEN": "127.0.0.1:0",
            "METER_UPSTREAM_URL": f"http://127.0.0.1:{UPSTREAM_PORT}",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not waiting(directory):  # noqa: ASYNC110 (a file tells)
            await asyncio.sleep(0.2)
        await asyncio.sleep(2)
        while (before := waiting(directory)) > ENOUGH_MEGABYTES:
            tell("while it drains", before, await calls_at(rate), waiting(directory))
        while waiting(directory):  # noqa: ASYNC110 (likewise)
            await asyncio.sleep(0.5)
        await asyncio.sleep(5)
        for _ in range(2):
            tell("with nothing to drain", 0.0, await calls_at(rate), 0.0)
    finally:
        process.terminate()
        process.wait(60)
        await asyncio.sleep(0.5)  # its connections end
        upstream.close()


def waiting(directory: Path) -> float:
    """Return how many megabytes of journal are not in the ledger; 0: nothing, or nobody says."""
    try:
        megabytes = json.loads((directory / FILE_NAME).read_text())["lag_bytes"] / 1e6
    except (OSError, ValueError):
        return 0.0
    return float(megabytes) if megabytes > 1 else 0.0


def tell(when: str, before: float, found: dict[str, float], after: float) -> None:
    """Print what calls took."""
    print(
        f"{when} ({before:.0f} to {after:.0f} MB): {found['calls']} calls, {found['failed']} "
        f"failed, p50 {found['p50_us']:.0f} µs, p99 {found['p99_us']:.0f} µs",
        flush=True,
    )


async def calls_at(rate: float) -> dict[str, float]:
    """Make calls for a while, in a process of its own; return what they took."""
    words = (str(PORT), "--rate", str(rate), "--seconds", str(BESIDE_SECONDS))
    program = str(Path(__file__).with_name("openloop.py"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, *words, stdout=subprocess.PIPE
    )
    said, _ = await process.communicate()
    found: dict[str, float] = json.loads(said)
    return found


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every call in the same way."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            writer.write(ANSWER)
    writer.close()


def environment(directory: Path) -> dict[str, str]:
    """Return an environment without anybody's settings."""
    mine = {name: value for name, value in os.environ.items() if name[:6] != "METER_"}
    return mine | {"METER_DATA_DIR": str(directory)}


def main() -> None:
    """Make a backlog and drain it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=400_000, help="two for each call")
    parser.add_argument("--beside", type=float, default=0.0, help="calls a second, timed")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--hours", type=float, default=4.0, help="over which the calls came")
    parser.add_argument("--wrap", default="", help="a command to run the recorder under")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="meter-drain-", dir="/tmp"))
    directory.chmod(0o755)
    postgres = EmbeddedPostgres(directory / "postgres")
    calls_made = options.records // 2
    try:
        began = time.monotonic()
        write_journal(directory, calls_made, options.users, options.hours * 3600)
        size = sum(path.stat().st_size for path in (directory / "journal").iterdir()) / 1e6
        print(
            f"{options.records} records, {size:.0f} MB, "
            f"written in {time.monotonic() - began:.0f} s",
            flush=True,
        )
        if options.beside:
            asyncio.run(beside(directory, options.beside))
        else:
            dsn = postgres.start()
            wrap = options.wrap.split()
            asyncio.run(drain(directory, dsn, postgres.pid or 0, calls_made, wrap))
    finally:
        postgres.stop()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()

"""Measure the relay with metering, journal, recorder and Postgres on, beside nginx in the same run.

Prints calls/s and CPU per call in a closed loop, added latency at a fixed low concurrency, and for
event streams the delay of each chunk and CPU per million chunks; medians of rounds in rotation.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from targets import (
    BENCH,
    OTHERS,
    fixed_upstream,
    free_port,
    openai_meter,
    pinned,
    plain_nginx,
    process,
)

TICKS = os.sysconf("SC_CLK_TCK")
Row = dict[str, float]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mb(pid: int) -> float:
    """Return the proportional memory of a process."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"Pss:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


def with_cpu(pid: int | None, per: str, work: Callable[[], Row]) -> Row:
    """Do the work and add the CPU microseconds that the process spent for each unit of it."""
    before = cpu_seconds(pid) if pid else 0.0
    row = work()
    if pid:
        row["cpu_us"] = (cpu_seconds(pid) - before) * 1_000_000 / max(1.0, row[per])
        row["pss_mb"] = resident_mb(pid)
    return row


def wrk(port: int, connections: int, seconds: int) -> Row:
    """Load with wrk; return calls/s, calls, latency in microseconds and failures."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    command = pinned(
        OTHERS,
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--latency",
        "-s",
        BENCH / "post.lua",
        url,
    )
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    calls = float(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    sockets = re.search(r"Socket errors: (.*)", output)
    if wrong or sockets:
        print("  failures:", wrong and wrong[0], sockets and sockets[0])
    return {
        "calls": calls,
        "calls_per_second": float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]),  # type: ignore[index]
        "p50_us": _microseconds(output, "50%"),
        "p99_us": _microseconds(output, "99%"),
    }


def _microseconds(output: str, share: str) -> float:
    number, unit = re.search(rf"{share}\s+([\d.]+)(us|ms|s)\b", output).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1, "ms": 1000, "s": 1_000_000}[unit]


def streams(port: int, count: int, events: int) -> Row:
    """Open streams and return their chunk delays."""
    command = pinned(
        OTHERS, sys.executable, BENCH / "streaming.py", "measure", str(port),
        f"--streams={count}", f"--count={events}",
    )  # fmt: skip
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    return dict(json.loads(output))


def median_table(title: str, results: dict[str, list[Row]], columns: list[str]) -> None:
    """Print medians with least and greatest values, and the ratio to nginx of the same rounds."""
    print(f"\n{title}\n")
    print("| target | ratio to nginx | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 2) + "|")
    key = columns[0]
    for name, rows in results.items():
        ratios = [r[key] / n[key] for r, n in zip(rows, results["nginx"], strict=True)]
        cells = []
        for column in columns:
            values = [row[column] for row in rows if column in row]
            cells.append(_cell(values))
        print(f"| {name} | {statistics.median(ratios):.2f} | " + " | ".join(cells) + " |")


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):,.1f} ({min(values):,.1f}-{max(values):,.1f})"


def calls(options: argparse.Namespace, run: Path, **settings: str) -> None:
    """Measure plain calls, closed loop, then at one connection for latency."""
    with ExitStack() as stack:
        upstream = stack.enter_context(fixed_upstream(run))
        targets: dict[str, tuple[int, int | None]] = {"direct": (upstream, None)}
        targets["nginx"] = stack.enter_context(plain_nginx(upstream, run))
        targets["openai-meter"] = stack.enter_context(openai_meter(upstream, run, **settings))
        for connections, seconds in ((64, options.seconds), (1, max(2, options.seconds // 2))):
            results: dict[str, list[Row]] = {name: [] for name in targets}
            for _ in range(options.rounds):
                for name, (port, pid) in targets.items():
                    wrk(port, connections, 1)
                    load = partial(wrk, port, connections, seconds)
                    results[name].append(with_cpu(pid, "calls", load))
            median_table(
                f"1 kB calls, {connections} connections, closed loop",
                results,
                ["calls_per_second", "cpu_us", "p50_us", "p99_us", "pss_mb"],
            )


def streaming(options: argparse.Namespace, run: Path, **settings: str) -> None:
    """Measure event streams."""
    with ExitStack() as stack:
        upstream = free_port()
        stack.enter_context(
            process(
                pinned(
                    OTHERS, sys.executable, BENCH / "streaming.py", "serve", str(upstream),
                    f"--count={options.events}",
                ),
                upstream,
            )
        )  # fmt: skip
        targets: dict[str, tuple[int, int | None]] = {"direct": (upstream, None)}
        targets["nginx"] = stack.enter_context(plain_nginx(upstream, run))
        targets["openai-meter"] = stack.enter_context(openai_meter(upstream, run, **settings))
        results: dict[str, list[Row]] = {name: [] for name in targets}
        for _ in range(options.rounds):
            for name, (port, pid) in targets.items():
                load = partial(streams, port, options.streams, options.events)
                results[name].append(with_cpu(pid, "chunks", load))
        median_table(
            f"{options.streams} streams x {options.events} chunks, 20 ms apart (cpu_us: per chunk)",
            results,
            ["p50_us", "p99_us", "cpu_us", "pss_mb", "chunks"],
        )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--only", choices=["calls", "streaming"])
    parser.add_argument("--no-call-log", action="store_true", help="as nginx without access log")
    options = parser.parse_args()
    settings = {"METER_LOG_CALLS": "false"} if options.no_call_log else {}
    for name, measure in (("calls", calls), ("streaming", streaming)):
        if options.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="meter-bench-", dir="/tmp") as directory:
                Path(directory).chmod(0o755)
                measure(options, Path(directory), **settings)


if __name__ == "__main__":
    main()

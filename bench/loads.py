"""What is done to a target, and what it costs: each function gives one row of numbers."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from targets import BENCH, OTHERS, Target, pinned

TICKS = os.sysconf("SC_CLK_TCK")
Row = dict[str, float]


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU time of processes, all threads."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def memory_mb(pids: list[int]) -> float:
    """Return the proportional memory of processes."""
    found = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            found += int(re.search(r"Pss:\s+(\d+)", text)[1])  # type: ignore[index]
    return found / 1024


def with_cpu(target: Target, per: str, work: Callable[[], Row]) -> Row:
    """Do the work and add the CPU microseconds that the target spent for each unit of it."""
    before = cpu_seconds(target.pids)
    row = work()
    if target.pids:
        row["cpu_us"] = (cpu_seconds(target.pids) - before) * 1_000_000 / max(1.0, row[per])
    return row


def _output(command: list[str], **options: object) -> str:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
    return str(done.stdout)


def closed_loop(target: Target, connections: int, seconds: float) -> Row:
    """Load with wrk: as many calls as it makes with so many connections."""
    url = f"http://127.0.0.1:{target.port}{target.path}"
    flags = ("-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s")
    command = pinned(OTHERS, "wrk", *flags, "--latency", "-s", BENCH / "post.lua", url)
    environment = {**os.environ, "BENCH_MODEL": target.model, "BENCH_FIELDS": target.fields}
    output = _output(command, env=environment, timeout=seconds + 60)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    sockets = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    failed = int(wrong[1]) if wrong else 0
    failed += sum(map(int, sockets.groups())) if sockets else 0
    return {
        "calls": _number(r"(\d+) requests in", output),
        "calls_per_second": _number(r"Requests/sec:\s+([\d.]+)", output),
        "p50_us": _microseconds(output, "50%"),
        "p99_us": _microseconds(output, "99%"),
        "failed": failed,
    }


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    return float(found[1]) if found else 0.0


def _microseconds(output: str, share: str) -> float:
    found = re.search(rf"{share}\s+([\d.]+)(us|ms|s)\b", output)
    return float(found[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[found[2]] if found else 0.0


def _told(target: Target) -> list[str]:
    return [f"--path={target.path}", f"--model={target.model}", f"--fields={target.fields}"]


def open_loop(target: Target, rate: int, seconds: float) -> Row:
    """Make calls at a fixed rate."""
    program = (sys.executable, BENCH / "openloop.py", str(target.port))
    flags = (f"--rate={rate}", f"--seconds={seconds}", *_told(target))
    command = pinned(OTHERS, *program, *flags)
    return dict(json.loads(_output(command, timeout=seconds * 4 + 90)))


def _streaming(role: str, target: Target, *flags: str) -> list[str]:
    program = (sys.executable, BENCH / "streaming.py", role, str(target.port))
    return pinned(OTHERS, *program, *flags, *_told(target))


def streams(target: Target, count: int, events: int, *, include_usage: bool) -> Row:
    """Read so many streams at once."""
    flags = [f"--streams={count}", f"--count={events}"]
    flags += ["--include-usage"] if include_usage else []
    return dict(json.loads(_output(_streaming("measure", target, *flags), timeout=400)))


def held(target: Target, count: int, upstream: int) -> Row:
    """Hold so many streams open; return memory before, meanwhile and afterwards."""
    idle = memory_mb(target.pids)
    command = _streaming("hold", target, f"--streams={count}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None  # noqa: S101 (it was asked for)
        row = json.loads(client.stdout.readline())
        meanwhile = memory_mb(target.pids)
        os.kill(upstream, signal.SIGUSR1)  # every stream comes to its end
        row |= json.loads(client.stdout.readline())
        client.wait(90)
    row |= {"idle_mb": idle, "open_mb": meanwhile, "failed": count - row["complete"]}
    if target.pids:
        row["kb_per_stream"] = (meanwhile - idle) * 1024 / max(1, row["open"])
    return dict(row)


def left(target: Target, count: int, *, streamed: bool) -> None:
    """Make calls whose clients hang up before the end."""
    _output(_streaming("leave" if streamed else "leave-plain", target, f"--streams={count}"))

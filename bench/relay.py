"""Measure openai-meter, metering and journal and recorder and Postgres on, beside its peers.

What is under test has core 0; load, upstream, recorder and Postgres share core 1. Targets take
turns, so that whatever the machine does meanwhile happens to all of them; medians of rounds, with
least and greatest values. Nothing is asserted: the numbers are the result.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import loads
import peers
import trustme
from loads import Row
from tables import Column, Results, put, table
from targets import (
    BENCH,
    OTHERS,
    Target,
    fixed_upstream,
    free_port,
    openai_meter,
    pinned,
    plain_nginx,
    process,
)

ALL = ("direct", "nginx", "haproxy", "envoy", "tensorzero", "tensorzero-pg", "litellm", "portkey")
TARGETS = (*ALL, "openai-meter")
VERIFYING = ("direct", "nginx", "haproxy", "envoy", "openai-meter")  # can be given an authority
LEAVING = 20
OWN_FILES = 100  # that a proxy has open besides its connections
CALLS = [
    Column("ratio to nginx", "calls_per_second", 2, ratio=True),
    Column("calls per second", "calls_per_second"),
    Column("CPU µs per call", "cpu_us", 1),
    Column("p50 µs", "p50_us"),
    Column("p99 µs", "p99_us"),
    Column("failed", "failed"),
]
LATENCY = [
    Column("added p50 µs", "p50_us", added=True),
    Column("added p99 µs", "p99_us", added=True),
    Column("added p99.9 µs", "p999_us", added=True),
    Column("CPU µs per call", "cpu_us"),
    Column("failed", "failed"),
]
STREAMS = [
    Column("added p50 µs", "p50_us", added=True),
    Column("added p99 µs", "p99_us", added=True),
    Column("CPU s per million chunks", "cpu_us", 1),
    Column("CPU, ratio to nginx", "cpu_us", 2, ratio=True),
    Column("chunks", "chunks"),
    Column("complete", "complete"),
]
MEMORY = [
    Column("idle MB", "idle_mb", 1),
    Column("MB with all open", "open_mb", 1),
    Column("kB per stream", "kb_per_stream", 1),
    Column("MB afterwards", "after_mb", 1),
    Column("open", "open"),
    Column("complete", "complete"),
]
ROWS = [Column("asked of the upstream", "asked"), Column("rows", "rows")]
LEFT = [
    Column(f"rows of {LEAVING} plain calls left", "plain"),
    Column(f"rows of {LEAVING} streams left", "streamed"),
]


class Run:
    """One run: what was asked for, which targets there are, and what was found."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.tables: list[str] = []
        self.raw: dict[str, Results] = {}
        self.seen: dict[str, Target] = {}
        self.skipped: dict[str, str] = {}
        self.unavailable: set[str] = set()  # these are not tried again

    def report(self, title: str, results: Results, columns: list[Column]) -> None:
        """Print a table and keep it."""
        self.raw[title] = results
        self.tables.append(table(title, results, columns))
        print(f"\n{self.tables[-1]}\n", flush=True)

    @contextmanager
    def targets(
        self, upstream: int, directory: Path, authority: Path | None = None
    ) -> Iterator[list[Target]]:
        """Start every target that was asked for and can be had."""
        with ExitStack() as stack:
            found = []
            for name in self.options.targets:
                if name in self.unavailable or (authority and name not in VERIFYING):
                    continue
                print(f"starting {name}", flush=True)
                try:
                    begun = self._started(name, upstream, directory, authority)
                    found.append(stack.enter_context(begun))
                except (
                    peers.UnavailableError,
                    OSError,
                    subprocess.SubprocessError,
                    SystemExit,
                ) as exc:
                    self.skipped[name] = " ".join(str(exc).split())[:400]
                    if isinstance(exc, peers.UnavailableError):
                        self.unavailable.add(name)
                    print(f"skipping {name}: {self.skipped[name]}", flush=True)
                else:
                    self.seen[name] = found[-1]
            yield found

    @contextmanager
    def _started(
        self, name: str, upstream: int, directory: Path, authority: Path | None
    ) -> Iterator[Target]:
        cache = self.options.cache
        if name == "direct":
            yield Target(name, upstream, switched_on="nothing in between")
            return
        settings = {} if self.options.call_log else {"METER_LOG_CALLS": "false"}
        python = self.options.python
        makers = {
            "nginx": partial(plain_nginx, upstream, directory, authority),
            "openai-meter": partial(
                openai_meter, upstream, directory, python, authority, **settings
            ),
            "haproxy": partial(peers.haproxy, upstream, directory, cache, authority),
            "envoy": partial(peers.envoy, upstream, directory, cache, authority),
            "tensorzero": partial(peers.tensorzero, upstream, directory, cache, metering=False),
            "tensorzero-pg": partial(peers.tensorzero, upstream, directory, cache),
            "litellm": partial(peers.litellm, upstream, directory, cache),
            "portkey": partial(peers.portkey, upstream, directory, cache),
        }
        with makers[name]() as target:
            yield target

    def rotate(self, targets: list[Target], work: Callable[[Target], Row]) -> Results:
        """Do the work with every target in turn, round after round."""
        results: Results = {target.name: [] for target in targets}
        for number in range(self.options.rounds):
            order = targets[number % len(targets) :] + targets[: number % len(targets)]
            for target in order:
                row = work(target)
                target.settled()
                print(number + 1, target.name, {k: round(v, 1) for k, v in row.items()}, flush=True)
                results[target.name].append(row)
        return results


def calls(run: Run, directory: Path) -> None:
    """Plain calls of 1 kB: closed loop, open loop, and rows beside answers."""
    seconds = run.options.seconds
    with (
        fixed_upstream(directory) as (upstream, asked),
        run.targets(upstream, directory) as targets,
    ):
        answered = dict.fromkeys((target.name for target in targets), 0)
        before = {target.name: target.settled() for target in targets}

        def counted(target: Target, work: Callable[[], Row]) -> Row:
            begun = asked()
            row = loads.with_cpu(target, "calls", work)
            time.sleep(0.2)  # what was under way at the end
            answered[target.name] += asked() - begun - 1
            return row

        def closed(target: Target) -> Row:
            counted(target, partial(loads.closed_loop, target, 64, 1))
            return counted(target, partial(loads.closed_loop, target, 64, seconds))

        title = "Calls of 1 kB, 64 connections, closed loop"
        found = run.rotate(targets, closed)
        run.report(title, found, CALLS)
        for rate in (100, 500):
            able = [target for target in targets if _capacity(found[target.name]) > rate]

            def opened(target: Target, rate: int = rate) -> Row:
                return counted(target, partial(loads.open_loop, target, rate, seconds))

            title = f"Added latency, {rate} calls a second, open loop (direct: absolute)"
            run.report(title, run.rotate(able, opened), LATENCY)
        metered: Results = {}
        for target in targets:
            rows, first = target.settled(), before[target.name]
            if rows is not None and first is not None:
                metered[target.name] = [{"asked": answered[target.name], "rows": rows - first}]
        run.report("Rows beside calls, all of the above", metered, ROWS)


def _capacity(rows: list[Row]) -> float:
    """Return how many calls a second a target can make; at a higher rate it is not measured."""
    return statistics.median(row["calls_per_second"] for row in rows)


def _sized(run: Run, directory: Path, size: int, title: str) -> None:
    with (
        fixed_upstream(directory, size=size) as (upstream, _),
        run.targets(upstream, directory) as targets,
    ):
        load = partial(_closed, run.options.seconds)
        run.report(title, run.rotate(targets, load), CALLS)


def _closed(seconds: float, target: Target) -> Row:
    loads.closed_loop(target, 64, 1)
    return loads.with_cpu(target, "calls", partial(loads.closed_loop, target, 64, seconds))


def large(run: Run, directory: Path) -> None:
    """Answers of 100 kB."""
    _sized(run, directory, 100_000, "Answers of 100 kB, 64 connections, closed loop")


def huge(run: Run, directory: Path) -> None:
    """Answers of 1 MB."""
    _sized(run, directory, 1_000_000, "Answers of 1 MB, 64 connections, closed loop")


def tls(run: Run, directory: Path) -> None:
    """Make calls of 1 kB to an upstream that speaks TLS."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(directory / "key.pem")
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(directory / "certificate.pem", append=number > 0)
    authority.cert_pem.write_to_path(directory / "authority.pem")
    trusted = directory / "authority.pem"
    with (
        fixed_upstream(directory, authority=trusted) as (upstream, _),
        run.targets(upstream, directory, trusted) as targets,
    ):
        proxies = [target for target in targets if target.name != "direct"]
        load = partial(_closed, run.options.seconds)
        title = "Calls of 1 kB to a TLS upstream, 64 connections, closed loop"
        run.report(title, run.rotate(proxies, load), CALLS)


def streaming(run: Run, directory: Path) -> None:
    """Event streams: delay of each chunk, memory while many are open, clients that leave."""
    port, options = free_port(), run.options
    flags = (f"--count={options.events}",)
    serving = pinned(OTHERS, sys.executable, BENCH / "streaming.py", "serve", str(port), *flags)
    with process(serving, port), run.targets(port, directory) as targets:
        for count in (200, 1000):
            for include_usage in (False, True):

                def load(
                    target: Target, *, count: int = count, include_usage: bool = include_usage
                ) -> Row:
                    work = partial(
                        loads.streams, target, count, options.events, include_usage=include_usage
                    )
                    return loads.with_cpu(target, "chunks", work)

                who = "asks for usage: plain relay" if include_usage else "does not ask: spliced"
                title = f"{count} streams, 50 chunks a second each (the client {who})"
                run.report(title, run.rotate(targets, load), STREAMS)
        found: Results = {}
        for target in targets:
            first = target.settled()
            if first is not None:
                loads.left(target, LEAVING, streamed=False)
                middle = target.settled() or 0
                loads.left(target, LEAVING, streamed=True)
                last = target.settled() or 0
                found[target.name] = [{"plain": middle - first, "streamed": last - middle}]
        run.report("Clients that leave early", found, LEFT)


def memory(run: Run, directory: Path) -> None:
    """Many streams open at once, on targets that have done nothing else."""
    port, options = free_port(), run.options
    program = (sys.executable, BENCH / "streaming.py", "serve", str(port))
    serving = pinned(OTHERS, *program, "--count=100000", "--interval=10")
    with process(serving, port) as upstream, run.targets(port, directory) as targets:
        time.sleep(3)

        def load(target: Target) -> Row:
            row = loads.held(target, options.open, upstream.pid)
            target.settled()
            time.sleep(3)
            return {**row, "after_mb": loads.memory_mb(target.pids)}

        run.report(f"{options.open:,} streams open at once", run.rotate(targets, load), MEMORY)


def conditions(run: Run) -> str:
    """Return on what and with what it was measured."""
    python = subprocess.run(
        [run.options.python, "-c", "import sys; print(sys.version.split()[0])"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    commit = subprocess.run(
        ["git", "-C", BENCH, "describe", "--always", "--dirty"],
        check=False, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    cpu = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    log = "on" if run.options.call_log else "off, as nginx' access log"
    lines = [
        (
            f"{time.strftime('%Y-%m-%d')}, {cpu}, {os.cpu_count()} cores, "
            f"Linux {platform.release()}; "
            f"Python {python} for openai-meter ({commit}), its call log {log}. "
            f"{run.options.rounds} rounds in rotation, {run.options.seconds} s each; "
            f"load average at the end {os.getloadavg()[2]:.1f}."
        ),
        "",
        "| target | version | what was on |",
        "|---|---|---|",
    ]
    lines += [f"| {t.name} | {t.version} | {t.switched_on} |" for t in run.seen.values()]
    lines += [f"| {name} | | not measured: {why} |" for name, why in run.skipped.items()]
    return "\n".join(lines)


SCENARIOS: dict[str, Callable[[Run, Path], None]] = {
    "calls": calls, "large": large, "huge": huge, "tls": tls, "streaming": streaming,
    "memory": memory,
}  # fmt: skip


def _options() -> argparse.Namespace:
    def names(known: tuple[str, ...], text: str) -> list[str]:
        found = text.split(",")
        if unknown := set(found) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not of {', '.join(known)}")
        return found

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--targets", type=partial(names, TARGETS), default=list(TARGETS))
    parser.add_argument("--only", type=partial(names, tuple(SCENARIOS)), default=list(SCENARIOS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--events", type=int, default=100, help="chunks of a stream")
    parser.add_argument("--open", type=int, default=5000, help="streams held open")
    parser.add_argument("--python", default=sys.executable, help="what openai-meter runs on")
    parser.add_argument("--call-log", action="store_true", help="openai-meter logs every call")
    parser.add_argument("--cache", type=Path, default=BENCH.parent / "build" / "bench")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    return parser.parse_args()


def _allowed_streams(count: int) -> int:
    """Let what is started here open files for so many streams; return how many that allows.

    A proxy has two for each, and some for itself.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, 2 * count + OWN_FILES)
    for most in (max(hard, wanted), hard):
        with suppress(OSError, ValueError):  # only some may raise the hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, most), most))
            break
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = min(count, (soft - OWN_FILES) // 2)
    if allowed < count:
        print(f"{soft} files may be open here: {allowed} streams are held instead of {count}")
    return allowed


def main() -> None:
    """Run what was asked for."""
    options = _options()
    options.open = _allowed_streams(options.open)
    options.cache = options.cache.resolve()
    options.cache.mkdir(parents=True, exist_ok=True)
    run, begun = Run(options), time.monotonic()
    for name in options.only:
        with tempfile.TemporaryDirectory(prefix="meter-bench-", dir="/tmp") as text:
            directory = Path(text)
            directory.chmod(0o755)
            SCENARIOS[name](run, directory)
    text = "\n\n".join((conditions(run), *run.tables))
    print(conditions(run))
    print(f"done in {(time.monotonic() - begun) / 60:.0f} minutes")
    (options.cache / "results.json").write_text(json.dumps(run.raw, indent=1))
    (options.cache / "results.md").write_text(text + "\n")
    if options.write:
        put(BENCH.parent / "docs" / "benchmarks.md", text)


if __name__ == "__main__":
    main()

"""Measure the dashboard over a large ledger: every page, its memory, a file of millions of rows.

    .venv/bin/python bench/dashboard.py --rows 5000000
    .venv/bin/python bench/dashboard.py --dsn "$(cat /tmp/ledger/dsn)" --samples 60 --pages users

The ledger is that of filling.py, a year of calls in an embedded Postgres of its own, which is
removed afterwards unless --keep names its directory; --dsn measures one that runs already. 20
million rows need about 22 GB.

Each page is asked for ranges, sorts and zones at random, half of the ranges being days from
anywhere to anywhere; --seed repeats them. What counts is the server's own time, as serving.py takes
it, whose clock stands at the newest call, so that today is a day with calls.
"""

import argparse
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from filling import DAYS, ledger

PORT = 8097
TOKEN = "of-a-bench"  # noqa: S105 - of a dashboard that lives for minutes
TIME = "X-Milliseconds"  # as serving.py says it
PRESETS = ("today", "7d", "30d", "this_month", "last_month", "90d", "this_year", "all")
ZONES = ("UTC", "UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/New_York")
SORTS = ("", "-cost_usd", "-calls", "name", "-total_tokens", "cost_usd", "-last_call", "-errors")
OF_ONE_USER = (("user", "user-7"),)
OF_ONE_ENDPOINT = (("endpoint", "generate_hint"),)
OF_ONE_MODEL = (("model", "gpt-5.4-2026-03-17"),)


@dataclass(frozen=True)
class Page:
    """A page with filters, and whether its rows can be sorted."""

    path: str
    filters: tuple[tuple[str, str], ...] = ()
    sorted: bool = False
    dated: bool = True

    def draw(self, chances: random.Random, first: date, last: date) -> str:
        """Return its address with a range, a sort and a zone by chance."""
        if not self.dated:
            return self.path
        pairs = [*self.filters, ("tz", chances.choice(ZONES))]
        if chances.random() < 0.5:
            pairs.append(("range", chances.choice(PRESETS)))
        else:
            days = sorted(chances.sample(range((last - first).days + 1), 2))
            begin, end = (first + timedelta(days=day) for day in days)
            pairs += [("from", str(begin)), ("to", str(end))]
        sort = chances.choice(SORTS) if self.sorted else ""
        return f"{self.path}?{urlencode(pairs + ([('sort', sort)] if sort else []))}"


PAGES = (
    Page("/admin"),
    Page("/admin", (("compare", "previous"),)),
    Page("/admin", OF_ONE_ENDPOINT),
    Page("/admin", OF_ONE_MODEL),
    Page("/admin/users", sorted=True),
    Page("/admin/users", (("compare", "previous"),), sorted=True),
    Page("/admin/users", (("search", "77"),), sorted=True),
    Page("/admin/users", OF_ONE_ENDPOINT, sorted=True),
    Page("/admin/users", OF_ONE_MODEL, sorted=True),
    Page("/admin/user", OF_ONE_USER),
    Page("/admin/endpoints", sorted=True),
    Page("/admin/endpoints", OF_ONE_USER, sorted=True),
    Page("/admin/endpoints", OF_ONE_MODEL, sorted=True),
    Page("/admin/endpoint", OF_ONE_ENDPOINT),
    Page("/admin/models", sorted=True),
    Page("/admin/models", (("tier", "default"),), sorted=True),
    Page("/admin/daily", sorted=True),
    Page("/admin/daily", OF_ONE_ENDPOINT, sorted=True),
    Page("/admin/daily", OF_ONE_MODEL, sorted=True),
    Page("/admin/calls"),
    Page("/admin/calls", OF_ONE_USER),
    Page("/admin/calls", (*OF_ONE_ENDPOINT, *OF_ONE_MODEL)),
    Page("/admin/calls", (("outcome", "upstream_error"),)),
    Page("/admin/calls", (("metadata", "course=c7"),)),
    Page("/admin/calls", (("search", "user-77"),)),
    Page("/admin/pricing", dated=False),
    Page("/admin/exports"),
    Page("/api/usage/stats", dated=False),
    Page("/api/usage/summary", sorted=True),
    Page("/api/usage/endpoint", sorted=True),
    Page("/api/usage/daily", sorted=True),
    Page("/api/usage/user/user-7"),
)


@contextmanager
def dashboard(dsn: str, directory: Path) -> Iterator[int]:
    """Run the dashboard; yield its process id."""
    here = Path(__file__).parent
    process = subprocess.Popen(  # without this directory, where its package has a namesake
        [sys.executable, "-P", here / "serving.py", dsn, directory, str(PORT), TOKEN],
        env=os.environ | {"PYTHONPATH": str(here.parent)},
    )
    try:
        for _ in range(100):
            try:
                fetch("/healthz")
                break
            except OSError:
                time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def fetch(path: str) -> tuple[int, float]:
    """Fetch a path; return how many bytes came, and how long the server took in milliseconds."""
    request = Request(
        f"http://127.0.0.1:{PORT}{path}", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    count = 0
    with urlopen(request, timeout=600) as answer:  # noqa: S310 - our own address
        while chunk := answer.read(1 << 20):
            count += len(chunk)
        return count, float(answer.headers.get(TIME, "nan"))


def memory(pid: int) -> str:
    """Return resident memory and its peak, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Vm")}
    return f"{found['VmRSS'] / 1000:.0f} MB, at most {found['VmHWM'] / 1000:.0f} MB"


def measure_page(page: Page, addresses: list[str]) -> list[float]:
    """Print how long the server took for a page as these addresses ask for it."""
    name = page.path + ("?" + "&".join("=".join(pair) for pair in page.filters)).rstrip("?")
    times: dict[str, float] = {}
    refused = 0
    for address in addresses:
        try:
            _, times[address] = fetch(address)
        except HTTPError as exc:
            refused += 1
            print(f"{exc.code}: {address}", file=sys.stderr)
    if not times:
        print(f"| `{name}` | 0 | | | | | {refused} |", flush=True)
        return []
    taken = sorted(times.values())
    p50, p95 = statistics.median(taken), taken[round(0.95 * (len(taken) - 1))]
    within = sum(value <= 100 for value in taken) / len(taken)
    print(
        f"| `{name}` | {len(taken)} | {p50:.0f} | {p95:.0f} | {taken[-1]:.0f} | {within:.0%} "
        f"| {refused} |",
        flush=True,
    )
    print(f"  slowest: {max(times, key=times.__getitem__)}", file=sys.stderr)
    return taken


def measure_pages(chosen: str, samples: int, seed: int, first: date) -> None:
    """Print median, 95th percentile and maximum of every page, over what may be asked of it."""
    print("| page | asked | p50 ms | p95 ms | max ms | within 100 ms | refused |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    everything: list[float] = []
    for number, page in enumerate(PAGES):
        chances = random.Random(seed * 1000 + number)  # noqa: S311 - to be repeated
        last = first + timedelta(days=DAYS - 1)
        drawn = (page.draw(chances, first, last) for _ in range(samples))
        addresses = list(dict.fromkeys(drawn))  # what is asked again finds more in memory
        if chosen in addresses[0]:
            everything += measure_page(page, addresses)
    everything.sort()
    p95 = everything[round(0.95 * (len(everything) - 1))]
    print(
        f"| all | {len(everything)} | {statistics.median(everything):.0f} | {p95:.0f} "
        f"| {everything[-1]:.0f} | {sum(t <= 100 for t in everything) / len(everything):.0%} | |"
    )


def look_first() -> None:
    """Print how long the first look at each zone takes, of which the days are remembered then."""
    for zone in dict.fromkeys(ZONES):
        _, milliseconds = fetch(f"/admin?{urlencode({'range': 'all', 'tz': zone})}")
        print(f"first look at {zone}: {milliseconds:.0f} ms")


def download(path: str) -> int:
    """Fetch a file as fast as it comes, without taking it apart; return how many bytes it had."""
    question = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    buffer, size, end = bytearray(1 << 20), 0, b""
    with socket.create_connection(("127.0.0.1", PORT), timeout=600) as link:
        link.sendall(f"{question}Connection: close\r\n\r\n".encode())
        while count := link.recv_into(buffer):
            if not size and not buffer.startswith(b"HTTP/1.1 200 "):
                raise SystemExit(f"{path}: {buffer[:count]!r}")
            size += count
            end = (end + buffer[max(0, count - 5) : count])[-5:]
    if end != b"0\r\n\r\n":
        raise SystemExit(f"{path}: the file was cut")
    return size


def measure_file(first: date, rows: int) -> None:
    """Print how fast a file of up to three million calls comes."""
    days = min(DAYS, -(-3_000_000 * DAYS // rows))
    last = first + timedelta(days=days - 1)
    expected = days * (rows // DAYS)
    for path in ("/api/usage/export?", "/api/usage/export?dialect=raw&"):
        begun = time.perf_counter()
        size = download(f"{path}from={first}&to={last}&tz=UTC")
        seconds = time.perf_counter() - begun
        print(
            f"{path:34} {expected:,} rows, {size / 1e6:.0f} MB, "
            f"{expected / seconds:,.0f} rows a second"
        )


def main() -> None:
    """Fill, measure, clear away."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--keep", type=Path, help="directory of the Postgres; kept and used again")
    parser.add_argument(
        "--dsn", help="a ledger that runs already; its year ends today or yesterday"
    )
    parser.add_argument("--first", type=date.fromisoformat, help="its first day")
    parser.add_argument("--samples", type=int, default=40, help="how often each page is asked")
    parser.add_argument("--pages", default="", help="only those whose address has this in it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-files", action="store_true")
    options = parser.parse_args()
    there = nullcontext((options.dsn, options.first)) if options.dsn else None
    with there or ledger(options.keep, options.rows, options.users) as (dsn, first):
        data = Path(tempfile.mkdtemp(prefix="meter-dashboard-"))
        with dashboard(dsn, data) as pid:
            look_first()
            measure_pages(options.pages, options.samples, options.seed, first)
            print(f"after the pages: {memory(pid)}")
            if not options.no_files:
                measure_file(first, options.rows)
                print(f"after the files: {memory(pid)}")
        shutil.rmtree(data)


if __name__ == "__main__":
    main()

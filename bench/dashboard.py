"""Measure the dashboard over a large ledger: every page, a file of millions of rows, its memory.

    .venv/bin/python bench/dashboard.py --rows 5000000

The ledger is that of filling.py, a year of calls in an embedded Postgres of its own, which is
removed afterwards unless --keep names its directory. 20 million rows need about 22 GB.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from urllib.request import Request, urlopen

from filling import DAYS, ledger

PORT = 8097
TOKEN = "bench"  # noqa: S105 - of a dashboard that lives for minutes
ROUNDS = 20

PAGES = (
    "/admin?range={range}",
    "/admin.json?range={range}&compare=previous",
    "/admin/users?range={range}",
    "/admin/users?range={range}&sort=-calls",
    "/admin/users?range={range}&sort=name",
    "/admin/users?range={range}&search=77",
    "/admin/users?range={range}&endpoint=generate_hint",
    "/admin/user?range={range}&user=user-7",
    "/admin/endpoints?range={range}",
    "/admin/endpoint?range={range}&endpoint=generate_hint",
    "/admin/models?range={range}",
    "/admin/daily?range={range}",
    "/admin/calls?range={range}",
    "/admin/calls?range={range}&user=user-7",
    "/admin/endpoints?range={range}&tz=Asia/Kathmandu",
    "/admin/daily.json?range={range}&tz=America/New_York",
)
RANGES = ("today", "7d", "30d", "last_month", "this_year", "all")


@contextmanager
def dashboard(dsn: str, directory: Path) -> Iterator[int]:
    """Run the dashboard; yield its process id."""
    environment = os.environ | {
        "METER_DATA_DIR": str(directory),
        "METER_DATABASE_URL": dsn,
        "METER_API_TOKENS": TOKEN,
        "METER_ADMIN_PASSWORD": TOKEN,
        "METER_DASHBOARD_LISTEN": f"127.0.0.1:{PORT}",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "dashboard"], env=environment, stdout=subprocess.DEVNULL
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


def fetch(path: str) -> int:
    """Fetch a path; return how many bytes came."""
    request = Request(
        f"http://127.0.0.1:{PORT}{path}", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    count = 0
    with urlopen(request, timeout=600) as answer:  # noqa: S310 - our own address
        while chunk := answer.read(1 << 20):
            count += len(chunk)
    return count


def memory(pid: int) -> str:
    """Return resident memory and its peak, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Vm")}
    return f"{found['VmRSS'] / 1000:.0f} MB, at most {found['VmHWM'] / 1000:.0f} MB"


def measure_pages() -> None:
    """Print the 95th percentile of every page over every range."""
    print(f"{'page':60} " + " ".join(f"{name:>10}" for name in RANGES))
    for page in PAGES:
        shown = []
        for name in RANGES:
            times = []
            for _ in range(ROUNDS):
                begun = time.perf_counter()
                try:
                    fetch(page.format(range=name))
                except OSError as exc:
                    shown.append(str(exc)[:10])
                    break
                times.append((time.perf_counter() - begun) * 1000)
            else:
                shown.append(f"{statistics.quantiles(times, n=20)[-1]:.0f} ms")
        print(f"{page:60} " + " ".join(f"{text:>10}" for text in shown), flush=True)


def measure_file(first: date, rows: int) -> None:
    """Print how fast a file of up to three million calls comes."""
    days = min(DAYS, -(-3_000_000 * DAYS // rows))
    last = first + timedelta(days=days - 1)
    expected = days * (rows // DAYS)
    for path in ("/api/usage/export?", "/api/usage/export?dialect=raw&"):
        begun = time.perf_counter()
        size = fetch(f"{path}from={first}&to={last}&tz=UTC")
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
    options = parser.parse_args()
    with ledger(options.keep, options.rows, options.users) as (dsn, first):
        data = Path(tempfile.mkdtemp(prefix="meter-dashboard-"))
        with dashboard(dsn, data) as pid:
            measure_pages()
            print(f"after the pages: {memory(pid)}")
            measure_file(first, options.rows)
            print(f"after the files: {memory(pid)}")
        shutil.rmtree(data)


if __name__ == "__main__":
    main()

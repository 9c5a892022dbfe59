"""Measure the dashboard over a large ledger: every page, a file of millions of rows, its memory.

    .venv/bin/python bench/dashboard.py --rows 5000000

Rows are made by SQL, spread over a year, and the ledger's own trigger keeps the sums, so that what
is measured is what a year of calls leaves behind. The Postgres is an embedded one in a directory of
its own, which is removed afterwards unless --keep names it. A row takes about 0.6 kB with indexes
and sums: 20 million need 12 GB.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.request import Request, urlopen

import asyncpg

from proxy.database import prepare
from proxy.embedded import EmbeddedPostgres

DAYS = 365
PORT = 8097
TOKEN = "bench"  # noqa: S105 - of a dashboard that lives for minutes
SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "8GB"}
ROUNDS = 20

_PARTITION = """
CREATE TABLE IF NOT EXISTS user_api_usage_{name} PARTITION OF user_api_usage
FOR VALUES FROM ('{first}') TO ('{past}')
"""
_DAY = """
INSERT INTO user_api_usage (
    event_id, created_at, user_id, endpoint, api_path, operation_name, upstream, model,
    request_model, service_tier, prompt_tokens, completion_tokens, total_tokens, cached_tokens,
    reasoning_tokens, cost_usd, list_cost_usd, tool_cost_usd, price_id, catalog_version,
    usage_source, status, outcome, stream, latency_ms, time_to_first_byte_ms,
    upstream_request_id, response_id, metadata, retry_count, request_bytes, response_bytes
)
SELECT
    (
        lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0')
        || '7000' || '8' || lpad(to_hex(number), 15, '0')
    )::uuid,
    date_trunc('milliseconds', moment),
    'user-' || floor(power(random(), 2) * $3)::bigint,
    (ARRAY['analyze_homework', 'generate_hint', 'verify_answer', 'chat_response', 'validate_image'])
        [1 + floor(random() * 5)::int],
    '/v1/chat/completions', 'chat', 'api.openai.com',
    (ARRAY['gpt-5.4-mini-2026-03-17', 'gpt-5.4-2026-03-17', 'gpt-4o-mini-2024-07-18'])
        [1 + floor(power(random(), 2) * 3)::int],
    'gpt-5.4-mini', 'default', input, output, input + output, input / 2, output / 3,
    (input * 0.00000075 + output * 0.0000045)::numeric(20, 12),
    (input * 0.00000075 + output * 0.0000045)::numeric(20, 12), 0,
    'gpt-5.4-mini@start/default/short', 'bench', 'reported',
    CASE WHEN random() < 0.01 THEN 500 ELSE 200 END,
    CASE WHEN random() < 0.01 THEN 'upstream_error' ELSE 'ok' END, random() < 0.5,
    (200 + random() * 8000)::int, (100 + random() * 900)::int,
    'req_' || md5(number::text), 'chatcmpl-' || md5(number::text),
    jsonb_build_object('course', 'c' || number % 50), 0, 800, 2000
FROM (
    SELECT
        number,
        $1::timestamptz + (number * interval '1 day' / $2::bigint) AS moment,
        (500 + random() * 3000)::bigint AS input,
        (50 + random() * 900)::bigint AS output
    FROM generate_series(0, $2::bigint - 1) AS number
) AS made
"""

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


async def fill(dsn: str, rows: int, users: int) -> date:
    """Make the rows of a year up to today; return its first day."""
    await prepare(dsn)
    connection = await asyncpg.connect(dsn)
    today = datetime.fromtimestamp(time.time(), UTC).date()
    first = today - timedelta(days=DAYS - 1)
    month = first.replace(day=1)
    while month <= today:
        past = (month + timedelta(days=31)).replace(day=1)
        names = {"name": f"{month:%Y_%m}", "first": month, "past": past}
        await connection.execute(_PARTITION.format(**names))
        month = past
    begun = time.monotonic()
    for distance in range(DAYS):
        moment = datetime.combine(first + timedelta(days=distance), datetime.min.time(), UTC)
        await connection.execute(_DAY, moment, rows // DAYS, users)
        if distance % 73 == 72:
            made = (distance + 1) * (rows // DAYS)
            print(f"{made:,} rows, {made / (time.monotonic() - begun):,.0f} a second")
    while await connection.fetchval("SELECT fold_span()"):
        pass
    await connection.execute("VACUUM ANALYZE")
    size = await connection.fetchval("SELECT pg_database_size(current_database())")
    print(f"{size / 1e9:.1f} GB, {size / rows:.0f} bytes a row")
    await connection.close()
    return first


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
    directory = options.keep or Path(tempfile.mkdtemp(prefix="meter-bench-", dir="/tmp"))
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    filled = directory / "filled.json"
    server = EmbeddedPostgres(directory / "postgres", settings=SETTINGS)
    dsn = server.start()
    try:
        if filled.exists():
            first = date.fromisoformat(json.loads(filled.read_text(encoding="ascii"))["first"])
        else:
            first = asyncio.run(fill(dsn, options.rows, options.users))
            filled.write_text(json.dumps({"first": str(first)}), encoding="ascii")
        with dashboard(dsn, directory) as pid:
            measure_pages()
            print(f"after the pages: {memory(pid)}")
            measure_file(first, options.rows)
            print(f"after the files: {memory(pid)}")
    finally:
        server.stop()
        if options.keep is None:
            shutil.rmtree(directory)


if __name__ == "__main__":
    main()

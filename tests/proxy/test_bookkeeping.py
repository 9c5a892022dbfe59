"""Tests of proxy.bookkeeping: the commands as they are typed, against a real ledger."""

import asyncio
import hashlib
import os
import sys
from pathlib import Path

import pytest

from proxy.core.charging import charge
from proxy.core.model import Closing
from proxy.embedded import EmbeddedPostgres
from proxy.ledger import Ledger
from proxy.pricefile import load_price_book
from proxy.resources import resource
from tests.fakes.records import closing
from tests.fakes.running import fetch

AUGUST = ("--from", "2026-08", "--to", "2026-08")
SUM = "SELECT calls, unpriced_calls, cost_usd::text FROM ledger_status"


async def typed(*arguments: str, dsn: str | None = None, **variables: str) -> tuple[int, str, str]:
    """Run a command; return its exit status and what it wrote."""
    environment = {name: value for name, value in os.environ.items() if name[:6] != "METER_"}
    environment |= variables | ({"METER_DATABASE_URL": dsn} if dsn else {})
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "proxy", *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def dearer(tmp_path: Path) -> Path:
    """Return a price file in which gpt-4o-mini costs ten times as much."""
    text = resource("pricing.yaml").read_text(encoding="utf-8")
    model = text.index("  gpt-4o-mini:\n")
    rate = text.index('{input: "0.15", cached_input', model)
    path = tmp_path / "dearer.yaml"
    path.write_text(text[:rate] + text[rate:].replace("0.15", "1.50", 1), encoding="utf-8")
    return path


async def recorded(dsn: str, calls: list[Closing]) -> None:
    """Record calls at the prices that are shipped."""
    ledger = Ledger(dsn, report_timezone="UTC")
    book = await asyncio.to_thread(
        load_price_book, await asyncio.to_thread(resource, "pricing.yaml")
    )
    await ledger.insert([charge(call, book) for call in calls])
    await ledger.close()


async def test_calls_are_priced_anew(database: str, dearer: Path) -> None:
    """First only said, then done, then nothing left to do: 19 × 1.35 more per million, 3 times."""
    await recorded(database, [closing(number) for number in range(3)])
    prices = {"METER_PRICING_FILE": str(dearer)}
    before = (await fetch(database, SUM))[0]
    assert before["cost_usd"] == "0.000026550000"
    status, out, err = await typed("reprice", *AUGUST, "--dry-run", dsn=database, **prices)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[1].split() == [
        "2026-08", "gpt-4o-mini-2024-07-18", "3", "3", "0.000027", "0.000104", "0.000077",
    ]  # fmt: skip
    assert lines[-1] == "3 calls would be corrected; nothing has been written."
    assert await fetch(database, SUM) == [before]
    status, out, _ = await typed("reprice", *AUGUST, dsn=database, **prices)
    assert (status, out.splitlines()[-1]) == (0, "3 corrections appended.")
    after = (await fetch(database, SUM))[0]
    assert after == {"calls": 3, "unpriced_calls": 0, "cost_usd": "0.000103500000"}
    _, out, _ = await typed("reprice", *AUGUST, "--model", "gpt-4o-mini", dsn=database, **prices)
    assert out == "Nothing to correct: 3 calls cost what the price file says.\n"


async def test_a_price_file_says_what_it_would_change(database: str, dearer: Path) -> None:
    """Where there is a ledger; else it is only looked at."""
    await recorded(database, [closing(1)])
    status, out, _ = await typed("pricing", "check", str(dearer), "--from", "2026-08", dsn=database)
    assert status == 0
    assert "all well\n" in out
    assert "1 call would be corrected; nothing has been written.\n" in out
    _, out, _ = await typed("pricing", "check", str(dearer))
    assert out.endswith("all well\n")


async def test_without_a_ledger_nothing_can_be_priced_anew(tmp_path: Path) -> None:
    """The message says where one was looked for."""
    status, _, err = await typed("reprice", *AUGUST, METER_DATA_DIR=str(tmp_path))
    assert status == 2
    assert "or set METER_DATABASE_URL (--database-url)" in err


def test_the_postgres_that_serve_runs_is_found(open_directory: Path) -> None:
    """It has no address that anybody could know; a command finds it by the data directory."""
    server = EmbeddedPostgres(open_directory / "postgres", settings={"fsync": "off"})
    server.start()
    try:
        status, _, err = asyncio.run(typed("reprice", *AUGUST, METER_DATA_DIR=str(open_directory)))
    finally:
        server.stop()
    assert status == 2
    assert 'relation "meter_settings" does not exist' in err


@pytest.mark.parametrize("day", ["2026-13", "yesterday", "2026-02-30"])
async def test_a_day_that_is_none_is_refused(day: str) -> None:
    """As argparse says it."""
    status, _, err = await typed("reprice", "--from", day, "--to", "2026-11")
    assert status == 2
    assert f"argument --from: invalid day value: '{day}'" in err


async def test_a_month_is_closed_exported_and_shown_to_be_the_same(
    database: str, tmp_path: Path
) -> None:
    """Finance keeps the file and the hash; whoever doubts runs --verify."""
    await recorded(database, [closing(number) for number in range(3)])
    status, _, err = await typed("close", "2026-08", "--export", "/nowhere/x.csv", dsn=database)
    assert (status, "cannot be written" in err) == (2, True)
    csv = tmp_path / "august.csv"
    status, out, _ = await typed("close", "2026-08", "--export", str(csv), dsn=database)
    assert status == 0
    text = await asyncio.to_thread(csv.read_bytes)
    digest = hashlib.sha256(text).hexdigest()
    line = f"2026-08 (UTC) is closed: 3 rows, 0.000026550000 USD, SHA-256 of the export {digest}\n"
    assert out == (
        f"{line}What comes for it from now on counts at 2026-09-01T00:00Z.\n{csv} is its export.\n"
    )
    for arguments in (("close", "--verify"), ("close", "--verify", "2026-08")):
        status, out, _ = await typed(*arguments, dsn=database)
        assert (status, out) == (0, f"{line}All are as they were closed.\n")
    status, _, err = await typed("close", "--verify", "2026-07", dsn=database)
    assert (status, err) == (2, "openai-meter: 2026-07 is not closed\n")
    status, _, err = await typed("close", "2026-08", dsn=database)
    assert (status, "2026-08 is closed since" in err) == (2, True)
    status, _, err = await typed("close", dsn=database)
    assert (status, "which month?" in err) == (2, True)
    await fetch(database, "UPDATE user_api_usage SET user_id = 'eve' RETURNING 1")
    status, _, err = await typed("close", "--verify", dsn=database)
    assert (status, "2026-08 is not as it was closed" in err) == (2, True)
    again = tmp_path / "again.csv"
    status, _, err = await typed("close", "2026-08", "--export", str(again), dsn=database)
    assert (status, "2026-08 is not as it was closed" in err) == (2, True)
    assert await asyncio.to_thread(os.listdir, tmp_path) == ["august.csv"]  # no other bytes

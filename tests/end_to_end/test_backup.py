"""A ledger that is backed up and restored, as docs/operating.md says, is the same ledger."""

import asyncio
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from proxy.binaries import find_binaries
from proxy.database import prepare
from proxy.ledger import Ledger
from proxy.rollups import Period
from proxy.verifying import run_verify
from tests.fakes.rows import ledger_row, unavailable_row


@pytest.fixture
def programs() -> tuple[Path, Path]:
    """Return pg_dump and pg_restore: those that came along, or those of the system."""
    for directory in (find_binaries(None), Path(shutil.which("pg_dump") or "/").parent):
        if (directory / "pg_dump").is_file() and (directory / "pg_restore").is_file():
            return directory / "pg_dump", directory / "pg_restore"
    pytest.skip("no pg_dump here: neither with the embedded Postgres nor in PATH")


async def run(*command: str | Path) -> None:
    """Run a program that has to succeed."""
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


async def contents(dsn: str) -> dict[str, set[str]]:
    """Return the rows of all tables."""
    connection = await asyncpg.connect(dsn)
    tables = await connection.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    )
    found = {row[0]: {str(r) for r in await connection.fetch(f"TABLE {row[0]}")} for row in tables}
    await connection.close()
    return found


async def test_a_restored_ledger_is_the_same_and_goes_on(
    database: str, empty_database: str, tmp_path: Path, programs: tuple[Path, Path]
) -> None:
    """Rows, sums, spans and seals: nothing is counted twice on the way in."""
    dump, restore = programs
    ledger = Ledger(database, report_timezone="Asia/Kathmandu")
    await ledger.set_report_timezone()
    begin = datetime(2026, 9, 20, tzinfo=UTC)
    rows = [
        (unavailable_row if n % 5 == 0 else ledger_row)(
            n, created_at=begin + timedelta(hours=9 * n)
        )
        for n in range(80)
    ]
    assert (await ledger.insert(rows)).inserted == 80
    while await ledger.fold_span():
        pass
    await ledger.close()

    file = tmp_path / "ledger.dump"
    await run(dump, "--format=custom", f"--file={file}", database)
    await run(restore, "--exit-on-error", f"--dbname={empty_database}", file)
    assert await contents(empty_database) == await contents(database)

    assert not await prepare(empty_database)
    again = Ledger(empty_database, report_timezone="Asia/Kathmandu")
    assert not await again.set_report_timezone()
    assert (await again.insert([*rows, ledger_row(99)])).inserted == 1
    await again.close()
    lines: list[str] = []
    assert await asyncio.to_thread(run_verify, empty_database, Period(), lines.append) == 0, lines

import asyncio
import contextlib
import csv
import io
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from tests.dashboard.conftest import ROWS, TOKEN, Client, record
from tests.fakes.rows import MOMENT, ledger_row

HOSTILE = [
    "=cmd|' /C calc'!A0",
    '"quoted", with a comma',
    "<script>alert(1)</script>",
    "two\nlines\rand\ta tab",
    "@SUM(1)",
    "-1+1",
    "\uff1dfull width",
    "\u202eright to left",
    "🙂 emoji",
    "'; DROP TABLE user_api_usage; --",
    "$1 $20 \\x41 %s",
    "x" * 1000,
]


async def _rows(client: Client, path: str) -> list[dict[str, str]]:
    answer = await client.get(path, headers=TOKEN)
    body = await answer.read()
    assert answer.status == 200, body
    text = body.decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


async def test_every_call_is_in_the_file(client: Client) -> None:
    """With all digits, UTC times and the day in the report's zone; unknown is empty."""
    answer = await client.get("/api/usage/export?range=7d", headers=TOKEN)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    name = "usage-calls_2026-11-16_2026-11-22_UTC_v1.csv"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    body = await answer.read()
    assert body.startswith(b"\xef\xbb\xbfevent_id,created_at,day,user_id,")
    assert body.count(b"\r\n") == body.count(b"\n") == 1 + len(ROWS)
    rows = await _rows(client, "/admin/calls.csv?range=7d")
    assert [row["user_id"] for row in rows] == ["", "ada", "bob", "ada"]
    assert rows[0]["created_at"] == "2026-11-20T12:00:00.000Z"
    assert rows[0]["day"] == "2026-11-20"
    assert [row["cost_usd"] for row in rows] == ["0.000285000001"] * 3 + [""]


async def test_raw_is_for_machines(client: Client) -> None:
    """No byte order mark, and lines end as COPY ends them."""
    answer = await client.get("/api/usage/export?dialect=raw", headers=TOKEN)
    body = await answer.read()
    assert body.startswith(b"event_id,")
    assert b"\r" not in body


async def test_the_summary_has_every_user(client: Client) -> None:
    """The numbers of the page, in its order."""
    rows = await _rows(client, "/api/usage/export/summary")
    assert [(row["user_id"], row["calls"], row["cost_usd"]) for row in rows] == [
        ("ada", "2", "0.000285000001"),
        ("bob", "1", "0.000285000001"),
        ("", "1", "0.000285000001"),
    ]
    assert rows == await _rows(client, "/admin/users.csv")


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_text_is_text_everywhere(client: Client, database: str, hostile: str) -> None:
    """Found by search, shown as text, defused in a file and whole in a raw one."""
    at = MOMENT - timedelta(days=1)
    row = ledger_row(7, user_id=hostile, endpoint=hostile, created_at=at, metadata={"k": hostile})
    await record(database, [row])
    query = {"user": hostile, "endpoint": hostile}
    found = await (await client.get("/admin/users.json", params=query, headers=TOKEN)).json()
    assert [row["user_id"] for row in found["rows"]] == [hostile]
    searched = {"search": hostile[2:12].upper()}
    found = await (await client.get("/admin/users.json", params=searched, headers=TOKEN)).json()
    assert hostile in [row["user_id"] for row in found["rows"]]
    by_metadata = {"metadata": f"k={hostile}"}
    found = await (await client.get("/admin/calls.json", params=by_metadata, headers=TOKEN)).json()
    assert [row["user_id"] for row in found["rows"]] == [hostile]
    page = await (await client.get("/admin/users", params=query, headers=TOKEN)).text()
    assert "<script>alert(1)" not in page
    raw = {"dialect": "raw", "user": hostile}
    for path in ("/api/usage/export", "/api/usage/export/summary"):
        text = await (await client.get(path, params=raw, headers=TOKEN)).text()
        [whole] = csv.DictReader(io.StringIO(text, newline=""))
        assert whole["user_id"] == hostile
        text = await (await client.get(path, params=query, headers=TOKEN)).text()
        [safe] = csv.DictReader(io.StringIO(text.lstrip("\ufeff"), newline=""))
        assert safe["user_id"][0] not in "=+-@\t\r\n\uff1d"
        assert not set(safe["user_id"]) & set("\r\n\t")


async def test_focus_is_by_day_and_component_with_its_unit_price(client: Client) -> None:
    """The sum is the ledger's, to the last digit."""
    rows = await _rows(client, "/api/usage/export?format=focus-1.2&range=this_month")
    total = sum((Decimal(row["BilledCost"]) for row in rows), Decimal(0))
    assert total == Decimal("0.000285000001") * 3
    assert {row["BillingPeriodStart"] for row in rows} == {"2026-11-01T00:00:00Z"}
    assert {row["SubAccountId"] for row in rows} == {"ada", "bob", ""}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("format=xlsx", "format"),
        ("format=focus-1.2&tz=Europe/Berlin", "tz"),
        ("after=WyIxIiwgIjAiXQ", "after"),
        ("dialect=klingon", "dialect"),
    ],
)
async def test_what_a_file_cannot_be_is_named(client: Client, query: str, param: str) -> None:
    """Before anything of it is sent."""
    answer = await client.get(f"/api/usage/export?{query}", headers=TOKEN)
    assert answer.status == 400
    assert (await answer.json())["error"]["param"] == param


@contextmanager
def _dashboard(dsn: str, directory: Path) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """Run a dashboard as a process of its own; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        environment = os.environ | {
            "METER_DATA_DIR": str(directory),
            "METER_DATABASE_URL": dsn,
            "METER_API_TOKENS": "token-1",
            "METER_ADMIN_PASSWORD": "correct horse",
        }
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "dashboard", "--listen-fd", str(listener.fileno())],
            pass_fds=[listener.fileno()],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        port = listener.getsockname()[1]
    with process:
        try:
            yield port, process
        finally:
            process.kill()


@pytest.mark.parametrize("cause", ["the dashboard dies", "the database gives up"])
async def test_a_download_that_is_cut_looks_cut(database: str, tmp_path: Path, cause: str) -> None:
    """Whoever has half a file is told so by the framing, whatever has died in between."""
    notes = {"note": "x" * 16_000}  # a file larger than what sockets and buffers hold
    await record(database, [ledger_row(number, metadata=notes) for number in range(4000)])
    with _dashboard(database, tmp_path) as (port, process):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET /api/usage/export?range=all HTTP/1.1\r\nHost: here\r\n"
            b"Authorization: Bearer token-1\r\n\r\n"
        )
        async with asyncio.timeout(60):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"transfer-encoding: chunked" in head.lower()
            await reader.readuntil(b"event_id,created_at")
            if cause == "the dashboard dies":
                process.kill()
            else:
                await _end_copies(database)
            body = await _rest(reader)
        writer.close()
    assert len(body) < 4000 * 16_000
    assert not body.endswith(b"0\r\n\r\n")


async def test_long_metadata_is_found_by_its_whole_value(database: str, tmp_path: Path) -> None:
    """A call may have 8 kB of it; its address is then longer than servers usually take."""
    value = "ä" * 4000
    rows = [
        ledger_row(1, metadata={"note": value}),
        ledger_row(2, metadata={"note": value[:-1] + "o"}),
        ledger_row(3, metadata={"note": value, "other": "=1"}),
    ]
    await record(database, rows)
    query = f"range=all&metadata=note={quote(value)}"
    with _dashboard(database, tmp_path) as (port, _process):
        asked = (
            f"GET /api/usage/export?dialect=raw&{query} HTTP/1.1\r\nHost: here\r\n"
            f"Referer: http://here/admin/calls?{query}\r\n"
            "Authorization: Bearer token-1\r\nConnection: close\r\n\r\n"
        )
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(asked.encode())
            body = await _rest(reader)
            writer.close()
    assert body.startswith(b"HTTP/1.1 200 ")
    assert body.count(value.encode()) == 2
    assert value[:-1].encode() + b"o" not in body


async def _end_copies(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    ended = await connection.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE 'copy%'"
    )
    await connection.close()
    assert ended


async def _rest(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the connection ends, in whichever way."""
    body = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := await reader.read(1 << 20):
            body += piece
    return body

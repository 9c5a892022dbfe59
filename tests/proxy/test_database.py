"""Tests of proxy.database against a real Postgres."""

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import pytest

from proxy.database import connect, prepare, redacted, translated
from proxy.errors import DatabaseError, DatabaseUnreachableError, RowsRefusedError
from proxy.ledger import Ledger
from tests.conftest import at
from tests.fakes.rows import ledger_row


async def test_the_schema_is_applied_once(empty_database: str) -> None:
    """A second start finds the work done."""
    assert await prepare(empty_database)
    assert not await prepare(empty_database)


async def test_starters_may_come_together(empty_database: str) -> None:
    """A fleet that starts at once applies the schema once."""
    applied = await asyncio.gather(*(prepare(empty_database) for _ in range(4)))
    assert sorted(applied) == [False, False, False, True]


async def test_the_schema_may_be_applied_over_itself(empty_database: str) -> None:
    """A new version of the file meets the tables of the old one."""
    await prepare(empty_database)
    connection = await asyncpg.connect(empty_database)
    await connection.execute("DELETE FROM schema_applied")
    await connection.close()
    assert await prepare(empty_database)


async def test_a_server_that_is_too_old_is_named(database: str) -> None:
    """The message says which version was found and which is needed."""
    with pytest.raises(DatabaseError, match=r"Postgres 1\d is too old: .* Postgres 99 or newer"):
        await prepare(database, minimum_version=99)


async def test_a_server_that_does_not_listen_is_unreachable() -> None:
    """The message says where, and holds no password."""
    with pytest.raises(DatabaseUnreachableError, match=r"127\.0\.0\.1:9/ledger") as caught:
        await connect("postgresql://someone:hunter2@127.0.0.1:9/ledger")
    assert "hunter2" not in str(caught.value)
    assert "METER_DATABASE_URL" in str(caught.value)


async def test_a_missing_socket_is_unreachable(tmp_path: Path) -> None:
    """An embedded server that is being started again is one to try again."""
    with pytest.raises(DatabaseUnreachableError):
        await connect(f"postgresql://meter@/postgres?host={tmp_path}")


async def test_a_database_that_does_not_exist_is_named(database: str) -> None:
    """The message says what to do; trying again would not help."""
    with pytest.raises(DatabaseError, match='"nowhere" does not exist; make it') as caught:
        await connect(at(database, "nowhere"))
    assert not isinstance(caught.value, DatabaseUnreachableError)


@pytest.mark.parametrize(
    "dsn",
    ["postgresql://u:hunter2@host:hunter2/db", "mysql://u:hunter2@host/db", "host=h pass=hunter2"],
)
async def test_an_unreadable_address_is_not_repeated(dsn: str) -> None:
    """What cannot be read may be a password in the wrong place."""
    with pytest.raises(DatabaseError, match="METER_DATABASE_URL cannot be read") as caught:
        await connect(dsn)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://u:p@db.example:5433/ledger?sslmode=require", "db.example:5433/ledger"),
        ("postgresql://u:p%40ss@a:1,b:2/ledger", "a:1,b:2/ledger"),
        ("postgresql://meter@/postgres?host=/run/pg", "/run/pg/postgres"),
        ("postgresql:///ledger?password=p", "localhost/ledger"),
        ("postgresql://[u:p@/ledger", "an unreadable address"),
        ("host=h password=p", "an unreadable address"),
    ],
)
def test_a_redacted_address_says_where_and_nothing_else(dsn: str, expected: str) -> None:
    """User, password and options do not get into logs."""
    assert redacted(dsn) == expected


async def test_a_refusal_does_not_repeat_the_values_of_the_row(database: str) -> None:
    """Postgres quotes the whole row in the detail of its error."""
    connection = await connect(database)
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await connection.execute(
            "INSERT INTO user_api_usage (event_id, created_at, user_id, api_path, operation_name,"
            " upstream, usage_source, outcome)"
            " VALUES (gen_random_uuid(), now(), 'ada', '/', 'chat', 'x', 'reported', 'exploded')"
        )
    await connection.close()
    refused = translated(caught.value, database)
    assert isinstance(refused, RowsRefusedError)
    assert "ada" in str(caught.value)
    assert "ada" not in str(refused)
    assert "outcome_is_known" in str(refused)


@pytest.mark.parametrize(
    ("exc", "expected", "is_passing"),
    [
        (asyncpg.InvalidPasswordError("wrong"), "refuses: wrong; check user and password", False),
        (
            asyncpg.InvalidAuthorizationSpecificationError("no"),
            "refuses: no; check the user",
            False,
        ),
        (asyncpg.CannotConnectNowError("starting up"), "cannot serve now: starting up", True),
        (asyncpg.TooManyConnectionsError("full"), "cannot serve now: full", True),
        (asyncpg.DiskFullError("no space"), "cannot serve now: no space", True),
        (asyncpg.ReadOnlySQLTransactionError("standby"), "cannot serve now: standby", True),
        (asyncpg.QueryCanceledError("timeout"), "cannot serve now: timeout", True),
        (asyncpg.UndefinedTableError("no table"), "refuses: no table", False),
        (asyncpg.InterfaceError("_impl closed"), "does not answer (the connection was lost)", True),
        (ConnectionRefusedError("refused"), "does not answer (refused)", True),
        (TimeoutError(), "does not answer (no answer in time)", True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_fault_says_where_what_and_whether_to_try_again(
    exc: Exception, expected: str, *, is_passing: bool
) -> None:
    """Who tries again for ever must know that it may help; who reads it, what to do."""
    fault = translated(exc, "postgresql://u:hunter2@db.example/ledger")
    assert str(fault).startswith(f"Postgres at db.example/ledger {expected}")
    assert isinstance(fault, DatabaseUnreachableError) is is_passing


async def test_a_user_without_the_right_to_create_is_told_so(empty_database: str) -> None:
    """The message names the grant that is missing."""
    connection = await asyncpg.connect(empty_database)
    name = f"visitor_{urlsplit(empty_database).path[-12:]}"
    await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'hunter2'")
    visitor = urlsplit(empty_database)
    netloc = f"{name}:hunter2@{visitor.netloc.rpartition('@')[2]}"
    try:
        with pytest.raises(DatabaseError, match="GRANT CREATE ON SCHEMA public") as caught:
            await prepare(visitor._replace(netloc=netloc).geturl())
        assert "hunter2" not in str(caught.value)
    finally:
        await connection.execute(f"DROP ROLE {name}")
        await connection.close()


async def test_a_database_in_another_encoding_is_refused(postgres: str) -> None:
    """It could not hold every user's name."""
    connection = await asyncpg.connect(postgres)
    await connection.execute(
        "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    )
    try:
        with pytest.raises(DatabaseError, match="encoded in LATIN1: the ledger needs UTF8"):
            await prepare(at(postgres, "latin"))
    finally:
        await connection.execute("DROP DATABASE latin")
        await connection.close()


@pytest.fixture
async def pgbouncer(empty_database: str, open_directory: Path) -> AsyncIterator[str]:
    """Return the DSN of a database behind pgbouncer in transaction mode, with few connections."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    parts = urlsplit(empty_database)
    where = parse_qs(parts.query).get("host", [parts.hostname or ""])[0]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    configuration = open_directory / "pgbouncer.ini"
    login = f"user={parts.username}"
    if parts.password:
        login += f" password='{unquote(parts.password)}'"
    text = f"""
[databases]
ledger = host={where} port={parts.port or 5432} dbname={parts.path[1:]} {login}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
"""
    await asyncio.to_thread(configuration.write_text, text)
    account = None
    if os.geteuid() == 0:  # pgbouncer does not run as root, but as whom the socket belongs to
        account = (await asyncio.to_thread(Path(where).stat)).st_uid if where[0] == "/" else 65534
    process = await asyncio.create_subprocess_exec(program, "-q", configuration, user=account)
    dsn = f"postgresql://anyone@127.0.0.1:{port}/ledger"
    try:
        for _ in range(100):
            with contextlib.suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.05)
        yield dsn
    finally:
        process.terminate()
        await process.wait()


async def test_pgbouncer_may_stand_in_between(pgbouncer: str) -> None:
    """In transaction mode, each transaction may meet another connection of the server."""
    applied = await asyncio.gather(*(prepare(pgbouncer) for _ in range(4)))
    assert sum(applied) == 1

    async def write(number: int) -> int:
        ledger = Ledger(pgbouncer, report_timezone="Europe/Berlin")
        await ledger.set_report_timezone()
        await ledger.ensure_partitions()
        rows = [ledger_row(number * 1000 + n) for n in range(200)]
        results = [await ledger.insert(rows[n : n + 20]) for n in range(0, 200, 20)]
        await ledger.close()
        return sum(result.inserted for result in results)

    assert await asyncio.gather(*(write(number) for number in range(6))) == [200] * 6
    connection = await connect(pgbouncer)
    assert await connection.fetchval("SELECT calls FROM ledger_status") == 1200
    await connection.close()

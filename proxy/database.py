"""Reach a Postgres and bring schema.sql into it.

Nothing here needs a session: no prepared statement is kept, no setting outlives its transaction,
so that pgbouncer may stand in between in transaction mode. Messages name the host, the database and
what to do; they never hold a password.
"""

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from proxy.errors import DatabaseError, DatabaseUnreachableError, RowsRefusedError
from proxy.resources import resource

MINIMUM_VERSION = 15  # for UNIQUE NULLS NOT DISTINCT

_CONNECT_SECONDS = 10.0
_STATEMENT_SECONDS = 60.0
_SCHEMA_SECONDS = 3600.0  # an index on a large ledger takes its time

# SQLSTATE classes (appendix A of the PostgreSQL manual) after which trying again is right:
# connection exception, invalid transaction state (a standby is read-only until it is promoted),
# transaction rollback, lack of resources, lock not available, operator's intervention.
_PASSING = ("08", "25", "40", "53", "55", "57")

# Data exception, integrity constraint violation, program limit exceeded (an index entry too large).
_REFUSALS = ("22", "23", "54")

_HELP: Mapping[str, str] = {
    "28000": "check the user in METER_DATABASE_URL, and pg_hba.conf",
    "28P01": "check user and password in METER_DATABASE_URL",
    "3D000": "make it with CREATE DATABASE, or name another one in METER_DATABASE_URL",
    "42501": "let the user create tables there: GRANT CREATE ON SCHEMA public TO …",
}


async def connect(dsn: str, *, statement_seconds: float = _STATEMENT_SECONDS) -> asyncpg.Connection:
    """Open a connection whose statements all have a timeout; the caller closes it."""
    try:
        return await asyncpg.connect(
            dsn,
            timeout=_CONNECT_SECONDS,
            command_timeout=statement_seconds,
            statement_cache_size=0,
        )
    except ValueError:
        # The library's message may quote a part of the address, and so of the password.
        raise DatabaseError(
            "METER_DATABASE_URL cannot be read: expected postgresql://USER:PASSWORD@HOST:PORT/NAME"
        ) from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        raise translated(exc, dsn) from exc


async def prepare(dsn: str, *, minimum_version: int = MINIMUM_VERSION) -> bool:
    """Apply schema.sql unless this version of it was applied before; True: it was applied now.

    Any number of starters may call this at the same time: the first one works, the others wait.
    """
    schema = await asyncio.to_thread(_schema)
    connection = await connect(dsn, statement_seconds=_SCHEMA_SECONDS)
    try:
        await _demand(connection, minimum_version)
        return await _apply(connection, schema)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        raise translated(exc, dsn) from exc
    finally:
        connection.terminate()


def redacted(dsn: str) -> str:
    """Return where a DSN leads, as HOST:PORT/NAME; user, password and options are left out."""
    try:
        parts = urlsplit(dsn)
        if parts.scheme not in {"postgresql", "postgres"}:
            return "an unreadable address"
        hosts = parts.netloc.rpartition("@")[2] or parse_qs(parts.query).get("host", [""])[0]
    except ValueError:
        return "an unreadable address"
    return f"{unquote(hosts) or 'localhost'}/{unquote(parts.path.lstrip('/'))}"


def translated(exc: Exception, dsn: str) -> DatabaseError:
    """Return our exception for one of the library's; unreachable: trying again may help."""
    where = redacted(dsn)
    if not isinstance(exc, asyncpg.PostgresError):
        lost = isinstance(exc, asyncpg.InterfaceError)  # its text is about the library's objects
        reason = "the connection was lost" if lost else str(exc) or "no answer in time"
        return DatabaseUnreachableError(
            f"Postgres at {where} does not answer ({reason}): start it, or check METER_DATABASE_URL"
        )
    sqlstate = str(exc.sqlstate)
    message = exc.args[0]  # less DETAIL, which holds the values of a refused row
    if sqlstate[:2] in _PASSING:
        return DatabaseUnreachableError(f"Postgres at {where} cannot serve now: {message}")
    kind = RowsRefusedError if sqlstate[:2] in _REFUSALS else DatabaseError
    advice = _HELP.get(sqlstate, exc.hint)
    return kind(f"Postgres at {where} refuses: {message}" + (f"; {advice}" if advice else ""))


def _schema() -> str:
    return resource("schema.sql").read_text("utf-8")


async def _demand(connection: asyncpg.Connection, minimum_version: int) -> None:
    """Raise unless the server can keep the ledger."""
    version = int(await connection.fetchval("SELECT current_setting('server_version_num')"))
    encoding = await connection.fetchval("SELECT current_setting('server_encoding')")
    if (found := version // 10_000) < minimum_version:
        raise DatabaseError(
            f"Postgres {found} is too old: the ledger needs Postgres {minimum_version} or newer"
        )
    if encoding != "UTF8":
        raise DatabaseError(f"the database is encoded in {encoding}: the ledger needs UTF8")


async def _apply(connection: asyncpg.Connection, schema: str) -> bool:
    """Apply the schema under a lock, in one transaction."""
    version = sha256(schema.encode()).hexdigest()
    async with connection.transaction():
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('openai-meter schema', 0))"
        )
        if await _applied(connection, version):
            return False
        # Fail rather than hold up everybody behind a long export of the ledger.
        await connection.execute("SET LOCAL lock_timeout = '60s'")
        await connection.execute(schema)
        await connection.execute("INSERT INTO schema_applied (sha256) VALUES ($1)", version)
    return True


async def _applied(connection: asyncpg.Connection, version: str) -> bool:
    """Return whether this version of the schema was applied; before the first one, none was."""
    if await connection.fetchval("SELECT to_regclass('schema_applied') IS NULL"):
        return False
    return bool(
        await connection.fetchval("SELECT count(*) FROM schema_applied WHERE sha256 = $1", version)
    )

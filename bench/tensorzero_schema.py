"""Bring TensorZero's schema into a Postgres: its wheel has the gateway, but no command for that.

The statements are in the gateway's library, and so is the SHA-384 of each piece of them, by which
it is seen where a piece begins and ends. Which pieces have to be noted as applied, and in which
table, the gateway says itself when it is started. One piece needs an extension that is for
evaluations alone; it is left out.
"""

import asyncio
import hashlib
import re
import subprocess
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import asyncpg

STARTS = 12  # of the gateway: it names one thing that it misses at a time
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\xc2-\xf4\x80-\xbf]{60,}")
_STATEMENT = re.compile(
    rb"\b(?:CREATE|ALTER) (?:TABLE|SCHEMA)\b|\bCREATE (?:OR|MATERIALIZED|INDEX)"
)
_BEGINNING = re.compile(rb"--|CREATE |ALTER ")
_AROUND, _DIGEST_BYTES, _FIRST_BYTES = 400, 48, 60
_MISSING = re.compile(r"migrations do not match.*?\[([\d, ]+)\] are missing", re.DOTALL)
_TABLE = re.compile(r'relation "(\w*_sqlx_migrations)" does not exist')
_GATEWAY = """
import sys
from tensorzero import TensorZeroGateway
TensorZeroGateway.build_embedded(config_file=sys.argv[1], postgres_url=sys.argv[2]).close()
"""


def migrate(python: Path, settings: Path, dsn: str) -> str:
    """Bring the schema in; return what the gateway still misses, or nothing."""
    library = next(python.parents[1].glob("lib/python*/site-packages/tensorzero/tensorzero*.so"))
    return asyncio.run(_migrate(python, settings, dsn, _pieces(library)))


async def _migrate(python: Path, settings: Path, dsn: str, pieces: Iterable[str]) -> str:
    connection = await asyncpg.connect(dsn, timeout=20)
    try:
        for piece in pieces:
            await connection.execute(piece, timeout=60)
        table = problem = ""
        for _ in range(STARTS):
            problem = await asyncio.to_thread(_problem, python, settings, dsn)
            if found := _TABLE.search(problem):
                table = found[1]
                await connection.execute(_note_table(table))
            elif found := _MISSING.search(problem):
                done = [(int(version),) for version in found[1].split(",")]
                note = f"INSERT INTO {table} VALUES ($1)"  # noqa: S608 (a name of its own)
                await connection.executemany(note, done)
            else:
                break
    finally:
        await connection.close()
    return problem


def _note_table(table: str) -> str:
    return (
        f"CREATE TABLE {table} (version bigint PRIMARY KEY, description text DEFAULT '', "
        "installed_on timestamptz DEFAULT now(), success boolean DEFAULT true, "
        "checksum bytea DEFAULT '', execution_time bigint DEFAULT 0)"
    )


def _problem(python: Path, settings: Path, dsn: str) -> str:
    """Start the gateway within a process; return what it says where it does not start."""
    command = [str(python), "-c", _GATEWAY, str(settings), dsn]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr if done.returncode else ""


@lru_cache
def _pieces(library: Path) -> tuple[str, ...]:
    data = library.read_bytes()
    found = (
        _piece(run[0], data[max(0, run.start() - _AROUND) : run.end() + _AROUND])
        for run in _TEXT.finditer(data)
        if _STATEMENT.search(run[0])
    )
    return tuple(piece.decode() for piece in found if piece is not None)


def _piece(text: bytes, around: bytes) -> bytes | None:
    """Return the part of a text whose digest stands around it."""
    places = range(len(around) - _DIGEST_BYTES + 1)
    digests = {around[place : place + _DIGEST_BYTES] for place in places}
    for beginning in _BEGINNING.finditer(text, 0, _FIRST_BYTES):
        digest = hashlib.sha384()
        for end in range(beginning.start(), len(text)):
            digest.update(text[end : end + 1])
            if digest.digest() in digests:
                return text[beginning.start() : end + 1]
    return None

"""What every test may ask for: a database, the recorded corpus, a loop that must not block."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from proxy.database import prepare
from proxy.embedded import EmbeddedPostgres

_TEMPLATE = "ledger_template"
NewDatabase = Callable[..., Awaitable[str]]
_QUICK = {"fsync": "off", "full_page_writes": "off", "max_connections": "100"}


@pytest.fixture(autouse=True)
def blocking_calls() -> Iterator[BlockBuster]:
    """Let a call that blocks the event loop fail the test, wherever our code is in the stack."""
    with blockbuster_ctx(["proxy", "dashboard"]) as detector:
        for function in detector.functions.values():
            # A connection looks for ~/.pgpass and certificates when it is made, once.
            function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_dsn_and_args")
        yield detector


@pytest.fixture
def corpus_path() -> Path:
    """Return the recorded exchanges; skip where they are not at hand."""
    beside = Path(__file__).parents[2] / "shared" / "corpus" / "exchanges.jsonl.gz"
    path = Path(os.environ.get("METER_TEST_CORPUS", beside))
    if not path.is_file():
        pytest.skip(f"no recorded exchanges at {path}: set METER_TEST_CORPUS")
    return path


@pytest.fixture
def sessions_path(corpus_path: Path) -> Path:
    """Return the recorded WebSocket sessions; skip where they are not at hand."""
    path = corpus_path.with_name("realtime.jsonl.gz")
    if not path.is_file():
        pytest.skip(f"no recorded sessions at {path}")
    return path


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Return a directory that others can reach, as Postgres has to when root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="meter-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Return the DSN of a Postgres that lives as long as the tests run, for its administrator.

    It is the embedded one, without syncing to disk. METER_TEST_DATABASE may be the DSN of another
    one, or "testcontainers" for one in a container (METER_TEST_POSTGRES_IMAGE names the image).
    """
    wanted = os.environ.get("METER_TEST_DATABASE")
    if wanted == "testcontainers":
        yield from _postgres_in_container()
        return
    if wanted:
        yield wanted
        return
    directory = Path(tempfile.mkdtemp(prefix="meter-pg-", dir="/tmp"))
    directory.chmod(0o755)
    server = EmbeddedPostgres(directory, settings=_QUICK)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def _template(postgres: str) -> str:
    """Make the database that the others are copies of: schema.sql has been applied to it."""

    async def make() -> None:
        connection = await asyncpg.connect(postgres)
        await connection.execute(f"DROP DATABASE IF EXISTS {_TEMPLATE}")
        await connection.execute(f"CREATE DATABASE {_TEMPLATE} ENCODING 'UTF8' TEMPLATE template0")
        await connection.close()
        await prepare(at(postgres, _TEMPLATE))

    asyncio.run(make())
    return postgres


@pytest.fixture
async def new_database(_template: str) -> AsyncIterator[NewDatabase]:
    """Return what makes databases, from a template, that are gone after the test."""
    connection = await asyncpg.connect(_template)
    names: list[str] = []

    async def make(template: str = _TEMPLATE) -> str:
        names.append(f"test_{uuid4().hex}")
        await connection.execute(
            f"CREATE DATABASE {names[-1]} TEMPLATE {template} STRATEGY file_copy"
        )
        return at(_template, names[-1])

    yield make
    for name in names:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest.fixture
async def database(new_database: NewDatabase) -> str:
    """Return the DSN of a database with the schema in it, for this test alone."""
    return await new_database()


@pytest.fixture
async def empty_database(new_database: NewDatabase) -> str:
    """Return the DSN of a database with nothing in it, for this test alone."""
    return await new_database("template0")


def at(dsn: str, database: str) -> str:
    """Return the DSN of another database of the same server."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{database}"))


def _postgres_in_container() -> Iterator[str]:
    """Run Postgres in a container; the library is needed only here."""
    from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415

    image = os.environ.get("METER_TEST_POSTGRES_IMAGE", "postgres:18")
    with PostgresContainer(image, driver=None) as container:
        yield container.get_connection_url(driver=None)

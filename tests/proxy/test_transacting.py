"""A transaction is done whole, again where others were in the way, or not at all."""

import asyncio
import socket
from collections.abc import AsyncIterator

import asyncpg
import pytest

from proxy.errors import DatabaseError, DatabaseUnreachableError
from proxy.transacting import Transactions

OTHERS_OUT = """
SELECT pg_terminate_backend(pid)
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
RAISING = "DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '{}', CONSTRAINT = '{}'; END $$"
LOST = [("40001", ""), ("40P01", ""), ("23514", "")]
OTHER = [("23514", "known"), ("23505", ""), ("22000", "")]


@pytest.fixture
async def transactions(empty_database: str) -> AsyncIterator[Transactions]:
    """Return what does transactions in an empty database."""
    writer = Transactions(empty_database)
    yield writer
    await writer.close()


async def one(connection: asyncpg.Connection) -> int:
    """Ask for a number, and for who answers."""
    return int(await connection.fetchval("SELECT pg_backend_pid()"))


async def test_a_connection_lasts_until_it_is_given_back(transactions: Transactions) -> None:
    """All transactions have the same one; after that they have another."""
    first = await transactions.do(one)
    assert await transactions.do(one) == first
    await transactions.close()
    assert await transactions.do(one) != first


async def test_a_connection_lost_in_between_is_made_again(
    empty_database: str, transactions: Transactions
) -> None:
    """Postgres was restarted between two transactions: nobody needs to know."""
    first = await transactions.do(one)
    other = await asyncpg.connect(empty_database)
    await other.execute(OTHERS_OUT)
    await other.close()
    await asyncio.sleep(0.05)
    assert await transactions.do(one) != first


@pytest.mark.parametrize(("code", "constraint"), LOST)
async def test_what_lost_against_others_is_done_again(
    transactions: Transactions, code: str, constraint: str
) -> None:
    """A deadlock, a conflict, a partition that came meanwhile; but not for ever."""
    turns = 0

    async def work(connection: asyncpg.Connection) -> int:
        nonlocal turns
        turns += 1
        if turns < until:
            await connection.execute(RAISING.format(code, constraint))
        return turns

    until = 3
    assert await transactions.do(work) == 3
    turns, until = 0, 100
    with pytest.raises(DatabaseUnreachableError, match="6 transactions lost against others"):
        await transactions.do(work)
    assert turns == 6


@pytest.mark.parametrize(("code", "constraint"), OTHER)
async def test_what_else_is_refused_is_the_callers(
    transactions: Transactions, code: str, constraint: str
) -> None:
    """At once, and over another connection the next one is done."""
    turns = 0

    async def work(connection: asyncpg.Connection) -> None:
        nonlocal turns
        turns += 1
        await connection.execute(RAISING.format(code, constraint))

    first = await transactions.do(one)
    with pytest.raises(DatabaseError, match="refuses: lost"):
        await transactions.do(work)
    assert turns == 1
    assert await transactions.do(one) != first


async def test_a_fault_of_the_work_is_handed_on(transactions: Transactions) -> None:
    """What it left of a transaction goes with its connection."""

    async def work(connection: asyncpg.Connection) -> None:
        await connection.execute("BEGIN; CREATE TABLE half (number integer)")
        raise RuntimeError

    async def is_there(connection: asyncpg.Connection) -> bool:
        return bool(await connection.fetchval("SELECT to_regclass('half') IS NOT NULL"))

    with pytest.raises(RuntimeError):
        await transactions.do(work)
    assert not await transactions.do(is_there)


async def test_one_waits_for_the_other(transactions: Transactions) -> None:
    """They have one connection, which takes one at a time."""
    order: list[str] = []

    async def slow(connection: asyncpg.Connection) -> None:
        await connection.execute("SELECT pg_sleep(0.05)")
        order.append("slow")

    async def fast(connection: asyncpg.Connection) -> None:
        await connection.execute("SELECT 1")
        order.append("fast")

    await asyncio.gather(transactions.do(slow), transactions.do(fast))
    assert order == ["slow", "fast"]


async def test_a_server_that_hangs_is_unreachable() -> None:
    """Nobody waits for ever for a server that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        writer = Transactions(f"postgresql://u:hunter2@{host}:{port}/d")
        task = asyncio.ensure_future(writer.do(one))
        await asyncio.sleep(0.2)
        server.close()
        with pytest.raises(DatabaseUnreachableError) as caught:
            await asyncio.wait_for(task, 15)
    assert "hunter2" not in str(caught.value)

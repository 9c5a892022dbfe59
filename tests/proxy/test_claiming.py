"""Tests of proxy.claiming against a real Postgres: whoever asks first, on whatever host."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from proxy.claiming import claim, claim_uses, forget
from proxy.core.claims import Claim, Use
from tests.fakes.rows import MOMENT, event_id

HOST = "api.openai.com"


def named(number: int, name: str = "realtime.response/a", upstream: str = HOST) -> Claim:
    """Return the claim of a row that tells of something alone."""
    return Claim(upstream=upstream, event_id=event_id(number), name=name)


def using(number: int, minute: int = 0, container_id: str = "cntr_1", **changes: Any) -> Claim:
    """Return the claim of a row whose call ran code for a minute."""
    began_at = MOMENT + timedelta(minutes=minute)
    use = Use(
        upstream=HOST,
        container_id=container_id,
        event_id=event_id(number),
        size="1g",
        began_at=began_at,
        ended_at=began_at + timedelta(minutes=1),
    )
    return Claim(upstream=HOST, event_id=event_id(number), uses=(use,), **changes)


@pytest.fixture
async def hosts(database: str) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Connection]]:
    """Return the connections of two recorders."""
    one, other = await asyncpg.connect(database), await asyncpg.connect(database)
    yield one, other
    await one.close()
    await other.close()


Hosts = tuple[asyncpg.Connection, asyncpg.Connection]


async def test_one_row_charges_what_two_tell_of(hosts: Hosts) -> None:
    """Within a batch, in the next one, on another host, and when the batch is done again."""
    one, other = hosts
    assert await claim(one, [named(1), named(2)]) == [(), None]
    assert await claim(other, [named(3), named(4, "realtime.response/b")]) == [None, ()]
    assert await claim(one, [named(1), named(2)]) == [(), None]


async def test_another_upstream_has_names_of_its_own(hosts: Hosts) -> None:
    """Ids are unique with the one who gives them."""
    one, _ = hosts
    assert await claim(one, [named(1), named(2, upstream="eu.api.openai.com")]) == [(), ()]


async def minutes(connection: asyncpg.Connection, *claims: Claim) -> list[int]:
    """Return what each of these claims has to charge."""
    found = await claim(connection, claims)
    return [use.minutes for uses in found for use in uses or ()]


async def test_minutes_of_a_container_are_charged_once(hosts: Hosts) -> None:
    """By several calls, on two hosts, and when a batch is done again."""
    one, other = hosts
    assert await minutes(one, using(2, 3), using(1), using(3, container_id="cntr_2")) == [0, 5, 5]
    assert await minutes(other, using(4, 7)) == [3]
    assert await minutes(one, using(2, 3), using(1), using(4, 7)) == [0, 5, 3]
    stored = await one.fetchval("SELECT sum(minutes) FROM container_use")
    assert stored == 13


async def test_what_comes_again_with_more_is_not_taken_for_more(hosts: Hosts) -> None:
    """Of a batch that was cut short, some claims are known already."""
    one, _ = hosts
    assert await minutes(one, *(using(n, n) for n in range(10))) == [5, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    again = await minutes(one, *(using(n, n) for n in range(5, 15)))
    assert again == [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]


async def test_hosts_that_ask_at_once_do_not_charge_twice(hosts: Hosts) -> None:
    """One waits for the other."""
    first, second = await asyncio.gather(
        minutes(hosts[0], *(using(n, n) for n in range(10))),
        minutes(hosts[1], *(using(n, n) for n in range(5, 15))),
    )
    total = await hosts[0].fetchval("SELECT sum(minutes) FROM container_use")
    assert total == 15
    assert sum(first) <= total
    assert sum(second) <= total


async def test_nothing_is_asked_for_nothing(hosts: Hosts) -> None:
    """No lock is taken."""
    assert await claim_uses(hosts[0], []) == []
    assert await claim(hosts[0], []) == []


async def test_old_claims_are_dropped(hosts: Hosts) -> None:
    """Nobody tells of the same after a month."""
    one, _ = hosts
    await claim(one, [named(1), using(2)])
    await forget(one)
    assert await one.fetchval("SELECT count(*) FROM charge_claim") == 1
    await one.execute("UPDATE charge_claim SET claimed_at = now() - interval '31 days'")
    await one.execute("UPDATE container_use SET claimed_at = now() - interval '31 days'")
    await forget(one)
    assert await one.fetchval("SELECT count(*) FROM charge_claim") == 0
    assert await one.fetchval("SELECT count(*) FROM container_use") == 0

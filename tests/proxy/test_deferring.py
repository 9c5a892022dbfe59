"""Tests of proxy.deferring against a real Postgres: charged once, to whoever made the object.

In whatever order, however often and by however many recorders something is seen.
"""

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec
import pytest

from proxy.core.model import AnswerUnits, Container, LedgerRow, Lines, Sighting
from proxy.core.settling import Noted, settled
from proxy.deferring import Due
from proxy.ledger import Ledger
from proxy.pricefile import load_price_book
from proxy.resources import resource
from tests.fakes.rows import MOMENT, correction, event_id, ledger_row, unavailable_row

BOOK = load_price_book(resource("pricing.yaml"))
HOST = "api.openai.com"
USAGE = b'{"input_tokens":100,"output_tokens":10,"total_tokens":110}'
SUM = Decimal("0.000010500000")  # of USAGE at half the price of gpt-4o-mini
CHAT = "/v1/chat/completions"


def made(number: int = 1, **changes: Any) -> LedgerRow:
    """Return the row of a call that has made something."""
    facts = {
        "operation_name": "batches.create",
        "api_path": "/v1/batches",
        "usage_problem": "usage_deferred",
        "request_model": None,
        "user_id": "ada",
    }
    return unavailable_row(number, **(facts | changes))


def new(object_id: str = "batch_1", kind: str = "batch", number: int = 1, **changes: Any) -> Noted:
    """Return what the call that has made an object tells of it."""
    note = Noted(
        upstream=HOST,
        object_id=object_id,
        kind=kind,
        maker=event_id(number),
        made_at=MOMENT,
        state="queued",
    )
    return replace(note, **changes)


def done(object_id: str = "batch_1", kind: str = "batch", **changes: Any) -> Noted:
    """Return what is told of an object that came to its end."""
    seen = Sighting(
        kind=kind,
        object_id=object_id,
        state="completed",
        model="gpt-4o-mini",
        usage=USAGE,
        endpoint=CHAT if kind == "batch" else None,
    )
    note = Noted(
        upstream=HOST,
        object_id=object_id,
        kind=kind,
        state="completed",
        is_over=True,
        file_id="file-2" if kind == "batch" else None,
        endpoint=CHAT if kind == "batch" else None,
        seen=(seen,),
    )
    return replace(note, **changes)


FILE = Noted(
    upstream=HOST, object_id="file-2", kind="output", state="complete", is_over=True, lines=2
)


def output(*numbers: int) -> Lines:
    """Return lines of the output of a batch."""
    lines = (
        Sighting(
            kind="output",
            object_id="",
            part=f"batch_req_{number}",
            model="gpt-4o-mini-2024-07-18",
            usage=b'{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}'
            % (number, number + 10),
            response_id=f"chatcmpl-{number}",
            custom_id=f"c{number}",
        )
        for number in numbers
    )
    return Lines(event_id=bytes(16), upstream=HOST, file_id="file-2", lines=tuple(lines))


def price(due: Due) -> list[LedgerRow]:
    """Return what the recorder makes of it."""
    return [settled(due.maker, due.object_id, part, BOOK) for part in due.parts]


@pytest.fixture
async def ledger(database: str) -> AsyncIterator[Ledger]:
    """Return a writer to an empty ledger."""
    writer = Ledger(database, report_timezone="UTC")
    yield writer
    await writer.close()


@pytest.fixture
async def reader(database: str) -> AsyncIterator[asyncpg.Connection]:
    """Return a connection to look at the ledger with."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def settle(ledger: Ledger, *notes: Noted, lines: Sequence[Lines] = ()) -> int:
    """Note something as one batch of the recorder."""
    return await ledger.settle(notes, lines, price)


async def charges(reader: asyncpg.Connection) -> list[asyncpg.Record]:
    """Return the rows that charge an object."""
    query = """
    SELECT *
    FROM user_api_usage
    WHERE settles IS NOT NULL AND corrects IS NULL
    ORDER BY response_id
    """
    return await reader.fetch(query)


async def test_containers_of_what_is_done_later_are_charged_once(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """Several lines of a batch, or responses in the background, ran code in the same one."""
    await ledger.insert([made(1, operation_name="responses"), made(2, operation_name="responses")])
    units = AnswerUnits(ran_in=(Container(container_id="cntr_1", size="1g"),))
    for number in (1, 2):
        name = f"resp_{number}"
        ended = done(name, "response")
        parts = tuple(msgspec.structs.replace(seen, units=units) for seen in ended.seen)
        await settle(ledger, new(name, "response", number), replace(ended, seen=parts))
    fees = [row["tool_cost_usd"] for row in await charges(reader)]
    assert fees == [Decimal("0.0075"), 0]
    assert await reader.fetchval("SELECT sum(minutes) FROM container_use") == 5


async def total(reader: asyncpg.Connection) -> tuple[int, Decimal | None]:
    """Return how many calls there are and what they cost, by the rollups and by the rows."""
    summed = await reader.fetchrow("SELECT calls, cost_usd FROM ledger_status")
    rows = await reader.fetchval("SELECT sum(cost_usd) FROM user_api_usage")
    assert summed is not None
    assert summed["cost_usd"] == rows
    return summed["calls"], summed["cost_usd"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_an_object_is_charged_once_in_whatever_order_it_is_seen(
    ledger: Ledger, reader: asyncpg.Connection, order: tuple[int, ...]
) -> None:
    """Made here, polled there, and polled again: the journals of two hosts have no common order."""
    steps = [new(), done(), done()]
    await ledger.insert([made()])
    inserted = [await settle(ledger, steps[step]) for step in order]
    assert sum(inserted) == 1
    (charge,) = await charges(reader)
    assert (charge["settles"], charge["user_id"], charge["created_at"]) == (
        event_id(1),
        "ada",
        MOMENT,
    )
    assert (charge["cost_usd"], charge["service_tier"]) == (SUM, "batch")
    assert await total(reader) == (1, SUM)


async def test_what_is_noted_at_once_is_charged_at_once(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """A run that ends in the stream that makes it."""
    run = new("run_1", "run"), done("run_1", "run")
    await ledger.insert([made(operation_name="threads.runs.create", api_path="/v1/threads/t/runs")])
    assert await settle(ledger, *run) == 1
    assert await settle(ledger, *run) == 0
    (charge,) = await charges(reader)
    assert (charge["response_id"], charge["cost_usd"]) == ("run_1", 2 * SUM)
    assert json.loads(charge["raw_usage"]) == json.loads(USAGE)


async def test_what_nobody_here_has_made_is_not_charged(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """It is on the bill of whoever has made it; a poll is no proof that it went through here."""
    assert await settle(ledger, done(), done("resp_1", "response")) == 0
    assert await charges(reader) == []


async def test_what_its_own_call_has_charged_is_not_charged_again(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """A response in the background whose stream was read to its end, polled before and after."""
    await ledger.insert([made()])
    assert await settle(ledger, done("resp_1", "response")) == 0
    assert await settle(ledger, new("resp_1", "response", is_charged=True)) == 0
    assert await settle(ledger, done("resp_1", "response")) == 0
    assert await charges(reader) == []


async def test_recorders_at_once_charge_once(database: str, reader: asyncpg.Connection) -> None:
    """Four of them see the ends of the same objects, and some of them the makers."""
    count = 40
    rows = [made(number) for number in range(count)]
    makers = [new(f"batch_{n}", number=n) for n in range(count)]
    ends = [done(f"batch_{n}") for n in range(count)]

    async def record(seed: int) -> int:
        writer, chance = Ledger(database, report_timezone="UTC"), random.Random(seed)  # noqa: S311
        await writer.insert(rows)
        steps = ends + [maker for n, maker in enumerate(makers) if n % 4 == seed]
        chance.shuffle(steps)
        inserted = [
            await writer.settle(steps[k : k + 7], (), price) for k in range(0, len(steps), 7)
        ]
        await writer.close()
        return sum(inserted)

    assert sum(await asyncio.gather(*map(record, range(4)))) == count
    assert await total(reader) == (count, count * SUM)
    assert len({charge["settles"] for charge in await charges(reader)}) == count


LINES_COST = Decimal("0.0000048")  # 20 tokens in, 11 out, at half the price of gpt-4o-mini


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
async def test_a_batch_is_charged_by_its_lines_where_these_pass_by(
    ledger: Ledger, reader: asyncpg.Connection, order: tuple[int, ...]
) -> None:
    """And never by both: its own sum is taken back."""
    steps: list[tuple[tuple[Noted, ...], tuple[Lines, ...]]] = [
        ((new(),), ()),
        ((done(),), ()),
        ((), (output(1, 10),)),
        ((FILE,), (output(10),)),
    ]
    await ledger.insert([made()])
    for step in order:
        notes, lines = steps[step]
        await settle(ledger, *notes, lines=lines)
    # Where a line was noted after the file was known to be complete, the next download tells.
    await settle(ledger, FILE, lines=[output(1, 10)])
    await settle(ledger, done(), FILE, lines=[output(1, 10)])
    assert await total(reader) == (1, LINES_COST)
    found = [row for row in await charges(reader) if row["response_id"].startswith("chatcmpl")]
    assert [(row["response_id"], json.loads(row["metadata"])["custom_id"]) for row in found] == [
        ("chatcmpl-1", "c1"),
        ("chatcmpl-10", "c10"),
    ]
    assert await reader.fetchval("SELECT count(*) FROM deferred_line") == 0
    before = await reader.fetch("SELECT * FROM usage_by_user_day ORDER BY model")
    await reader.execute("SELECT rebuild_rollups()")
    assert await reader.fetch("SELECT * FROM usage_by_user_day ORDER BY model") == before


async def test_a_sum_that_was_corrected_is_taken_back_whole(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """What it has come to cost by now, not what it was charged at first."""
    await ledger.insert([made()])
    await settle(ledger, new(), done())
    charged = ledger_row(
        1,
        event_id=await reader.fetchval("SELECT event_id FROM calls WHERE settles IS NOT NULL"),
        created_at=await reader.fetchval("SELECT created_at FROM calls WHERE settles IS NOT NULL"),
    )
    await ledger.correct([correction(charged, cost_usd=Decimal(3))])
    assert await total(reader) == (1, SUM + 3)
    await settle(ledger, FILE, lines=[output(1, 10)])
    assert await total(reader) == (1, LINES_COST)


async def test_a_file_of_which_a_part_was_read_changes_nothing(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """The sum of a batch is the better number then."""
    await ledger.insert([made()])
    await settle(ledger, new(), done(), lines=[output(1)])
    assert await total(reader) == (1, SUM)


async def test_a_batch_without_a_sum_is_charged_by_its_lines_alone(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """Older ones have none."""
    await ledger.insert([made()])
    await settle(ledger, new(), done(seen=()))
    assert await charges(reader) == []
    await settle(ledger, FILE, lines=[output(1, 10)])
    assert await total(reader) == (1, LINES_COST)


async def test_a_batch_of_very_many_lines_is_charged_whole(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """In one transaction, whatever it takes."""
    await ledger.insert([made()])
    await settle(ledger, new(), done(), lines=[output(*range(1, 4001))])
    assert await settle(ledger, replace(FILE, lines=4000)) == 4001
    assert await reader.fetchval("SELECT calls FROM ledger_status") == 1
    assert await reader.fetchval("SELECT sum(completion_tokens) FROM user_days") == 8_002_000


async def test_an_evaluation_is_charged_by_model(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """One that answers and one that grades."""
    usage = b'{"prompt_tokens":10,"completion_tokens":1,"total_tokens":11}'
    seen = [
        Sighting(kind="eval_run", object_id="e", part=model, model=model, usage=usage)
        for model in ("gpt-4o", "gpt-4o-mini")
    ]
    await ledger.insert([made(operation_name="evals.runs.create")])
    await settle(ledger, new("e", "eval_run"), done("e", "eval_run", seen=tuple(seen)))
    assert {row["model"] for row in await charges(reader)} == {"gpt-4o", "gpt-4o-mini"}


async def test_what_is_not_charged_yet_is_in_sight(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """With whoever made it; not what failed, which costs nothing."""
    await ledger.insert([made(1), made(2), made(3)])
    await settle(ledger, new(number=1), new("run_2", "run", 2), new("run_3", "run", 3))
    await settle(ledger, done(), done("run_3", "run", state="failed", seen=()))
    found = await reader.fetch("SELECT object_id, kind, state, user_id FROM open_objects")
    assert [tuple(row) for row in found] == [("run_2", "run", "queued", "ada")]
    assert await ledger.open_objects() == 1


async def test_the_last_word_about_a_state_is_the_end(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """A journal that is read later may tell of the beginning."""
    await ledger.insert([made()])
    await settle(ledger, done("run_1", "run", state="cancelled", seen=()))
    await settle(ledger, new("run_1", "run"))
    assert await reader.fetchval("SELECT state FROM open_objects") == "cancelled"


async def test_a_response_that_was_made_before_there_was_this_table_is_charged(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """Its row has its id; an upgrade in between loses nothing."""
    await ledger.insert(
        [made(operation_name="responses", response_id="resp_1", api_path="/v1/responses")]
    )
    assert await settle(ledger, done("resp_1", "response")) == 1
    assert await total(reader) == (1, 2 * SUM)


async def test_even_without_the_table_no_charge_is_made_twice(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """The id of the row follows from the call and the object."""
    await ledger.insert([made()])
    await settle(ledger, new(), done())
    await reader.execute("DELETE FROM deferred_object")
    assert await settle(ledger, new(), done()) == 0
    assert await total(reader) == (1, SUM)


async def test_what_is_of_no_use_any_more_is_forgotten(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """What was made here and is not charged stays for as long as that takes."""
    await ledger.insert([made(1), made(2)])
    await settle(ledger, new(), done(), new("run_2", "run", 2), done("resp_3", "response"))
    await settle(ledger, lines=[output(1)])
    await ledger.forget()
    assert await reader.fetchval("SELECT count(*) FROM deferred_object") == 3
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    await reader.execute("UPDATE deferred_object SET noted_at = $1", long_ago)
    await reader.execute("UPDATE deferred_line SET noted_at = $1", long_ago)
    await ledger.forget()
    kept = await reader.fetch("SELECT object_id FROM deferred_object")
    assert [row["object_id"] for row in kept] == ["run_2"]
    assert await reader.fetchval("SELECT count(*) FROM deferred_line") == 0

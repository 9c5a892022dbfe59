"""docs/ledger.md and docs/pricing.md say what is so: columns, views, SQL, price files."""

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from textwrap import indent
from uuid import UUID

import asyncpg
import msgspec
import pytest

from proxy.core import model
from proxy.core.charging import charge
from proxy.core.model import AnswerUnits, Closing, LedgerRow, RequestUnits, Sighting
from proxy.core.pricing import PriceBook
from proxy.core.settling import noted, settled
from proxy.correcting import Calls, Span
from proxy.deferring import Due
from proxy.errors import UnpricedError
from proxy.ledger import Ledger
from proxy.pricefile import load_price_book
from proxy.repricing import reprice
from proxy.resources import resource
from tests.documents import README, ROOT, block, blocks, table
from tests.fakes.records import closing

LEDGER = ROOT / "docs" / "ledger.md"
PRICING = ROOT / "docs" / "pricing.md"
PATIENCE_SECONDS = 60

_COLUMNS = """
SELECT
    attname AS name,
    format_type(atttypid, atttypmod) AS type,
    col_description(attrelid, attnum) AS comment
FROM pg_attribute
WHERE attrelid = 'user_api_usage'::regclass AND attnum > 0 AND NOT attisdropped
ORDER BY attnum
"""
_VIEWS = "SELECT viewname FROM pg_views WHERE schemaname = 'public'"


@dataclass(frozen=True, slots=True)
class Books:
    """A ledger with some calls in it; `example` is the README's."""

    connection: asyncpg.Connection
    example: UUID


def _used(
    number: int, usage: bytes, model_name: str = "gpt-5.4-mini", **changes: object
) -> Closing:
    call = closing(number)
    opening = msgspec.structs.replace(call.opening, request_model=model_name)
    facts = {"opening": opening, "usage": usage, "response_model": model_name}
    return msgspec.structs.replace(call, **(facts | changes))


def _as(
    operation_name: str, number: int, usage: bytes | None, model_name: str, **changes: object
) -> Closing:
    call = _used(number, usage or b"", model_name, **changes)
    opening = msgspec.structs.replace(call.opening, operation_name=operation_name)
    return msgspec.structs.replace(call, opening=opening, usage=usage)


TOLD = b'{"input_tokens":50,"output_tokens":7,"total_tokens":57}'
SEARCHED_AND_PAINTED = AnswerUnits(
    web_searches=3,
    web_search_tool="web_search_preview",
    containers=("1g", "4g"),
    image_calls=1,
    image_model="gpt-image-1",
    image_usage=b'{"input_tokens":50,"output_tokens":272,"total_tokens":322}',
)
CALLS = (
    _used(1, block(README, "json", "prompt_tokens_details").encode()),
    _used(  # Responses with cache writes, in another tier
        2,
        b'{"input_tokens":5000,"output_tokens":77,"total_tokens":5077,"input_tokens_details":'
        b'{"cached_tokens":1000,"cache_write_tokens":3000,"cache_write_tokens_details":'
        b'{"ttl_12h_tokens":1000,"ttl_30m_tokens":2000}},"output_tokens_details":{"reasoning_tokens":9}}',
        "gpt-6-sol",
        response_service_tier="priority",
    ),
    _used(  # heard, partly from the cache, and spoken
        3,
        b'{"prompt_tokens":900,"completion_tokens":70,"total_tokens":970,"prompt_tokens_details":'
        b'{"cached_tokens":300,"audio_tokens":400},"completion_tokens_details":{"audio_tokens":60}}',
        "gpt-4o-mini-audio-preview",
    ),
    _used(4, b'{"prompt_tokens":8,"total_tokens":8}', "text-embedding-3-small"),
    _used(5, b'{"prompt_tokens":8,"completion_tokens":1,"total_tokens":9}', "nobody-knows-it"),
    msgspec.structs.replace(closing(6), usage=None, outcome="client_disconnected"),
    _as("responses", 7, TOLD, "gpt-4o", answer_units=SEARCHED_AND_PAINTED),
    _as("responses", 8, TOLD, "gpt-4o", answer_units=AnswerUnits(image_calls=1)),
    _as("images.edits", 9, b'{"input_tokens":9,"output_tokens":272}', "gpt-image-1"),
    _as("audio.speech", 10, b'{"input_tokens":9,"output_tokens":99}', "gpt-4o-mini-tts"),
    _as("audio.transcriptions", 11, b'{"type":"duration","seconds":61}', "whisper-1"),
    _as("audio.translations", 12, None, "whisper-1", request_units=RequestUnits(audio_seconds=2)),
    _as("audio.speech", 13, None, "tts-1", request_units=RequestUnits(characters=12)),
    _as("images.generations", 14, None, "dall-e-3", request_units=RequestUnits(quality="hd")),
    _as("models.list", 15, None, "gpt-4o"),
)


@pytest.fixture
def price_books(tmp_path: Path) -> list[PriceBook]:
    """Return the prices that are shipped, and the same under a contract."""
    shipped = resource("pricing.yaml")
    under_contract = tmp_path / "pricing.yaml"
    contract = "contract: [{from: 2026-01-01, multiplier: x0.93}]"
    under_contract.write_text(shipped.read_text().replace("contract: []", contract))
    return [load_price_book(path) for path in (shipped, under_contract)]


@pytest.fixture
async def books(database: str, price_books: list[PriceBook]) -> AsyncIterator[Books]:
    """Return a ledger with calls of several kinds, each once by either prices."""
    ledger = Ledger(database, report_timezone="UTC")
    for number, book in enumerate(price_books):
        await ledger.store_prices(book.catalog_version, book.rates())
        rows = [charge(_numbered(call, 20 * number), book) for call in CALLS]
        assert (await ledger.insert(rows)).inserted == len(CALLS)
    await ledger.close()
    connection = await asyncpg.connect(database)
    yield Books(connection, UUID(bytes=CALLS[0].opening.event_id))
    await connection.close()


def _numbered(call: Closing, offset: int) -> Closing:
    last = call.opening.event_id[-1] + offset
    opening = msgspec.structs.replace(
        call.opening, event_id=call.opening.event_id[:-1] + bytes([last])
    )
    return msgspec.structs.replace(call, opening=opening)


async def test_every_column_has_its_definition(books: Books) -> None:
    """Names, types and comments are those of the database, in its order."""
    found = await books.connection.fetch(_COLUMNS)
    expected = [[f"`{row['name']}`", row["type"], row["comment"]] for row in found]
    assert table(LEDGER, "Column") == expected


async def test_every_view_is_there(books: Books) -> None:
    """And no other."""
    found = {row["viewname"] for row in await books.connection.fetch(_VIEWS)}
    assert {row[0].strip("`") for row in table(LEDGER, "View")} == found


def test_every_outcome_and_reason_is_there() -> None:
    """As the code names them."""
    outcomes = [row[0].strip("`") for row in table(LEDGER, "Outcome")]
    assert sorted(outcomes) == sorted(model.Outcome)
    reasons = {row[0].strip("`") for row in table(LEDGER, "Reason")}
    named = {error.reason for error in UnpricedError.__subclasses__()}
    assert reasons == named | {"contradictory_usage", "metering_fault"}


async def test_sums_can_be_made_again(books: Books) -> None:
    """Every priced call, whatever tokens it has and whatever contract it is under."""
    view, lines, check = (text for text in blocks(LEDGER, "sql") if "charge_line" in text)
    await books.connection.execute(view)
    priced = await books.connection.fetch("SELECT DISTINCT event_id FROM charge_line")
    assert len(priced) == 2 * 12
    check = check.replace("2026-11-01", "2026-08-01").replace("2026-12-01", "2026-10-01")
    assert await books.connection.fetch(check) == []
    found = await books.connection.fetch(re.sub(r"[0-9a-f-]{36}", str(books.example), lines))
    shown = block(LEDGER, "", "list_unit_price").splitlines()[2:]
    assert [tuple(map(_shown, row)) for row in found] == [
        tuple(cell.strip() for cell in line.split("|")) for line in shown
    ]


async def test_sums_can_be_made_again_after_corrections(
    books: Books, database: str, price_books: list[PriceBook]
) -> None:
    """Half of the calls come under the contract later; what they cost now has its own prices."""
    view, _, check = (text for text in blocks(LEDGER, "sql") if "charge_line" in text)
    calls = Calls(database, Span(first=date(2026, 8, 1), until=date(2026, 10, 1)))
    ledger = Ledger(database, report_timezone="UTC")
    tally = await reprice(calls, ledger, price_books[1], dry_run=False, bar=io.StringIO())
    await calls.close()
    await ledger.close()
    assert tally.total.changed == 12
    await books.connection.execute(view)
    check = check.replace("2026-11-01", "2026-08-01").replace("2026-12-01", "2026-10-01")
    assert await books.connection.fetch(check) == []
    query = "SELECT DISTINCT contract_factor::text FROM charge_line WHERE component = 'input'"
    assert [row[0] for row in await books.connection.fetch(query)] == ["0.93"]


def _shown(value: object) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


async def test_a_sum_that_is_wrong_is_found(books: Books) -> None:
    """The check is worth something: it names a row whose cost was tampered with."""
    view, _, check = (text for text in blocks(LEDGER, "sql") if "charge_line" in text)
    await books.connection.execute(view)
    await books.connection.execute(
        "UPDATE user_api_usage SET cost_usd = cost_usd + 0.000000000001 WHERE event_id = $1",
        books.example,
    )
    check = check.replace("2026-11-01", "2026-08-01").replace("2026-12-01", "2026-10-01")
    assert [row["event_id"] for row in await books.connection.fetch(check)] == [books.example]


async def _done_later(database: str, book: PriceBook) -> UUID:
    """Make two responses in the background, one of which is done; return who made that one."""

    def price(due: Due) -> list[LedgerRow]:
        return [settled(due.maker, due.object_id, part, book) for part in due.parts]

    ledger = Ledger(database, report_timezone="UTC")
    new = [Sighting(kind="response", object_id=f"r{n}", is_new=True) for n in range(2)]
    end = Sighting(kind="response", object_id="r0", state="completed", model="gpt-4o", usage=TOLD)
    made = [
        _as("responses", 90 + n, None, "gpt-4o", sightings=(one,), usage_problem="usage_deferred")
        for n, one in enumerate(new)
    ]
    polled = _as("responses.retrieve", 92, None, "gpt-4o", sightings=(end,))
    rows = [charge(call, book) for call in (*made, polled)]
    await ledger.insert(rows)
    calls = zip((*made, polled), rows, strict=True)
    notes = [note for call, row in calls for note in noted(call, row)]
    assert await ledger.settle(notes, (), price) == 1
    await ledger.close()
    return rows[0].event_id


async def test_every_recipe_runs(books: Books, database: str, price_books: list[PriceBook]) -> None:
    """Each returns rows once its dates and names are those of the calls at hand."""
    ours = {
        "BETWEEN '2026-11-01' AND '2026-11-15'": "BETWEEN '2026-08-01' AND '2026-09-30'",
        "month = '2026-11-01'": "month = '2026-08-01'",
        "created_at >= '2026-11-01'": "created_at >= '2026-08-01'",
        "req_79a8bb5962134738b18f861b224a1633": "req_1",
        "settles = '01a20409-e3d6-798a-94ec-ecbcbbc34f3b'": (
            f"settles = '{await _done_later(database, price_books[0])}'"
        ),
    }
    await books.connection.execute(
        "UPDATE user_api_usage SET upstream_request_id = 'req_1' WHERE event_id = $1", books.example
    )
    recipes = [text for text in blocks(LEDGER, "sql") if "charge_line" not in text]
    for recipe in recipes:
        text = recipe
        for theirs, our in ours.items():
            text = text.replace(theirs, our)
        assert await books.connection.fetch(text), recipe


async def test_sums_agree_with_rows(books: Books) -> None:
    """The last recipe shows one number four times."""
    (row,) = await books.connection.fetch(block(LEDGER, "sql", "of_quarter_hours"))
    assert len(set(row.values())) == 1
    assert isinstance(row["of_rows"], Decimal)


def test_a_price_file_may_look_as_it_is_shown(tmp_path: Path) -> None:
    """The entry is the shipped one, the change a later period, the last sections usable."""
    entry, changed, by_unit, sections, upstreams = blocks(PRICING, "yaml")
    shipped = resource("pricing.yaml").read_text()
    assert indent(entry, "  ") in shipped
    assert indent(by_unit, "  ") in shipped
    assert changed.startswith(entry)
    head, _, _ = shipped.partition("# Names of your own")
    path = tmp_path / "pricing.yaml"
    path.write_text(head.replace(indent(entry, "  "), indent(changed, "  ")) + sections + upstreams)
    book = load_price_book(path)
    ids = {rate.price_id for rate in book.rates()}
    names = ("start/default/short", "2026-12-01/default/short", "start/batch/short/contract-x0.93")
    assert {f"gpt-5.4-mini@{name}" for name in names} <= ids
    assert "openrouter/openai/gpt-5.4-mini@start/default/short" in ids
    assert book.of("vllm").is_free("embeddings")


def test_the_price_checker_is_called_as_shown(tmp_path: Path) -> None:
    """With a file of one's own, in the directory where one is."""
    command = block(PRICING, "sh", "pricing check").split()
    assert command[0] == "openai-meter"
    shutil.copy(resource("pricing.yaml"), tmp_path / command[-1])
    done = subprocess.run(  # noqa: S603 - our own command
        (sys.executable, "-m", "proxy", *command[1:]),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    assert "all well" in done.stdout

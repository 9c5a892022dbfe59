import asyncio
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from structlog.testing import capture_logs
from typing_extensions import override

from proxy.core.claims import Claim, Use
from proxy.core.model import AnswerUnits, Closing, Container, Cost, LedgerRow, Lines, Sighting
from proxy.core.pricelist import read_catalog
from proxy.core.pricing import PriceBook
from proxy.core.settling import Noted
from proxy.deferring import Price
from proxy.errors import RowsRefusedError
from proxy.journal import JournalWriter
from proxy.ledger import Columns, InsertResult, Ledger
from proxy.pricefile import PriceFile, read_document
from proxy.resources import resource
from tests.fakes.recorders import recorder_at_work, rows_of, rows_when, until
from tests.fakes.records import USAGE, closing, opening

PRICING = resource("pricing.yaml")
COST = Decimal("0.00000885")  # 19 tokens at 0.15 and 10 at 0.60 dollars a million


async def test_a_row_that_the_database_refuses_is_set_aside(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """It holds up nobody, and is not lost: its facts and the reason are kept."""
    odd = replace(closing(2), outcome="odd")
    journal.append_many([closing(1), odd, closing(3)])
    async with recorder_at_work(tmp_path, database, prices) as recorder:
        rows = await rows_when(database, 2)
    assert [row["event_id"].bytes[-1] for row in rows] == [1, 3]
    assert recorder.state.refused == 1
    path = tmp_path / "journal" / "refused.jsonl"
    kept = json.loads(await asyncio.to_thread(path.read_text))
    assert kept["refused"]["outcome"] == "odd"
    assert "outcome_is_known" in kept["reason"]


async def test_a_call_without_a_readable_id_is_set_aside(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """Such a row cannot be; still it is kept for a human."""
    odd = replace(closing(1), opening=replace(opening(1), event_id=b"\x01\x02"))
    journal.append_many([odd, closing(3)])
    async with recorder_at_work(tmp_path, database, prices) as recorder:
        await rows_when(database, 1)
    assert (recorder.state.refused, recorder.state.faults) == (1, 1)


class BrokenBook(PriceBook):
    """A price book with a fault of ours in it."""

    @override
    def cost(self, *_: object, **__: object) -> Cost:
        """Fail in a way that nobody has thought of."""
        raise ZeroDivisionError


async def test_a_fault_of_ours_costs_the_price_and_not_the_row(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """The row says why it has no cost, and keeps the usage for a later correction."""
    catalog = read_catalog(read_document(await asyncio.to_thread(PRICING.read_bytes)))
    prices.book = BrokenBook(catalog, "broken")
    journal.append(closing(1))
    async with recorder_at_work(tmp_path, database, prices) as recorder:
        (row,) = await rows_when(database, 1)
    assert (row["cost_usd"], row["unpriced_reason"]) == (None, "metering_fault")
    assert json.loads(row["raw_usage"])["prompt_tokens"] == 19
    assert recorder.state.faults == 1


class OddLedger(Ledger):
    """A ledger with a fault of ours in it: it cannot stand the endpoint `odd`."""

    @override
    async def insert(
        self, rows: Sequence[LedgerRow], values: Columns | None = None
    ) -> InsertResult:
        """Fail in a way that nobody has thought of."""
        if any(row.endpoint == "odd" for row in rows):
            raise ZeroDivisionError
        return await super().insert(rows, values)


async def test_a_fault_at_the_ledger_costs_one_row(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """The row that is to blame is found and set aside; all others are recorded."""
    odd = replace(closing(3), opening=replace(opening(3), endpoint="odd"))
    journal.append_many([closing(1), closing(2), odd, closing(4), closing(5)])
    async with recorder_at_work(tmp_path, database, prices, ledger_type=OddLedger) as recorder:
        rows = await rows_when(database, 4)
    assert [row["event_id"].bytes[-1] for row in rows] == [1, 2, 4, 5]
    assert recorder.state.refused == 1
    assert b'"ZeroDivisionError"' in await asyncio.to_thread(
        (tmp_path / "journal" / "refused.jsonl").read_bytes
    )


def _later(number: int, **facts: Any) -> Closing:
    """Return a call that tells of a response in the background."""
    seen = Sighting(kind="response", object_id=f"resp_{number}", model="gpt-4o-mini", **facts)
    return replace(
        closing(number),
        opening=replace(opening(number), operation_name="responses"),
        usage=None,
        usage_problem="usage_deferred",
        sightings=(seen,),
    )


async def test_what_was_made_is_charged_when_it_is_seen_done(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """Within two seconds of that, whatever was in between."""
    journal.append(_later(1, is_new=True, state="queued"))
    async with recorder_at_work(tmp_path, database, prices):
        await rows_when(database, 1)
        end = _later(1, state="completed", usage=USAGE)
        journal.append(replace(end, opening=opening(2)))
        rows = await rows_when(database, 3, seconds=2)
    assert [row["cost_usd"] for row in rows if row["cost_usd"]] == [COST]


async def test_what_was_not_seen_done_is_counted(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """For whoever watches: it costs something, and nobody knows how much."""
    journal.append_many([_later(number, is_new=True, state="queued") for number in (1, 2)])
    end = _later(1, state="completed", usage=USAGE)
    journal.append(replace(end, opening=opening(3)))
    async with recorder_at_work(tmp_path, database, prices) as recorder:
        await until(lambda: recorder.state.open_objects == 1)


async def test_a_charge_that_the_database_refuses_holds_up_nobody(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """An id that fits no index, of a journal that somebody has written into."""
    for number in (1, 2):
        journal.append(_later(number, is_new=True, state="queued"))
        end = _later(number, state="completed", usage=USAGE)
        journal.append(replace(end, opening=opening(number + 10)))
    odd = Sighting(kind="response", object_id="x" * 600, is_new=True)
    journal.append(replace(_later(5), sightings=(odd,)))
    async with recorder_at_work(tmp_path, database, prices) as recorder:
        rows = await rows_when(database, 7)
    assert [row["cost_usd"] for row in rows if row["cost_usd"]] == [COST, COST]
    assert recorder.state.refused == 1


class OddObjects(Ledger):
    """A ledger with a fault of ours in it: it cannot stand the object `resp_2`."""

    @override
    async def settle(self, notes: Sequence[Noted], lines: Sequence[Lines], price: Price) -> int:
        """Fail in a way that nobody has thought of."""
        if any(note.object_id == "resp_2" for note in notes):
            raise ZeroDivisionError
        return await super().settle(notes, lines, price)


async def test_a_fault_in_settling_costs_one_charge(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """And never the recorder; a usage that nobody can read costs one as well."""
    for number in (1, 2, 3):
        journal.append(_later(number, is_new=True, state="queued"))
        end = _later(number, state="completed", usage=USAGE)
        journal.append(replace(end, opening=opening(number + 10)))
    odd = Sighting(kind="video", object_id="resp_3", state="completed", usage=b"{")
    journal.append(replace(closing(20), sightings=(odd,)))
    async with recorder_at_work(tmp_path, database, prices, ledger_type=OddObjects) as recorder:
        rows = await rows_when(database, 9)
    assert len([row for row in rows if row["cost_usd"] == COST]) == 3  # two, and a call of its own
    assert recorder.state.refused == 2


RAN = AnswerUnits(ran_in=(Container(container_id="cntr_1", size="1g"),))
FEE = Decimal("0.0075")  # five minutes of a gigabyte


def responded(number: int, **changes: Any) -> Closing:
    """Return a response in which code ran; it took one and a half seconds."""
    record = closing(number)
    asked = replace(record.opening, operation_name="responses", api_path="/v1/responses")
    return replace(record, opening=asked, answer_units=RAN, **changes)


def heard(number: int, response_id: str) -> Closing:
    """Return the end of a realtime response, as a socket has heard it."""
    record = closing(number)
    told = replace(record.opening, operation_name="realtime.response", api_path="/v1/realtime")
    return replace(record, opening=told, response_id=response_id, call_id="rtc_1")


async def test_what_several_calls_tell_of_is_charged_once(
    tmp_path: Path, journal: JournalWriter, prices: PriceFile, database: str
) -> None:
    """By the first of them; after a restart too, and when a batch comes again."""
    journal.append(responded(1))
    journal.append(heard(2, "a"))
    journal.append(heard(3, "b"))
    async with recorder_at_work(tmp_path, database, prices):
        await rows_when(database, 3)
    journal.append(heard(4, "a"))
    journal.append(responded(5))
    journal.append(closing(6))
    async with recorder_at_work(tmp_path, database, prices):
        await rows_when(database, 5)
    rows = await rows_of(database)
    assert [row["cost_usd"] for row in rows] == [COST + FEE, COST, COST, COST, COST]
    notes = [row["usage_problem"] for row in rows]
    assert notes == ["container_time_estimated", None, None, None, None]


class OddClaims(Ledger):
    """Finds fault with the claims of one container."""

    @override
    async def claim(self, claims: Sequence[Claim]) -> list[tuple[Use, ...] | None]:
        for claim in claims:
            if any(use.container_id == "cntr_odd" for use in claim.uses):
                raise ValueError("odd")
            if any(use.container_id == "cntr_bad" for use in claim.uses):
                raise RowsRefusedError("bad\nwith details")
        return await super().claim(claims)


async def test_a_fault_in_claiming_leaves_the_row_as_it_is(
    tmp_path: Path, journal: JournalWriter, prices: PriceFile, database: str
) -> None:
    """It is charged as if nobody else had used its container, and that is told."""
    odd = AnswerUnits(ran_in=(Container(container_id="cntr_odd", size="1g"),))
    bad = AnswerUnits(ran_in=(Container(container_id="cntr_bad", size="1g"),))
    journal.append(responded(1))
    journal.append(replace(responded(2), answer_units=odd))
    journal.append(replace(responded(3), answer_units=bad))
    journal.append(responded(4))
    with capture_logs() as logs:
        async with recorder_at_work(tmp_path, database, prices, ledger_type=OddClaims) as recorder:
            rows = await rows_when(database, 4)
    assert [row["cost_usd"] for row in rows] == [COST + FEE, COST + FEE, COST + FEE, COST]
    assert recorder.state.faults == 2
    problems = [log["problem"] for log in logs if log["event"] == "claim refused"]
    assert problems == ["ValueError", "bad"]

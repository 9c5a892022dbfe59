"""What came to its end is charged to the call that made it, at that call's prices."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest

from proxy.core.catalog import Catalog, Entry, LongContext, Period
from proxy.core.charging import charge
from proxy.core.model import (
    AnswerUnits,
    Closing,
    Container,
    Opening,
    RequestUnits,
    Sighting,
    created_at,
)
from proxy.core.pricing import PriceBook
from proxy.core.settling import (
    Noted,
    containers_of,
    extended,
    merged,
    noted,
    row_id,
    settled,
    taken_back,
    with_containers,
)
from tests.fakes.records import closing, opening

USAGE = b'{"prompt_tokens":100,"completion_tokens":10,"total_tokens":110}'
RATES = {"input": Decimal(2), "output": Decimal(8)}
LONG = LongContext(above=60, input_factor=Decimal(10), output_factor=Decimal(10))
BOOK = PriceBook(
    Catalog(
        version="7",
        entries=(
            Entry(
                model_id="m",
                names=("m",),
                periods=(Period(rates=RATES, tiers={"batch": Decimal("0.5")}),),
            ),
            Entry(
                model_id="long",
                names=("long",),
                periods=(Period(rates=RATES, tiers={"batch": Decimal("0.5")}, long_context=LONG),),
            ),
            Entry(
                model_id="ft:m",
                names=("ft:m",),
                prefixes=("ft:m:",),
                periods=(Period(units={"training_million_tokens": Decimal(25)}),),
            ),
            Entry(
                model_id="films",
                names=("films",),
                periods=(Period(units={"video_second/720x1280": Decimal("0.1")}),),
            ),
        ),
        free=frozenset({"moderations"}),
    ),
    "7+abc",
)
MAKER = msgspec.structs.replace(
    opening(1), operation_name="responses", api_path="/v1/responses", request_model="m"
)
SEEN = Sighting(kind="response", object_id="resp_1", state="completed", model="m", usage=USAGE)


def ended(kind: str, usage: Any, **changes: Any) -> Sighting:
    """Return the end of an object."""
    facts = {"kind": kind, "object_id": "o_1", "state": "completed", "model": "m"} | changes
    return Sighting(**facts, usage=json.dumps(usage).encode())


def made(operation_name: str) -> Opening:
    """Return the call that made an object."""
    return msgspec.structs.replace(MAKER, operation_name=operation_name)


FILM = {"seconds": 20, "size": "720x1280"}


@pytest.mark.parametrize(
    ("operation", "asked", "cost", "component"),
    [
        ("videos.extensions", 8, Decimal("0.8"), "video_second/720x1280"),
        ("videos.extensions", None, None, "video_second_of_whole/720x1280"),
        ("videos.create", None, Decimal(2), "video_second/720x1280"),
    ],
)
def test_of_a_video_that_was_extended_what_is_new_is_charged(
    operation: str, asked: int | None, cost: Decimal | None, component: str
) -> None:
    """Its end tells the length of the whole; without the request nobody knows what is new."""
    maker = msgspec.structs.replace(made(operation), request_model="films")
    seen = extended(maker, ended("video", FILM, model="films"), asked)
    row = settled(maker, "o_1", seen, BOOK)
    assert row.cost_usd == cost
    assert json.loads(row.billed_units or b"")[0]["component"] == component


def test_a_video_that_failed_has_nothing_new() -> None:
    """Its end tells no length."""
    seen = Sighting(kind="video", object_id="o_1", state="failed")
    assert extended(made("videos.extensions"), seen, 8) == seen


def test_how_much_a_video_is_extended_by_is_noted_from_the_request() -> None:
    """Whoever sees its end has not seen the request."""
    new = Sighting(kind="video", object_id="o_1", is_new=True, state="queued")
    record = msgspec.structs.replace(
        closing(1),
        opening=made("videos.extensions"),
        usage=None,
        request_units=RequestUnits(video_seconds=8),
        sightings=(new,),
    )
    (note,) = noted(record, charge(record, BOOK))
    assert note.asked_seconds == 8
    seen = Noted(upstream=note.upstream, object_id="o_1", kind="video", is_over=True)
    assert merged([seen, note])[0].asked_seconds == 8


def test_the_containers_of_an_object_are_claimed_for_its_row() -> None:
    """For as long as it was made, where that is told."""
    units = AnswerUnits(ran_in=(Container(container_id="cntr_1", size="1g"),))
    seen = msgspec.structs.replace(SEEN, units=units)
    (use,) = containers_of(MAKER, "resp_1", seen)
    assert (use.container_id, use.size, use.began_at) == ("cntr_1", "1g", use.ended_at)
    (long,) = containers_of(MAKER, "resp_1", msgspec.structs.replace(seen, seconds=600))
    assert long.ended_at - long.began_at == timedelta(minutes=10)
    assert use.event_id.bytes == row_id(MAKER, "resp_1", seen)
    assert settled(MAKER, "resp_1", seen, BOOK).event_id == use.event_id
    (granted,) = (replace(use, minutes=3),)
    told = with_containers(seen, [granted]).units
    assert told is not None
    assert told.container_minutes == (("1g", 3),)


@pytest.mark.parametrize("units", [None, AnswerUnits(file_searches=1)])
def test_an_object_without_containers_claims_nothing(units: AnswerUnits | None) -> None:
    """Most have none."""
    seen = msgspec.structs.replace(SEEN, units=units)
    assert containers_of(MAKER, "resp_1", seen) == ()
    assert with_containers(seen, ()) == seen


def test_the_charge_belongs_to_the_call_that_made_the_object() -> None:
    """Its user, its feature, its moment; what the client did on the wire is not repeated."""
    row = settled(MAKER, "resp_1", SEEN, BOOK)
    assert row.settles == UUID(bytes=MAKER.event_id)
    assert (row.user_id, row.endpoint, row.metadata) == (
        "ada",
        "analyze_homework",
        {"course": "x12"},
    )
    assert row.created_at == created_at(MAKER.event_id)
    assert (row.response_id, row.model, row.status, row.outcome) == ("resp_1", "m", 200, "ok")
    assert (row.prompt_tokens, row.cost_usd) == (100, Decimal("0.000280000000"))
    assert (row.usage_source, row.latency_ms, row.request_bytes) == ("reported", None, None)


def test_whoever_sees_the_end_makes_the_same_row() -> None:
    """And another object, another part or another maker makes another one."""
    row = settled(MAKER, "resp_1", SEEN, BOOK)
    assert settled(MAKER, "resp_1", SEEN, BOOK) == row
    part = msgspec.structs.replace(SEEN, part="p")
    other = msgspec.structs.replace(MAKER, event_id=opening(2).event_id)
    rows = [
        row,
        settled(MAKER, "resp_2", SEEN, BOOK),
        settled(MAKER, "resp_1", part, BOOK),
        settled(other, "resp_1", SEEN, BOOK),
    ]
    assert len({row.event_id for row in rows}) == len(rows)
    assert {row.event_id.version for row in rows} == {7}


def test_a_wait_that_was_agreed_on_has_no_price_yet() -> None:
    """The discount for waiting hours stands in no price list: better none than a wrong one."""
    maker = msgspec.structs.replace(MAKER, request_service_tier="background_8h")
    row = settled(maker, "resp_1", SEEN, BOOK)
    assert (row.service_tier, row.cost_usd, row.unpriced_reason) == (
        "background_8h",
        None,
        "unknown_tier",
    )


def test_a_run_whose_tools_are_unknown_says_so() -> None:
    """Its tokens are priced, the fee of code that may have run is not."""
    run = msgspec.structs.replace(
        ended("run", json.loads(USAGE)), units=AnswerUnits(is_partial=True)
    )
    row = settled(made("threads.runs.create"), "run_1", run, BOOK)
    assert (row.cost_usd, row.tool_cost_usd) == (Decimal("0.000280000000"), None)
    assert row.unpriced_reason == "unknown_tool_fee"


def test_a_batch_is_priced_as_one() -> None:
    """At half the price, and by its mean request: the sum of many is no long context."""
    batch = ended("batch", json.loads(USAGE), model="long", endpoint="/v1/chat/completions")
    row = settled(made("batches.create"), "b", msgspec.structs.replace(batch, requests=2), BOOK)
    assert (row.service_tier, row.cost_usd) == ("batch", Decimal("0.000140000000"))
    assert (row.operation_name, row.api_path) == ("chat", "/v1/chat/completions")
    row = settled(made("batches.create"), "b", batch, BOOK)
    assert row.cost_usd == Decimal("0.001400000000")


def test_a_line_of_a_batch_is_known_by_the_clients_name_for_it() -> None:
    """So that a cost can be told to whoever it was for."""
    line = msgspec.structs.replace(
        ended("output", json.loads(USAGE), part="batch_req_1", response_id="chatcmpl-1"),
        custom_id="homework-7",
        endpoint="/v1/chat/completions",
    )
    row = settled(made("batches.create"), "batch_1", line, BOOK)
    assert row.metadata == {"custom_id": "homework-7", "course": "x12"}
    assert (row.response_id, row.cost_usd) == ("chatcmpl-1", Decimal("0.000140000000"))
    free = msgspec.structs.replace(line, endpoint="/v1/moderations")
    assert settled(made("batches.create"), "batch_1", free, BOOK).price_id == "free"


@pytest.mark.parametrize(
    ("usage", "model", "cost", "reason"),
    [
        ({"trained_tokens": 1000}, "m", Decimal("0.025"), None),
        ({"trained_tokens": 1000}, "ft:m:acme::1", Decimal("0.025"), None),
        ({"trained_tokens": 1000}, "unheard-of", None, "unknown_model"),
        ({"reinforced_tokens": 1000}, "m", None, "unknown_rate"),
    ],
)
def test_training_is_priced_by_token(
    usage: Any, model: str, cost: Decimal | None, reason: str | None
) -> None:
    """At the rate of the model that comes of it."""
    job = ended("job", usage, model=model)
    row = settled(made("fine_tuning.jobs.create"), "ftjob-1", job, BOOK)
    assert (row.cost_usd, row.unpriced_reason, row.usage_source) == (cost, reason, "reported")
    assert row.model == model
    assert row.prompt_tokens is None


def test_a_video_is_priced_by_second() -> None:
    """Of its size; one of another size has no price, and neither has what makes no videos."""
    video = ended("video", {"seconds": 8, "size": "720x1280"}, model="films")
    row = settled(made("videos.create"), "video_1", video, BOOK)
    assert row.cost_usd == Decimal("0.8")
    assert json.loads(row.billed_units or b"") == [
        {
            "component": "video_second/720x1280",
            "quantity": 8,
            "price_id": "films@start/default/short",
        }
    ]
    large = ended("video", {"seconds": 8, "size": "9x9"}, model="films")
    row = settled(made("videos.create"), "video_1", large, BOOK)
    assert (row.cost_usd, row.unpriced_reason) == (None, "unknown_rate")
    tokens = msgspec.structs.replace(video, model="m")
    row = settled(made("videos.create"), "video_1", tokens, BOOK)
    assert (row.cost_usd, row.unpriced_reason) == (None, "unknown_rate")
    absurd = ended("video", {"seconds": 10**12, "size": "720x1280"}, model="films")
    row = settled(made("videos.create"), "video_1", absurd, BOOK)
    assert (row.cost_usd, row.unpriced_reason) == (None, "contradictory_usage")


def test_what_is_taken_back_leaves_nothing() -> None:
    """Every number of the row and of its counterpart add up to zero."""
    row = settled(MAKER, "resp_1", SEEN, BOOK)
    back = taken_back(row)
    assert (back.corrects, back.created_at, back.correction_number) == (
        row.event_id,
        row.created_at,
        1,
    )
    assert (back.prompt_tokens, back.cost_usd) == (-100, Decimal("-0.000280000000"))
    assert (back.cached_tokens, back.unpriced_change) == (None, 0)
    assert (back.price_id, back.usage_problem) == (row.price_id, "charged_by_its_lines")
    assert back.event_id == taken_back(row).event_id != row.event_id


def test_what_had_no_price_is_no_longer_one_of_those() -> None:
    """A batch whose model nobody told, until its lines did."""
    maker = msgspec.structs.replace(MAKER, request_model=None)
    row = settled(maker, "resp_1", msgspec.structs.replace(SEEN, model=None), BOOK)
    assert (row.unpriced_reason, taken_back(row).unpriced_change) == ("unknown_model", -1)


def test_a_call_tells_what_it_has_made_and_what_it_has_seen() -> None:
    """A row that is charged itself charges what the call has made."""
    new = Sighting(kind="response", object_id="resp_1", is_new=True, state="queued")
    record = closing(1)
    later = msgspec.structs.replace(record, sightings=(new, SEEN), usage=None)
    row = replace(charge(later, BOOK), usage_source="unavailable")
    made_, seen = noted(later, row)
    assert (made_.maker, made_.made_at, made_.is_charged) == (row.event_id, row.created_at, False)
    assert (made_.is_over, made_.tier, made_.state) == (False, None, "queued")
    assert (seen.maker, seen.is_over, seen.seen) == (None, True, (SEEN,))
    (made_, _) = noted(later, replace(row, usage_source="reported"))
    assert made_.is_charged


def test_a_call_tells_what_it_has_agreed_to_wait() -> None:
    """The answer that ends it may not say so again."""
    new = Sighting(kind="response", object_id="resp_1", is_new=True, state="queued")
    record = closing(1)
    waits = msgspec.structs.replace(record.opening, request_service_tier="background_2h")
    record = msgspec.structs.replace(record, opening=waits, sightings=(new,))
    (note,) = noted(record, charge(record, BOOK))
    assert note.tier == "background_2h"


@pytest.mark.parametrize(
    ("state", "outcome", "path", "count"),
    [
        ("complete", "ok", "/v1/files/file-2/content", 1),
        ("complete", "client_disconnected", "/v1/files/file-2/content", 0),
        ("line_unreadable", "ok", "/v1/files/file-2/content", 0),
        ("complete", "ok", "/v1/files", 0),
    ],
)
def test_a_file_counts_if_all_of_it_was_seen(
    state: str, outcome: str, path: str, count: int
) -> None:
    """Half of a batch is not the batch."""
    record = Closing(
        opening=msgspec.structs.replace(opening(1), api_path=path),
        outcome=outcome,
        sightings=(Sighting(kind="output", object_id="", state=state, requests=3),),
    )
    notes = noted(record, charge(record, BOOK))
    found = [(note.object_id, note.is_over, note.lines) for note in notes]
    assert found == [("file-2", True, 3)] * count


def test_notes_of_one_object_are_one() -> None:
    """In whatever order they came; what is over stays over."""
    first = Noted(upstream="u", object_id="b", kind="batch", state="validating", tier="t")
    last = Noted(
        upstream="u",
        object_id="b",
        kind="batch",
        state="completed",
        is_over=True,
        seen=(SEEN,),
        file_id="f",
    )
    other = Noted(upstream="u", object_id="a", kind="output", lines=3)
    assert merged([other, replace(other, lines=None)]) == [other]
    both = replace(last, tier="t")
    assert merged([first, last, other, last]) == [other, both]
    assert merged([last, other, first]) == [other, both]


@pytest.mark.parametrize(
    ("state", "seen", "owes_nothing"),
    [("failed", (), True), ("failed", (SEEN,), False), ("cancelled", (), False)],
)
def test_what_failed_without_usage_owes_nothing(
    state: str, seen: tuple[Sighting, ...], *, owes_nothing: bool
) -> None:
    """Of what was cancelled nobody knows."""
    note = Noted(upstream="u", object_id="o", kind="run", is_over=True, state=state, seen=seen)
    assert note.owes_nothing == owes_nothing

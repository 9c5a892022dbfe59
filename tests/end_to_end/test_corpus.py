"""Every recorded exchange, replayed through a running proxy: bytes and sums are as recorded."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from proxy.core.families import CL100K, O200K
from proxy.estimating import count
from tests.fakes import replay
from tests.fakes.replay import Exchange, Received, Way
from tests.fakes.running import fetch, metering
from tests.fakes.upstream import Call, Upstream
from tests.test_corpus_charges import differences as charged_otherwise
from tests.test_corpus_charges import row_of

pytestmark = pytest.mark.corpus

TOLERANCE = Decimal("1e-9")
ASKED = b'"stream_options":{"include_usage":true},'
REFUSED = rb'("include_usage": ?)false'
TIERS = {"auto": "default", "fast": "priority"}  # spellings of one tier, as pricing.yaml has it
BACKGROUND = 3  # of the following: responses, whose makers are among KINDS
SETTLED = {  # what tokens of an object cost whose maker and whose end are both recorded
    "resp_047f9036fb333784006a5fe9db456c819095d041b89bf6629e": "0.000296",
    "resp_01b4d93abce33afe00698b9df44be4819bb99fff16d77a0236": "0.0002775",
    "resp_0e6b15873828668f00698b9df63cb08196a7f29ecc4788d6b6": "0.000365",
    "run_afctOuljQyyu0zLmG7bJLc6G": "0.01149",
    "run_Gp16zR6gPzog9ykPEoI3wRAC": "0.0061",
    "run_6dSWSqTH3c2PpLkrtdNovNRg": "0.00632",
    "run_aiOgmOSxtqwaLG3JZAhGsAgR": "0.0714025",
    "run_LAndsmZANdPllF1ZTmzt1tDc": "0.0051725",
    "run_Z41LV5j3Ad562WCaFedq2xuQ": "0.00822",
    "run_UkYZN1UZ6yU7ymU797nOyvAP": "0.00010995",
    "run_j6p8yahph2AB5jrZw0cgztno": "0.00628",  # these five end in the stream that makes them
    "run_gMAiOdxbrcV3JXHDasJZwr3g": "0.00547",
    "run_nezDdZLDckoW8VYMlRPSTuJK": "0.005475",
    "run_Uy45lNz2P7BpJcqWzQkXl1Bu": "0.000445",
    "run_vTjp2ichhvmAcs8OfKVGjRLd": "0.000325",
}
UNCOSTED = Counter(  # what has no cost, neither now nor later
    {
        ("audio.translations", "usage_missing"): 1,  # whose upload was not recorded
        ("realtime.calls", "not_metered"): 3,  # media pass elsewhere, and the row says so
    }
)
CHARGED = (  # columns that the core alone makes of the same bytes
    *("usage_source", "cost_usd", "tool_cost_usd", "list_cost_usd", "price_id"),
    *("unpriced_reason", "usage_problem", "catalog_version"),
)


@pytest.fixture(autouse=True, scope="module")
def _vocabularies() -> None:
    """Load them before a loop runs: rows are made here beside those of the proxy."""
    for vocabulary in (O200K, CL100K):
        count(vocabulary, "")


async def _run(
    exchanges: Sequence[Exchange],
    way: Way,
    directory: Path,
    dsn: str,
    *,
    below: str = "",
    charges: int = 0,
) -> tuple[dict[str, Received], list[dict[str, Any]]]:
    """Replay the exchanges, below a name if one is given; return the answers, and the rows.

    Less the rows of so many charges of what was done later.
    """
    async with (
        Upstream(script=replay.replaying(exchanges, way)) as upstream,
        metering(
            directory, upstream.url, dsn, upstreams={below: upstream.url} if below else {}
        ) as running,
    ):
        prefix = f"/{below}" if below else ""
        asked = [replace(one, target=prefix + one.target) for one in exchanges]
        received = await replay.replay(asked, running.port)
        rows = await running.rows(len(exchanges) + charges)
    rows = [row for row in rows if row["settles"] is None]
    assert len(upstream.calls) == len(exchanges)
    _report([what for call in upstream.calls for what in _differing_request(call, exchanges)])
    return received, rows


def _report(lines: Sequence[str]) -> None:
    """Fail with all that differs, if anything does."""
    assert not lines, f"{len(lines)} differences:\n" + "\n".join(lines)


@pytest.mark.parametrize("way", [Way.PLAIN, *replay.CODERS, Way.CUT])
async def test_bytes_and_sums_are_as_recorded(
    way: Way, corpus_path: Path, tmp_path: Path, database: str
) -> None:
    """The client gets the upstream's bytes; the row has the recorded usage, its cost and fees."""
    exchanges = [one for one in replay.load(corpus_path) if one.kind in replay.KINDS]
    received, rows = await _run(exchanges, way, tmp_path, database)
    by_id = _rows_by_exchange(rows)
    differences = [
        f"{one.id} {one.kind} {what}"
        for one in exchanges
        for what in (
            *_differing_bytes(one, received[one.id], way),
            *_differing_facts(one, by_id[one.id]),
            *_differing_usage(one, by_id[one.id]),
            *_differing_charge(one, by_id[one.id]),
        )
    ]
    _report(differences)
    sources = Counter(row["usage_source"] for row in rows)
    assert sources == Counter(map(_source, exchanges))


@pytest.mark.parametrize("way", [Way.PLAIN, Way.CUT])
async def test_azure_under_a_name_is_azure(
    way: Way, corpus_path: Path, tmp_path: Path, database: str
) -> None:
    """What was recorded of Azure passes below a prefix as without one, and is charged alike."""
    azure = [one for one in replay.load(corpus_path) if one.facts["provider"] == "azure-openai"]
    exchanges = [one for one in azure if one.kind in replay.KINDS]
    assert len(exchanges) > 30
    received, rows = await _run(exchanges, way, tmp_path, database, below="azure")
    by_id = _rows_by_exchange(rows)
    _report(
        [
            f"{one.id} {one.kind} {what}"
            for one in exchanges
            for what in (
                *_differing_bytes(one, received[one.id], way),
                *_differing_facts(one, by_id[one.id]),
                *_differing_usage(one, by_id[one.id]),
                *_differing_charge(one, by_id[one.id]),
            )
        ]
    )
    assert {row["upstream_name"] for row in rows} == {"azure"}
    assert [row for row in rows if row["model"] is None] == []


async def test_usage_that_nobody_asked_for_is_for_the_row_alone(
    corpus_path: Path, tmp_path: Path, database: str
) -> None:
    """A stream whose client did not ask for usage arrives without it; the row has it."""
    exchanges = [one for one in replay.load(corpus_path) if one.is_asked_for_usage]
    exchanges = [one for one in exchanges if one.is_stream]
    received, rows = await _run(exchanges, Way.TOLD, tmp_path, database)
    by_id = _rows_by_exchange(rows)
    differences = []
    for one in exchanges:
        row = by_id[one.id]
        if received[one.id].body != one.body:
            differences.append(f"{one.id} the client sees other bytes")
        if row["raw_usage"] is None or json.loads(row["raw_usage"]) != json.loads(
            replay.TOLD_USAGE
        ):
            differences.append(f"{one.id} raw_usage is {row['raw_usage']}")
        if (row["prompt_tokens"], row["cached_tokens"]) != (31, 16):
            differences.append(f"{one.id} tokens are not those that the upstream told")
    assert len(exchanges) > 100
    _report(differences)


async def test_every_other_call_passes_and_is_charged_by_what_is_known(
    corpus_path: Path, tmp_path: Path, database: str
) -> None:
    """Files, images, audio, runs, fetched answers: the same bytes, and no sum without a reason."""
    exchanges = [one for one in replay.load(corpus_path) if one.kind not in replay.KINDS]
    received, rows = await _run(
        exchanges, Way.PLAIN, tmp_path, database, charges=len(SETTLED) - BACKGROUND
    )
    by_id = _rows_by_exchange(rows)
    _report(
        [
            f"{one.id} {one.kind} {one.method} {one.target}: {what}"
            for one in exchanges
            for what in (
                *_differing_bytes(one, received[one.id]),
                *_differing_charge(one, by_id[one.id]),
                *_charged_without_reason(one, by_id[one.id]),
            )
        ]
    )
    fetched = {one.id for one in exchanges if one.kind == "responses.retrieve"}
    assert fetched
    assert all(by_id[name]["operation_name"] == "responses.retrieve" for name in fetched)
    assert _kinds(exchanges, by_id, "reported") == {
        *("images.generations", "images.edits"),
        *("audio.transcriptions", "audio.speech", "responses.compact"),
    }
    assert _kinds(exchanges, by_id, "estimated") == {
        *("images.generations", "images.edits", "images.variations"),
        *("audio.transcriptions", "audio.translations", "audio.speech"),
    }


async def test_every_recorded_call_has_its_row_and_every_charge_stands_once(
    corpus_path: Path, tmp_path: Path, database: str
) -> None:
    """All kinds at once, in any order: what is done later is charged to whoever made it, once."""
    exchanges = list(replay.load(corpus_path))
    random.Random(3).shuffle(exchanges)  # noqa: S311 - an order, not a secret
    _, rows = await _run(exchanges, Way.PLAIN, tmp_path, database, charges=len(SETTLED))
    assert _uncosted(exchanges, _rows_by_exchange(rows)) == UNCOSTED
    query = """
    SELECT charge.*, call.metadata AS made_by, call.cost_usd AS call_cost
    FROM user_api_usage AS charge
    JOIN user_api_usage AS call ON call.event_id = charge.settles
    """
    charges = {row["response_id"]: row for row in await fetch(database, query)}
    assert {name: str(row["cost_usd"]) for name, row in charges.items()} == {
        name: f"{Decimal(cost):.12f}" for name, cost in SETTLED.items()
    }
    known = {one.facts["response_id"]: one for one in exchanges if one.facts["usage"]}
    for name, row in charges.items():
        assert json.loads(row["metadata"]) == json.loads(row["made_by"])
        assert row["call_cost"] is None
        if name in known:  # a streamed run has no id in its recording
            assert json.loads(row["raw_usage"]) == known[name].facts["usage"]
    assert (await fetch(database, "SELECT calls FROM ledger_status"))[0]["calls"] == len(exchanges)


def _source(one: Exchange) -> str:
    """Return how the usage of a charged call is known."""
    if one.tells_usage:
        return "reported"
    return "estimated" if one.facts["metering"] == "usage_missing" else "unavailable"


def _rows_by_exchange(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the rows by the exchange that their metadata names: exactly one each."""
    found = {json.loads(row["metadata"])["exchange"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def _uncosted(
    exchanges: Sequence[Exchange], rows: dict[str, dict[str, Any]]
) -> Counter[tuple[str, str]]:
    """Return how many calls of which kind and metering have no cost, neither now nor later."""
    return Counter(
        (one.kind, one.facts["metering"])
        for one in exchanges
        if rows[one.id]["cost_usd"] is None
        and rows[one.id]["usage_problem"] != "usage_deferred"
        and one.facts["metering"] != "error"
    )


def _kinds(
    exchanges: Sequence[Exchange], rows: dict[str, dict[str, Any]], usage_source: str
) -> set[str]:
    """Return the kinds of calls of which some usage is known in this way."""
    return {one.kind for one in exchanges if rows[one.id]["usage_source"] == usage_source}


def _differing_request(call: Call, exchanges: Sequence[Exchange]) -> Iterator[str]:
    """Yield what reached the upstream otherwise than the client sent it."""
    name = (call.header(replay.NAME) or b"").decode()
    one = next(one for one in exchanges if one.id == name)
    if call.first_line.decode() != f"{one.method} {one.target} HTTP/1.1":
        yield f"{name} the request line is {call.first_line!r}"
    if b"x-meter" in call.head.lower():
        yield f"{name} attribution reached the upstream"
    if call.body == one.request_body:
        if one.is_asked_for_usage:
            yield f"{name} was not asked for usage"
    elif not one.is_asked_for_usage or not _is_asked(call.body, one.request_body):
        yield f"{name} the body of the request differs"


def _is_asked(body: bytes, sent: bytes) -> bool:
    """Tell whether the body is the one that was sent, with the one option in it."""
    if b'"include_usage"' in sent:
        return re.sub(REFUSED, rb"\1true", sent) == body
    return body.replace(ASKED, b"", 1) == sent


def _differing_bytes(one: Exchange, got: Received, way: Way = Way.PLAIN) -> Iterator[str]:
    """Yield what of the answer is not what the upstream sent."""
    sent = b"".join(replay.answer(one, way))
    if got.head + got.raw_body == sent:
        return
    if not (one.is_asked_for_usage and one.is_stream):
        yield "the answer differs"
    elif got.body != one.body:
        yield "the body of a stream differs"


def _differing_facts(one: Exchange, row: dict[str, Any]) -> Iterator[str]:
    """Yield what the row says otherwise than the recording."""
    facts = one.facts
    tier = facts["service_tier"]
    failed = one.status >= 400 or facts["response_status"] == "failed"
    asked = json.loads(one.request_body).get("model")  # an Azure path names no model
    expected = {
        "status": one.status,
        "outcome": "upstream_error" if failed else "ok",
        "stream": bool(facts["stream_requested"]),
        "request_model": asked,
        "model": facts["model"] or asked,
        "service_tier": TIERS.get(tier, tier),
        "response_id": facts["response_id"],
        "api_path": one.target.partition("?")[0],
        "request_bytes": len(one.request_body),
        "attribution_problem": None,
    }
    for name, value in expected.items():
        if (row[name] or None) != (value or None):
            yield f"{name} is {row[name]!r}, recorded {value!r}"


def _differing_usage(one: Exchange, row: dict[str, Any]) -> Iterator[str]:
    """Yield which counts or which cost the row has otherwise than the recording."""
    if not one.tells_usage:
        is_priced, is_estimated = row["cost_usd"] is not None, _source(one) == "estimated"
        if (row["usage_source"], is_priced) != (_source(one), is_estimated) or row["raw_usage"]:
            yield f"usage is {row['usage_source']}, {row['cost_usd']}, {row['raw_usage']}"
        return
    raw = json.loads(row["raw_usage"]) if row["raw_usage"] else None
    if raw != one.facts["usage"]:
        yield f"raw_usage is {raw}, recorded {one.facts['usage']}"
    for name, value in _columns(one.facts["usage"]).items():
        if row[name] != value:
            yield f"{name} is {row[name]!r}, recorded {value!r}"
    yield from _differing_cost(one, row)


def _differing_cost(one: Exchange, row: dict[str, Any]) -> Iterator[str]:
    """Yield the cost of tokens where it is not the reference: that one knows no fees of tools."""
    reference, cost = one.facts["cost_reference"], row["cost_usd"]
    if cost is not None:
        cost -= row["tool_cost_usd"] or 0
    if reference is not None and not _equal(cost, Decimal(str(reference))):
        yield f"tokens cost {cost} ({row['unpriced_reason']}), reference {reference}"


def _differing_charge(one: Exchange, row: dict[str, Any]) -> Iterator[str]:
    """Yield what is charged otherwise than the core does it, or than it was recorded."""
    made = row_of(one.facts)
    for name in CHARGED:
        if row[name] != getattr(made, name):
            yield f"{name} is {row[name]!r}, of the same bytes {getattr(made, name)!r}"
    for name in ("raw_usage", "billed_units"):
        seen, value = row[name] or "null", getattr(made, name) or "null"
        if json.loads(seen) != json.loads(value):
            yield f"{name} is {seen}, of the same bytes {value}"
    yield from charged_otherwise(one.facts, made)


def _charged_without_reason(one: Exchange, row: dict[str, Any]) -> Iterator[str]:
    """Yield a status, cost or usage that a call of this kind cannot have."""
    if row["status"] != one.status:
        yield f"status is {row['status']}, recorded {one.status}"
    if one.tells_usage:
        yield from _differing_cost(one, row)
        if row["usage_source"] != "reported" or json.loads(row["raw_usage"]) != one.facts["usage"]:
            yield f"usage is {row['usage_source']}, {row['raw_usage']}"
    elif row["usage_source"] != "estimated":
        seen = row["usage_source"], row["raw_usage"], row["cost_usd"], row["price_id"]
        if seen not in {("unavailable", None, None, None), ("unavailable", None, 0, "free")}:
            yield f"usage and cost are {seen}"
    elif one.facts["metering"] != "usage_missing" or not row["cost_usd"] or row["raw_usage"]:
        yield f"{row['cost_usd']} is estimated, but {one.facts['metering']}"


def _columns(usage: dict[str, Any]) -> dict[str, int | None]:
    """Return the columns that a recorded usage makes."""
    read = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    made = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    return {
        "prompt_tokens": usage.get("prompt_tokens", usage.get("input_tokens")),
        "completion_tokens": usage.get("completion_tokens", usage.get("output_tokens")),
        "total_tokens": usage.get("total_tokens"),
        "cached_tokens": read.get("cached_tokens"),
        "cache_write_tokens": read.get("cache_write_tokens"),
        "audio_prompt_tokens": read.get("audio_tokens"),
        "reasoning_tokens": made.get("reasoning_tokens"),
        "audio_completion_tokens": made.get("audio_tokens"),
    }


def _equal(cost: Decimal | None, reference: Decimal) -> bool:
    """Tell whether a cost is the reference one: those were computed with floats."""
    if cost is None:
        return False
    return abs(cost - reference) <= TOLERANCE * abs(reference) + Decimal("1e-12")

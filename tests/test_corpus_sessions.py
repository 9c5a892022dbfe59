"""Every recorded WebSocket session, from its frames to its rows: usage, cost, nothing twice."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from proxy.core.charging import charge
from proxy.core.dialects import DIALECTS
from proxy.core.inflating import extensions_of
from proxy.core.model import Closing, LedgerRow, Opening
from proxy.core.sessions import Billed, SessionMeter
from proxy.pricefile import load_price_book
from proxy.resources import resource
from tests.fakes import sessions
from tests.fakes.sessions import Recorded, Way
from tests.fakes.websocket import switched
from tests.test_corpus_charges import EVENT_ID

pytestmark = pytest.mark.corpus

BOOK = load_price_book(resource("pricing.yaml"))
WHISPER = Decimal("0.017") / 60  # USD a second; the recording has no cost of transcriptions
UNPRICED = "gpt-realtime-global-standard"  # of Azure, whose prices nobody knows


def rows_of(session: Recorded, way: Way) -> list[LedgerRow]:
    """Return the rows of what was billed, as a worker and the recorder would make them."""
    meter = SessionMeter(
        DIALECTS["realtime.connect"],
        extensions_of(switched(sessions.agreed(way))),
        max_event_bytes=1 << 24,
    )
    opening = Opening(
        event_id=EVENT_ID,
        operation_name="",
        method="GET",
        api_path="/v1/realtime",
        upstream="api.openai.com",
        request_model=session.model,
    )
    rows = [
        charge(_closing(opening, found), BOOK)
        for received, data in session.said(way)
        for found in (meter.feed(data) if received else ())
        if isinstance(found, Billed)
    ]
    seen = meter.finish()
    assert (seen.response_model, seen.usage_problem, seen.failed) == (session.model, None, False)
    return rows


def _closing(opening: Opening, billed: Billed) -> Closing:
    return Closing(
        opening=Opening(
            event_id=opening.event_id,
            operation_name=billed.operation_name,
            method=opening.method,
            api_path=opening.api_path,
            upstream=opening.upstream,
            request_model=opening.request_model,
        ),
        outcome="ok",
        status=101,
        response_model=billed.seen.response_model,
        response_id=billed.seen.response_id,
        usage=billed.seen.usage,
        usage_problem=billed.seen.usage_problem,
        answer_units=billed.seen.units,
    )


@pytest.mark.parametrize("way", Way)
def test_everything_that_was_billed_is_a_row_and_nothing_else(
    sessions_path: Path, way: Way
) -> None:
    """In its order, with the usage that was recorded and the cost that it has."""
    for session in sessions.load(sessions_path):
        rows = rows_of(session, way)
        assert [
            (row.operation_name, row.response_id, json.loads(row.raw_usage or b"null"))
            for row in rows
        ] == [(kind, name, usage) for kind, name, usage, _ in session.usages]
        for row, (kind, _, usage, cost) in zip(rows, session.usages, strict=True):
            assert (row.usage_source, row.usage_problem, row.outcome) == ("reported", None, "ok")
            if kind == "realtime.transcription":
                assert row.model == "gpt-realtime-whisper"
                assert row.cost_usd == pytest.approx(
                    WHISPER * usage["seconds"], rel=Decimal("1e-9")
                )
            elif cost is None:
                assert (row.model, row.cost_usd) == (UNPRICED, None)
                assert row.unpriced_reason == "unknown_model"
            else:
                assert float(row.cost_usd or 0) == pytest.approx(cost, rel=1e-9)


def test_every_class_of_tokens_has_its_column(sessions_path: Path) -> None:
    """Text and audio, cached or not, both ways; a class without a price would be flagged."""
    (session,) = [one for one in sessions.load(sessions_path) if one.id == "rt_7164c8386b"]
    heard, row = rows_of(session, Way.PLAIN)[2:4]
    assert (row.prompt_tokens, row.completion_tokens, row.total_tokens) == (139, 61, 200)
    assert (row.audio_prompt_tokens, row.audio_completion_tokens) == (96, 43)
    assert (row.cached_tokens, row.reasoning_tokens) == (64, None)
    # 43 × 4 + 32 × 32 + 64 × 0.40 + 18 × 16 + 43 × 64, all a million
    assert (row.cost_usd, row.price_id) == (
        Decimal("0.0042616"),
        "gpt-realtime@start/default/short",
    )
    assert json.loads(heard.billed_units or b"") == [
        {
            "component": "audio_second",
            "quantity": 3,
            "price_id": "gpt-live-transcribe@start/default/short",
        }
    ]

"""A proof that cannot fail proves nothing: each thing that may be wrong is found."""

from decimal import Decimal
from typing import Any

import pytest

from prove.calls import Kind, call
from prove.checking import Verdict, judge, judge_sums
from prove.clients import Clients, Fate
from prove.upstream import Upstream

SEED = 1


def _numbers(kind: Kind, count: int) -> list[int]:
    return [number for number in range(1, 2000) if call(SEED, number).kind is kind][:count]


JSON, STREAM = _numbers(Kind.JSON, 1)[0], _numbers(Kind.STREAM, 1)[0]
BACKGROUND, ERROR = _numbers(Kind.BACKGROUND, 1)[0], _numbers(Kind.ERROR, 1)[0]
NO_USAGE = {
    "usage_source": "unavailable",
    "prompt_tokens": None,
    "cached_tokens": None,
    "completion_tokens": None,
    "reasoning_tokens": None,
    "total_tokens": None,
    "cost_usd": None,
}


def _row(number: int, **changes: object) -> dict[str, Any]:
    made = call(SEED, number)
    row: dict[str, Any] = {
        "call": str(number),
        "settles": False,
        "outcome": "ok",
        "usage_source": "reported",
        "status": 200,
        "prompt_tokens": made.tokens.prompt,
        "cached_tokens": made.tokens.cached,
        "completion_tokens": made.tokens.completion,
        "reasoning_tokens": made.tokens.reasoning,
        "total_tokens": made.tokens.total,
        "cost_usd": made.cost,
        "user_id": made.user,
        "response_id": None,
    }
    return row | changes


def _rows() -> list[dict[str, Any]]:
    return [
        _row(JSON),
        _row(STREAM),
        _row(ERROR, outcome="upstream_error", **NO_USAGE),
        _row(BACKGROUND, **NO_USAGE),
        _row(BACKGROUND, settles=True),
    ]


def _judged(rows: list[dict[str, Any]], *, torn: tuple[int, ...] = ()) -> Verdict:
    """Return what is found where the upstream saw four calls, and all clients were answered."""
    numbers = [JSON, STREAM, ERROR, BACKGROUND]
    upstream = Upstream(SEED, asked=numbers, answered=set(numbers), told={BACKGROUND})
    fates = dict.fromkeys(numbers, Fate.ANSWERED)
    clients = Clients(0, upstream, SEED, 1.0, fates=fates, told={BACKGROUND})
    return judge(rows, upstream, clients, torn)


def test_a_right_ledger_holds() -> None:
    """Four calls, one of them charged when it was done."""
    verdict = _judged(_rows())
    assert verdict.findings() == []
    assert verdict.holds
    assert (verdict.seen, verdict.rows, verdict.charges) == (4, 4, 1)


@pytest.mark.parametrize("missing", range(5))
def test_a_missing_row_is_lost(missing: int) -> None:
    """Of a call, and of what was charged later."""
    rows = _rows()
    del rows[missing]
    assert _judged(rows).counts["lost"] == 1


@pytest.mark.parametrize("twice", range(5))
def test_a_second_row_is_doubled(twice: int) -> None:
    """Likewise."""
    rows = _rows()
    assert _judged([*rows, rows[twice]]).counts["doubled"] == 1


@pytest.mark.parametrize(
    ("at", "changes"),
    [
        (0, {"prompt_tokens": 1}),
        (0, {"total_tokens": 1}),
        (0, {"cost_usd": Decimal("0.5")}),
        (0, {"cost_usd": None}),
        (0, {"user_id": "somebody"}),
        (0, {"outcome": "interrupted"}),
        (1, NO_USAGE),
        (2, {"outcome": "ok"}),
        (3, {"usage_source": "reported", "prompt_tokens": 3}),
        (4, {"completion_tokens": 0}),
    ],
)
def test_a_wrong_row_is_found(at: int, changes: dict[str, Any]) -> None:
    """Whatever is wrong in it."""
    rows = _rows()
    rows[at] |= changes
    verdict = _judged(rows)
    assert verdict.counts["wrong tokens, costs or outcomes"] >= 1
    assert not verdict.holds


def test_a_call_with_a_torn_closing_may_be_interrupted() -> None:
    """And no other one may; it has a row all the same."""
    rows = _rows()
    rows[0] |= NO_USAGE | {"outcome": "interrupted"}
    assert _judged(rows, torn=(JSON,)).holds
    assert not _judged(rows, torn=(STREAM,)).holds
    assert _judged(rows[1:], torn=(JSON,)).counts["lost"] == 1


def test_a_row_of_a_call_that_nobody_sent_is_no_charge() -> None:
    """It may say that the call was interrupted, and nothing else."""
    number = _numbers(Kind.JSON, 2)[1]
    unsent = _row(number, **NO_USAGE)
    assert _judged([*_rows(), unsent | {"outcome": "interrupted"}]).holds
    assert not _judged([*_rows(), unsent]).holds


def test_sums_are_compared() -> None:
    """Each rollup by itself."""
    raw = {"calls": 2, "cost_usd": Decimal(1)}
    rolled = {"by_day": raw, "by_month": raw | {"calls": 3}}
    assert list(judge_sums(raw, {"by_day": raw})) == []
    assert [found.partition(":")[0] for found in judge_sums(raw, rolled)] == ["by_month"]

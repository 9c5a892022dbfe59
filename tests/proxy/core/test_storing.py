"""Tests of proxy.core.storing; tests/proxy/test_ledger.py shows that Postgres agrees."""

import json
from dataclasses import fields
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.model import Correction
from proxy.core.storing import (
    COLUMNS,
    MAX_TOKENS,
    OWN,
    SHARED,
    clean_json,
    clean_object,
    clean_text,
    columns,
    correction_columns,
)
from tests.fakes.rows import correction, event_id, ledger_row

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada", "ada"),
        ("", ""),
        ("Zoë 💣", "Zoë 💣"),
        ("a\0b", "a\ufffdb"),
        ("\ud800", "?"),
        ("x" * 17, "x" * 16),
        ("💣" * 5, "💣" * 4),
        ("aé" * 6, "aé" * 5 + "a"),
    ],
)
def test_text_keeps_what_a_column_can_hold(text: str, expected: str) -> None:
    """U+0000 and lone surrogates are replaced; a cut never leaves half a character."""
    assert clean_text(text, 16) == expected


@given(text=ANY_TEXT, max_bytes=st.integers(1, 40))
def test_clean_text_is_clean_and_stays(text: str, max_bytes: int) -> None:
    """Whatever comes, what goes out fits, is UTF-8 without U+0000, and is not changed again."""
    clean = clean_text(text, max_bytes)
    assert len(clean.encode()) <= max_bytes
    assert "\0" not in clean
    assert clean_text(clean, max_bytes) == clean


@pytest.mark.parametrize(
    "raw",
    [
        b'{"prompt_tokens": 19,\n "details": {"cached": 0, "x": 1.25e-7}}',
        '{"name":"Zoë","escaped":"\\u00eb"}'.encode(),
        b'{"a":1,"a":2}',
        b"null",
    ],
)
def test_harmless_json_is_stored_as_it_came(raw: bytes) -> None:
    """An auditor sees the provider's own text."""
    assert clean_json(raw) == raw.decode()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"a\\u0000":"b\\u0000"}', {"a\ufffd": "b\ufffd"}),
        (b'["\\ud83d\\ude00", "\\ud800"]', ["😀", "?"]),
        (b'[1e400000, -12, 2e50, "\\u0000"]', ["1e400000", -12, 2e50, "\ufffd"]),
        (b"9" * 41, "9" * 41),
        (b'{"a":NaN}', {"a": "NaN"}),
        (b'{"a":"\xff"}', {"a": "\ufffd"}),
        (b"", ""),
        (b'{"cut off": "in the mid', '{"cut off": "in the mid'),
        (b"[" * 100_000, "[" * 100_000),
        (b"[" * 100_000 + b"]" * 100_000, "[" * 100_000 + "]" * 100_000),
    ],
    ids=["nul", "surrogates", "numbers", "digits", "nan", "utf8", "empty", "cut", "deep", "nested"],
)
def test_json_that_jsonb_refuses_is_written_anew(raw: bytes, expected: object) -> None:
    """Nothing that can be kept is lost; what is no JSON becomes a JSON string."""
    assert json.loads(clean_json(raw)) == expected


def test_an_object_with_a_lone_surrogate_is_stored() -> None:
    """A client's metadata may hold what UTF-8 cannot."""
    assert json.loads(clean_object({"course": "x12", "n": 1})) == {"course": "x12", "n": 1}
    assert json.loads(clean_object({"a\ud800": ["\udfff", 1.5]})) == {"a?": ["?", 1.5]}


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("prompt_tokens", MAX_TOKENS, MAX_TOKENS),
        ("prompt_tokens", MAX_TOKENS + 1, None),
        ("prompt_tokens", -1, None),
        ("prompt_tokens", None, None),
        ("status", 200, 200),
        ("status", 2**15, None),
        ("latency_ms", 2**31, None),
        ("request_bytes", 2**31, 2**31),
        ("cost_usd", Decimal("0.01"), "0.01"),
        ("cost_usd", Decimal("1E8"), None),
        ("cost_usd", Decimal("-0.01"), None),
        ("cost_usd", Decimal("NaN"), None),
        ("cost_usd", None, None),
        ("user_id", None, None),
        ("user_id", "x" * 2000, "x" * 1024),
        ("metadata", None, None),
        ("metadata", {}, "{}"),
        ("raw_usage", None, None),
        ("raw_usage", b"{}", "{}"),
        ("stream", None, None),
    ],
)
def test_a_value_that_cannot_be_true_is_unknown(
    column: str, value: object, expected: object
) -> None:
    """Better no number than one that spoils every sum, or a row that is refused for it."""
    assert COLUMNS[column]([value, None]) == [expected, None]


def test_columns_stand_in_the_order_of_the_statement() -> None:
    """Each column is one list over all rows, or over their kinds; None: nothing is there."""
    rows = [ledger_row(1), ledger_row(2, user_id=None), ledger_row(3, endpoint="generate_hint")]
    values = columns(rows)
    assert len(values) == len(OWN) + 1 + len(SHARED)
    assert values[0] == [row.event_id for row in rows]
    assert values[OWN.index("user_id")] == ["ada", None, "ada"]
    assert values[OWN.index("billed_units")] is None
    assert values[len(OWN)] == [1, 1, 2]
    assert values[len(OWN) + 1] == ["analyze_homework", "generate_hint"]
    assert values[len(OWN) + 1 + SHARED.index("status")] == [200, 200]


def test_every_column_is_of_a_row_or_of_a_kind_of_rows() -> None:
    """None is passed on twice, and none forgotten."""
    assert sorted(OWN + SHARED) == sorted(COLUMNS)


def test_a_correction_may_take_away() -> None:
    """Its counts are differences, made from a row that is stored."""
    row = ledger_row(1, corrects=event_id(2), prompt_tokens=-5, cost_usd=Decimal("-0.01"))
    values = dict(zip(OWN, columns([ledger_row(3), row]), strict=False))
    assert values["prompt_tokens"] == [1200, -5]
    assert values["cost_usd"] == ["0.000285000001", "-0.01"]
    assert values["user_id"] == ["ada", "ada"]


def test_every_field_of_a_correction_is_a_parameter() -> None:
    """JSON goes as text, everything else as it is."""
    made = correction(ledger_row(1, billed_units=b"[]"))
    values = correction_columns([made])
    assert len(values) == len(fields(Correction))
    assert values[0] == [made.event_id]
    assert ["[]"] in values


@pytest.mark.parametrize("odd", ["NaN", "Infinity", "-1", "100000000"])
def test_a_cost_that_cannot_be_true_leaves_the_others(odd: str) -> None:
    """Those of the same column are stored as they are."""
    costs = [Decimal("0.000000000001"), None, Decimal(odd), Decimal(2)]
    assert COLUMNS["cost_usd"](costs) == ["1E-12", None, None, "2"]


def test_json_of_one_row_does_not_touch_that_of_others() -> None:
    """Whatever stands beside it in its column, and wherever it ends."""
    column = [b'{"a":1}', None, b'"\\u0000"', b"", b'{"a":1', b'{"a": 2}', b"\xff"]
    stored = COLUMNS["raw_usage"](column)
    assert stored == ['{"a":1}', None, '"\\ufffd"', '""', '"{\\"a\\":1"', '{"a": 2}', '"\\ufffd"']
    column[2] = b"1"
    assert COLUMNS["raw_usage"](column) == [*stored[:2], "1", *stored[3:]]

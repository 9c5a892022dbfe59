"""Make values such that Postgres takes them, whatever a client or an upstream has sent.

A row must never be refused for what somebody else put into it. Text loses what a text column cannot
hold (U+0000, lone surrogates) and what is longer than its column allows; JSON that a jsonb column
would refuse is written anew, as a JSON string where it is no JSON at all. A number that cannot be
true, such as 10^13 tokens for one call, is unknown.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from decimal import Decimal, InvalidOperation
from operator import attrgetter
from typing import Any

import msgspec

from proxy.core.model import Correction, LedgerRow

MAX_TEXT_BYTES = 2048
MAX_TOKENS = 10**12  # of one call; a rollup of millions of such calls still fits a bigint

_MAX_COST_USD = Decimal(10**8)  # numeric(20, 12)
_MAX_INTEGER = 2**31 - 1
_MAX_BIGINT = 2**63 - 1
_MAX_SMALLINT = 2**15 - 1
_MAX_NUMBER_CHARACTERS = 40

# What msgspec reads and jsonb does not: U+0000, surrogates, numbers out of numeric's range.
_SUSPICIOUS = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])|[0-9][eE][+-]?[0-9]{3}|[0-9]{40}")
# Looking for that takes long; where there is nothing of these, there is nothing to look for.
_ALIKE = bytes.maketrans(b"123456789E", b"000000000e")
_FORTY = b"0" * 40
_check = msgspec.json.Decoder(msgspec.Raw).decode  # the grammar, without making anything of it
_LONG_EXPONENT = re.compile(r"[eE][+-]?[0-9]{3}")


def columns(rows: Sequence[LedgerRow]) -> list[list[object] | None]:
    """Return the values of each of OWN, the number of each row's kind, and the values of SHARED.

    Rows of one kind have all of SHARED in common, so that these are passed on once for all of them.
    None instead of a column: no row has a value there.
    """
    kinds: dict[tuple[object, ...], int] = {}
    numbers: list[object] = [kinds.setdefault(key, len(kinds) + 1) for key in map(_shared, rows)]
    found = [_stored(name, column) for name, column in _named(OWN, map(_own, rows))]
    shared = [_stored(name, column) for name, column in _named(SHARED, kinds)]
    for index in [index for index, row in enumerate(rows) if row.corrects is not None]:
        _put_back(rows[index], index, found)
    return [*found, numbers, *shared]


def _named(
    names: Sequence[str], values: Iterable[tuple[object, ...]]
) -> Iterator[tuple[str, "Column"]]:
    """Yield the values of each column, from those of each row."""
    return zip(names, zip(*values, strict=True), strict=False)


def _stored(name: str, column: "Column") -> list[object] | None:
    return None if column.count(None) == len(column) else COLUMNS[name](column)


def _put_back(row: LedgerRow, index: int, found: list[list[object] | None]) -> None:
    """Keep the numbers of a correction: made from a row that is stored, they may be negative."""
    for name, column in zip(OWN, found, strict=True):
        value = getattr(row, name)
        if column is not None and isinstance(value, int | Decimal):
            column[index] = str(value) if isinstance(value, Decimal) else value


def correction_columns(corrections: Sequence[Correction]) -> list[list[object]]:
    """Return the values of each column; they are made from a row that is stored already."""
    return [
        [_storable(getattr(correction, field.name)) for correction in corrections]
        for field in fields(Correction)
    ]


def _storable(value: object) -> object:
    return clean_json(value) if isinstance(value, bytes) else value


def clean_text(text: str, max_bytes: int) -> str:
    """Return text that a text column takes, cut to a size."""
    if text.isascii() and "\0" not in text and len(text) <= max_bytes:
        return text
    encoded = text.replace("\0", "\ufffd").encode("utf-8", "replace")
    return encoded[:max_bytes].decode("utf-8", "ignore")


def clean_json(raw: bytes) -> str:
    """Return JSON that a jsonb column takes: as it came, if it can be."""
    stored = None if _is_suspicious(raw) else _unchanged(raw)
    return _written_anew(raw.decode("utf-8", "replace")) if stored is None else stored


def clean_object(value: Mapping[str, Any]) -> str:
    """Return a JSON object as text that a jsonb column takes."""
    try:
        raw = msgspec.json.encode(value)
    except UnicodeEncodeError:  # a lone surrogate
        return clean_json(json.dumps(value).encode())
    return clean_json(raw) if b"\\u" in raw else raw.decode()  # its numbers fit in a float


def _unchanged(raw: bytes) -> str | None:
    """Return JSON as the text that it is; None: it is none."""
    try:
        _check(raw)
        return raw.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _is_suspicious(raw: bytes) -> bool:
    alike = raw.translate(_ALIKE)
    if b"\\u" in raw or b"0e" in alike or _FORTY in alike:
        return _SUSPICIOUS.search(raw) is not None
    return False


def _written_anew(text: str) -> str:
    try:
        value = json.loads(text, parse_int=_number, parse_float=_number, parse_constant=str)
        return json.dumps(_cleaned(value))
    except (ValueError, RecursionError):
        return json.dumps(_cleaned(text))


def _number(text: str) -> float | str:
    """Return a number that numeric can hold; any other stays the text that it was."""
    if len(text) > _MAX_NUMBER_CHARACTERS or _LONG_EXPONENT.search(text):
        return text
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def _cleaned(value: Any) -> Any:  # noqa: ANN401 (the JSON edge)
    """Return a JSON value whose texts can be stored."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    return value


Column = Sequence[Any]  # the values of one column, None where there is none


def _as_it_is(column: Column) -> list[object]:
    return list(column)


def _text(max_bytes: int = MAX_TEXT_BYTES) -> Callable[[Column], list[object]]:
    """Return what cleans texts; of most columns nothing has to be."""

    def clean(column: Column) -> list[object]:
        texts = [text for text in column if text]
        together = "".join(texts)
        if (
            together.isascii()
            and "\0" not in together
            and max(map(len, texts), default=0) <= max_bytes
        ):
            return list(column)
        return [text and clean_text(text, max_bytes) for text in column]

    return clean


def _count(maximum: int) -> Callable[[Column], list[object]]:
    def clean(column: Column) -> list[object]:
        known = [number for number in column if number is not None]
        if not known or (min(known) >= 0 and max(known) <= maximum):
            return list(column)
        return [n if n is not None and 0 <= n <= maximum else None for n in column]

    return clean


def _costs(column: Column) -> list[object]:
    """Return sums as text, which the driver passes on three times as fast as a Decimal."""
    known = [cost for cost in column if cost is not None]
    try:
        if not known or (min(known) >= 0 and max(known) < _MAX_COST_USD):
            return [None if cost is None else str(cost) for cost in column]
    except InvalidOperation:  # not a number
        pass
    return [None if cost is None else _cost(cost) for cost in column]


def _cost(cost: Decimal) -> str | None:
    return str(cost) if cost.is_finite() and 0 <= cost < _MAX_COST_USD else None


def _objects(column: Column) -> list[object]:
    return [None if value is None else clean_object(value) for value in column]


def _json(column: Column) -> list[object]:
    known = [raw for raw in column if raw is not None]
    if _is_suspicious(b" ".join(known)):  # at once, for there is hardly ever anything to find
        return [None if raw is None else clean_json(raw) for raw in column]
    return [None if raw is None else _unchanged(raw) or clean_json(raw) for raw in column]


# Sizes of keys: as the check keys_fit_an_index in schema.sql says.
COLUMNS: Mapping[str, Callable[[Column], list[object]]] = {
    "event_id": _as_it_is,
    "created_at": _as_it_is,
    "user_id": _text(1024),
    "endpoint": _text(1024),
    "api_path": _text(),
    "operation_name": _text(64),
    "upstream": _text(),
    "model": _text(512),
    "request_model": _text(),
    "service_tier": _text(64),
    "prompt_tokens": _count(MAX_TOKENS),
    "completion_tokens": _count(MAX_TOKENS),
    "total_tokens": _count(MAX_TOKENS),
    "cached_tokens": _count(MAX_TOKENS),
    "cache_write_tokens": _count(MAX_TOKENS),
    "reasoning_tokens": _count(MAX_TOKENS),
    "audio_prompt_tokens": _count(MAX_TOKENS),
    "audio_completion_tokens": _count(MAX_TOKENS),
    "cost_usd": _costs,
    "price_id": _text(),
    "catalog_version": _text(),
    "unpriced_reason": _text(),
    "usage_source": _text(),
    "usage_problem": _text(),
    "status": _count(_MAX_SMALLINT),
    "outcome": _text(),
    "error_type": _text(),
    "stream": _as_it_is,
    "latency_ms": _count(_MAX_INTEGER),
    "time_to_first_byte_ms": _count(_MAX_INTEGER),
    "upstream_request_id": _text(),
    "response_id": _text(512),
    "metadata": _objects,
    "attribution_problem": _text(),
    "raw_usage": _json,
    "retry_count": _count(_MAX_INTEGER),
    "request_bytes": _count(_MAX_BIGINT),
    "response_bytes": _count(_MAX_BIGINT),
    "tool_cost_usd": _costs,
    "list_cost_usd": _costs,
    "billed_units": _json,
    "corrects": _as_it_is,
    "settles": _as_it_is,
    "upstream_name": _text(64),
}

# What rows have in common, most of the time.
SHARED = (
    "endpoint", "api_path", "operation_name", "upstream", "model", "request_model", "service_tier",
    "price_id", "catalog_version", "unpriced_reason", "usage_source", "usage_problem", "status",
    "outcome", "error_type", "stream", "attribution_problem", "retry_count", "upstream_name",
)  # fmt: skip
OWN = tuple(name for name in COLUMNS if name not in SHARED)

_own = attrgetter(*OWN)
_shared = attrgetter(*SHARED)

"""The files that finance takes away: which columns, from which SELECT, under which name.

Columns are added at the end, never renamed or taken away; what would break that is another version.
A file is what COPY makes, in constant memory at any size. In the dialect for spreadsheets text that
begins like a formula gets an apostrophe, and control characters become spaces; numbers and times
stay as they are. Nothing that a client sent is ever a part of a statement.
"""

from collections.abc import Callable
from typing import Literal, get_args

from dashboard import adding, focus
from dashboard.cells import IN_TIME, LATE, ROWS_WHERE, Source
from dashboard.defusing import SUSPICIOUS, harmless
from dashboard.filters import Filter

Form = Literal["calls", "summary", "focus-1.2"]
Dialect = Literal["excel", "raw"]

FORMS: tuple[Form, ...] = get_args(Form)
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)
VERSION = "v1"
BYTE_ORDER_MARK = "\ufeff".encode()

_NAMES = {"calls": "usage-calls", "summary": "usage-summary", "focus-1.2": "focus-1.2"}

# Text that a client or an upstream has chosen. All of a row is looked at once, because nearly all
# rows are harmless and looking costs more than the rest of the row.
_CHOSEN = (
    "user_id", "endpoint", "api_path", "model", "request_model", "service_tier", "error_type",
    "upstream_request_id", "response_id", "attribution_problem",
)  # fmt: skip


def punctual(dialect: Dialect) -> str:
    """Return the SELECT of calls where none came late: in the order of an index, without a sort."""
    return _PUNCTUALS[dialect]


def statement(form: Form, dialect: Dialect) -> str:
    """Return the SELECT of a file, of `cells.PLACES` and for calls the bounds of a slice."""
    return _STATEMENTS[form, dialect]


def file_name(form: Form, wanted: Filter) -> str:
    """Return a name that says what is in the file: range, zone and version of the columns."""
    first = "beginning" if wanted.first is None else wanted.first.isoformat()
    zone = wanted.zone.key.replace("/", "-")
    version = "" if form == "focus-1.2" else f"_{VERSION}"
    return f"{_NAMES[form]}_{first}_{wanted.last.isoformat()}_{zone}{version}.csv"


def chunked(dialect: Dialect) -> Callable[[bytes], bytes]:
    """Return what makes of COPY's bytes those of a dialect; text holds no line break in excel."""
    if dialect == "raw":
        return bytes
    return _with_carriage_returns


def _with_carriage_returns(chunk: bytes) -> bytes:
    return chunk.replace(b"\n", b"\r\n")


def _safe(name: str) -> str:
    """Return the expression that defuses a text, where its row has been found suspicious."""
    return f"CASE WHEN suspicious THEN {harmless(name)} ELSE {name} END AS {name}"


_CALL = (
    "event_id", "created_at", "day", "user_id", "endpoint", "api_path", "operation_name",
    "upstream", "request_model", "model", "service_tier", "stream", "status", "outcome",
    "error_type", "prompt_tokens", "cached_tokens", "cache_write_tokens", "audio_prompt_tokens",
    "completion_tokens", "reasoning_tokens", "audio_completion_tokens", "total_tokens",
    "tool_cost_usd", "list_cost_usd", "cost_usd", "price_id", "catalog_version",
    "unpriced_reason", "usage_source", "latency_ms", "time_to_first_byte_ms",
    "upstream_request_id", "response_id", "corrects", "settles", "accounted_at",
    "attribution_problem", "metadata", "upstream_name",
)  # fmt: skip


_STORED = ", ".join(name for name in _CALL if name != "day")
# A large file is copied slice after slice; what came late lies in the slice of its call.
_IN_SLICE = """
    ($16::timestamptz IS NULL OR created_at >= $16)
    AND ($17::timestamptz IS NULL OR created_at < $17)
"""
_PUNCTUAL = f"""
SELECT {_STORED}
FROM calls
WHERE {IN_TIME} AND {_IN_SLICE} AND {ROWS_WHERE}
"""
_ALL = f"""
{_PUNCTUAL}
UNION ALL
SELECT {_STORED}
FROM calls
WHERE {LATE} AND {_IN_SLICE} AND {ROWS_WHERE}
"""


def _shown(name: str, *, safe: bool) -> str:
    """Return the expression of a column of calls."""
    match name:
        case "created_at" | "accounted_at":
            pattern = 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'
            return f"to_char({name} AT TIME ZONE 'UTC', '{pattern}') AS {name}"
        case "day":
            return "(coalesce(accounted_at, created_at) AT TIME ZONE $3)::date AS day"
        case _ if safe and name in _CHOSEN:
            return _safe(name)
        case _:
            return name


def _calls(dialect: Dialect, source: str) -> str:
    safe = dialect == "excel"
    columns = ", ".join(_shown(name, safe=safe) for name in _CALL)
    return f"""
SELECT {columns}
FROM ({_looked_at(source) if safe else source}) AS call
ORDER BY call.created_at, call.event_id
"""


def _looked_at(source: str) -> str:
    """Return the SELECT of calls that says of each whether a text of it is suspicious."""
    return f"""
    SELECT {_STORED}, concat_ws('|', {", ".join(_CHOSEN)}) ~ '{SUSPICIOUS}' AS suspicious
    FROM ({source}) AS stored
    ORDER BY created_at, event_id  -- as below: it is not sorted twice
    OFFSET 0  -- looked at once for a row and not once for a column
"""


_SUMMARY = (
    "user_id", "calls", "errors", "prompt_tokens", "cached_tokens", "cache_write_tokens",
    "completion_tokens", "reasoning_tokens", "total_tokens", "cost_usd", "tool_cost_usd",
    "unpriced_calls", "estimated_calls", "unavailable_calls", "first_call", "last_call",
)  # fmt: skip


def summary(source: Source, dialect: Dialect) -> str:
    """Return the SELECT of all users, in the order that was asked for."""
    return _SUMMARIES[source, dialect]


def _summary(source: Source, dialect: Dialect) -> str:
    pattern = 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'
    times = {
        name: f"to_char({name} AT TIME ZONE 'UTC', '{pattern}') AS {name}"
        for name in ("first_call", "last_call")
    }
    safe = {"user_id": _safe("user_id")} if dialect == "excel" else {}
    columns = ", ".join((times | safe).get(name, name) for name in _SUMMARY)
    return f"""
SELECT {columns}
FROM ({adding.sums(source, ("user_id",))}) AS summed
CROSS JOIN LATERAL (SELECT user_id ~ '{SUSPICIOUS}' AS suspicious) AS looked_at
"""


_STATEMENTS: dict[tuple[Form, Dialect], str] = {
    **{("calls", dialect): _calls(dialect, _ALL) for dialect in DIALECTS},
    **{("focus-1.2", dialect): focus.statement(safe=dialect == "excel") for dialect in DIALECTS},
}
_PUNCTUALS = {dialect: _calls(dialect, _PUNCTUAL) for dialect in DIALECTS}
_SUMMARIES = {
    (source, dialect): _summary(source, dialect)
    for source in get_args(Source)
    for dialect in DIALECTS
}

"""What is noted of a call: what completes its opening, its line in the log. Never content."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from proxy.core import headers
from proxy.core.findings import name_of
from proxy.core.metering import RequestFacts
from proxy.core.model import Attribution, Closing, Lines, Opening, Sighting
from proxy.core.objects import file_of
from proxy.core.operations import operation_of
from proxy.core.registry import UNKNOWN, Operation

MAX_PATH_CHARACTERS = 512
MAX_ID_CHARACTERS = 256
MAX_QUERY_FIELDS = 100
MAX_CALL = 128  # characters of the id of a realtime call
LINES_AT_ONCE = 32  # of a batch's output in one record


def completed(opening: Opening, facts: RequestFacts, who: Attribution) -> Opening:
    """Return an opening with what the body said after it was written."""
    return msgspec.structs.replace(
        opening,
        user_id=who.user_id,
        endpoint=who.endpoint,
        metadata=who.metadata,
        attribution_problem=who.problem,
        request_model=facts.model or opening.request_model,
        request_service_tier=facts.service_tier,
        stream=facts.stream,
    )


def operation_asked(
    line: headers.RequestLine, base_path: str, *, is_named: bool = False
) -> Operation:
    """Return what a request asks for, as the client's path or else the upstream's whole one says.

    With `https://host/v1` as the upstream a client may leave `/v1` out of its own path. An upstream
    that somebody has named speaks the API, be it that it has no `/v1` at all.
    """
    method, path = line.method.decode("ascii"), path_of(line.target)
    operation = operation_of(method, path)
    for prefix in (base_path, "/v1" if is_named else ""):
        if operation is UNKNOWN and prefix:
            operation = operation_of(method, prefix + path)
    return operation


def model_asked(target: bytes) -> tuple[str | None, str | None]:
    """Return model and Azure deployment that the query of a session's target names.

    These, and the id of a call, are all that is kept of a query: the rest may be a key.
    """
    query = target.partition(b"?")[2].decode("latin-1")
    try:
        named = dict(parse_qsl(query, max_num_fields=MAX_QUERY_FIELDS))
    except ValueError:
        return None, None
    return name_of(named.get("model")), name_of(named.get("deployment"))


def call_attended(target: bytes) -> str | None:
    """Return the realtime call that a session's target says is attended; None: it has its own."""
    query = target.partition(b"?")[2].decode("latin-1")
    try:
        name = dict(parse_qsl(query, max_num_fields=MAX_QUERY_FIELDS)).get("call_id", "")
    except ValueError:
        return None
    return name if name.isascii() and name.isprintable() and 0 < len(name) <= MAX_CALL else None


def lines_of(opening: Opening, lines: Sequence[Sighting]) -> Iterator[Lines]:
    """Yield records of the lines of a batch's output, each of a bounded size."""
    file_id = file_of(opening.api_path)
    if file_id is None:
        return
    for start in range(0, len(lines), LINES_AT_ONCE):
        yield Lines(
            event_id=opening.event_id,
            upstream=opening.upstream,
            file_id=file_id,
            lines=tuple(lines[start : start + LINES_AT_ONCE]),
        )


def path_of(target: bytes) -> str:
    """Return the path of a request target: the query may hold what nobody should keep."""
    return target.partition(b"?")[0].decode("latin-1")


def request_id(line: bytes) -> str | None:
    """Return what a field line says, under which the upstream knows the call."""
    value = line.partition(b":")[2].strip(b" \t")
    return value.decode("latin-1")[:MAX_ID_CHARACTERS] if value else None


def log_line(closing: Closing) -> dict[str, Any]:
    """Return the facts of the canonical log line: no content, no key, no metadata."""
    opening = closing.opening
    return {
        "event_id": opening.event_id.hex(),
        "user": opening.user_id,
        "endpoint": opening.endpoint,
        "operation_name": opening.operation_name,
        "method": opening.method,
        "upstream_name": opening.mount,
        "api_path": opening.api_path,
        "request_model": opening.request_model,
        "response_model": closing.response_model,
        "status": closing.status,
        "outcome": closing.outcome,
        "error_type": closing.error_type,
        "usage": _usage_source(closing),
        "usage_problem": closing.usage_problem,
        "latency_us": closing.latency_us,
        "time_to_first_byte_us": closing.time_to_first_byte_us,
        "upstream_request_id": closing.upstream_request_id,
    }


def _usage_source(closing: Closing) -> str:
    if closing.usage:
        return "reported"
    return "estimated" if closing.estimate and closing.estimate.is_known else "unavailable"

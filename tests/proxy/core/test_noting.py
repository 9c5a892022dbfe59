"""Facts of a call become records and a line in the log; content and keys never do."""

import pytest

from proxy.core import headers, noting
from proxy.core.headers import ANSWER_PATTERN, Fields, request_pattern
from proxy.core.metering import RequestFacts
from proxy.core.model import Attribution, Opening
from proxy.core.operations import operation_of
from tests.fakes.records import closing, opening

RAW = b"POST /v1/chat/completions?api-key=secret HTTP/1.1\r\nHost: x\r\n%b\r\n"


def opened(fields: bytes = b"", *, length: int = 7, raw: bytes = RAW) -> Opening:
    """Return the opening of a chat call."""
    head = raw.replace(b"%b", fields)
    line = headers.request_line(head.partition(b"\r\n")[0])
    assert line is not None
    return noting.opening_of(
        bytes(16),
        line,
        request_pattern([], []).read(head).fields,
        length=length,
        operation=operation_of("POST", "/v1/chat/completions"),
        who=Attribution(user_id="ada", metadata={"a": "b"}),
        facts=RequestFacts(model="m", stream=True, service_tier="flex"),
        upstream="api.example",
        worker="w",
    )


def answer_fields(lines: bytes) -> Fields:
    """Return the fields of an answer's head."""
    return ANSWER_PATTERN.read(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n").fields


def test_an_opening_holds_what_is_known_by_then() -> None:
    """The query is not kept: it may hold a key."""
    found = opened(b"X-Stainless-Retry-Count: 2\r\n")
    assert (found.operation_name, found.method, found.api_path) == (
        "chat",
        "POST",
        "/v1/chat/completions",
    )
    assert (found.user_id, found.metadata, found.request_model) == ("ada", {"a": "b"}, "m")
    assert (found.stream, found.request_service_tier, found.retry_count) == (True, "flex", 2)
    assert (found.request_bytes, found.upstream, found.worker) == (7, "api.example", "w")


@pytest.mark.parametrize("count", [b"", b"-1", b"x", b"99999", b"1.5"])
def test_an_odd_retry_count_is_unknown(count: bytes) -> None:
    """It is the client's word, and must fit its column."""
    assert opened(b"X-Stainless-Retry-Count: " + count + b"\r\n").retry_count is None


def test_an_unknown_length_is_unknown() -> None:
    """A chunked body does not tell its length before it ends."""
    assert opened(length=-1).request_bytes is None


def test_a_path_is_kept_up_to_a_bound() -> None:
    """And as it came, byte by byte."""
    raw = RAW.replace(b"/v1/chat/completions", b"/\xe9%2F" + b"a" * 600)
    assert opened(raw=raw).api_path == "/\xe9%2F" + "a" * 507


def test_an_opening_is_completed_by_what_the_body_said() -> None:
    """Everything else stays."""
    facts = RequestFacts(model="m2", stream=False, service_tier="default")
    found = noting.completed(opening(), facts, Attribution(user_id="bob", problem="p"))
    assert (found.request_model, found.stream, found.request_service_tier) == (
        "m2",
        False,
        "default",
    )
    assert (found.user_id, found.metadata, found.attribution_problem) == ("bob", None, "p")
    assert (found.event_id, found.api_path) == (opening().event_id, opening().api_path)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"X-Request-Id: req_1\r\napim-request-id: 2\r\n", "req_1"),
        (b"apim-request-id: 2\r\n", "2"),
        (b"x-request-id: \r\n", None),
        (b"", None),
        (b"x-request-id: " + b"a" * 300 + b"\r\n", "a" * 256),
    ],
    ids=["OpenAI", "Azure", "empty", "none", "long"],
)
def test_the_upstreams_name_of_a_call(lines: bytes, expected: str | None) -> None:
    """OpenAI's or Azure's."""
    assert noting.upstream_request_id(answer_fields(lines)) == expected


def test_a_log_line_tells_facts_alone() -> None:
    """Neither metadata nor usage itself."""
    line = noting.log_line(closing())
    assert (line["user"], line["outcome"], line["usage"]) == ("ada", "ok", "reported")
    assert "metadata" not in line
    assert not [value for value in line.values() if isinstance(value, bytes | dict)]


@pytest.mark.parametrize(
    ("base_path", "target", "name"),
    [
        ("", b"/v1/chat/completions", "chat"),
        ("/v1", b"/chat/completions", "chat"),
        ("/api", b"/v1/chat/completions", "chat"),
        ("/openai", b"/deployments/d/chat/completions?api-version=1", "chat"),
        ("", b"/chat/completions", "unknown"),
        ("/v1", b"/nothing/of/this/kind", "unknown"),
    ],
)
def test_the_operation_is_known_wherever_the_api_is_mounted(
    base_path: str, target: bytes, name: str
) -> None:
    """A client may leave out what the upstream's URL already says."""
    line = headers.RequestLine(b"POST", target, 1)
    assert noting.operation_asked(line, base_path).name == name

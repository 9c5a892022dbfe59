"""Facts of a call become records and a line in the log; content and keys never do."""

import msgspec
import pytest

from proxy.core import headers, noting
from proxy.core.metering import RequestFacts
from proxy.core.model import Attribution, Estimate, Sighting
from tests.fakes.records import closing, opening


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
    ("line", "expected"),
    [
        (b"X-Request-Id: req_1", "req_1"),
        (b"apim-request-id:2 ", "2"),
        (b"x-request-id: ", None),
        (b"x-request-id: " + b"a" * 300, "a" * 256),
    ],
    ids=["OpenAI", "Azure", "empty", "long"],
)
def test_the_upstreams_name_of_a_call(line: bytes, expected: str | None) -> None:
    """OpenAI's or Azure's, and no more of it than fits."""
    assert noting.request_id(line) == expected


def test_a_log_line_tells_facts_alone() -> None:
    """Neither metadata nor usage itself."""
    line = noting.log_line(closing())
    assert (line["user"], line["outcome"], line["usage"]) == ("ada", "ok", "reported")
    assert "metadata" not in line
    assert not [value for value in line.values() if isinstance(value, bytes | dict)]


@pytest.mark.parametrize(
    ("estimate", "source"),
    [
        (Estimate(input_tokens=9), "estimated"),
        (Estimate(output_tokens=0), "estimated"),
        (Estimate(note="estimator_busy"), "unavailable"),
        (None, "unavailable"),
    ],
)
def test_a_log_line_tells_how_usage_is_known(estimate: Estimate | None, source: str) -> None:
    """As the row will."""
    found = msgspec.structs.replace(closing(), usage=None, estimate=estimate)
    assert noting.log_line(found)["usage"] == source


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


@pytest.mark.parametrize(
    ("base_path", "target", "name"),
    [
        ("", b"/chat/completions", "chat"),
        ("/beta", b"/chat/completions", "chat"),
        ("", b"/api/v1/embeddings", "embeddings"),
        ("/api/v1", b"/embeddings", "embeddings"),
        ("", b"/nothing/of/this/kind", "unknown"),
    ],
)
def test_an_upstream_that_has_a_name_speaks_the_api(
    base_path: str, target: bytes, name: str
) -> None:
    """Some have no /v1 at all."""
    line = headers.RequestLine(b"POST", target, 1)
    assert noting.operation_asked(line, base_path, is_named=True).name == name


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        (b"?model=gpt-realtime&api-key=secret", ("gpt-realtime", None)),
        (b"?api-version=2025-04-01&deployment=my%2Drealtime", (None, "my-realtime")),
        (b"?call_id=rtc_1", (None, None)),
        (b"?model=&deployment=a%00b", (None, None)),
        (b"?model=\xff%ff", ("\xff\ufffd", None)),
        (b"?" + b"a=b&" * 200, (None, None)),
        (b"", (None, None)),
    ],
)
def test_a_session_names_its_model_in_the_query(
    query: bytes, asked: tuple[str | None, str | None]
) -> None:
    """That is all that is kept of it; a query of other calls is not looked at."""
    assert noting.model_asked(b"/v1/realtime" + query) == asked


def test_lines_of_an_output_are_noted_a_few_at_a_time() -> None:
    """A record has a bound, a batch has 50,000 lines."""
    lines = [Sighting(kind="output", object_id="", part=str(number)) for number in range(70)]
    call = msgspec.structs.replace(opening(), api_path="/v1/files/file-1/content")
    records = list(noting.lines_of(call, lines))
    assert [len(record.lines) for record in records] == [32, 32, 6]
    assert {(r.event_id, r.upstream, r.file_id) for r in records} == {
        (call.event_id, call.upstream, "file-1")
    }
    assert list(noting.lines_of(opening(), lines)) == []


@pytest.mark.parametrize(
    ("query", "call_id"),
    [
        (b"?call_id=rtc_1", "rtc_1"),
        (b"?model=gpt-realtime", None),
        (b"?call_id=", None),
        (b"?call_id=a%00b", None),
        (b"?call_id=" + b"x" * 129, None),
        (b"?call_id=\xff", None),
        (b"?" + b"a=b&" * 200, None),
        (b"", None),
    ],
)
def test_a_session_may_attend_a_call(query: bytes, call_id: str | None) -> None:
    """Which one, is in the query."""
    assert noting.call_attended(b"/v1/realtime" + query) == call_id

"""A plan says of every head of its shape what a reading of that head alone would say."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core import headers, passage
from proxy.core.headers import ANSWER_PATTERN, request_pattern
from proxy.core.passage import Destination
from proxy.core.plans import CHUNKED, DECLARED, UNTIL_CLOSE, AnswerPlans, RequestPlan, RequestPlans
from proxy.errors import FramingError

DESTINATION = Destination(
    authority=b"api.example:9",
    base_path=b"/base",
    own_names=(b"x-meter-user",),
    own_prefixes=(b"x-meter-metadata-",),
)
PATTERN = request_pattern([b"X-Meter-User"], [b"X-Meter-Metadata-"])
PLANS, ANSWERS = RequestPlans(PATTERN, DESTINATION), AnswerPlans()  # filled by all tests here

FIELDS = st.lists(
    st.sampled_from(
        [
            b"X-A: 1",
            b"x-a:  2 ",
            b"Authorization: Bearer k",
            b"Connection: keep-alive",
            b"Connection: X-A",
            b"connection: close",
            b"TE: trailers",
            b"Upgrade: websocket",
            b"Content-Type: application/json",
            b"Accept-Encoding: gzip",
            b"Content-Encoding: br",
            b"accept-encoding:br",
            b"X-Meter-User: ada",
            b"X-Meter-Metadata-A: b",
            b"Keep-Alive: 5",
        ]
    ),
    max_size=6,
)


def raw_head(first_line: bytes, lines: list[bytes]) -> bytes:
    """Return a head."""
    return b"\r\n".join([first_line, *lines, b"", b""])


def plan(lines: bytes = b"", *, first_line: bytes = b"POST /v1/chat/completions") -> RequestPlan:
    """Return the plan of a request."""
    return PLANS.of(first_line + b" HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")[0]


@example([], 0, b"Host: x", [b"content-Length:  4"], 31)
@example([b"Accept-Encoding: gzip"], 0, b"Host: x", [], 31)
@example([b"Accept-Encoding: gzip", b"accept-encoding:br"], 0, b"Host: x", [], 31)
@given(
    FIELDS,
    st.integers(0, 6),
    st.sampled_from([b"Host: x", b"HOST:x"]),
    st.sampled_from([[], [b"content-Length:  4"], [b"Transfer-Encoding: chunked"]]),
    st.sampled_from([None, 31]),
)
def test_a_request_goes_up_as_if_it_had_been_read_alone(
    fields: list[bytes], place: int, host: bytes, framed: list[bytes], spliced_length: int | None
) -> None:
    """Cut by places, it is the same as cut by names; also with a body that was spliced."""
    raw = raw_head(b"POST /v1/x HTTP/1.1", [*fields[:place], host, *framed, *fields[place:]])
    found, lines = PLANS.of(raw)
    head = PATTERN.read(raw)
    expected = passage.request_head(
        head, found.line, DESTINATION, invited=False, spliced_length=spliced_length
    )
    assert found.keeps_alive == headers.keeps_alive(head.fields, 1)
    assert found.wants_websocket == passage.wants_websocket(found.line, head.fields)
    odd = bool(headers.nominated(head.fields)) or b"upgrade" in head.fields
    if spliced_length is not None:
        odd = odd or len(head.fields.get(b"accept-encoding", ())) > 1
    sent = found.sent(lines, b"body", spliced_length=spliced_length)
    assert sent == (None if odd else expected + b"body")


@given(FIELDS, st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.0 404 No"]))
def test_an_answer_goes_down_as_if_it_had_been_read_alone(
    fields: list[bytes], first_line: bytes
) -> None:
    """The same for the other direction."""
    raw = raw_head(first_line, fields)
    found, lines = ANSWERS.of(raw)
    expected = passage.answer_head(ANSWER_PATTERN.read(raw))
    nominates = bool(headers.nominated(ANSWER_PATTERN.read(raw).fields))
    assert found.passed(raw, lines, b"body") == (None if nominates else expected + b"body")
    stripped = passage.answer_head(
        ANSWER_PATTERN.read(raw),
        without=(b"content-length", b"transfer-encoding", b"content-encoding"),
        added=b"X-Added: 1\r\n",
    )
    passed = found.passed_stripped(lines, b"X-Added: 1\r\n", b"body")
    assert passed == (None if nominates else stripped + b"body")


def test_a_request_without_a_host_is_left_to_a_closer_look() -> None:
    """HTTP/1.0 needs none, and gets the upstream's."""
    found, lines = PLANS.of(b"GET / HTTP/1.0\r\n\r\n")
    assert found.has_host
    assert found.sent(lines, b"") is None
    assert not PLANS.of(b"GET / HTTP/1.1\r\n\r\n")[0].has_host
    assert not plan(b"host: y\r\n").has_host


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"", (0, 0)),
        (b"Content-Length: 5\r\n", (DECLARED, 2)),
        (b"X: 1\r\nTransfer-Encoding: Chunked\r\n", (CHUNKED, 0)),
    ],
)
def test_the_length_of_a_request(lines: bytes, expected: tuple[int, int]) -> None:
    """Or where it stands."""
    found = plan(lines)
    assert (found.length, found.length_at) == expected


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"GET / HTTP/2\r\nHost: x\r\n\r\n", "request line"),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", "no forward proxy"),
        (b"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", "no forward proxy"),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "one decimal number"),
        (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "ambiguous"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", "not 'chunked'"),
    ],
)
def test_what_is_ambiguous_has_no_plan(raw: bytes, message: str) -> None:
    """And says so each time."""
    for _ in range(2):
        with pytest.raises(FramingError, match=message):
            PLANS.of(raw)


def test_an_answer_that_is_none_has_no_plan() -> None:
    """It has a status line."""
    with pytest.raises(FramingError, match="status line"):
        ANSWERS.of(b"ICY 200 OK\r\n\r\n")


@pytest.mark.parametrize(
    ("lines", "is_json", "is_splicable"),
    [
        (b"", True, True),
        (b"Content-Type: application/json\r\n", True, True),
        (b"Content-Type: text/plain\r\n", False, False),
        (b"Content-Encoding: gzip\r\n", False, False),
        (b"Content-Encoding:\r\n", True, False),
    ],
)
def test_how_a_body_is_read(lines: bytes, *, is_json: bool, is_splicable: bool) -> None:
    """At once, where that can be."""
    found = plan(lines)
    assert (found.is_json, found.is_splicable) == (is_json, is_splicable)
    assert found.is_encoded is (b"Encoding" in lines)


def test_what_is_billed_by_units_is_read_by_a_meter() -> None:
    """There is more to be seen in it."""
    assert not plan(first_line=b"POST /v1/images/generations").is_json


def test_a_plan_names_the_operation_and_the_path() -> None:
    """Without the query, and up to a bound."""
    found = plan(b"Expect: 100-Continue\r\n", first_line=b"POST /v1/embeddings?a=b")
    assert (found.operation.name, found.method, found.api_path) == (
        "embeddings",
        "POST",
        "/v1/embeddings",
    )
    assert found.is_invited
    assert found.first_line == b"POST /base/v1/embeddings?a=b HTTP/1.1"
    assert plan(first_line=b"GET /\xe9%2F" + b"a" * 600).api_path == "/\xe9%2F" + "a" * 507


@pytest.mark.parametrize(
    ("count", "expected"),
    [(b"2", 2), (b"", None), (b"-1", None), (b"x", None), (b"99999", None), (b"1.5", None)],
)
def test_a_retry_count_is_a_small_number(count: bytes, expected: int | None) -> None:
    """It is the client's word, and must fit its column."""
    assert plan(b"X-Stainless-Retry-Count: " + count + b"\r\n").retry_count == expected


def test_a_plan_knows_where_attribution_stands() -> None:
    """Whole names and prefixes."""
    lines = b"X-Meter-User: ada\r\nX: 1\r\nX-Meter-Metadata-A: b\r\n"
    found, read = PLANS.of(b"GET / HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")
    assert found.attributed is not None
    assert found.attributed.names == (b"x-meter-user", b"x-meter-metadata-a")
    assert found.attributed.pick(read) == (b"X-Meter-User: ada", b"X-Meter-Metadata-A: b")
    alone, read = PLANS.of(b"GET / HTTP/1.1\r\nx-meter-user: bob\r\n\r\n")
    assert alone.attributed is not None
    assert alone.attributed.pick(read) == (b"x-meter-user: bob",)
    assert plan().attributed is None


@pytest.mark.parametrize(
    ("raw", "length", "is_json", "is_bodiless"),
    [
        (b"200 OK\r\nContent-Type: application/JSON\r\nContent-Length: 1", DECLARED, True, False),
        (b"200 OK\r\nContent-Type: text/event-stream", UNTIL_CLOSE, False, False),
        (b"404 No\r\nContent-Type: application/json", UNTIL_CLOSE, False, False),
        (b"200 OK\r\nContent-Type: application/json\r\nContent-Encoding: br", -2, False, False),
        (b"204 No", UNTIL_CLOSE, False, True),
        (b"103 Hints", UNTIL_CLOSE, False, True),
    ],
)
def test_how_an_answer_is_read(
    raw: bytes, length: int, *, is_json: bool, is_bodiless: bool
) -> None:
    """At once, where that can be."""
    found, _ = ANSWERS.of(b"HTTP/1.1 " + raw + b"\r\n\r\n")
    assert (found.length, found.is_json, found.is_bodiless) == (length, is_json, is_bodiless)


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        (b"X: 1\r\nX-Request-Id: r\r\napim-request-id: a", 2),
        (b"apim-request-id: a", 1),
        (b"X: 1", 0),
    ],
)
def test_where_the_upstreams_name_of_a_call_stands(lines: bytes, place: int) -> None:
    """OpenAI's or Azure's."""
    assert ANSWERS.of(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n\r\n")[0].request_id_at == place


def test_a_plan_names_the_model_of_a_session() -> None:
    """Its target says it, and on Azure a deployment; other calls say it in their body."""
    session = plan(first_line=b"GET /openai/realtime?deployment=d&model=g")
    assert (session.request_model, session.operation.deployment) == ("g", "d")
    path = b"GET /openai/deployments/e/realtime?deployment=d"
    assert plan(first_line=path).operation.deployment == "e"
    assert plan(first_line=b"POST /v1/chat/completions?model=g").request_model is None


def test_a_mounted_upstream_has_a_destination_of_its_own() -> None:
    """Its name is taken off the target; lines of its owner take a closer look."""
    other = DESTINATION._replace(authority=b"azure.example", base_path=b"", added=b"api-key: k\r\n")
    plans = RequestPlans(PATTERN, DESTINATION, {b"azure": other})
    found, lines = plans.of(b"POST /azure/openai/v1/embeddings HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (found.mount, found.destination, found.line.target) == (
        b"azure",
        other,
        b"/openai/v1/embeddings",
    )
    assert found.operation.name == "embeddings"
    assert found.sent(lines, b"") is None
    assert plans.of(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n\r\n")[0].mount == b""

import json
import sys
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.dialects import DIALECTS
from proxy.core.inflating import UNKNOWN_EXTENSION, Extensions
from proxy.core.messages import TOO_LARGE
from proxy.core.metering import FAULT, NO_USAGE, Observation
from proxy.core.model import AnswerUnits
from proxy.core.sessions import MAX_REMEMBERED, Begun, Billed, SessionMeter
from proxy.core.streams import NOT_JSON
from tests.fakes.websocket import Deflater, close, event, frame

PLAIN = Extensions()
REALTIME, RESPONSES = "realtime.connect", "responses.connect"
USAGE = {"total_tokens": 3, "input_tokens": 1, "output_tokens": 2}
RAW = b'{"total_tokens": 3, "input_tokens": 1, "output_tokens": 2}'
SECONDS = b'{"type": "duration", "seconds": 3}'
TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
CREATED = event(
    type="session.created",
    session={"id": "sess_1", "model": "gpt-realtime", "audio": {"input": {"transcription": None}}},
)
UPDATED = event(
    type="session.updated",
    session={"id": "sess_1", "audio": {"input": {"transcription": {"model": "whisper-1"}}}},
)
STREAM = b"".join(
    (
        CREATED,
        UPDATED,
        event(type="response.created", response={"id": "resp_1", "status": "in_progress"}),
        event(type="response.output_audio.delta", delta="AAAA" * 400),
        event(
            type=TRANSCRIBED,
            item_id="item_1",
            transcript="secret",
            usage={"type": "duration", "seconds": 3},
        ),
        event(
            event_id="event_9",
            type="response.done",
            response={
                "id": "resp_1",
                "status": "completed",
                "usage": USAGE,
                "metadata": {"topic": "hats"},
            },
        ),
        event(type="rate_limits.updated", rate_limits=[]),
    )
)


def meter(
    name: str = REALTIME,
    extensions: Extensions = PLAIN,
    max_event_bytes: int = 10_000,
    at_once: int = sys.maxsize,
) -> SessionMeter:
    """Return the meter of a session."""
    return SessionMeter(
        DIALECTS[name], extensions, max_event_bytes=max_event_bytes, at_once=at_once
    )


def read(*frames: bytes, name: str = REALTIME) -> tuple[list[Begun | Billed], Observation]:
    """Return what is found in frames, and what of the session itself."""
    session = meter(name)
    return [found for data in frames for found in session.feed(data)], session.finish()


def billed(*frames: bytes, name: str = REALTIME) -> Observation:
    """Return what is seen of the one thing that was billed."""
    (found,) = read(*frames, name=name)[0]
    assert isinstance(found, Billed)
    return found.seen


@given(st.lists(st.integers(0, len(STREAM)), max_size=20), st.booleans())
def test_a_session_is_read_however_it_is_cut(cuts: list[int], compressed: bool) -> None:  # noqa: FBT001
    """A response and a transcription, each with a model of its own."""
    stream = STREAM
    if compressed:
        packed = Deflater()
        stream = b"".join(map(packed.frame, messages(STREAM)))
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    session = meter(extensions=Extensions(deflates=compressed))
    found = [f for start, end in pairwise(edges) for f in session.feed(stream[start:end])]
    assert found == [
        Begun("resp_1", "gpt-realtime"),
        Billed(
            operation_name="realtime.transcription",
            seen=Observation(
                response_model="whisper-1", response_id="item_1", usage=SECONDS, complete=True
            ),
        ),
        Billed(
            operation_name="realtime.response",
            seen=Observation(
                response_model="gpt-realtime",
                response_id="resp_1",
                response_status="completed",
                usage=RAW,
                complete=True,
                units=AnswerUnits(),
            ),
            metadata={"topic": "hats"},
        ),
    ]
    assert session.finish() == Observation(response_model="gpt-realtime", response_id="sess_1")


def messages(stream: bytes) -> list[bytes]:
    """Take unfragmented text frames apart."""
    found = []
    while stream:
        size, start = stream[1], 2
        if size == 126:
            size, start = int.from_bytes(stream[2:4]), 4
        found.append(stream[start : start + size])
        stream = stream[start + size :]
    return found


def test_responses_over_a_websocket_are_responses() -> None:
    """With their model, tier, tools and whom they are for."""
    response: dict[str, Any] = {
        "id": "resp_1",
        "object": "response",
        "status": "in_progress",
        "model": "gpt-5.4-mini-2026-03-17",
        "service_tier": "auto",
    }
    last = response | {
        "status": "completed",
        "service_tier": "default",
        "usage": USAGE,
        "user": "bob",
        "safety_identifier": "ada",
        "metadata": {},
        "tools": [{"type": "web_search"}],
        "output": [{"type": "web_search_call", "status": "completed"}],
    }
    found, session = read(
        event(type="response.created", sequence_number=0, response=response, stream_id="a"),
        event(type="response.output_text.delta", delta="hat"),
        event(type="response.completed", sequence_number=2, response=last, stream_id="a"),
        name=RESPONSES,
    )
    assert found == [
        Begun("resp_1", "gpt-5.4-mini-2026-03-17"),
        Billed(
            operation_name="responses",
            seen=Observation(
                response_model="gpt-5.4-mini-2026-03-17",
                response_service_tier="default",
                response_id="resp_1",
                response_status="completed",
                usage=RAW,
                complete=True,
                units=AnswerUnits(web_searches=1, web_search_tool="web_search"),
            ),
            user="ada",
        ),
    ]
    assert session == Observation()


def ask(model: str | None, kind: str = "response.create") -> bytes:
    """Return what a client says to have a response made."""
    told = {"type": kind, "input": "Hello"} | ({} if model is None else {"model": model})
    return frame(json.dumps(told).encode(), mask=b"\x01\x02\x03\x04")


def asked(session: SessionMeter, **members: Any) -> list[str | None]:
    """Return which models were asked for, as told when this event comes."""
    return [found.request_model for found in session.feed(event(**members))]


def test_each_response_has_the_model_that_was_asked_for() -> None:
    """In the order of the requests; one that is refused is answered by an error."""
    session = meter(RESPONSES)
    for model in ("a", None, "refused", "c", "d"):
        session.feed_client(ask(model) + ask("other", "response.cancel"))
    first, last = {"id": "resp_1", "usage": USAGE}, {"id": "resp_4", "usage": USAGE}
    assert asked(session, type="response.created", response=first) == ["a"]
    assert asked(session, type="response.completed", response=first) == [None]
    assert asked(session, type="response.created", response={"id": "resp_2"}) == [None]
    assert asked(session, type="response.failed", response={"id": "resp_2"}) == [None]
    assert asked(session, type="error", error={"code": "odd"}) == []
    assert asked(session, type="response.created", response={"id": "resp_3"}) == ["c"]
    assert asked(session, type="response.completed", response=last) == ["d"]
    assert asked(session, type="response.created", response={"id": "resp_5"}) == [None]


@pytest.mark.parametrize(
    ("kind", "failed"), [("response.incomplete", False), ("response.failed", True)]
)
def test_a_response_may_end_otherwise(kind: str, failed: bool) -> None:  # noqa: FBT001
    """What failed owes no usage, and what it has is kept."""
    status = kind.removeprefix("response.")
    error = {"code": "server_error", "message": "secret"} if failed else None
    response = {"id": "r", "status": status, "error": error, "usage": USAGE}
    seen = billed(event(type=kind, response=response), name=RESPONSES)
    assert (seen.failed, seen.usage, seen.usage_problem) == (failed, RAW, None)
    assert seen.error_type == ("server_error" if failed else None)


def test_a_realtime_response_says_in_its_details_why_it_failed() -> None:
    """Without usage nothing is missed."""
    details = {"type": "failed", "error": {"type": "server_error", "code": None}}
    response = {"id": "r", "status": "failed", "status_details": details, "usage": None}
    seen = billed(event(type="response.done", response=response))
    assert (seen.failed, seen.error_type) == (True, "server_error")
    assert (seen.usage, seen.usage_problem) == (None, None)


@pytest.mark.parametrize("details", [None, {"type": "failed"}])
def test_or_it_does_not_say(details: dict[str, str] | None) -> None:
    """Then it has failed all the same."""
    response = {"id": "r", "status": "failed", "status_details": details}
    seen = billed(event(type="response.done", response=response))
    assert (seen.failed, seen.error_type) == (True, None)


@pytest.mark.parametrize(
    "data",
    [
        event(type="response.done", response={"id": "r", "status": "cancelled", "usage": None}),
        event(type="response.done"),
        event(type=TRANSCRIBED, item_id="i"),
    ],
)
def test_what_ends_without_usage_says_so(data: bytes) -> None:
    """It may have been billed."""
    seen = billed(data)
    assert (seen.usage, seen.usage_problem, seen.failed) == (None, NO_USAGE, False)


@pytest.mark.parametrize(
    ("index", "name"), [(0, "i"), (2, "i/2"), (None, "i"), ("x", "i"), (10**3000, None)]
)
def test_a_transcription_is_named_by_its_item(index: object, name: str | None) -> None:
    """And by the part of it, where it is a further one."""
    usage = {"type": "duration", "seconds": 3}
    seen = billed(event(type=TRANSCRIBED, item_id="i", content_index=index, usage=usage))
    assert seen.response_id == name


def test_the_second_end_of_a_response_is_none() -> None:
    """Responses are remembered for a while; what has no id cannot be told apart."""
    done = [
        event(type="response.done", response={"id": f"r{number}", "usage": USAGE})
        for number in range(MAX_REMEMBERED)
    ]
    nameless = event(type="response.done", response={"usage": USAGE})
    assert len(read(*done, done[0], done[-1], nameless, nameless)[0]) == MAX_REMEMBERED + 2


@pytest.mark.parametrize(
    ("session", "transcriber"),
    [
        ({"input_audio_transcription": {"model": "whisper-1"}}, "whisper-1"),
        ({"audio": {"input": {"transcription": {"model": "gpt-transcribe"}}}}, "gpt-transcribe"),
        ({"audio": {"input": None}}, None),
        ({"audio": 7}, None),
        (None, None),
    ],
)
def test_the_transcriber_is_named_by_the_session(session: object, transcriber: str | None) -> None:
    """As the API says it today, and as the beta did; a session for transcription has no other."""
    told = event(type="transcription_session.updated", session=session)
    found, seen = read(told, event(type=TRANSCRIBED, item_id="i", usage={"seconds": 1}))
    assert isinstance(found[0], Billed)
    assert found[0].seen.response_model == seen.response_model == transcriber


def test_a_nameless_response_does_not_begin() -> None:
    """There is nothing by which its end would be known."""
    assert read(event(type="response.created", response={}))[0] == []


def test_other_events_and_odd_ones_are_passed_over() -> None:
    """Whatever their shape."""
    odd: list[dict[str, Any]] = [
        {"type": None},
        {"type": ["response.done"]},
        {},
        {"type": "x" * 300},
        {"a": {}},
    ]
    found, session = read(*(event(**members) for members in odd), name=RESPONSES)
    assert (found, session) == ([], Observation())


def test_a_live_session_tells_its_seconds_and_what_it_delegates() -> None:
    """The last total is the sum. What is delegated has its own models; its tools are not told."""
    response = {"id": "resp_1", "model": "gpt-5.4-mini-2026-03-17", "status": "completed"}
    done = {"type": "response.completed", "response": response | {"usage": USAGE, "tools": []}}
    nameless = {"type": "response.incomplete", "response": {"usage": USAGE}}
    decision = {"id": "dec_1", "model": "gpt-6-luna", "usage": USAGE}
    events = (
        {"type": "session.started", "session": {"id": "sess_1", "model": "gpt-live-1"}},
        {"type": "response.event", "event": {"type": "response.created", "response": response}},
        {"type": "session.usage.updated", "usage": {"seconds": 3.5}},
        {"type": "response.event", "event": {"type": "response.output_text.delta"}},
        {"type": "response.event", "event": done},
        {"type": "response.event", "event": {"type": "response.web_search_call.completed"}},
        {"type": "response.event", "event": nameless},
        {"type": "response.event", "event": {"type": "error", "error": {"code": "odd"}}},
        {"type": "response.event", "event": 7},
        {
            "type": "decision.event",
            "event": {"type": "decision.completed", "decision": decision},
        },
        {"type": "decision.event", "event": {"type": "decision.completed"}},
        {"type": "session.closed", "usage": {"seconds": 8}, "session": {}},
    )
    found, session = read(*(event(**members) for members in events), name="live.connect")
    begun, made, other, decided, empty = found
    assert begun == Begun("resp_1", "gpt-5.4-mini-2026-03-17")
    assert isinstance(made, Billed)
    assert (made.operation_name, made.seen.usage, made.seen.units) == (
        "responses",
        RAW,
        AnswerUnits(),
    )
    assert made.seen.response_model == "gpt-5.4-mini-2026-03-17"
    assert isinstance(other, Billed)
    assert (other.seen.response_model, other.seen.usage) == (None, RAW)
    assert other.seen.units == AnswerUnits(is_partial=True)
    assert isinstance(decided, Billed)
    assert (decided.operation_name, decided.seen.response_id) == ("decisions", "dec_1")
    assert (decided.seen.response_model, decided.seen.usage) == ("gpt-6-luna", RAW)
    assert isinstance(empty, Billed)
    assert (empty.seen.usage, empty.seen.usage_problem) == (None, NO_USAGE)
    assert session == Observation(
        response_model="gpt-live-1",
        response_id="sess_1",
        usage=b'{"seconds": 8}',
        error_type="odd",
    )


def test_a_translation_is_a_session_with_a_model() -> None:
    """Nothing in it is billed by itself."""
    told = {"id": "sess_1", "model": "gpt-realtime-translate", "type": "translation"}
    found, session = read(
        event(type="session.created", session=told),
        event(type="session.output_audio.delta", delta="AAAA"),
        event(type="response.done", response={"usage": USAGE}),
        event(),
        name="realtime.translations.connect",
    )
    assert found == []
    assert (session.response_model, session.usage) == ("gpt-realtime-translate", None)


@pytest.mark.parametrize(
    ("code", "failed"), [(1000, False), (1001, False), (None, False), (1011, True), (4000, True)]
)
def test_how_the_upstream_closes(code: int | None, failed: bool) -> None:  # noqa: FBT001
    """An unclean close has failed, and its code names it."""
    session = read(close(code))[1]
    assert session.failed is failed
    assert session.error_type == (f"websocket_close_{code}" if failed else None)


@pytest.mark.parametrize(
    ("client", "failed"),
    [
        ([frame(b"x" * 9, mask=b"mask") + frame(b"", 8, mask=b"mask"), b"more"], False),
        ([frame(b"x" * 9, mask=b"mask")], True),
        ([frame(b"no mask"), frame(b"", 8, mask=b"mask")], True),
        ([], True),
    ],
)
def test_a_code_that_the_client_has_chosen_is_no_failure(
    client: list[bytes],
    failed: bool,  # noqa: FBT001
) -> None:
    """The upstream says it again, whatever it is; what cannot be read of a client says nothing."""
    session = meter()
    for chunk in client:
        session.feed_client(chunk)
    assert list(session.feed(close(3000))) == []
    session.feed_client(frame(b"", 8, mask=b"mask"))
    assert session.finish().failed is failed


def test_the_last_error_is_the_sessions() -> None:
    """An error event ends nothing."""
    error = {"type": "invalid_request_error", "code": "session_expired", "message": "secret"}
    session = read(event(type="error", error=error), close())[1]
    assert (session.error_type, session.failed) == ("session_expired", False)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (frame(b'{"type":"response.done", nonsense'), NOT_JSON),
        (frame(b'{"type":"response.done","response":{"usage":{1}}}'), NOT_JSON),
        (frame(b"no JSON"), NOT_JSON),
        (event(type="response.done", response={"id": "x" * 10_000}), TOO_LARGE),
        (
            event(type="response.done", response={"metadata": {"a": [[]]}})[:-2],
            "session_cut_in_mid_event",
        ),
    ],
)
def test_what_cannot_be_read_is_the_sessions_problem(data: bytes, problem: str) -> None:
    """Something may have been billed in it; what follows is read."""
    session = meter()
    assert list(session.feed(data)) == []
    assert session.finish().usage_problem == problem


def test_an_unknown_extension_is_the_sessions_problem() -> None:
    """Nothing can be read behind it."""
    session = meter(extensions=Extensions(unknown=True))
    assert list(session.feed(STREAM)) == []
    assert session.finish().usage_problem == UNKNOWN_EXTENSION


def test_a_fault_ends_the_reading() -> None:
    """And becomes the session's problem."""
    session = meter()
    assert list(session.feed(cast("bytes", "no bytes"))) == []
    assert list(session.feed(STREAM)) == []
    assert session.finish().usage_problem == FAULT


KINDS = st.sampled_from(("response.created", "response.done", TRANSCRIBED, "error", "x"))
SCALARS = st.one_of(st.none(), st.integers(), st.text(max_size=4), KINDS)
NAMES = st.sampled_from(("type", "response", "session", "usage", "item_id", "error", "id", "audio"))
INNER = st.dictionaries(NAMES, SCALARS, max_size=3)
EVENTS = st.dictionaries(NAMES, st.one_of(SCALARS, INNER), max_size=4)
CHUNKS = st.one_of(
    st.binary(max_size=60),
    st.binary(max_size=60).map(frame),
    EVENTS.map(lambda members: frame(json.dumps(members).encode())),
)


@given(st.lists(CHUNKS, max_size=6), st.sampled_from(sorted(DIALECTS)), st.booleans())
def test_no_bytes_make_it_raise(chunks: list[bytes], name: str, compressed: bool) -> None:  # noqa: FBT001
    """Frames with anything in them, events of any shape, and no frames at all."""
    session = meter(name, Extensions(deflates=compressed), max_event_bytes=100)
    for chunk in chunks:
        list(session.feed(chunk))
    assert session.finish().usage_problem != FAULT


@given(st.integers(1, 40))
def test_a_look_at_a_time_finds_the_same(at_once: int) -> None:
    """Whatever one look may take."""
    whole, parts = meter(), meter(at_once=at_once)
    found, left = [], STREAM
    while left:
        found += list(parts.feed(left))
        assert parts.unread < len(left)
        left = left[len(left) - parts.unread :]
    assert found == list(whole.feed(STREAM))
    assert parts.finish() == whole.finish()


def test_a_client_is_looked_at_so_far_as_well() -> None:
    """But not behind the upstream's close frame: there nothing is read."""
    session, ping = meter(at_once=2), frame(b"", 9, mask=b"mask")
    assert session.feed_client(ping * 5) == 3 * len(ping)
    list(session.feed(close()))
    assert session.feed_client(ping * 5) == 0

"""Of an event stream those events are read that say something, in both dialects."""

import pytest

from proxy.core.findings import Findings
from proxy.core.model import AnswerUnits
from proxy.core.streams import DIALECTS, StreamReader, Watching

USAGE = b'{"prompt_tokens":1}'


def read(api_type: str, *chunks: bytes, limit: int = 1 << 20) -> Findings:
    """Return what is found in a stream."""
    findings = Findings()
    reader = StreamReader(findings, DIALECTS[api_type](findings), max_event_bytes=limit)
    for chunk in chunks:
        reader.feed(chunk)
    reader.finish()
    return findings


def test_chunks_tell_model_usage_and_end() -> None:
    """The model comes early, usage last, and [DONE] behind it."""
    findings = read(
        "chat_completions",
        b'data: {"id":"","model":"","choices":[]}\n\n: ping\n\n',
        b'data: {"id":"c1","model":"m","service_tier":"default","usage":null}\n\n',
        b'data: {"choices":[{"delta":{"content":"[DONE] \\"usage\\""}}],"usage" : null}\n\n',
        b'data: {"choices":[1]}\n\ndata: {"choices":[],"usage":' + USAGE + b"}\n\n",
        b"data: [DONE]\n\n",
    )
    assert (findings.response_id, findings.model, findings.service_tier) == ("c1", "m", "default")
    assert (findings.usage, findings.complete, findings.failed) == (USAGE, True, False)


@pytest.mark.parametrize(
    ("event", "error_type"),
    [
        (b'data: {"error":{"code":"rate_limit_exceeded"}}', "rate_limit_exceeded"),
        (b'event: error\ndata: {"type":"server_error","message":"x"}', "server_error"),
        (b'data: {"type":"error","code":"overloaded"}', "overloaded"),
    ],
)
@pytest.mark.parametrize("api_type", ["completions", "responses"])
def test_an_error_event_is_a_failure(api_type: str, event: bytes, error_type: str) -> None:
    """The status was 200 before anybody knew."""
    findings = read(api_type, b'data: {"model":"m"}\n\n', event + b"\n\n")
    assert (findings.failed, findings.error_type) == (True, error_type)


@pytest.mark.parametrize(
    ("kind", "failed"),
    [
        (b"response.completed", False),
        (b"response.incomplete", False),
        (b"response.cancelled", False),
        (b"response.done", False),
        (b"response.failed", True),
    ],
)
@pytest.mark.parametrize("where", ["type", "event"])
def test_a_terminal_event_ends_a_response(kind: bytes, where: str, *, failed: bool) -> None:
    """There is no [DONE]; what was cut off by a limit is charged, too."""
    inner = b'"response":{"id":"r1","model":"m","usage":' + USAGE + b"}}\n\n"
    start = b'data: {"type":"response.created",' + inner.replace(USAGE, b"null")
    end = b"event: " + kind + b"\ndata: {" + inner
    if where == "type":
        end = b'data: {"type":"' + kind + b'",' + inner
    delta = b'event: response.output_text.delta\ndata: {"delta":"x"}\n\n'
    assert not read("responses", start, delta).complete
    findings = read("responses", start, delta, end)
    assert (findings.usage, findings.complete, findings.failed) == (USAGE, True, failed)
    assert (findings.response_id, findings.model) == ("r1", "m")


def test_an_event_about_no_response_says_nothing() -> None:
    """A member of that name may hold anything."""
    assert not read("responses", b'data: {"type":"response.completed","response":7}\n\n').complete


@pytest.mark.parametrize("large", [b'data: {"model":"large","x":"' + b"x" * 99 + b'"}\n\n'])
@pytest.mark.parametrize("size", [1, 20, 1 << 20])
def test_a_too_large_event_is_lost_and_said_so(large: bytes, size: int) -> None:
    """In one chunk or in many, the others are read."""
    stream = b'data: {"id":"a"}\n\n' + large + b'data: {"model":"b"}\n\n'
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
    findings = read("chat_completions", *chunks, limit=50)
    assert (findings.response_id, findings.model) == ("a", "b")
    assert findings.problem == "event_too_large"


def test_an_event_that_is_no_json_is_said_so() -> None:
    """It could have been the one with the usage."""
    assert read("chat_completions", b"data: {nonsense\n\n").problem == "event_is_not_json"


def test_the_last_event_needs_no_line_end() -> None:
    """What came is read."""
    findings = read("chat_completions", b'data: {"model":"m"}\n\ndata: [DONE]')
    assert (findings.model, findings.complete) == ("m", True)


def test_a_finished_response_tells_which_tools_it_used() -> None:
    """An unfinished one has not used them all."""
    start = b'data: {"type":"response.created","response":{"tools":[{"type":"web_search"}]}}\n\n'
    call = b'{"type":"web_search_call","action":{"type":"search"}}'
    end = (
        b'data: {"type":"response.incomplete","response":{"tools":[{"type":"web_search"}],'
        b'"output":[' + call + b"]}}\n\n"
    )
    assert read("responses", start).units is None
    expected = AnswerUnits(web_searches=1, web_search_tool="web_search")
    assert read("responses", start, end).units == expected


WEB = b'"tools":[{"type":"web_search"},{"type":"image_generation"}]'
SEARCH = b'{"type":"web_search_call","action":{"type":"search"}}'


def item(body: bytes) -> bytes:
    """Return the event of an item that is whole."""
    return b'data: {"type":"response.output_item.done","output_index":0,"item":' + body + b"}\n\n"


def ended(output: bytes) -> bytes:
    """Return the last event of a response."""
    return (
        b'data: {"type":"response.completed","response":{'
        + WEB
        + b',"output":'
        + output
        + b"}}\n\n"
    )


OTHER = b'data: {"type":"response.output_text.delta","delta":"x"}\n\n'


@pytest.mark.parametrize("output", [b"[]", b"null"])
def test_items_count_where_the_last_event_does_not_hold_them(output: bytes) -> None:
    """Some upstreams leave the output of a stream to the events before."""
    painted = b'{"type":"image_generation_call","result":"' + b"A" * 70_000 + b'"}'
    events = (item(SEARCH), item(b'{"type":"function_call"}'), item(painted), item(b"7"))
    units = AnswerUnits(web_searches=1, web_search_tool="web_search", image_calls=1)
    assert read("responses", *events, ended(output)).units == units
    one = AnswerUnits(web_searches=1, web_search_tool="web_search")
    assert read("responses", *events, ended(b"[" + SEARCH + b"]")).units == one


@pytest.mark.parametrize(
    "events",
    [[item(SEARCH)] * 201, [item(SEARCH[:-1] + b',"x":"' + b"x" * 70_000 + b'"}')]],
    ids=["too many", "too large"],
)
def test_items_that_are_too_much_to_keep_are_not_forgotten(events: list[bytes]) -> None:
    """The count is said to be none."""
    units = read("responses", *events, ended(b"[]")).units
    assert units is not None
    assert units.is_partial


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (item(b"{}") * 70, item(b"{}") * 70),
        (OTHER * 3000, OTHER * 3000),
    ],
    ids=["events that matter", "events"],
)
def test_items_among_very_many_events_are_not_forgotten(before: bytes, after: bytes) -> None:
    """Nobody has looked at them, so the count is said to be none."""
    units = read("responses", before + item(SEARCH) + after + ended(b"[]")).units
    assert units is not None
    assert units.is_partial


def test_very_many_events_without_items_lose_none() -> None:
    """What was counted before them holds."""
    units = read("responses", item(SEARCH), OTHER * 6000 + ended(b"[]")).units
    assert units == AnswerUnits(web_searches=1, web_search_tool="web_search")
    one = read("responses", item(b"{}") * 140 + ended(b"[" + SEARCH + b"]")).units
    assert one == AnswerUnits(web_searches=1, web_search_tool="web_search")


@pytest.mark.parametrize("size", [64, 1 << 20])
def test_an_item_in_a_too_large_event_is_not_forgotten(size: int) -> None:
    """In one chunk or in many, the count is said to be none."""
    stream = item(SEARCH[:-1] + b',"x":"' + b"x" * 3000 + b'"}') + ended(b"[]")
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
    findings = read("responses", *chunks, limit=1000)
    assert findings.problem == "event_too_large"
    assert findings.units is not None
    assert findings.units.is_partial


def test_usages_that_may_not_be_a_sum_are_said_so() -> None:
    """Nothing tells whether the last of several images has the usage of all."""
    last = b'data: {"type":"image_generation.completed","usage":' + USAGE + b"}\n\n"
    part = b'data: {"type":"image_generation.partial_image","usage":null}\n\n'
    assert read("images", part, last).problem is None
    findings = read("images", last, last)
    assert (findings.usage, findings.problem) == (USAGE, "several_usages")


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(
    ("api_type", "piece", "final"),
    [
        ("images", b"image_generation.partial_image", b"image_generation.completed"),
        ("images", b"image_edit.partial_image", b"image_edit.completed"),
        ("audio", b"speech.audio.delta", b"speech.audio.done"),
        ("audio", b"transcript.text.delta", b"transcript.text.done"),
    ],
)
@pytest.mark.parametrize("named", ["type", "event"])
def test_images_and_audio_end_with_their_usage(
    api_type: str, piece: bytes, final: bytes, named: str, line_end: bytes
) -> None:
    """Pieces come before, of megabytes; [DONE] behind it in some."""
    large = b'data: {"type":"' + piece + b'","b64_json":"' + b"A" * 200_000 + b'"}\n\n'
    usage = b'"b64_json":"AAAA","usage":' + USAGE + b"}\n\n"
    end = b'data: {"type":"' + final + b'",' + usage
    if named == "event":
        end = b"event: " + final + b"\ndata: {" + usage
    stream = [chunk.replace(b"\n", line_end) for chunk in (large, end)]
    assert not read(api_type, stream[0]).complete
    findings = read(api_type, *stream)
    assert (findings.usage, findings.complete, findings.failed) == (USAGE, True, False)
    failed = read(api_type, stream[0], b'data: {"error":{"code":"moderation_blocked"}}\n\n')
    assert (failed.failed, failed.error_type) == (True, "moderation_blocked")


def watch(kind: str, *events: bytes, is_new: bool = False) -> Findings:
    """Return what is found in a stream about an object that is billed when it is done."""
    findings = Findings()
    dialect = Watching(findings, kind, is_new=is_new)
    reader = StreamReader(findings, dialect, max_event_bytes=1 << 20)
    for event in events:
        reader.feed(event + b"\n\n")
    reader.finish()
    return findings


RUN = (
    b'event: thread.run.created\ndata: {"id":"run_1","status":"queued","usage":null}',
    b'event: thread.run.step.completed\ndata: {"id":"step_1","status":"completed","usage":{"a":1}}',
    b'event: thread.message.delta\ndata: {"id":"msg_1","x":"thread.run"}',
    b'event: thread.run.completed\ndata: {"id":"run_1","status":"completed","usage":{"a":2}}',
    b"event: done\ndata: [DONE]",
)


def test_a_run_is_the_sum_of_its_steps() -> None:
    """Which are told before it, and are not added."""
    findings = watch("run", *RUN, is_new=True)
    assert [(s.object_id, s.is_new, s.usage) for s in findings.seen.values()] == [
        ("run_1", True, None),
        ("run_1", False, b'{"a":2}'),
    ]


def test_a_response_that_is_resumed_shows_its_end() -> None:
    """And many events that say nothing."""
    end = b'{"id":"r","background":true,"status":"completed","usage":{"a":2}}'
    findings = watch(
        "response",
        b'event: response.output_text.delta\ndata: {"delta":"response"}',
        b'event: response.completed\ndata: {"type":"response.completed","response":%b}' % end,
    )
    assert [(s.object_id, s.usage) for s in findings.seen.values()] == [("r", b'{"a":2}')]
    assert watch("response", b'data: {"response":7}').seen == {}


@pytest.mark.parametrize("is_new", [False, True])
def test_an_error_is_one_of_the_call_that_makes(*, is_new: bool) -> None:
    """A poll that shows a failure has not failed."""
    findings = watch("run", b'event: error\ndata: {"error":{"code":"x"}}', is_new=is_new)
    assert findings.failed == is_new


def test_of_very_many_events_at_once_the_first_and_the_last_are_read() -> None:
    """They tell who answers and what it used; a step for each would hold up other calls."""
    first = b'data: {"id":"a","model":"m"}\n\n'
    between = b'data: {"model":"n","usage":{"prompt_tokens":7}}\n\n' * 9000
    last = b'data: {"usage":' + USAGE + b"}\n\ndata: [DONE]\n\n"
    findings = read("chat_completions", first + between + last)
    assert (findings.response_id, findings.model) == ("a", "n")
    assert (findings.usage, findings.complete) == (USAGE, True)


def test_a_piece_of_an_image_ends_nothing() -> None:
    """Whatever it says of its usage."""
    event = b'data: {"type":"image_generation.partial_image","usage":' + USAGE + b"}\n\n"
    findings = read("images", event)
    assert (findings.usage, findings.complete) == (USAGE, False)

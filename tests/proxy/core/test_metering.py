"""Whatever passes by, a charge gets what was said in it, and the relay gets no exception."""

import base64
import gzip
import json
import os
import random
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.findings import Kept
from proxy.core.metering import (
    AnswerMeter,
    Observation,
    RequestFacts,
    RequestMeter,
    facts_of_whole,
    observed_whole,
)
from proxy.core.model import AnswerUnits, RequestUnits
from proxy.core.operations import operation_of
from proxy.core.registry import Operation
from proxy.core.usage import read_usage
from tests.fakes.counting import counted

DATA = Path(__file__).parents[2] / "data"
CHAT = operation_of("POST", "/v1/chat/completions")
RESPONSES = operation_of("POST", "/v1/responses")
EMBEDDINGS = operation_of("POST", "/v1/embeddings")
RETRIEVE = operation_of("GET", "/v1/responses/resp_1")
STREAM = "text/event-stream; charset=utf-8"
JSON = "application/json"


def pieces(body: bytes, cuts: list[int]) -> Iterator[bytes]:
    """Cut a body at the given offsets."""
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return (body[start:end] for start, end in pairwise(edges))


def observed(
    body: bytes,
    *,
    operation: Operation = CHAT,
    status: int = 200,
    content_type: str = JSON,
    coding: str = "",
    cuts: list[int] | None = None,
) -> Observation:
    """Return what a meter sees of an answer."""
    meter = AnswerMeter(
        operation,
        status=status,
        content_type=content_type,
        content_encoding=coding,
        max_event_bytes=1 << 20,
    )
    for piece in pieces(body, cuts or []):
        meter.feed(piece)
    return meter.finish()


def requested(
    body: bytes,
    *,
    operation: Operation = CHAT,
    content_type: str = JSON,
    coding: str = "",
    cuts: list[int] | None = None,
) -> RequestFacts:
    """Return what a meter sees of a request."""
    meter = RequestMeter(
        operation, content_type=content_type, content_encoding=coding, max_bytes=1 << 16
    )
    for piece in pieces(body, cuts or []):
        meter.feed(piece)
    return meter.finish()


CHAT_USAGE = (
    b'{"prompt_tokens":22,"completion_tokens":30,"total_tokens":52,'
    b'"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},'
    b'"completion_tokens_details":{"reasoning_tokens":12,"audio_tokens":0,'
    b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
)
RESPONSES_USAGE = (
    b'{"input_tokens":63,"input_tokens_details":{"cached_tokens":0},"output_tokens":14,'
    b'"output_tokens_details":{"reasoning_tokens":0},"total_tokens":77}'
)
SOL = "gpt-5.6-sol-2026-02-01"
STREAMS = {
    "chat_completions": Observation(
        response_model=SOL,
        response_service_tier="default",
        response_id="chatcmpl-0001",
        usage=CHAT_USAGE,
        complete=True,
    ),
    "chat_completions_without_usage": Observation(
        response_model=SOL,
        response_service_tier="default",
        response_id="chatcmpl-0001",
        usage_problem="no_usage_in_answer",
        complete=True,
    ),
    "azure_chat_completions": Observation(
        response_model="gpt-4.1-2025-04-14",
        response_id="chatcmpl-0002",
        usage=b'{"completion_tokens":24,"latency_checkpoint":{"engine_ttft_ms":80},'
        b'"prompt_tokens":12,"total_tokens":36}',
        complete=True,
    ),
    "responses_completed": Observation(
        response_model=SOL,
        response_service_tier="default",
        response_id="resp_0003",
        response_status="completed",
        usage=RESPONSES_USAGE,
        complete=True,
        units=AnswerUnits(),
    ),
    "responses_incomplete": Observation(
        response_model=SOL,
        response_service_tier="default",
        response_id="resp_0003",
        response_status="incomplete",
        usage=RESPONSES_USAGE,
        complete=True,
        units=AnswerUnits(),
    ),
    "responses_failed": Observation(
        response_model=SOL,
        response_service_tier="auto",
        response_id="resp_0003",
        response_status="failed",
        error_type="insufficient_quota",
        failed=True,
        complete=True,
        units=AnswerUnits(),
    ),
}
CODERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("coding", CODERS)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@given(cuts=st.lists(st.integers(0, 1 << 13), max_size=9))
def test_a_stream_is_read(name: str, coding: str, line_end: bytes, cuts: list[int]) -> None:
    """Whatever its coding, its line ends and its chunks."""
    stream = (DATA / f"{name}_2026-11-20.sse").read_bytes().replace(b"\n", line_end)
    operation = RESPONSES if name.startswith("responses") else CHAT
    seen = observed(
        CODERS[coding](stream),
        operation=operation,
        content_type=STREAM,
        coding=coding,
        cuts=cuts,
    )
    assert seen == STREAMS[name]


@pytest.mark.parametrize("coding", CODERS)
def test_a_json_answer_is_read(coding: str) -> None:
    """All that a charge needs stands at the top level."""
    body = b'{"id":"e1","model":"m","service_tier":"flex","usage": {"prompt_tokens":8}}'
    seen = observed(CODERS[coding](body), operation=EMBEDDINGS, coding=coding, cuts=[5, 30])
    assert seen == Observation(
        response_model="m",
        response_service_tier="flex",
        response_id="e1",
        usage=b'{"prompt_tokens":8}',
        complete=True,
    )


def test_a_cut_stream_keeps_what_it_said() -> None:
    """Model and id are known from the first event, the usage is not known at all."""
    stream = (DATA / "responses_completed_2026-11-20.sse").read_bytes()
    seen = observed(stream[:-200], operation=RESPONSES, content_type=STREAM)
    assert seen == Observation(
        response_model=SOL,
        response_service_tier="auto",
        response_id="resp_0003",
        response_status="in_progress",
        usage_problem="truncated",
    )


def test_a_background_response_has_no_usage_yet() -> None:
    """It is charged when it is done."""
    body = b'{"id":"r1","status":"queued","model":"m","usage":null,"error":null}'
    seen = observed(body, operation=RESPONSES)
    assert (seen.usage, seen.response_status, seen.failed) == (None, "queued", False)
    assert (seen.usage_problem, seen.complete) == ("usage_deferred", True)


def test_a_failed_response_is_a_failure_with_status_200() -> None:
    """It owes no usage; if it has some, that is charged."""
    body = b'{"status":"failed","error":{"code":"server_error"},"usage":null}'
    seen = observed(body, operation=RESPONSES)
    assert (seen.failed, seen.error_type, seen.usage_problem) == (True, "server_error", None)
    assert observed(body.replace(b"null", b'{"a":1}'), operation=RESPONSES).usage == b'{"a":1}'


@pytest.mark.parametrize("operation", [CHAT, RETRIEVE], ids=["charged", "free"])
def test_an_error_is_named_and_never_a_charge(operation: Operation) -> None:
    """Also where it comes with a usage object."""
    body = b'{"error":{"type":"invalid_request_error","code":null},"usage":{"seconds":0}}'
    seen = observed(body, operation=operation, status=400)
    assert seen == Observation(error_type="invalid_request_error", failed=True, complete=True)


def test_an_error_without_json_is_an_error() -> None:
    """A gateway's page tells nothing but its status."""
    seen = observed(b"<html>", status=502, content_type="text/html")
    assert seen == Observation(failed=True)


@pytest.mark.parametrize(("status", "operation"), [(200, RETRIEVE), (304, CHAT)])
def test_what_is_not_charged_is_not_read(status: int, operation: Operation) -> None:
    """A stored response that is fetched again was charged when it was made."""
    body = b'{"model":"m","usage":{"input_tokens":1}}'
    seen = observed(body, operation=operation, status=status, coding="no-such-coding")
    assert seen == Observation(complete=True)


@pytest.mark.parametrize(
    ("body", "content_type", "coding", "problem"),
    [
        (b"", JSON, "", "truncated"),
        (b"", "", "", "truncated"),
        (b'{"model":"m"}', JSON, "", "no_usage_in_answer"),
        (b'{"model":"m"', JSON, "", "truncated"),
        (b"oops", JSON, "", "body_is_not_json"),
        (b"<html>", "text/html", "", "body_is_not_json"),
        (b'{"usage":{}}', JSON, "compress", "unknown_content_encoding"),
        (b'{"usage":{}}', JSON, "gzip", "undecodable_body"),
        (gzip.compress(b'{"usage":{}}')[:-4], JSON, "gzip, identity", None),
        (gzip.compress(b'{"usage":{}}')[:-12], JSON, "gzip", "truncated"),
        (b"data: {oops\n\ndata: [DONE]\n\n", STREAM, "", "event_is_not_json"),
    ],
)
def test_why_there_is_no_usage_is_said(
    body: bytes, content_type: str, coding: str, problem: str | None
) -> None:
    """In a constant phrase, so that such rows can be counted."""
    assert observed(body, content_type=content_type, coding=coding).usage_problem == problem


class Unsteady:
    """A bound that fails as soon as something is held."""

    def __lt__(self, held: int) -> bool:
        """Compare with nothing, and with nothing else."""
        return bool([False][held])


def test_a_fault_of_the_meter_is_a_problem_and_no_exception() -> None:
    """The last line of defence; nothing is known to get there."""
    answer = AnswerMeter(
        CHAT, status=200, content_type=JSON, content_encoding="", max_event_bytes=9
    )
    answer.feed(None)  # type: ignore[arg-type]
    answer.feed(b'{"usage":{}}')
    assert answer.finish() == Observation(usage_problem="meter_fault")
    stream = AnswerMeter(
        CHAT,
        status=200,
        content_type=STREAM,
        content_encoding="",
        max_event_bytes=Unsteady(),  # type: ignore[arg-type]
    )
    stream.feed(b"data: {}")
    assert stream.finish() == Observation(usage_problem="meter_fault")
    request = RequestMeter(CHAT, content_type=JSON, content_encoding="", max_bytes=9)
    request.feed(None)  # type: ignore[arg-type]
    request.feed(b"{}")
    assert request.finish() == RequestFacts(problem="meter_fault")


@given(
    st.sampled_from([CHAT, RESPONSES, EMBEDDINGS, RETRIEVE]),
    st.sampled_from([200, 400]),
    st.sampled_from([STREAM, JSON, "", "image/png"]),
    st.sampled_from(["", "gzip", "br", "deflate", "zstd", "?"]),
    st.lists(
        st.binary()
        | st.sampled_from([b'data: {"', b"\n\n", b'"usage":{', b'"error":', b'"response":{', b"}"])
    ),
)
def test_no_bytes_make_a_meter_raise(
    operation: Operation,
    status: int,
    content_type: str,
    coding: str,
    parts: list[bytes],
) -> None:
    """Nor do they get to its last line of defence."""
    body = b"".join(parts)
    seen = observed(
        body, operation=operation, status=status, content_type=content_type, coding=coding
    )
    assert seen.usage_problem != "meter_fault"
    assert requested(body, content_type=content_type, coding=coding).problem != "meter_fault"


# The request.


@pytest.mark.parametrize("coding", CODERS)
@pytest.mark.parametrize("prompt", [10, 1 << 18], ids=["small", "large"])
def test_a_request_is_read(coding: str, prompt: int) -> None:
    """Also where its images make it larger than what is kept."""
    body = (
        b'{"model":"gpt-4o","stream":true,"messages":["' + b"\\ud83d" * prompt + b'"],'
        b'"service_tier":"flex","user":"u 1","safety_identifier":"s","metadata":{"k":"v"}}'
    )
    facts = requested(CODERS[coding](body), coding=coding, cuts=[7, 60, 1 << 14])
    assert facts == RequestFacts(
        model="gpt-4o",
        stream=True,
        service_tier="flex",
        user="u 1",
        safety_identifier="s",
        metadata={"k": "v"},
    )


def test_members_of_another_type_say_nothing() -> None:
    """The upstream will refuse them; the proxy just passes them on."""
    body = b'{"model":7,"stream":"true","service_tier":null,"user":[1],"metadata":"x"}'
    assert requested(body) == RequestFacts()
    assert requested(b'{"user":"\xff","model":"\xff","stream":true}') == RequestFacts(stream=True)
    assert requested(b'{"stream":false}').stream is False


def test_an_odd_user_is_left_to_attribution() -> None:
    """It judges what can be a user, and says so in the row."""
    assert requested(b'{"user":"a\\u0000\\ud83d"}').user == "a\0\ufffd"


@pytest.mark.parametrize(
    ("body", "content_type", "coding", "problem"),
    [
        (b"", JSON, "", None),
        (b"--x\r\n", "multipart/form-data; boundary=x", "", None),
        (b"oops", JSON, "", "body_is_not_json"),
        (b'{"metadata":' + b"[" * 60_000, JSON, "", "body_is_not_json"),
        (b"{}", JSON, "compress", "unknown_content_encoding"),
        (gzip.compress(b"{}")[:-9], JSON, "gzip", "truncated"),
        (b"{" + b",".join(b'"%d":"a"' % n for n in range(9999)) + b"}", "", "", "body_too_large"),
    ],
)
def test_why_a_request_says_nothing_is_said(
    body: bytes, content_type: str, coding: str, problem: str | None
) -> None:
    """Where there was something to be read."""
    facts = requested(body, content_type=content_type, coding=coding)
    assert facts == RequestFacts(problem=problem)


# Forms, images and sound.

IMAGES = operation_of("POST", "/v1/images/edits")
TRANSCRIPTIONS = operation_of("POST", "/v1/audio/transcriptions")
SPEECH = operation_of("POST", "/v1/audio/speech")
WAV = (
    b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\0\x7d\0\0"
    + bytes(32_000)
)
UPLOAD = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + WAV + b"\r\n"
    b"--x\r\nContent-Disposition: form-data; name=model\r\n\r\nwhisper-1\r\n--x--\r\n"
)
FORM = "Multipart/Form-Data; boundary=x"


@pytest.mark.parametrize("coding", CODERS)
@given(cuts=st.lists(st.integers(0, 40_000), max_size=5))
def test_an_uploaded_form_is_read(coding: str, cuts: list[int]) -> None:
    """Its model, and how long its file plays; the file itself is not kept."""
    upload = CODERS[coding](UPLOAD)
    facts = requested(upload, operation=TRANSCRIPTIONS, content_type=FORM, coding=coding, cuts=cuts)
    units = RequestUnits(audio_seconds=2.0)
    assert facts == RequestFacts(model="whisper-1", stream=False, units=units)
    image = requested(upload, operation=IMAGES, content_type=FORM, coding=coding)
    assert image == RequestFacts(model="whisper-1", stream=False, units=RequestUnits())


@pytest.mark.parametrize(
    ("operation", "content_type", "coding", "problem"),
    [
        (TRANSCRIPTIONS, "multipart/form-data", "", "form_without_boundary"),
        (TRANSCRIPTIONS, FORM + "y", "", "truncated"),
        (TRANSCRIPTIONS, FORM, "compress", "unknown_content_encoding"),
        (TRANSCRIPTIONS, "audio/wav", "compress", None),
        (operation_of("POST", "/v1/files"), FORM, "", None),
    ],
)
def test_why_a_form_says_nothing_is_said(
    operation: Operation, content_type: str, coding: str, problem: str | None
) -> None:
    """Where it could have mattered: files that are stored are none of our business."""
    facts = requested(UPLOAD, operation=operation, content_type=content_type, coding=coding)
    assert (facts.model, facts.problem) == (None, problem)


def test_what_is_spoken_is_counted_in_the_request() -> None:
    """The answer is sound, and there is nothing to be found in it."""
    facts = requested(b'{"model":"tts-1","input":"hello"}', operation=SPEECH)
    assert facts.units == RequestUnits(characters=5)
    seen = observed(b"\xff\xfb", operation=SPEECH, content_type="audio/mpeg")
    kept = Kept("sound", b"", 2)
    assert seen == Observation(usage_problem="no_usage_in_answer", complete=True, kept=kept)


@pytest.mark.parametrize(
    ("content_type", "coding", "sent", "kept"),
    [
        (JSON, "", b'{"model":"m"}', b'{"model":"m"}'),
        (JSON, "gzip", gzip.compress(b'{"model":"m"}'), b'{"model":"m"}'),
        (JSON, "", b'{"model":"' + b"m" * 99 + b'"}', None),
        ("text/plain", "", b"{}", None),
    ],
    ids=["json", "gzip", "large", "text"],
)
def test_a_small_request_can_be_looked_at_again(
    content_type: str, coding: str, sent: bytes, kept: bytes | None
) -> None:
    """Should its answer tell no usage."""
    meter = RequestMeter(CHAT, content_type=content_type, content_encoding=coding, max_bytes=60)
    meter.feed(sent)
    meter.finish()
    assert meter.body == kept


def test_a_request_with_a_large_image_can_be_looked_at_without_it() -> None:
    """Its first bytes tell what it costs."""
    image = base64.b64encode(bytes(200_000)).decode()
    body = json.dumps({"model": "m", "messages": ["hello", f"data:image/png;base64,{image}"]})
    meter = RequestMeter(CHAT, content_type=JSON, content_encoding="", max_bytes=1 << 17)
    for piece in pieces(body.encode(), [1000, 150_000, 200_000]):
        meter.feed(piece)
    assert meter.finish().model == "m"
    assert meter.body is not None
    assert json.loads(meter.body)["messages"] == ["hello", f"data:image/png;base64,{image}"[:65536]]


def test_what_was_kept_of_an_answer_is_that_of_a_charged_one() -> None:
    """An error has no tokens to be counted."""
    assert observed(b"{}").kept == Kept("json", b"{}", 2)
    assert observed(b"{}", status=500).kept is None


def test_what_an_answer_holds_is_counted() -> None:
    """Images, and the seconds of a transcription that has no usage."""
    assert observed(b'{"data":[{},{}]}', operation=IMAGES).units == AnswerUnits(images=2)
    heard = observed(b'{"text":"hi","duration":2.5}', operation=TRANSCRIPTIONS)
    assert heard.units == AnswerUnits(audio_seconds=2.5)
    refused = observed(b'{"error":{"code":"x"}}', operation=IMAGES, status=400)
    assert refused.units is None


@given(
    st.lists(st.binary(max_size=9) | st.sampled_from([b"--x", b"\r\n", WAV[:60], UPLOAD[:80]])),
    st.lists(st.integers(0, 999), max_size=4),
)
def test_no_form_makes_a_meter_raise(parts: list[bytes], cuts: list[int]) -> None:
    """Nor does it get to the last line of defence."""
    facts = requested(b"".join(parts), operation=TRANSCRIPTIONS, content_type=FORM, cuts=cuts)
    assert facts.problem != "meter_fault"


# Recorded exchanges: the recordings stay where they are.

RECORDINGS = Path(
    os.environ.get("METER_TEST_CORPUS")
    or Path(__file__).parents[4] / "shared" / "corpus" / "exchanges.jsonl.gz"
)
KINDS = {"chat.completions", "completions", "responses", "embeddings"}


@pytest.mark.corpus
@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recorded exchanges are not at hand")
@pytest.mark.parametrize("way", ["plain", "gzip", "cut"])
def test_recorded_answers_are_read_token_for_token(way: str) -> None:
    """Usage, model, tier, id and status are those that were recorded."""
    generator = random.Random(way)  # noqa: S311 (cuts, not secrets)
    checked = 0
    for exchange in recordings():
        body = base64.b64decode(exchange["response_body_b64"])
        cuts = [generator.randrange(1 << 16) for _ in range(20)] if way == "cut" else []
        seen = observed(
            gzip.compress(body) if way == "gzip" else body,
            operation=operation_of(exchange["method"], exchange["path"]),
            status=exchange["status"],
            content_type=exchange["response_headers"].get("content-type") or "",
            coding="gzip" if way == "gzip" else "",
            cuts=cuts,
        )
        check(exchange, seen)
        checked += 1
    assert checked > 1000


def recordings() -> Iterator[dict[str, Any]]:
    """Yield the recorded exchanges of these kinds that do not contradict themselves."""
    with gzip.open(RECORDINGS) as lines:
        for line in lines:
            exchange = json.loads(line)
            mismatch = "include_usage_mismatch" in exchange["features"]
            if exchange["endpoint"] in KINDS and not mismatch:
                yield exchange


def check(exchange: dict[str, Any], seen: Observation) -> None:
    """Compare what was seen with what was recorded."""
    if exchange["metering"] == "error":
        assert (seen.usage, seen.failed) == (None, True), exchange["id"]
        return
    charged = exchange["metering"] == "usage_in_body"
    assert (seen.usage is not None) == charged, exchange["id"]
    if seen.usage is not None:
        assert json.loads(seen.usage) == exchange["usage"], exchange["id"]
        usage = read_usage(seen.usage)
        totals = exchange["usage"]
        assert usage.input_tokens == totals.get("prompt_tokens", totals.get("input_tokens"))
        assert usage.output_tokens == totals.get("completion_tokens", totals.get("output_tokens"))
    said = (
        seen.response_model,
        seen.response_service_tier,
        seen.response_id,
        seen.response_status,
    )
    fields = ("model", "service_tier", "response_id", "response_status")
    assert said == tuple(exchange[field] for field in fields), exchange["id"]


@given(
    st.sampled_from(
        [
            b'{"model":"m","usage":{"prompt_tokens":1}}',
            b'\xef\xbb\xbf{"usage":{}}',
            b'{"usage":{},"error":{"code":"c"}}',
            b'{"usage":{},"error":null,"id":"\\ud83d","service_tier":"flex"}',
            b'{"usage":{},"status":"failed"}',
            b'{"usage":null}',
            b'{"usage":{}} ',
            b'{"usage":{},"model":1}',
            b"[]",
        ]
    )
    | st.binary(max_size=60)
)
def test_a_whole_answer_is_read_as_a_meter_reads_it(body: bytes) -> None:
    """Or it is left to one."""
    meter = AnswerMeter(
        CHAT, status=200, content_type=JSON, content_encoding="", max_event_bytes=99
    )
    meter.feed(body)
    assert observed_whole(body) in (None, meter.finish())


@pytest.mark.parametrize(
    "body", [b"[]", b'{"usage":null}', b'{"usage":{},"error":{}}', b'{"usage":{},"status":"x"}']
)
def test_an_odd_answer_is_left_to_a_meter(body: bytes) -> None:
    """It has no usage, or may be no success."""
    assert observed_whole(body) is None


def test_an_ordinary_answer_is_read_at_once() -> None:
    """That is what it is for."""
    found = observed_whole(b'{"id":"c","model":"m","service_tier":"flex","usage":{"a":1}}')
    assert found == Observation(
        response_model="m",
        response_service_tier="flex",
        response_id="c",
        usage=b'{"a":1}',
        complete=True,
    )


@given(
    st.sampled_from(
        [b"", b'{"model":"m","stream":true}', b'{"model":1,"user":"ada"}', b"{", b'"\xff"']
    )
    | st.binary(max_size=60)
)
def test_a_whole_request_is_read_as_a_meter_reads_it(body: bytes) -> None:
    """Whatever it holds."""
    meter = RequestMeter(CHAT, content_type=JSON, content_encoding="", max_bytes=99)
    meter.feed(body)
    assert facts_of_whole(body) == meter.finish()


def test_a_fault_in_reading_a_whole_request_is_a_problem() -> None:
    """The last line of defence here, too."""
    assert facts_of_whole(1) == RequestFacts(problem="meter_fault")  # type: ignore[arg-type]


RUNS = operation_of("POST", "/v1/threads/t/runs")
POLL = operation_of("GET", "/v1/threads/t/runs/run_1")
BATCHES = operation_of("GET", "/v1/batches")
CONTENT = operation_of("GET", "/v1/files/file-1/content")
RUN = {"id": "run_1", "object": "thread.run", "status": "queued", "model": "m", "usage": None}
DONE = RUN | {"status": "completed", "usage": {"prompt_tokens": 1}}
QUEUED = {"id": "resp_1", "object": "response", "status": "queued", "background": True}


def test_a_call_that_makes_what_is_billed_later_says_so() -> None:
    """Its row has the model and the id, and no usage yet."""
    seen = observed(json.dumps(RUN).encode(), operation=RUNS)
    assert (seen.response_model, seen.response_id) == ("m", "run_1")
    assert (seen.usage_problem, seen.usage) == ("usage_deferred", None)
    assert [one.is_new for one in seen.sightings] == [True]


def test_a_poll_tells_what_it_has_seen_and_is_charged_nothing() -> None:
    """The model is the run's, not the poll's."""
    seen = observed(json.dumps(DONE).encode(), operation=POLL)
    assert (seen.response_model, seen.response_id, seen.usage) == (None, "run_1", None)
    assert seen.usage_problem is None
    assert [one.usage for one in seen.sightings] == [b'{"prompt_tokens": 1}']


def test_a_page_has_no_id_of_its_own() -> None:
    """It shows many objects."""
    page = {"data": [{"id": f"batch_{n}", "status": "in_progress"} for n in range(3)]}
    seen = observed(json.dumps(page).encode(), operation=BATCHES)
    assert seen.response_id is None
    assert len(seen.sightings) == 3


@pytest.mark.parametrize(
    ("body", "content_type", "problem"),
    [
        (b"no json", JSON, "body_is_not_json"),
        (b"{}", JSON, "no_usage_in_answer"),
        (b"a film", "video/mp4", "no_usage_in_answer"),
    ],
)
def test_what_was_made_and_cannot_be_read_is_said_so(
    body: bytes, content_type: str, problem: str
) -> None:
    """A poll that cannot be read owes nobody an explanation."""
    seen = observed(body, operation=RUNS, content_type=content_type)
    assert (seen.usage_problem, seen.sightings) == (problem, ())
    seen = observed(body, operation=POLL, content_type=content_type)
    assert (seen.usage_problem, seen.sightings) == (None, ())


def test_an_error_makes_nothing() -> None:
    """There is no object to be billed."""
    seen = observed(b'{"error":{"code":"x"}}', operation=RUNS, status=400)
    assert (seen.usage_problem, seen.failed, seen.sightings) == (None, True, ())


@pytest.mark.parametrize(
    ("answer", "problem"),
    [(QUEUED, "usage_deferred"), (QUEUED | {"background": None}, "usage_deferred")],
)
def test_a_response_in_the_background_is_billed_later(answer: Any, problem: str) -> None:
    """However it is said."""
    seen = observed(json.dumps(answer).encode(), operation=RESPONSES)
    assert (seen.usage_problem, seen.response_id) == (problem, "resp_1")
    assert [(one.kind, one.is_new, one.state) for one in seen.sightings] == [
        ("response", True, "queued")
    ]


def test_a_stream_in_the_background_that_is_cut_is_billed_later() -> None:
    """Whoever resumes or polls it sees its usage."""
    event = {"type": "response.created", "response": QUEUED | {"status": "in_progress"}}
    stream = b"event: response.created\ndata: " + json.dumps(event).encode() + b"\n\n"
    seen = observed(stream, operation=RESPONSES, content_type=STREAM)
    assert seen.usage_problem == "usage_deferred"
    assert [one.object_id for one in seen.sightings] == ["resp_1"]


def test_a_stream_in_the_background_that_ends_is_charged_and_known() -> None:
    """So that no poll charges it again."""
    done = QUEUED | {"status": "completed", "usage": {"input_tokens": 1}}
    event = {"type": "response.completed", "response": done}
    stream = b"data: " + json.dumps(event).encode() + b"\n\n"
    seen = observed(stream, operation=RESPONSES, content_type=STREAM)
    assert (seen.usage, seen.usage_problem) == (b'{"input_tokens": 1}', None)
    assert [(one.is_new, one.usage) for one in seen.sightings] == [(True, None)]


def test_a_response_without_an_id_cannot_be_found_again() -> None:
    """Nor can it be polled."""
    seen = observed(b'{"status":"queued"}', operation=RESPONSES)
    assert (seen.usage_problem, seen.sightings) == ("usage_deferred", ())


def test_what_came_before_a_damaged_piece_has_been_read() -> None:
    """Small pieces of a compressed stream do not wait for each other."""
    packing = zlib.compressobj(wbits=31)
    told = packing.compress(b'data: {"model":"m","usage":{"prompt_tokens":1}}\n\n')
    told += packing.flush(zlib.Z_SYNC_FLUSH)
    seen = observed(told + b"\xff" * 20, content_type=STREAM, coding="gzip", cuts=[len(told)])
    assert seen.usage == b'{"prompt_tokens":1}'


def test_lines_of_an_output_are_there_to_be_taken() -> None:
    """While the file passes by."""
    body = {"id": "c", "usage": {"prompt_tokens": 1}}
    line = {"id": "b", "custom_id": "x", "response": {"status_code": 200, "body": body}}
    meter = AnswerMeter(
        CONTENT,
        status=200,
        content_type="application/octet-stream",
        content_encoding="",
        max_event_bytes=1 << 20,
    )
    meter.feed(json.dumps(line).encode() + b"\n")
    assert [one.part for one in meter.lines] == ["b"]
    meter.lines.clear()
    assert [one.kind for one in meter.finish().sightings] == ["output"]
    assert meter.lines == []


def test_a_part_of_a_file_is_not_read() -> None:
    """An answer to a range has no beginning."""
    seen = observed(b'{"custom_id":"x","response":{}}', operation=CONTENT, status=206)
    assert seen.sightings == ()


@given(
    st.sampled_from([RUNS, POLL, BATCHES, CONTENT, RETRIEVE]),
    st.sampled_from([JSON, STREAM, "", "application/octet-stream"]),
    st.sampled_from(
        [
            b'{"id":"b","status":"completed","usage":{"total_tokens":1e400},"data":[',
            b'{"custom_id":"c","response":{"status_code":200,"body":{"usage":{}}}}\n',
            b'{"data":[{"id":"b","status":"completed","request_counts":{"completed":-1}}]}',
            b'data: {"response":{"id":"r","status":"completed","usage":{"a":{}}}}\n\n',
            b"event: thread.run.completed\ndata: []\n\n",
        ]
    ),
    st.binary(max_size=40),
    st.lists(st.integers(0, 200), max_size=4),
)
def test_whatever_an_object_is_said_to_be_nothing_is_raised(
    operation: Operation, content_type: str, text: bytes, noise: bytes, cuts: list[int]
) -> None:
    """What is told of it has ids that are keys, and a usage of a bounded size."""
    for body in (text + noise, noise + text, text):
        seen = observed(body, operation=operation, content_type=content_type, cuts=cuts)
        assert seen.usage is None
        for one in seen.sightings:
            assert one.object_id.isascii()
            assert len(one.object_id) <= 256
            assert len(one.usage or b"") <= 4096


DENSE = {  # what takes the most steps a byte; each goes on and on
    "brackets": (JSON, b'{"a":[', b"[],"),
    "deep": (JSON, b'{"a":[', b"[" * 900 + b"]" * 900),
    "texts": (JSON, b'{"a":[', b'"",'),
    "members": (JSON, b"{", b'"":0,'),
    "escapes": (JSON, b'{"a":"', b'\\"'),
    "halves": (JSON, b'{"a":"', b"\\ud800"),
    "quotes": (JSON, b"", b'"'),
    "line ends": (STREAM, b"", b"\n"),
    "returns": (STREAM, b"", b"\r"),
    "empty events": (STREAM, b"", b"data:\n\n"),
    "usage": (STREAM, b"", b'data: {"usage":1}\n\n'),
    "errors": (STREAM, b"", b"data: error\n\n"),
    "lines of one event": (STREAM, b"", b'data: "usage"\n'),
}


@pytest.mark.parametrize("api", ["chat/completions", "responses", "images/generations"])
@pytest.mark.parametrize("name", DENSE)
def test_no_body_takes_many_steps(name: str, api: str) -> None:
    """What one call's bytes take, every other call of the worker waits for."""
    content_type, begins, part = DENSE[name]
    size = 1 << 18  # as much as is read at once
    more = part * (size // len(part))
    operation = operation_of("POST", f"/v1/{api}")
    answer = AnswerMeter(
        operation,
        status=200,
        content_type=content_type,
        content_encoding="",
        max_event_bytes=1 << 24,
        max_body_bytes=1 << 10,
    )
    request = RequestMeter(operation, content_type=JSON, content_encoding="", max_bytes=1 << 10)
    answer.feed(begins)
    request.feed(begins)
    for _ in range(4):
        assert counted(answer.feed, more)[1] < size / 2
        assert counted(request.feed, more)[1] < size / 2
    assert counted(answer.finish)[1] < size / 2
    assert counted(request.finish)[1] < size / 2

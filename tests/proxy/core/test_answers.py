"""An answer is read as what it says it is, or as what it looks like."""

import pytest

from proxy.core.answers import reader_for, watcher_for
from proxy.core.counting import tools_used
from proxy.core.findings import Findings, Kept
from proxy.core.model import AnswerUnits
from proxy.core.operations import operation_of

JSON = b'{"id":"c1","model":"m","usage":{"prompt_tokens":1}}'
STREAM = b'data: {"id":"c1","model":"m","usage":{"prompt_tokens":1}}\n\ndata: [DONE]\n\n'
BOM = b"\xef\xbb\xbf"


def read(
    content_type: str, *chunks: bytes, api_type: str = "chat_completions", limit: int = 1 << 20
) -> Findings:
    """Return what is found in an answer."""
    findings = Findings()
    reader = reader_for(
        findings,
        api_type,
        content_type,
        max_event_bytes=limit,
        max_body_bytes=limit,
        keep_bytes=8,
    )
    assert reader is not None
    for chunk in chunks:
        reader.feed(chunk)
    reader.finish()
    return findings


@pytest.mark.parametrize(
    ("content_type", "chunks"),
    [
        ("application/json; charset=utf-8", (JSON[:9], JSON[9:])),
        ("application/problem+json", (BOM + JSON,)),
        ("text/event-stream; charset=utf-8", (STREAM,)),
        ("", (b"\n", BOM + b" " + JSON)),
        ("", (STREAM[:3], STREAM[3:])),
    ],
)
def test_an_answer_is_read(content_type: str, chunks: tuple[bytes, ...]) -> None:
    """Not by what was asked for: streams are asked for in many ways."""
    findings = read(content_type, *chunks)
    assert (findings.response_id, findings.model) == ("c1", "m")
    assert (findings.usage, findings.complete) == (b'{"prompt_tokens":1}', True)


def test_an_answer_of_another_type_has_no_reader() -> None:
    """A page of a gateway in between is none of the API's answers."""
    findings = Findings()
    reader = reader_for(
        findings, "chat_completions", "text/html", max_event_bytes=9, max_body_bytes=9
    )
    assert reader is None


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (JSON[:-1], "truncated"),
        (b"", "truncated"),
        (b"<html>", "body_is_not_json"),
        (b"[]", "body_is_not_json"),
        (b'{"x":' + b"[" * 100_000, "body_is_not_json"),
        (b"{" + b",".join(b'"%d":1' % n for n in range(200_000)) + b"}", "body_too_large"),
    ],
)
def test_a_body_that_cannot_be_read_is_said_so(body: bytes, problem: str) -> None:
    """And it is not taken for complete."""
    findings = read("application/json", body)
    assert (findings.problem, findings.complete) == (problem, False)


def test_a_large_body_is_read_for_its_small_members() -> None:
    """Embeddings of many megabytes have their usage at the end."""
    data = b'"data":[' + b'{"embedding":[0.1,0.2]},' * 100_000 + b"1],"
    findings = read("application/json", b"{" + data + JSON[1:], api_type="embeddings")
    assert (findings.model, findings.usage) == ("m", b'{"prompt_tokens":1}')


def test_an_answer_without_a_byte_says_nothing() -> None:
    """It is not complete either."""
    assert not read("").complete


@pytest.mark.parametrize("content_type", ["application/json", ""])
def test_what_is_billed_beside_tokens_is_counted(content_type: str) -> None:
    """Where somebody counts; large members are not there to be counted."""
    large = b'{"tools":[{"type":"file_search"}],"output":[' + b'{"x":"y"},' * 60_000 + b"1]}"
    small = b'{"tools":[{"type":"file_search"}],"output":[{"type":"file_search_call"}]}'
    counted = []
    for body in (small, large):
        findings = Findings()
        reader = reader_for(
            findings,
            "responses",
            content_type,
            max_event_bytes=1 << 17,
            max_body_bytes=1 << 17,
            count=tools_used,
        )
        assert reader is not None
        reader.feed(body)
        reader.finish()
        counted.append(findings.units)
    assert counted == [AnswerUnits(file_searches=1), AnswerUnits(is_partial=True)]


@pytest.mark.parametrize(
    ("content_type", "chunks", "kept"),
    [
        ("application/json", (b'{"a":', b"1}"), Kept("json", b'{"a":1}', 7)),
        ("application/json", (JSON,), None),
        ("text/event-stream", (b"data: {", b"}\n\n", b"data"), Kept("stream", b"data: {}\n\n", 14)),
        ("text/event-stream", (STREAM,), None),
        ("text/event-stream", (), None),
    ],
)
def test_an_answer_without_usage_is_kept(
    content_type: str, chunks: tuple[bytes, ...], kept: Kept | None
) -> None:
    """A stream's beginning, up to a bound; one JSON object whole."""
    assert read(content_type, *chunks).kept == kept


def test_a_large_answer_is_not_kept() -> None:
    """Of that the large members are gone."""
    assert read("application/json", b'{"a":"' + b"x" * 99, b'"}', limit=50).kept is None


def test_of_a_transcript_the_beginning_is_kept() -> None:
    """It is plain text, and tells nothing else."""
    found = read("text/plain; charset=utf-8", b"hello ", b"there", b"!", api_type="audio")
    assert (found.kept, found.complete) == (Kept("text", b"hello there", 12), True)
    assert read("text/vtt", api_type="audio").kept is None


WAV = b"RIFF\x24\x00\x00\x00WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02"
WAV += b"\0\x10\0data\x80\x3e\0\0"


@pytest.mark.parametrize(
    ("content_type", "chunks", "units", "kept"),
    [
        ("audio/wav", (WAV[:20], WAV[20:], bytes(16000)), AnswerUnits(audio_seconds=1.0), None),
        ("audio/pcm", (bytes(96_000),), AnswerUnits(audio_seconds=2.0), None),
        ("audio/aac", (b"what", b"ever"), None, Kept("sound", b"", 8)),
        ("audio/aac", (), None, None),
    ],
)
def test_speech_is_listened_to(
    content_type: str, chunks: tuple[bytes, ...], units: AnswerUnits | None, kept: Kept | None
) -> None:
    """For how long it plays; nothing of it is kept."""
    found = read(content_type, *chunks, api_type="audio")
    assert (found.units, found.kept, found.complete) == (units, kept, True)


def watched(
    path: str, content_type: str, body: bytes, *, max_body_bytes: int = 1 << 16
) -> Findings:
    """Return what is found in an answer that shows what is billed when it is done."""
    findings = Findings()
    reader = watcher_for(
        findings,
        operation_of("GET", path),
        content_type,
        max_event_bytes=1 << 16,
        max_body_bytes=max_body_bytes,
    )
    if reader is not None:
        reader.feed(body)
        reader.finish()
    return findings


RUN = b'{"id":"run_1","status":"completed","usage":{"prompt_tokens":1}}'


@pytest.mark.parametrize(
    ("path", "content_type", "body", "count"),
    [
        ("/v1/threads/t/runs/run_1", "application/json", RUN, 1),
        ("/v1/threads/t/runs/run_1", "", b"\xef\xbb\xbf" + RUN, 1),
        ("/v1/threads/t/runs/run_1", "text/html", RUN, 0),
        ("/v1/responses/r", "text/event-stream", b'data: {"response":' + RUN + b"}\n\n", 1),
        ("/v1/files/f/content", "", b'{"custom_id":"c","response":{}}', 1),
        ("/v1/models", "application/json", RUN, 0),
    ],
)
def test_objects_are_read_from_whatever_shows_them(
    path: str, content_type: str, body: bytes, count: int
) -> None:
    """JSON, a stream, a file; and from nothing else."""
    assert len(watched(path, content_type, body).seen) == count


@pytest.mark.parametrize(
    ("body", "problem"),
    [(b"[]", "body_is_not_json"), (b'{"a":"' + b"x" * 99 + b'",' * 9, "body_too_large")],
)
def test_an_object_that_cannot_be_read_is_said_so(body: bytes, problem: str) -> None:
    """Another poll may tell more."""
    found = watched("/v1/batches/b", "application/json", body, max_body_bytes=64)
    assert (found.problem, found.seen) == (problem, {})

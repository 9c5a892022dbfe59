"""Read the JSON and the event streams in which the API answers, as far as a charge needs them.

A reader has the two verbs of a meter. It writes what it finds into one `Findings`; a later event
that says something wins over an earlier one, which is how the served tier of a Responses stream is
known (`auto` when it is created, `default` when it is completed). Of a stream, only events are
decoded in which something can stand: until a model is known, then those with usage, an error or the
end.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from proxy.core.scanning import BodyKeeper
from proxy.core.sse import BOM, SseEvent, SseFramer, parse, split

MAX_TEXT_BYTES = 2048  # of a name or an id with its quotes and escapes
TRUNCATED = "truncated"
NOT_JSON = "body_is_not_json"
TOO_LARGE = "body_too_large"
EVENT_TOO_LARGE = "event_too_large"
TERMINAL = {"response.completed", "response.incomplete", "response.failed"}
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Members(msgspec.Struct):
    """The members that matter in an answer, in a chunk of one, and in an event about one."""

    id: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()
    service_tier: msgspec.Raw = msgspec.Raw()
    status: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    type: msgspec.Raw = msgspec.Raw()
    code: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()


_read_members = msgspec.json.Decoder(Members).decode
_read_text = msgspec.json.Decoder(str).decode


def text_of(raw: msgspec.Raw) -> str | None:
    """Return a name or an id; None for what is no string, empty, far too long or unprintable."""
    value = bytes(raw)
    if not value.startswith(b'"') or len(value) > MAX_TEXT_BYTES:
        return None
    try:
        text = _read_text(value)
    except UNREADABLE:  # half a surrogate pair
        return None
    return text if text and text.isprintable() else None


class Findings:
    """What has been read of an answer so far."""

    __slots__ = (
        "complete",
        "error_type",
        "failed",
        "model",
        "problem",
        "response_id",
        "service_tier",
        "status",
        "usage",
    )

    def __init__(self) -> None:
        self.model: str | None = None
        self.service_tier: str | None = None
        self.response_id: str | None = None
        self.status: str | None = None
        self.usage: bytes | None = None
        self.problem: str | None = None
        self.error_type: str | None = None
        self.failed = False
        self.complete = False

    def note(self, answer: Members) -> None:
        """Take over what an answer says, or a chunk of one."""
        self.model = text_of(answer.model) or self.model
        self.service_tier = text_of(answer.service_tier) or self.service_tier
        self.response_id = text_of(answer.id) or self.response_id
        self.status = text_of(answer.status) or self.status
        usage = bytes(answer.usage)
        if usage.startswith(b"{"):
            self.usage = usage
        if bytes(answer.error) not in {b"", b"null"}:
            self.note_error(answer)
        elif self.status == "failed":
            self.failed = True

    def note_error(self, answer: Members) -> None:
        """Take over an error: its code, where it has none its type."""
        self.failed = True
        error = bytes(answer.error)
        members = _read_members(error) if error.startswith(b"{") else answer
        self.error_type = _code_of(members) or self.error_type


class Reader(Protocol):
    """The two verbs of a meter."""

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes, decoded."""

    def finish(self) -> None:
        """Write what is left to say into the findings."""


class NoReader:
    """Reads nothing."""

    def feed(self, chunk: bytes) -> None:
        """Ignore the bytes."""

    def finish(self) -> None:
        """Find nothing."""


class JsonReader:
    """Reads one JSON object."""

    __slots__ = ("_findings", "_keeper", "feed")

    def __init__(self, findings: Findings, *, max_body_bytes: int) -> None:
        self._findings = findings
        self._keeper = BodyKeeper(max_bytes=max_body_bytes)
        self.feed = self._keeper.feed

    def finish(self) -> None:
        """Decode the body, once."""
        findings = self._findings
        body = self._keeper.finish()
        if body is None:
            findings.problem = TOO_LARGE
            return
        try:
            findings.note(_read_members(body.removeprefix(BOM)))
            findings.complete = True
        except UNREADABLE as exc:
            findings.problem = TRUNCATED if "truncated" in str(exc) else NOT_JSON


class Dialect(Protocol):
    """What the events of one API mean."""

    def matters(self, block: bytes) -> bool:
        """Say whether something can be found in these bytes: cheap, and never wrongly no."""

    def note(self, event: SseEvent, members: Members) -> None:
        """Take over what one event says."""


class Chunks:
    """Chat and text completions: chunks of one answer, and [DONE]."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def matters(self, block: bytes) -> bool:
        """Say yes until a model is known, then to usage, errors and the end."""
        if self._findings.model is None or b"[DONE]" in block or b'"error"' in block:
            return True
        return b'"usage"' in block and block.count(b'"usage"') != block.count(b'"usage":null')

    def note(self, event: SseEvent, members: Members) -> None:
        """Take over a chunk or an error."""
        self._findings.note(members)
        if event.name == b"error" or text_of(members.type) == "error":
            self._findings.note_error(members)


class Lifecycle:
    """Responses: events about one response, the last of them terminal. There is no [DONE]."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def matters(self, block: bytes) -> bool:
        """Say yes to the events that hold the whole response, and to errors."""
        return b'"response"' in block or b'"error"' in block

    def note(self, event: SseEvent, members: Members) -> None:
        """Take over the state of the response, or an error."""
        findings = self._findings
        kind = text_of(members.type) or event.name.decode("ascii", "replace")
        if kind == "error":
            findings.note_error(members)
        elif bytes(members.response).startswith(b"{"):
            findings.note(_read_members(members.response))
            findings.complete = findings.complete or kind in TERMINAL
            findings.failed = findings.failed or kind == "response.failed"


DIALECTS: dict[str, Callable[[Findings], Dialect]] = {  # by api_type
    "chat_completions": Chunks,
    "completions": Chunks,
    "responses": Lifecycle,
}


class StreamReader:
    """Reads an event stream."""

    __slots__ = ("_dialect", "_findings", "_framer", "_max_event_bytes")

    def __init__(self, findings: Findings, dialect: Dialect, *, max_event_bytes: int) -> None:
        self._findings = findings
        self._dialect = dialect
        self._framer = SseFramer(max_event_bytes=max_event_bytes)
        self._max_event_bytes = max_event_bytes

    def feed(self, chunk: bytes) -> None:
        """Look at the events that are whole now."""
        whole = self._framer.feed(chunk)[1]
        if whole and self._dialect.matters(whole):
            self._read(whole)

    def finish(self) -> None:
        """Read what came without its last line end."""
        self._read(self._framer.finish())
        if self._framer.lost:
            self._findings.problem = EVENT_TOO_LARGE

    def _read(self, block: bytes) -> None:
        for event in split(block):
            if len(event) > self._max_event_bytes:
                self._framer.lost += 1
            elif self._dialect.matters(event):
                self._read_event(parse(event))

    def _read_event(self, event: SseEvent) -> None:
        if event.data == b"[DONE]":
            self._findings.complete = True
        elif event.data:
            try:
                self._dialect.note(event, _read_members(event.data))
            except UNREADABLE:
                self._findings.problem = NOT_JSON


class UnlabelledReader:
    """Reads an answer that has no Content-Type: its first byte tells whether it is JSON."""

    def __init__(self, json: Callable[[], Reader], stream: Callable[[], Reader]) -> None:
        self._json = json
        self._stream = stream
        self._reader: Reader | None = None

    def feed(self, chunk: bytes) -> None:
        """Decide at the first byte that is not blank, then look at the bytes."""
        if self._reader is None:
            chunk = chunk.lstrip()
            if not chunk:
                return
            self._reader = self._json() if chunk.startswith((b"{", b"[", BOM)) else self._stream()
        self._reader.feed(chunk)

    def finish(self) -> None:
        """Let the reader finish; an answer without a byte has none."""
        if self._reader is not None:
            self._reader.finish()


def reader_for(
    findings: Findings,
    api_type: str,
    content_type: str,
    *,
    max_event_bytes: int,
    max_body_bytes: int,
) -> Reader | None:
    """Return what reads an answer of this type; None where nothing can be read of it."""

    def json() -> Reader:
        return JsonReader(findings, max_body_bytes=max_body_bytes)

    def stream() -> Reader:
        dialect = DIALECTS.get(api_type, Chunks)(findings)
        return StreamReader(findings, dialect, max_event_bytes=max_event_bytes)

    if "json" in content_type:
        return json()
    if "text/event-stream" in content_type:
        return stream()
    return None if content_type else UnlabelledReader(json, stream)


def _code_of(error: Members) -> str | None:
    """Return what names an error; codes are words, and sometimes numbers."""
    code = bytes(error.code)
    return code.decode() if code.isdigit() else text_of(error.code) or text_of(error.type)

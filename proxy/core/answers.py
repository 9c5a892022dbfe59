"""Choose and be the reader of an answer: JSON, an event stream, or nothing that can be read.

A reader has the two verbs of a meter and writes what it finds into one `Findings`.
"""

from collections.abc import Callable
from typing import Protocol

from proxy.core.counting import Counter
from proxy.core.durations import AudioProbe
from proxy.core.findings import Findings, Kept, read_members
from proxy.core.gathering import Pieces
from proxy.core.mending import UNREADABLE
from proxy.core.model import AnswerUnits
from proxy.core.objects import sightings
from proxy.core.outputs import OUTPUT, OutputReader
from proxy.core.registry import Operation
from proxy.core.scanning import BodyKeeper
from proxy.core.sse import BOM
from proxy.core.streams import DIALECTS, Chunks, StreamReader, Watching

TRUNCATED = "truncated"
NOT_JSON = "body_is_not_json"
TOO_LARGE = "body_too_large"
PCM_BYTES_PER_SECOND = 48_000  # 24 kHz, 16 bits, one channel


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

    __slots__ = ("_count", "_findings", "_keeper", "feed")

    def __init__(
        self, findings: Findings, *, max_body_bytes: int, count: Counter | None = None
    ) -> None:
        self._findings = findings
        self._count = count
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
            body = body.removeprefix(BOM)
            members = read_members(body)
            findings.note(members)
            findings.complete = True
            if self._count is not None:
                findings.units = self._count(body, members, is_condensed=self._keeper.is_condensed)
        except UNREADABLE as exc:
            findings.problem = TRUNCATED if "truncated" in str(exc) else NOT_JSON
        if findings.usage is None and body and not self._keeper.is_condensed:
            findings.kept = Kept("json", body, len(body))


class TextReader:
    """Reads plain text, of which nothing but its beginning is wanted."""

    def __init__(self, findings: Findings, *, keep_bytes: int) -> None:
        self._findings = findings
        self._kept = Pieces()
        self._room = keep_bytes
        self._size = 0
        findings.complete = True  # nothing is looked for, so nothing is missed

    def feed(self, chunk: bytes) -> None:
        """Keep the beginning."""
        self._size += len(chunk)
        if self._room > 0:
            self._room -= len(chunk)
            self._kept.add(chunk)

    def finish(self) -> None:
        """Hand over what was kept."""
        if self._kept.size:
            self._findings.kept = Kept("text", self._kept.joined(), self._size)


class SoundReader:
    """Listens to speech: how long it plays is what there is to be told."""

    def __init__(self, findings: Findings, content_type: str) -> None:
        self._findings = findings
        self._probe = None if "pcm" in content_type else AudioProbe()
        self._size = 0
        findings.complete = True  # as above

    def feed(self, chunk: bytes) -> None:
        """Listen to the next bytes."""
        self._size += len(chunk)
        if self._probe is not None:
            self._probe.feed(chunk)

    def finish(self) -> None:
        """Tell the length, where the format is one that says it."""
        bare = self._size / PCM_BYTES_PER_SECOND
        seconds = bare if self._probe is None else self._probe.finish()
        if seconds is not None:
            self._findings.units = AnswerUnits(audio_seconds=seconds)
        elif self._size:
            self._findings.kept = Kept("sound", b"", self._size)


class ObjectReader:
    """Reads what a JSON answer tells of objects that are billed when they are done."""

    __slots__ = ("_findings", "_is_new", "_keeper", "_kind", "feed")

    def __init__(self, findings: Findings, kind: str, *, is_new: bool, max_body_bytes: int) -> None:
        self._findings = findings
        self._kind = kind
        self._is_new = is_new
        self._keeper = BodyKeeper(max_bytes=max_body_bytes)
        self.feed = self._keeper.feed

    def finish(self) -> None:
        """Decode the body, once."""
        body = self._keeper.finish()
        if body is None:
            self._findings.problem = TOO_LARGE
            return
        is_condensed = self._keeper.is_condensed
        body = body.removeprefix(BOM)
        try:
            seen = sightings(self._kind, body, is_new=self._is_new, is_condensed=is_condensed)
        except UNREADABLE:
            self._findings.problem = NOT_JSON
            return
        self._findings.see(seen)


class UnlabelledReader:
    """Reads an answer that has no Content-Type: its first byte tells whether it is JSON."""

    def __init__(self, json: Callable[[], Reader], stream: Callable[[], Reader]) -> None:
        self._json = json
        self._stream = stream
        self._reader: Reader | None = None

    def feed(self, chunk: bytes) -> None:
        """Decide at the first byte that is not blank, then look at the bytes."""
        if self._reader is None:
            chunk = chunk.removeprefix(BOM).lstrip()
            if not chunk:
                return
            self._reader = self._json() if chunk.startswith(b"{") else self._stream()
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
    keep_bytes: int = 0,
    count: Counter | None = None,
) -> Reader | None:
    """Return what reads an answer of this type; None where nothing can be read of it.

    Up to `keep_bytes` of the beginning of a stream are kept, in case it tells no usage.
    """
    if "json" in content_type:
        return JsonReader(findings, max_body_bytes=max_body_bytes, count=count)

    def stream() -> Reader:
        dialect = DIALECTS.get(api_type, Chunks)(findings)
        return StreamReader(
            findings, dialect, max_event_bytes=max_event_bytes, keep_bytes=keep_bytes
        )

    if "text/event-stream" in content_type:
        return stream()
    if content_type and api_type == "audio":
        if content_type.startswith("text/"):
            return TextReader(findings, keep_bytes=keep_bytes)
        return SoundReader(findings, content_type)
    if content_type:
        return None

    def json() -> Reader:
        return JsonReader(findings, max_body_bytes=max_body_bytes, count=count)

    return UnlabelledReader(json, stream)


def watcher_for(
    findings: Findings,
    operation: Operation,
    content_type: str,
    *,
    max_event_bytes: int,
    max_body_bytes: int,
) -> Reader | None:
    """Return what reads of objects that are billed when they are done; None: nothing does."""
    kind = operation.shows
    if kind is None:
        return None
    if kind == OUTPUT:
        return OutputReader(findings, max_line_bytes=max_event_bytes)
    if "text/event-stream" in content_type:
        dialect = Watching(findings, kind, is_new=operation.makes)
        return StreamReader(findings, dialect, max_event_bytes=max_event_bytes)
    if content_type and "json" not in content_type:
        return None
    return ObjectReader(findings, kind, is_new=operation.makes, max_body_bytes=max_body_bytes)

"""Choose and be the reader of an answer: JSON, an event stream, or nothing that can be read.

A reader has the two verbs of a meter and writes what it finds into one `Findings`.
"""

from collections.abc import Callable
from typing import Protocol

from proxy.core.counting import Counter
from proxy.core.findings import Findings, read_members
from proxy.core.mending import UNREADABLE
from proxy.core.scanning import BodyKeeper
from proxy.core.sse import BOM
from proxy.core.streams import DIALECTS, Chunks, StreamReader

TRUNCATED = "truncated"
NOT_JSON = "body_is_not_json"
TOO_LARGE = "body_too_large"


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
    count: Counter | None = None,
) -> Reader | None:
    """Return what reads an answer of this type; None where nothing can be read of it."""
    if "json" in content_type:
        return JsonReader(findings, max_body_bytes=max_body_bytes, count=count)

    def stream() -> Reader:
        dialect = DIALECTS.get(api_type, Chunks)(findings)
        return StreamReader(findings, dialect, max_event_bytes=max_event_bytes)

    if "text/event-stream" in content_type:
        return stream()
    if content_type:
        return None

    def json() -> Reader:
        return JsonReader(findings, max_body_bytes=max_body_bytes, count=count)

    return UnlabelledReader(json, stream)

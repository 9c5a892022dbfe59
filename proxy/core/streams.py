"""Read the event streams in which the API answers, as far as a charge needs them.

Of a thousand events two or three say something. A dialect names them by a search for bytes, so that
all others pass without being cut out of their chunk, let alone decoded. A further API is a further
dialect and a line in `DIALECTS`.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from proxy.core.counting import tools_used
from proxy.core.findings import NOTHING, Findings, Kept, Members, read_members, text_of
from proxy.core.gathering import Pieces
from proxy.core.mending import UNREADABLE
from proxy.core.model import AnswerUnits
from proxy.core.objects import sightings
from proxy.core.sse import SseEvent, SseFramer, parse, split

NOT_JSON = "event_is_not_json"
EVENT_TOO_LARGE = "event_too_large"
SEVERAL = "several_usages"  # of which nothing says that the last one is their sum
TERMINAL = {
    "response.completed",
    "response.incomplete",
    "response.failed",
    "response.cancelled",
    "response.done",  # some upstreams say so
}
ITEM = b"response.output_item.done"
IMAGE_CALL = "image_generation_call"
HOSTED_CALLS = {
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "shell_call",
    IMAGE_CALL,
}
MAX_ITEMS = 200
MAX_ITEM_BYTES = 65_536
FINAL = {
    "image_generation.completed",
    "image_edit.completed",
    "speech.audio.done",
    "transcript.text.done",
}
STEP = b"thread.run.step"  # its usage is a part of the run's
MOST = 2048  # events that are looked at of those that come at once: of the first, and of the last
MANY = 64  # of these, that are read; likewise
END_SIGNS = (b'"usage"', b".completed", b".done", b"[DONE]", b"error")


class Dialect(Protocol):
    """What the events of one API mean."""

    def matters(self, block: bytes) -> bool:
        """Say whether something can be found in these bytes: cheap, and never wrongly no."""

    def note(self, event: SseEvent, members: Members) -> None:
        """Take over what one event says."""

    def pass_over(self, block: bytes) -> None:
        """Learn of bytes that nobody will read, because they are too many."""


class Chunks:
    """Chat and text completions: chunks of one answer, and [DONE]."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def matters(self, block: bytes) -> bool:
        """Say yes until a model is known, then to usage, errors and the end."""
        if self._findings.model is None or b"[DONE]" in block or b"error" in block:
            return True
        return block.count(b'"usage"') > block.count(b'"usage":null')

    def note(self, event: SseEvent, members: Members) -> None:
        """Take over a chunk or an error."""
        if _is_error(event, members):
            self._findings.note_error(members)
        else:
            self._findings.note(members)

    def pass_over(self, block: bytes) -> None:
        """Miss nothing: the last usage is that of all."""


class Lifecycle:
    """Responses: events about one response, the last of them terminal. There is no [DONE].

    The last one holds the whole output; where it comes empty, its items are what came before.
    """

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._items: list[bytes] = []
        self._lost = False  # some of these

    def matters(self, block: bytes) -> bool:
        """Say yes to the events that hold the whole response or an item of it, and to errors."""
        return b'"response"' in block or b"error" in block or ITEM in block

    def note(self, event: SseEvent, members: Members) -> None:
        """Take over the state of the response, or an error."""
        findings = self._findings
        kind = text_of(members.type) or event.name.decode("ascii", "replace")
        if _is_error(event, members):
            findings.note_error(members)
        elif bytes(members.response).startswith(b"{"):
            response = bytes(members.response)
            answer = read_members(response)
            findings.note(answer)
            if kind in TERMINAL:
                findings.complete = True
                findings.failed = findings.failed or kind == "response.failed"
                findings.units = self._units(response, answer)
        elif kind == ITEM.decode() and bytes(members.item).startswith(b"{"):
            self._keep(bytes(members.item))

    def pass_over(self, block: bytes) -> None:
        """Remember that an item may have been in it."""
        self._lost = self._lost or ITEM in block

    def _keep(self, item: bytes) -> None:
        """Keep a call of a hosted tool; of an image that there is one."""
        kind = text_of(read_members(item).type)
        if kind not in HOSTED_CALLS:
            return
        if kind == IMAGE_CALL:
            item = b'{"type":"%b"}' % IMAGE_CALL.encode()
        if len(self._items) >= MAX_ITEMS or len(item) > MAX_ITEM_BYTES:
            self._lost = True
        else:
            self._items.append(item)

    def _units(self, response: bytes, answer: Members) -> AnswerUnits:
        if bytes(answer.output) in {b"", b"null", b"[]"}:
            items = b"" if self._lost else b",".join(self._items)
            answer.output = msgspec.Raw(b"[%b]" % items)
            return tools_used(response, answer, is_condensed=self._lost)
        return tools_used(response, answer, is_condensed=False)


class Deliveries:
    """Images and audio: pieces of one thing, and a last event with its usage."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def matters(self, block: bytes) -> bool:
        """Say yes to usage, errors and the end; pieces may be megabytes large."""
        return any(sign in block for sign in END_SIGNS)

    def note(self, event: SseEvent, members: Members) -> None:
        """Take over the usage at the end, or an error."""
        findings = self._findings
        if _is_error(event, members):
            findings.note_error(members)
            return
        kind = text_of(members.type) or event.name.decode("ascii", "replace")
        told_before = findings.usage
        findings.note(members)
        if kind in FINAL:
            if findings.complete and told_before is not None:
                findings.problem = SEVERAL
            findings.complete = True

    def pass_over(self, block: bytes) -> None:
        """Miss nothing: the first and the last tell whether there are several usages."""


class Watching:
    """Runs, and responses in the background: events about what is billed when it is done."""

    def __init__(self, findings: Findings, kind: str, *, is_new: bool) -> None:
        self._findings = findings
        self._kind = kind
        self._is_new = is_new
        self._sign = b"thread.run" if kind == "run" else b'"response"'

    def matters(self, block: bytes) -> bool:
        """Say yes to the events that hold the whole object, and to errors."""
        return self._sign in block or b"error" in block

    def note(self, event: SseEvent, members: Members) -> None:
        """Take over the state of the object, or an error."""
        if _is_error(event, members) and self._is_new:
            self._findings.note_error(members)
        elif self._kind != "run":
            self._see(bytes(members.response))
        elif event.name.startswith(b"thread.run.") and not event.name.startswith(STEP):
            self._see(event.data)

    def pass_over(self, block: bytes) -> None:
        """Miss nothing: the last state is the one that counts."""

    def _see(self, shown: bytes) -> None:
        if shown.startswith(b"{"):
            self._findings.see(sightings(self._kind, shown, is_new=self._is_new))


DIALECTS: dict[str, Callable[[Findings], Dialect]] = {  # by api_type
    "chat_completions": Chunks,
    "completions": Chunks,
    "responses": Lifecycle,
    "images": Deliveries,
    "audio": Deliveries,
}


def _is_error(event: SseEvent, members: Members) -> bool:
    named = event.name == b"error" or text_of(members.type) == "error"
    return named or bytes(members.error) not in NOTHING


class StreamReader:
    """Reads an event stream, and keeps its beginning for as long as no usage has come."""

    __slots__ = (
        "_beyond",
        "_dialect",
        "_findings",
        "_framer",
        "_kept",
        "_max_event_bytes",
        "_room",
    )

    def __init__(
        self, findings: Findings, dialect: Dialect, *, max_event_bytes: int, keep_bytes: int = 0
    ) -> None:
        self._findings = findings
        self._kept = Pieces()
        self._room = keep_bytes
        self._beyond = 0  # bytes that are not kept
        self._dialect = dialect
        self._framer = SseFramer(max_event_bytes=max_event_bytes)
        self._max_event_bytes = max_event_bytes

    def feed(self, chunk: bytes) -> None:
        """Look at the events that are whole now."""
        room = self._room
        if room > 0:
            self._room = room - len(chunk)
            self._kept.add(chunk)
        else:
            self._beyond += len(chunk)
        spilt, whole = self._framer.feed(chunk)
        if spilt:
            self._dialect.pass_over(spilt)
        if whole and self._dialect.matters(whole):
            self._read(whole)

    def finish(self) -> None:
        """Read what came without its last line end."""
        known = self._findings.problem
        self._read(self._framer.finish())
        self._findings.problem = known  # half an event is no fault of its own
        if self._framer.lost:
            self._findings.problem = EVENT_TOO_LARGE
        if self._findings.usage is None and self._kept.size:
            kept = self._kept.joined()
            self._findings.kept = Kept("stream", kept, len(kept) + self._beyond)

    def _read(self, block: bytes) -> None:
        """Read the events that matter; of very many, the first and the last, which tell it all."""
        if b"data" not in block:
            return  # it has no events
        events, seen, unread = split(block), 0, list[bytes]()
        if len(events) > 2 * MOST:
            unread = events[MOST:-MOST]
            events = [*events[:MOST], *events[-MOST:]]
        if len(block) > self._max_event_bytes:
            events = [event for event in events if self._fits(event)]
        matters = self._dialect.matters
        for event in events[:-MANY]:
            if matters(event):
                if seen < MANY:
                    seen += 1
                    self._read_event(parse(event))
                else:
                    unread.append(event)
        if unread:
            self._dialect.pass_over(b"".join(unread))
        for event in events[-MANY:]:
            if matters(event):
                self._read_event(parse(event))

    def _fits(self, event: bytes) -> bool:
        if len(event) <= self._max_event_bytes:
            return True
        self._framer.lost += 1
        self._dialect.pass_over(event)
        return False

    def _read_event(self, event: SseEvent) -> None:
        if event.data == b"[DONE]":
            self._findings.complete = True
        elif event.data:
            try:
                self._dialect.note(event, read_members(event.data))
            except UNREADABLE:
                self._findings.problem = NOT_JSON

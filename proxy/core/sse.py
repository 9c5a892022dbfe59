"""Cut a server-sent event stream into whole events, and read the few that matter.

A stream is a row of events, each ended by an empty line (WHATWG HTML, section 9.2). `SseFramer`
finds the edges only: it works on bytes, in time linear to them whatever the chunking, and looks at
nothing inside an event, because a meter needs two events out of a thousand. `split` and `parse` are
for those. An event that grows over `max_event_bytes` is not kept: its bytes come out unread.

A carriage return at the very end of what has come may be half of a CRLF; only after another
carriage return is it taken for a line end of its own.
"""

import re
from itertools import pairwise
from typing import NamedTuple

BOM = b"\xef\xbb\xbf"
BOUNDARY = re.compile(rb"(?:\n|\r(?!\n))(?:\r\n|\n|(?<=\r)\r|\r(?=[^\n]))")
LAST_BOUNDARY = re.compile(rb".*" + BOUNDARY.pattern, re.DOTALL)
MAX_LINES = 4096  # of an event that is read; each takes a step of ours
OVERLAP = 3  # bytes of a boundary (CR LF CR LF) that may have come before


class SseEvent(NamedTuple):
    """One event: its name (empty where it has none) and its data, lines joined by LF."""

    name: bytes
    data: bytes


class SseFramer:
    """Collect chunks until they make whole events."""

    __slots__ = ("_held", "_max_event_bytes", "_spilling", "_tail", "between", "lost")

    def __init__(self, *, max_event_bytes: int) -> None:
        self._held = bytearray()
        self._tail = b""
        self._spilling = False
        self._max_event_bytes = max_event_bytes
        self.between = True  # two events: nothing is held of one
        self.lost = 0  # events that were too large to be held

    def feed(self, chunk: bytes) -> tuple[bytes, bytes]:
        """Return the bytes of a too large event, and behind them the events that are now whole."""
        if self.between and chunk.endswith(b"\n\n"):
            return b"", chunk
        spill = b""
        if self._spilling:
            spill, chunk = self._spill(chunk)
        elif len(self._held) > self._max_event_bytes:
            spill, chunk = self._start_spilling(chunk)
        whole = self._collect(chunk)
        self.between = not self._held and not self._spilling
        return spill, whole

    def finish(self) -> bytes:
        """Return what is held of an event that has no end."""
        rest = bytes(self._held)
        self._held.clear()
        self.between = not self._spilling
        return rest

    def _collect(self, chunk: bytes) -> bytes:
        held = self._held
        start = max(0, len(held) - OVERLAP)
        held += chunk
        end = _last_boundary(held, start)
        whole = bytes(memoryview(held)[:end])
        del held[:end]
        return whole

    def _start_spilling(self, chunk: bytes) -> tuple[bytes, bytes]:
        self.lost += 1
        self._spilling = True
        held = self.finish()
        self._tail = held[-OVERLAP:]
        spill, rest = self._spill(chunk)
        return held + spill, rest

    def _spill(self, chunk: bytes) -> tuple[bytes, bytes]:
        """Divide a chunk where the too large event ends."""
        seen = self._tail + chunk
        found = BOUNDARY.search(seen)
        if found is None:
            self._tail = seen[-OVERLAP:]
            return chunk, b""
        self._spilling = False
        end = found.end() - len(self._tail)
        return chunk[:end], chunk[end:]


def split(block: bytes) -> list[bytes]:
    """Return the events of a block as they are; joined again they are the block."""
    if b"\r" not in block:
        parts = block.split(b"\n\n")
        last = parts.pop()
        events = [part + b"\n\n" for part in parts]
        return [*events, last] if last else events
    edges = [0, *(found.end() for found in BOUNDARY.finditer(block)), len(block)]
    return [block[start:end] for start, end in pairwise(edges) if start < end]


def parse(event: bytes) -> SseEvent:
    """Return name and data of one event, without comments and fields that nobody here reads.

    Of one with thousands of lines, nothing: no API writes its JSON like that.
    """
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return SseEvent(b"", event[6:-2])
    name, data = b"", []
    if has_many_lines(event):
        return SseEvent(b"", b"")
    for line in event.removeprefix(BOM).splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return SseEvent(name, b"\n".join(data))


def has_many_lines(event: bytes) -> bool:
    """Tell whether an event has more lines than anybody should look at one by one."""
    return event.count(b"\n") + event.count(b"\r") > MAX_LINES


def _last_boundary(held: bytearray, start: int) -> int:
    """Return the offset behind the last empty line at or after start, 0 where there is none."""
    if held.find(b"\r", start) < 0:
        return held.rfind(b"\n\n", start) + 2 if held.find(b"\n\n", start) >= 0 else 0
    found = LAST_BOUNDARY.match(held, start)
    return found.end() if found else 0

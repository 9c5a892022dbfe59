"""What could not be metered, stated as a count: the note of a writer that cannot write.

The note stands in the writer's lock file, whose room was taken when there was some, so that it can
be written in place on a full disk, and is there for the recorder when the writer has been killed. A
call counts when its end could not be written: it has no row then, or one that says `interrupted`.

A gap is known by its writer and its beginning, and what is said of it later takes the place of what
was said before. So it must never be told under two beginnings: where there is no room for another
one, a new gap goes on with the last one from its first call.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

NOTE_BYTES = 4096
MOST_GAPS = 16  # of one writer; what is more joins the last one


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time in which the ends of calls could not be written."""

    since: datetime
    until: datetime
    calls: int = 0  # given up
    waiting: int = 0  # still in memory: lost with their writer, written when there is room


class Unmetered(NamedTuple):
    """So many calls of one writer were not metered."""

    writer: str
    since: datetime
    until: datetime
    calls: int


_decode = msgspec.json.Decoder(list[Gap]).decode
_encode = msgspec.json.Encoder().encode


class GapNote:
    """What a writer notes of its gaps while it lives."""

    __slots__ = ("_now", "_over")

    def __init__(self) -> None:
        self._over: list[Gap] = []
        self._now: Gap | None = None

    def lost(self, calls: int, at: datetime) -> None:
        """Count calls that were given up."""
        if calls:
            gap = self._now or self._begun(at)
            self._now = msgspec.structs.replace(gap, until=at, calls=gap.calls + calls)

    def waits(self, calls: int, at: datetime) -> None:
        """Note how many calls wait in memory now."""
        if calls or self._now:
            gap = self._now or self._begun(at)
            self._now = msgspec.structs.replace(gap, until=at, waiting=calls)

    def over(self) -> None:
        """End a gap, as all that had to wait is written; it is forgotten where nothing was lost."""
        gap, self._now = self._now, None
        if gap is not None and gap.calls:
            self._over.append(msgspec.structs.replace(gap, waiting=0))

    def _begun(self, at: datetime) -> Gap:
        """Return a new gap, or the one that it joins: there is no room, or it began just then."""
        joined = next((gap for gap in self._over if gap.since == at), None)
        if joined is None and len(self._over) == MOST_GAPS:
            joined = self._over[-1]
        if joined is None:
            return Gap(since=at, until=at)
        self._over.remove(joined)
        return joined

    def content(self) -> bytes:
        """Return the note: always as long, so that it takes the room that it has."""
        gaps = [*self._over, self._now] if self._now else self._over
        return (_encode(gaps) if gaps else b"").ljust(NOTE_BYTES - 1) + b"\n"


def unmetered(writer: str, note: bytes, *, is_dead: bool) -> Sequence[Unmetered]:
    """Return what a writer's note says; what waited is lost with its writer."""
    try:
        gaps = _decode(note) if note.strip(b" \n\0") else []
    except msgspec.DecodeError:  # just being written
        return ()
    found = (
        Unmetered(writer, gap.since, gap.until, gap.calls + (gap.waiting if is_dead else 0))
        for gap in gaps
    )
    return [one for one in found if one.calls]

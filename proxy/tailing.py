"""Follow the journals of all writers, dead or alive, and clear away what is done with.

`read` hands out what is new, in order and in bounded portions; `mark` notes the place, and `save`,
called once all up to there is in the ledger, remembers it and removes segments. In between nothing
is remembered on disk: whoever dies reads the same again, and the ledger knows how to take a row
twice. An opening whose closing has not come yet stays open while its writer lives, whatever segment
either is in, and nobody looks into it; when the writer is dead and read to its end, its open
openings are handed out as abandoned. A segment stays for as long as one of its openings is open, so
that even a lost checkpoint loses nothing.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from proxy.core.gaps import NOTE_BYTES, Unmetered, unmetered
from proxy.core.model import Closing, Lines, Opening
from proxy.core.records import (
    MAX_FRAME_BYTES,
    Folded,
    Scan,
    framed,
    lock_name,
    scan_folded,
    segment_name,
    segment_of,
)
from proxy.durability import is_locked, replace_file, sync_directory

WINDOW_BYTES = 4 * MAX_FRAME_BYTES  # of a segment, read at once
BATCH_BYTES = 4 * WINDOW_BYTES
SHRINK_BYTES = 1024 * 1024

_encode = msgspec.msgpack.Encoder().encode


class Place(msgspec.Struct):
    """How far a writer's journal has been read, and the openings up to there without a closing."""

    number: int = 0  # of the segment; 0: before the first
    offset: int = 0
    open: dict[bytes, tuple[int, msgspec.Raw]] = {}  # event_id to segment and opening


class Checkpoint(msgspec.Struct):
    """The places of all writers."""

    places: dict[str, Place] = {}


_decode = msgspec.msgpack.Decoder(Checkpoint).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far everything was read at some moment, to be remembered when it is in the ledger."""

    data: bytes  # a Checkpoint
    finished: frozenset[str]  # writers that nothing is left of


@dataclass(slots=True, kw_only=True)
class Batch:
    """A portion of the journals: calls that ended, calls whose worker died first, and lines."""

    closings: list[Closing] = field(default_factory=list)
    abandoned: list[Opening] = field(default_factory=list)
    lines: list[Lines] = field(default_factory=list)
    gaps: list[Unmetered] = field(default_factory=list)  # what writers could not write
    records: int = 0
    size: int = 0

    def room(self, limit: int) -> int:
        """Return how many records may still be added."""
        return limit - self.records if self.size < BATCH_BYTES else 0


class Tail:
    """Reads the journals of a directory. One per directory; not for two threads at once."""

    def __init__(self, directory: Path) -> None:
        self.skipped_bytes = 0  # of segments, in no readable record
        self.problem: str | None = None  # a segment that cannot be read, and why
        self._directory = directory
        self._path = directory / "checkpoint"
        self._changed = False
        self._finished: set[str] = set()
        self._noted: dict[str, tuple[bool, int]] = {}  # the notes that were read: last one, when
        self._shrunk: set[Path] = set()
        self._turns = 0
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._places = self._load()

    @property
    def open_calls(self) -> int:
        """Return how many calls have an opening and no closing yet."""
        return sum(len(place.open) for place in self._places.values())

    def read(self, limit: int) -> Batch:
        """Return what is new, at most `limit` records; an empty batch: there is nothing."""
        # Who is dead first, which segments second, their contents last: what a writer did before it
        # died or changed to its next segment is then there to be read.
        writers = self._places.keys() | self._segments().keys()
        dead = {name for name in writers if not is_locked(self._directory / lock_name(name))}
        segments = self._segments()
        self.problem = None
        batch = Batch()
        for writer in self._turn(segments):
            self._read_writer(writer, segments.get(writer, []), batch, limit, dead=writer in dead)
            self._read_note(writer, batch, dead=writer in dead)
        return batch

    def mark(self) -> Mark | None:
        """Return the place up to which everything was handed out; None: it is remembered."""
        if not self._changed:
            return None
        self._changed = False
        finished = frozenset(self._finished)
        places = {name: place for name, place in self._places.items() if name not in finished}
        return Mark(data=_encode(Checkpoint(places=places)), finished=finished)

    def save(self, mark: Mark | None = None) -> None:
        """Remember a place (the present one) up to which all is in the ledger; remove what is done.

        Raises OSError where the checkpoint cannot be written. What is done with goes all the same:
        on a full disk that is what makes room.
        """
        mark = mark or self.mark()
        if mark is None:
            return
        for writer in mark.finished & self._finished:
            self._finished.discard(writer)
            self._places.pop(writer, None)
            self._noted.pop(writer, None)
        try:
            replace_file(self._path, mark.data)
        except OSError:
            self._changed = True
            raise
        finally:
            if self._remove(_decode(mark.data).places, mark.finished):
                sync_directory(self._directory)

    def lag_bytes(self) -> int:
        """Return how much of the journals has not been handed out yet."""
        lag = 0
        for writer, numbers in self._segments().items():
            place = self._places.get(writer, Place())
            for number in (number for number in numbers if number >= place.number):
                with contextlib.suppress(FileNotFoundError):
                    lag += (self._directory / segment_name(writer, number)).stat().st_size
                    lag -= place.offset if number == place.number else 0
        return max(0, lag)

    def disk_bytes(self) -> int:
        """Return how much room the journals take."""
        total = 0
        for writer, numbers in self._segments().items():
            for number in numbers:
                with contextlib.suppress(FileNotFoundError):
                    total += (self._directory / segment_name(writer, number)).stat().st_size
        return total

    def _load(self) -> dict[str, Place]:
        """Return the saved places; none where they cannot be read, then all is read again."""
        try:
            return _decode(self._path.read_bytes()).places
        except (OSError, msgspec.DecodeError):
            return {}

    def _segments(self) -> dict[str, list[int]]:
        """Return the numbers of each writer's segments, in order."""
        segments: dict[str, list[int]] = {}
        for name in (path.name for path in self._directory.iterdir()):
            if segment := segment_of(name):
                segments.setdefault(segment[0], []).append(segment[1])
            elif name.endswith(".lock"):
                segments.setdefault(name.removesuffix(".lock"), [])
        for numbers in segments.values():
            numbers.sort()
        return segments

    def _turn(self, writers: Iterable[str]) -> list[str]:
        """Return all writers, another one first each time: a busy one must not starve the rest."""
        names = sorted(self._places.keys() | writers)
        self._turns += 1
        first = self._turns % max(1, len(names))
        return names[first:] + names[:first]

    def _read_writer(
        self, writer: str, numbers: list[int], batch: Batch, limit: int, *, dead: bool
    ) -> None:
        """Add what is new of one writer; when it is dead and read to its end, what it left open."""
        place = self._places.setdefault(writer, Place())
        for number in [number for number in numbers if number >= place.number]:
            if number != place.number:
                place.number, place.offset = number, 0
            final = dead or number != numbers[-1]
            try:
                ended = self._read_segment(writer, place, batch, limit, final=final)
            except OSError as exc:
                self.problem = f"cannot read {segment_name(writer, number)}: {exc.strerror}"
                return
            if not ended:
                return
        if dead:
            self._abandon(writer, place, batch, limit)

    def _read_note(self, writer: str, batch: Batch, *, dead: bool) -> None:
        """Add what a writer could not write, when it has just said so, and when it is done with."""
        finished = dead and writer in self._finished
        with contextlib.suppress(OSError), (self._directory / lock_name(writer)).open("rb") as file:
            state = finished, os.fstat(file.fileno()).st_mtime_ns
            if self._noted.get(writer) != state:
                self._noted[writer] = state
                batch.gaps += unmetered(writer, file.read(NOTE_BYTES), is_dead=finished)

    def _read_segment(
        self, writer: str, place: Place, batch: Batch, limit: int, *, final: bool
    ) -> bool:
        """Add what is new of one segment; tell whether it holds no more than that."""
        with (self._directory / segment_name(writer, place.number)).open("rb", 0) as file:
            while room := batch.room(limit):
                data = os.pread(file.fileno(), WINDOW_BYTES, place.offset)
                last = len(data) < WINDOW_BYTES
                found = scan_folded(data, limit=room, final=final and last)
                self._take(place, found, batch)
                if last and len(found.records) < room:
                    return final
        return False

    def _take(self, place: Place, found: Scan[Closing | Lines | Folded], batch: Batch) -> None:
        for record in found.records:
            if isinstance(record, Folded):
                place.open[record.event_id] = (place.number, msgspec.Raw(record.payload))
            elif isinstance(record, Closing):
                place.open.pop(record.opening.event_id, None)
                batch.closings.append(record)
            else:
                batch.lines.append(record)
        place.offset += found.consumed
        batch.records += len(found.records)
        batch.size += found.consumed
        self.skipped_bytes += found.skipped
        self._changed = self._changed or found.consumed > 0

    def _abandon(self, writer: str, place: Place, batch: Batch, limit: int) -> None:
        while place.open and batch.room(limit):
            event_id, (_, payload) = place.open.popitem()
            opening = Folded(event_id, bytes(payload)).opening()
            if opening is None:
                self.skipped_bytes += len(bytes(payload))
            else:
                batch.abandoned.append(opening)
            batch.records += 1
        if not place.open:
            self._finished.add(writer)
        self._changed = True

    def _remove(self, places: Mapping[str, Place], finished: AbstractSet[str]) -> bool:
        """Remove segments that nobody needs, and shrink those that a few long calls keep."""
        done = [self._directory / lock_name(writer) for writer in finished]
        for writer, numbers in self._segments().items():
            place = places.get(writer, Place())
            needed = {number for number, _ in place.open.values()}
            for number in numbers:
                path = self._directory / segment_name(writer, number)
                if writer in finished or (number < place.number and number not in needed):
                    done.append(path)
                elif number < place.number - 1:
                    self._shrink(path, [raw for n, raw in place.open.values() if n == number])
        for path in done:
            path.unlink(missing_ok=True)
        self._shrunk.difference_update(done)
        return bool(done)

    def _shrink(self, path: Path, openings: list[msgspec.Raw]) -> None:
        if path not in self._shrunk and path.stat().st_size > SHRINK_BYTES:
            with contextlib.suppress(OSError):  # it stays as it is, for now
                replace_file(path, b"".join(framed(bytes(opening)) for opening in openings))
        self._shrunk.add(path)

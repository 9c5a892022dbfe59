"""Write what is known of a call to an append-only file, before anyone is told.

One writer per worker process. A record is one `write` at the end of the current segment, so that a
killed process loses nothing; `sync` bounds what a power cut can take. Nothing here ever fails a
call: what cannot be written is held in memory for a while (bounded), counted, and said aloud. The
lock file tells the recorder that the writer lives, and how many calls it could not write down.
The journal holds facts, never content or keys.
"""

import contextlib
import errno
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from proxy.core.gaps import GapNote
from proxy.core.model import Closing, Record
from proxy.core.records import lock_name, pack, scan, segment_name, writer_name
from proxy.durability import lock_file, sync_directory
from proxy.errors import JournalError

SEGMENT_BYTES = 64 * 1024 * 1024
SEGMENT_SECONDS = 600.0
HELD_BYTES = 8 * 1024 * 1024
RETRY_SECONDS = 0.1
LEAVE_SECONDS = 5.0  # that a writer waits for room before it goes
REPORT_SECONDS = 10.0

# A segment is a regular file: O_NONBLOCK changes nothing, it states that nobody waits for a write.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK
_FULL = (errno.ENOSPC, errno.EDQUOT)


class JournalWriter:
    """Appends records to segments of its own; made before the event loop runs, or in a thread.

    `append` and `append_many` belong to one thread, `sync` and `close` may be called from any.
    `on_problem` gets a sentence of each kind (problem, loss, recovery) at most every ten seconds,
    in whatever thread met it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "worker",
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
        sync_seconds: float = 1.0,  # how often the owner calls `sync`; 0: every append syncs itself
        leave_seconds: float = LEAVE_SECONDS,
        on_problem: Callable[[str], object] = str,  # by default nobody is told
    ) -> None:
        moment = time.time_ns() // 1_000_000
        self.writer = writer_name(name, f"{moment}-{os.getpid()}-{secrets.token_hex(3)}")
        self.sync_seconds = sync_seconds
        self.written = 0  # records in the journal
        self.failures = 0  # writes and syncs that failed
        self.lost = 0  # records given up because too many were waiting
        self.problem: str | None = None  # what is wrong now and what to do
        self._directory = directory
        self._leave_seconds = leave_seconds
        self._on_problem = on_problem
        self._segment_bytes, self._segment_seconds = segment_bytes, segment_seconds
        self._held: deque[tuple[bytes, int, int]] = deque()  # data, its records, ends of calls
        self._held_bytes = self._held_calls = 0
        self._gaps = GapNote()
        self._retry_at = self._opened_at = float("-inf")
        self._reported: dict[str, float] = {}  # kind of report to its time
        self._trouble, self._syncing = threading.Lock(), threading.Lock()
        self._retired: deque[int] = deque()
        self._fd = -1
        self._number = self._size = self._limit = 0
        self._dirty = self._torn = self._closed = False
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_fd = lock_file(directory / lock_name(self.writer), fresh=True)
            self._note_gaps()  # takes the room that a note needs when there is none
            self._open_segment()
            sync_directory(directory)
        except OSError as exc:
            raise JournalError(
                f"cannot write to {directory}: {exc.strerror}; "
                "expected a directory on a local disk that this user may write to"
            ) from exc

    @property
    def held(self) -> int:
        """Return how many writes wait in memory for the disk."""
        return len(self._held)

    @property
    def dirty(self) -> bool:
        """Tell whether `sync` would have anything to do."""
        return self._dirty or bool(self._held)

    def append(self, record: Record) -> bool:
        """Write a record and tell whether it is in the journal. Never raises."""
        try:
            return self._put(pack(record), 1)
        except Exception as exc:  # noqa: BLE001  metering must not fail a call
            calls = int(isinstance(record, Closing))
            return self._give_up(1, calls, f"a record cannot be packed ({type(exc).__name__})")

    def append_many(self, records: Sequence[Record]) -> bool:
        """Write records with one `write` and tell whether they are in the journal. Never raises."""
        try:
            return self._put(b"".join(map(pack, records)), len(records))
        except Exception:  # noqa: BLE001  as above; one record must not take the others with it
            done = [self.append(record) for record in records]
            return all(done)

    def sync(self) -> bool:
        """Bring everything written so far to the disk; tell whether that is done. Never raises."""
        with self._syncing:
            if self._closed:
                return not self.dirty
            if self._held:
                with self._trouble:
                    self._write_held()
            if self._size and time.monotonic() - self._opened_at > self._segment_seconds:
                self._limit = 0  # the next append starts a segment
            self._dirty = False
            try:
                self._sync_files()
            except OSError as exc:
                self._dirty = True
                self._failed(exc)
            if not self.dirty:
                self._recovered()
            return not self.dirty

    def close(self) -> None:
        """Write what is held, sync, and let the recorder know that nothing will follow.

        Waits a while for room where there is none; then what is held is given up.
        """
        deadline = time.monotonic() + self._leave_seconds
        self._retry_at = float("-inf")
        while not self.sync() and self._held and time.monotonic() < deadline:
            time.sleep(RETRY_SECONDS)
        with self._syncing, self._trouble:
            if self._closed:
                return
            self._closed = True
            self._limit = 0  # whoever appends now takes the slow way and is told
            if self._held:
                count = sum(count for _, count, _ in self._held)
                self._gaps.waits(0, _now())  # what waited is given up: one count of it, not two
                self._give_up(count, self._held_calls, "the disk did not recover")
            for fd in (*self._retired, self._fd, self._lock_fd):
                os.close(fd)
            self._fd = self._lock_fd = -1  # others may be given their numbers

    def _put(self, data: bytes, count: int) -> bool:
        if self._held or self._size >= self._limit or not self._write(data, count):
            return self._put_slowly(data, count)
        return self.sync() if self.sync_seconds == 0 else True

    def _write(self, data: bytes, count: int) -> bool:
        try:
            size = os.write(self._fd, data)
        except OSError as exc:
            self._failed(exc)
            return False
        if size != len(data):
            self._torn = True
            self._cut()
            self._failed(OSError(errno.EFBIG, "no room for a whole record"))
            return False
        self._size += size
        self.written += count
        self._dirty = True
        return True

    def _put_slowly(self, data: bytes, count: int) -> bool:
        """Queue the data behind what is held, then write all of it, in order."""
        calls = _calls_ended(data)
        with self._trouble:
            if self._closed:
                return self._give_up(count, calls, "the journal is closed")
            if self._held_bytes + len(data) > HELD_BYTES:
                return self._give_up(count, calls, "too many records wait for the disk")
            self._held.append((data, count, calls))
            self._held_bytes += len(data)
            self._held_calls += calls
            done = self._write_held()
            if not done:
                self._gaps.waits(self._held_calls, _now())
                self._note_gaps()
        return self.sync() if done and self.sync_seconds == 0 else done

    def _write_held(self) -> bool:
        if time.monotonic() < self._retry_at:
            return False
        while self._held:
            data, count, calls = self._held[0]
            if not (self._mend() and self._write(data, count)):
                self._retry_at = time.monotonic() + RETRY_SECONDS
                return False
            self._held_bytes -= len(data)
            self._held_calls -= calls
            self._held.popleft()
        self._gaps.over()
        self._recovered()
        return True

    def _mend(self) -> bool:
        """Make the segment fit to be written, or start another; tell whether one is."""
        self._cut()
        if self._torn or self._size >= self._limit:
            try:
                self._open_segment()
            except OSError as exc:
                self._failed(exc)
                self._limit = self._size + self._segment_bytes // 64  # go on in this one for now
        return not self._torn

    def _cut(self) -> None:
        """Take back what was written of a record when the rest of it was refused."""
        if self._torn:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
                self._torn = False

    def _open_segment(self) -> None:
        path = self._directory / segment_name(self.writer, self._number + 1)
        fd = os.open(path, _FLAGS, 0o600)
        if self._fd >= 0:
            self._retired.append(self._fd)  # `sync` closes it
        self._fd = fd
        self._number += 1
        self._size = 0
        self._limit = self._segment_bytes
        self._opened_at = time.monotonic()
        self._torn = False

    def _sync_files(self) -> None:
        if self._retired:
            sync_directory(self._directory)
        while self._retired:
            os.fdatasync(self._retired[0])
            os.close(self._retired.popleft())
        os.fdatasync(self._fd)
        if not os.fstat(self._fd).st_nlink:
            raise OSError(errno.ENOENT, "the segment was removed")

    def _failed(self, exc: OSError) -> None:
        self.failures += 1
        if self._size and exc.errno not in _FULL:
            self._limit = 0  # a new segment may do where this one does not
        advice = "make room" if exc.errno in (*_FULL, errno.EFBIG) else "check the disk"
        self.problem = f"cannot write to {self._directory}: {exc.strerror}; {advice}"
        self._report(self.problem, "problem")

    def _give_up(self, count: int, calls: int, reason: str) -> bool:
        self.lost += count
        self._gaps.lost(calls, _now())
        self._note_gaps()
        self._report(f"records for {self._directory} are lost: {reason}", "loss")
        return False

    def _note_gaps(self) -> None:
        """Write in place what could not be metered, so that it is known when we are killed."""
        with contextlib.suppress(OSError):  # a disk that takes no more writes at all
            os.pwrite(self._lock_fd, self._gaps.content(), 0)

    def _recovered(self) -> None:
        if self.problem is not None:
            self.problem = None
            self._note_gaps()
            self._report(f"{self._directory} can be written again", "recovery")

    def _report(self, text: str, kind: str) -> None:
        now = time.monotonic()
        if now - self._reported.get(kind, -REPORT_SECONDS) >= REPORT_SECONDS:
            self._reported[kind] = now
            with contextlib.suppress(Exception):
                self._on_problem(f"{text} (failures {self.failures}, lost {self.lost})")


def _calls_ended(data: bytes) -> int:
    """Return how many ends of calls there are in frames; the slow way, for the slow case."""
    records = scan(data, limit=len(data), final=True).records
    return sum(isinstance(record, Closing) for record in records)


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)

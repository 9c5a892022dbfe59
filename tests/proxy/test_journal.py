import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from proxy.core.gaps import unmetered
from proxy.core.model import Record
from proxy.core.records import lock_name, pack, scan
from proxy.durability import is_locked
from proxy.errors import JournalError
from proxy.journal import HELD_BYTES, JournalWriter
from tests.fakes.records import closing, opening

KILLED_WRITER = """
import os, sys
from pathlib import Path
from proxy.journal import JournalWriter
from tests.fakes.records import closing, opening
journal = JournalWriter(Path(sys.argv[1]), segment_bytes=20_000)
number = 0
while True:
    journal.append(opening(number))
    os.write(1, f"{number}\\n".encode())
    journal.append(closing(number))
    number += 1
"""


def records_of(directory: Path) -> list[Record]:
    """Return every record of a directory's segments, which must hold nothing else."""
    records: list[Record] = []
    for path in sorted(directory.glob("*.journal")):
        found = scan(path.read_bytes(), limit=10**9, final=True)
        assert found.skipped == 0
        records += found.records
    return records


def test_records_are_in_the_file_when_append_returns(tmp_path: Path) -> None:
    """What was appended survives whatever happens to the process next."""
    journal = JournalWriter(tmp_path, name="w1")
    assert journal.append(opening(1))
    assert records_of(tmp_path) == [opening(1)]
    assert journal.append_many([closing(1), opening(2)])
    assert records_of(tmp_path) == [opening(1), closing(1), opening(2)]
    assert (journal.written, journal.failures, journal.lost, journal.problem) == (3, 0, 0, None)
    journal.close()


def test_a_writer_is_known_to_live_until_it_closes(tmp_path: Path) -> None:
    """The recorder turns open calls of the dead into rows; it must not take the living for dead."""
    journal = JournalWriter(tmp_path, name="worker 1/é")
    path = tmp_path / lock_name(journal.writer)
    assert is_locked(path)
    journal.close()
    journal.close()
    assert not is_locked(path)
    assert journal.writer.startswith("worker-1---")


def test_two_writers_of_one_name_do_not_meet(tmp_path: Path) -> None:
    """A restarted worker has the old one's name, perhaps its process id."""
    one, two = JournalWriter(tmp_path, name="w"), JournalWriter(tmp_path, name="w")
    assert one.append(opening(1))
    assert two.append(opening(2))
    assert len(list(tmp_path.glob("*.journal"))) == 2
    one.close()
    two.close()


def test_a_full_segment_is_followed_by_another(tmp_path: Path) -> None:
    """Segments are what can be removed, so there must be an end to each."""
    journal = JournalWriter(tmp_path, segment_bytes=1000)
    for number in range(20):
        assert journal.append(opening(number))
    assert journal.sync()
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("*.journal"))]
    assert len(sizes) > 2
    assert all(1000 <= size < 1000 + len(pack(opening())) for size in sizes[:-1])
    assert records_of(tmp_path) == [opening(number) for number in range(20)]
    journal.close()


def test_an_old_segment_is_followed_by_another(tmp_path: Path) -> None:
    """A quiet worker's segments have to go some day, too."""
    journal = JournalWriter(tmp_path, segment_seconds=0)
    for number in range(3):
        journal.append(opening(number))
        assert journal.sync()
    assert len(list(tmp_path.glob("*.journal"))) == 3
    journal.close()


def test_where_no_new_segment_can_be_made_the_old_one_is_used(tmp_path: Path) -> None:
    """Too many open files, or a directory in the wrong place: the records go on."""
    journal = JournalWriter(tmp_path / "journal", segment_bytes=1000)
    moved = (tmp_path / "journal").rename(tmp_path / "moved")
    for number in range(30):
        assert journal.append(opening(number))
    assert journal.failures > 0
    moved.rename(tmp_path / "journal")
    for number in range(30, 60):
        assert journal.append(opening(number))
    assert len(list((tmp_path / "journal").glob("*.journal"))) > 1
    assert records_of(tmp_path / "journal") == [opening(number) for number in range(60)]
    journal.close()


def test_a_segment_that_somebody_removed_is_noticed_and_replaced(tmp_path: Path) -> None:
    """Writing to a file without a name would be the quietest of losses."""
    journal = JournalWriter(tmp_path)
    journal.append(opening(1))
    next(tmp_path.glob("*.journal")).unlink()
    assert not journal.sync()
    assert str(journal.problem).startswith(f"cannot write to {tmp_path}: the segment was removed")
    assert journal.append(opening(2))
    assert journal.sync()
    assert records_of(tmp_path) == [opening(2)]
    journal.close()


def test_sync_has_nothing_to_do_twice(tmp_path: Path) -> None:
    """The owner asks `dirty` before it bothers a thread."""
    journal = JournalWriter(tmp_path)
    journal.append(opening())
    states = [journal.dirty, journal.sync(), journal.dirty]
    assert states == [True, True, False]
    journal.close()
    assert journal.sync()


def test_every_append_can_be_synced(tmp_path: Path) -> None:
    """For owners who would rather wait than lose a second of records in a power cut."""
    journal = JournalWriter(tmp_path, sync_seconds=0, segment_bytes=300)
    assert journal.append(opening(1))
    assert journal.append_many([closing(1), opening(2)])
    assert journal.append(closing(2))
    assert not journal.dirty
    journal.close()


def test_what_cannot_be_packed_fails_no_call(tmp_path: Path) -> None:
    """A record that is none is a fault of ours; it is counted and said, and the call goes on."""
    said: list[str] = []
    journal = JournalWriter(tmp_path, on_problem=said.append)
    bad = replace(opening(), event_id=object())
    assert not journal.append(bad)
    assert not journal.append_many([opening(), bad])
    assert (journal.lost, journal.written) == (2, 1)  # the good one is not lost with the bad
    assert journal.problem is None
    assert len(said) == 1
    assert "cannot be packed" in said[0]
    journal.close()


def test_nothing_is_written_after_the_close(tmp_path: Path) -> None:
    """The recorder may have removed the segments already."""
    journal = JournalWriter(tmp_path)
    journal.close()
    assert not journal.append(opening())
    assert journal.lost == 1
    assert records_of(tmp_path) == []


def test_a_directory_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    """This is said at start, to a human, with the path."""
    (tmp_path / "journal").write_text("not a directory")
    with pytest.raises(JournalError, match=r"cannot write to .*journal: "):
        JournalWriter(tmp_path / "journal")


def test_a_listener_that_fails_harms_nobody(tmp_path: Path) -> None:
    """Not even a broken log may fail a call."""

    def fail(text: str) -> None:
        raise RuntimeError(text)

    journal = JournalWriter(tmp_path, on_problem=fail)
    assert not journal.append(replace(opening(), event_id=object()))
    journal.close()


def test_one_thread_appends_while_another_syncs(tmp_path: Path) -> None:
    """As a worker does it: the event loop appends, a thread waits for the disk."""
    journal = JournalWriter(tmp_path, segment_bytes=2000)
    done = threading.Event()

    def keep_syncing() -> None:
        while not done.is_set():
            journal.sync()

    thread = threading.Thread(target=keep_syncing)
    thread.start()
    for number in range(500):
        assert journal.append(opening(number))
    done.set()
    thread.join()
    journal.close()
    assert records_of(tmp_path) == [opening(number) for number in range(500)]


def test_a_killed_writer_has_written_all_that_it_said(tmp_path: Path) -> None:
    """The opening is on disk before the upstream hears of the call; SIGKILL changes nothing."""
    command = [sys.executable, "-c", KILLED_WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:  # noqa: S603
        assert writer.stdout
        said = [int(writer.stdout.readline()) for _ in range(300)]
        writer.send_signal(signal.SIGKILL)
        said += [int(line) for line in writer.stdout.read().splitlines()]
    records = records_of(tmp_path)
    openings = [record for record in records if record == opening(len(said) - 1)]
    assert len(openings) == 1
    expected = [make(number) for number in said for make in (opening, closing)]
    assert records[: len(expected) - 1] == expected[:-1]
    assert len(records) <= len(expected) + 1
    assert not list(filter(is_locked, tmp_path.glob("*.lock")))


@contextmanager
def small_files() -> Iterator[None]:
    """Let no file grow beyond 1000 bytes: the write that would is cut short, the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_cut_short_is_taken_back_and_made_elsewhere(tmp_path: Path) -> None:
    """The file that would not take a record whole is left as it was; the next one takes it."""
    journal = JournalWriter(tmp_path)
    with small_files():
        for number in range(20):
            journal.append(opening(number))
        wait_for(journal.sync)
    assert journal.failures > 0
    assert journal.lost == 0
    assert journal.problem is None
    assert records_of(tmp_path) == [opening(number) for number in range(20)]
    journal.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a disk of 64 KiB; only root can make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or run("mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)):
        pytest.skip("a small disk can be made by root only, where mounting is allowed")
    yield disk
    assert run("umount", "--lazy", str(disk)) == 0


def run(*command: str) -> int:
    """Run a program and return its exit status."""
    return subprocess.run(command, check=False, capture_output=True).returncode  # noqa: S603


def test_a_full_disk_stops_no_call_and_loses_nothing(small_disk: Path) -> None:
    """It is loud while it lasts; when there is room again, everything is written in order."""
    said: list[str] = []
    directory = small_disk / "journal"
    (small_disk / "ballast").write_bytes(bytes(40_000))
    journal = JournalWriter(directory, on_problem=said.append)
    results = [journal.append(opening(number)) for number in range(250)]
    assert results[0]
    assert not results[-1]
    assert not journal.sync()
    assert f"cannot write to {directory}: " in str(journal.problem)
    assert (journal.written, journal.held, journal.lost) == (sum(results), 250 - sum(results), 0)
    assert records_of(directory) == [opening(number) for number in range(sum(results))]
    (small_disk / "ballast").unlink()
    wait_for(journal.sync)
    assert journal.append(opening(250))
    assert records_of(directory) == [opening(number) for number in range(251)]
    assert not journal.problem
    assert [text.split(":")[0].split(" (")[0] for text in said] == [
        f"cannot write to {directory}",
        f"{directory} can be written again",
    ]
    journal.close()


def test_memory_does_not_grow_while_the_disk_is_full(small_disk: Path) -> None:
    """What is too much is given up, and counted: a proxy without memory would lose all calls."""
    journal = JournalWriter(small_disk / "journal", sync_seconds=0, leave_seconds=0)
    large = replace(closing(), usage=b"x" * 200_000)
    fit = HELD_BYTES // len(pack(large))
    results = [journal.append(large) for _ in range(fit + 5)]
    assert not any(results)
    assert (journal.held, journal.lost) == (fit, 5)
    journal.close()
    assert journal.lost == fit + 5
    assert records_of(small_disk / "journal") == []


def noted(directory: Path, *, is_dead: bool) -> list[int]:
    """Return the counts of calls that the notes of all writers tell."""
    notes = [path.read_bytes() for path in directory.glob("*.lock")]
    return [gap.calls for note in notes for gap in unmetered("", note, is_dead=is_dead)]


def test_what_finds_no_room_is_noted_for_whoever_comes_after_a_kill(small_disk: Path) -> None:
    """The room of the note was taken when there was some; it is written in place."""
    directory = small_disk / "journal"
    journal = JournalWriter(directory, sync_seconds=0, leave_seconds=0)
    assert noted(directory, is_dead=True) == []
    large = replace(closing(), usage=b"x" * 200_000)
    fit = HELD_BYTES // len(pack(large))
    for number in range(fit + 5):
        journal.append(opening(number))
        journal.append(large)
    (given_up,) = noted(directory, is_dead=False)
    assert 5 <= given_up <= 6  # openings take a little of the memory
    assert noted(directory, is_dead=True) == [fit + 5]
    journal.close()
    assert noted(directory, is_dead=True) == [fit + 5]  # what waited was given up: counted once
    (directory.parent / "other").write_bytes(b"x")
    with (directory.parent / "other").open("r+b") as other:  # it may have the number of a lock
        journal.append(closing())
        assert other.read() == b"x"


def test_whoever_leaves_waits_a_while_for_room(small_disk: Path) -> None:
    """A worker that is replaced while the disk is full takes nothing along."""
    directory, ballast = small_disk / "journal", small_disk / "ballast"
    ballast.write_bytes(bytes(40_000))
    journal = JournalWriter(directory, leave_seconds=30)
    for number in range(100):
        journal.append(closing(number))
    assert journal.held
    soon = threading.Timer(0.5, ballast.unlink)
    soon.start()
    journal.close()
    soon.join()
    assert (journal.held, journal.lost) == (0, 0)
    assert records_of(directory) == [closing(number) for number in range(100)]


def test_what_found_room_in_the_end_is_no_gap(small_disk: Path) -> None:
    """It waited, and was written."""
    directory = small_disk / "journal"
    (small_disk / "ballast").write_bytes(bytes(40_000))
    journal = JournalWriter(directory)
    for number in range(100):
        journal.append(closing(number))
    assert noted(directory, is_dead=False) == []
    assert noted(directory, is_dead=True) == [journal.held]
    (small_disk / "ballast").unlink()
    wait_for(journal.sync)
    assert noted(directory, is_dead=True) == []
    journal.close()


def wait_for(claim: Callable[[], bool], seconds: float = 5.0) -> None:
    """Return once the claim holds."""
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it should have become true by now"
        time.sleep(0.01)

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.core.gaps import GapNote, Unmetered
from proxy.core.model import Closing, Lines, Opening
from proxy.core.records import lock_name, pack, segment_name
from proxy.journal import JournalWriter
from proxy.tailing import BATCH_BYTES, SHRINK_BYTES, Batch, Tail
from tests.fakes.records import closing, opening


def drain(tail: Tail, *, limit: int = 2000) -> tuple[list[Closing], list[Opening]]:
    """Read until there is nothing more, as if every batch went into the ledger."""
    closings: list[Closing] = []
    abandoned: list[Opening] = []
    while (batch := tail.read(limit)).records:
        assert batch.records <= limit
        closings += batch.closings
        abandoned += batch.abandoned
        tail.save()
    tail.save()
    return closings, abandoned


def segments(directory: Path) -> list[str]:
    """Return the numbers of the segments that are there."""
    return [path.name.split(".")[1] for path in sorted(directory.glob("*.journal"))]


def test_closings_come_in_order_and_once(tmp_path: Path) -> None:
    """The first thing that is asked of a journal."""
    journal = JournalWriter(tmp_path)
    journal.append_many([opening(1), opening(2), closing(2), closing(1)])
    tail = Tail(tmp_path)
    assert drain(tail) == ([closing(2), closing(1)], [])
    journal.append_many([opening(3), closing(3)])
    assert drain(tail) == ([closing(3)], [])
    assert drain(tail) == ([], [])
    assert (tail.open_calls, tail.skipped_bytes, tail.lag_bytes()) == (0, 0, 0)
    journal.close()


def test_a_batch_has_no_more_records_than_asked_for(tmp_path: Path) -> None:
    """Memory stays bounded however long the ledger was away."""
    journal = JournalWriter(tmp_path, segment_bytes=5000)
    for number in range(100):
        journal.append_many([opening(number), closing(number)])
    assert drain(Tail(tmp_path), limit=7)[0] == [closing(number) for number in range(100)]
    journal.close()


def test_a_batch_has_bounded_bytes_too(tmp_path: Path) -> None:
    """Two thousand records of the largest size would be half a gigabyte."""
    journal = JournalWriter(tmp_path)
    large = replace(closing(), usage=b"x" * 250_000)
    for _ in range(BATCH_BYTES // 250_000 * 2):
        journal.append(large)
    tail = Tail(tmp_path)
    sizes = []
    while (batch := tail.read(2000)).records:
        sizes.append(batch.size)
    assert len(sizes) >= 2
    assert max(sizes) < 2 * BATCH_BYTES
    journal.close()


def test_a_busy_writer_does_not_starve_another(tmp_path: Path) -> None:
    """Every call is to be visible within seconds, not only those of the busiest worker."""
    busy, quiet = JournalWriter(tmp_path, name="a"), JournalWriter(tmp_path, name="b")
    for number in range(1000):
        busy.append(closing(number))
    quiet.append(closing(5000))
    tail = Tail(tmp_path)
    seen = [record for _ in range(2) for record in tail.read(10).closings]
    assert closing(5000) in seen
    busy.close()
    quiet.close()


def test_an_open_call_of_a_living_writer_stays_open(tmp_path: Path) -> None:
    """A stream may last for an hour; nobody knows its outcome before its end."""
    journal = JournalWriter(tmp_path)
    journal.append(opening(1))
    tail = Tail(tmp_path)
    assert drain(tail) == ([], [])
    assert tail.open_calls == 1
    tail = Tail(tmp_path)
    assert tail.open_calls == 1
    journal.append(closing(1))
    assert drain(tail) == ([closing(1)], [])
    assert tail.open_calls == 0
    journal.close()


def test_open_calls_of_a_dead_writer_are_handed_out_as_abandoned(tmp_path: Path) -> None:
    """Each of them was sent upstream, and may have cost money."""
    journal = JournalWriter(tmp_path)
    journal.append_many([opening(1), opening(2), closing(2), opening(3)])
    tail = Tail(tmp_path)
    assert drain(tail) == ([closing(2)], [])
    journal.close()
    closings, abandoned = drain(tail, limit=1)
    assert closings == []
    assert sorted(abandoned, key=lambda o: o.event_id) == [opening(1), opening(3)]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert drain(Tail(tmp_path)) == ([], [])


def test_an_opening_is_remembered_when_the_checkpoint_has_passed_it(tmp_path: Path) -> None:
    """Its closing may be segments away, or never come."""
    journal = JournalWriter(tmp_path, segment_bytes=500)
    journal.append(opening(1))
    for number in range(10, 30):
        journal.append_many([opening(number), closing(number)])
    drain(Tail(tmp_path))
    journal.close()
    assert drain(Tail(tmp_path)) == ([], [opening(1)])


def test_segments_go_when_all_of_their_calls_are_over(tmp_path: Path) -> None:
    """The journal is a passage, not an archive; but no segment goes with an open call in it."""
    journal = JournalWriter(tmp_path, segment_bytes=1)
    tail = Tail(tmp_path)
    for record in (opening(1), opening(2), closing(2), opening(3)):
        journal.append(record)
    assert segments(tmp_path) == ["00000001", "00000002", "00000003", "00000004"]
    drain(tail)
    assert segments(tmp_path) == ["00000001", "00000004"]
    journal.append(closing(1))
    drain(tail)
    assert segments(tmp_path) == ["00000004", "00000005"]
    journal.append(closing(3))
    drain(tail)
    assert segments(tmp_path) == ["00000006"]
    journal.close()


def test_a_segment_kept_for_few_calls_becomes_small(tmp_path: Path) -> None:
    """One call of an hour must not keep an hour's journal."""
    journal = JournalWriter(tmp_path, segment_bytes=2 * SHRINK_BYTES)
    journal.append(opening(1))
    big = replace(closing(2), usage=b"x" * 100_000)
    while len(segments(tmp_path)) < 3:
        journal.append(big)
    tail = Tail(tmp_path)
    drain(tail)
    assert segments(tmp_path) == ["00000001", "00000003"]
    first = min(tmp_path.glob("*.journal"))
    assert first.read_bytes() == pack(opening(1))
    journal.close()
    (tmp_path / "checkpoint").unlink()
    assert drain(Tail(tmp_path))[1] == [opening(1)]


@pytest.mark.parametrize("checkpoint", [None, b"", b"\xff garbage"])
def test_without_a_checkpoint_all_that_is_there_is_read_again(
    tmp_path: Path, checkpoint: bytes | None
) -> None:
    """Repeated work, but nothing lost: the ledger takes no row twice."""
    journal = JournalWriter(tmp_path, segment_bytes=1)
    for record in (opening(1), opening(2), closing(2), opening(3)):
        journal.append(record)
    drain(Tail(tmp_path))
    path = tmp_path / "checkpoint"
    path.unlink() if checkpoint is None else path.write_bytes(checkpoint)
    tail = Tail(tmp_path)
    assert drain(tail) == ([], [])
    assert tail.open_calls == 2
    journal.close()
    assert len(drain(tail)[1]) == 2


def test_what_was_not_saved_is_read_again(tmp_path: Path) -> None:
    """Whoever dies between ledger and checkpoint repeats the batch."""
    journal = JournalWriter(tmp_path)
    journal.append_many([opening(1), closing(1)])
    assert Tail(tmp_path).read(10).closings == [closing(1)]
    assert Tail(tmp_path).read(10).closings == [closing(1)]
    journal.close()


def test_a_place_is_remembered_while_more_is_read(tmp_path: Path) -> None:
    """What was handed out after the mark is handed out again, and its segments stay."""
    journal = JournalWriter(tmp_path, segment_bytes=1)
    for record in (opening(1), closing(1), opening(2), closing(2), opening(3)):
        journal.append(record)
    tail = Tail(tmp_path)
    assert tail.read(3).closings == [closing(1)]
    mark = tail.mark()
    assert tail.mark() is None
    assert tail.read(1).closings == [closing(2)]
    tail.save(mark)
    assert segments(tmp_path) == ["00000003", "00000004", "00000005"]
    assert Tail(tmp_path).read(10).closings == [closing(2)]
    tail.save()
    assert segments(tmp_path) == ["00000004", "00000005"]
    assert Tail(tmp_path).read(10).closings == []
    journal.close()


def test_a_writer_that_ends_after_the_mark_is_given_up_with_the_next_one(tmp_path: Path) -> None:
    """Its files are needed until what it left open is in the ledger."""
    journal = JournalWriter(tmp_path)
    journal.append(opening(1))
    tail = Tail(tmp_path)
    tail.read(10)
    mark = tail.mark()
    journal.close()
    assert tail.read(10).abandoned == [opening(1)]
    tail.save(mark)
    assert segments(tmp_path) == ["00000001"]
    tail.save()
    assert segments(tmp_path) == []


def test_a_checkpoint_that_cannot_be_written_keeps_no_segment(tmp_path: Path) -> None:
    """On a full disk, what is removed is what makes room."""
    (tmp_path / "checkpoint").mkdir()
    journal = JournalWriter(tmp_path, segment_bytes=1)
    for record in (opening(1), closing(1), closing(2)):
        journal.append(record)
    tail = Tail(tmp_path)
    assert len(tail.read(10).closings) == 2
    with pytest.raises(IsADirectoryError):
        tail.save()
    assert segments(tmp_path) == ["00000003"]
    (tmp_path / "checkpoint").rmdir()
    tail.save()
    assert (tmp_path / "checkpoint").is_file()
    journal.close()


def test_nothing_new_writes_no_checkpoint(tmp_path: Path) -> None:
    """An idle recorder leaves the disk alone."""
    journal = JournalWriter(tmp_path)
    tail = Tail(tmp_path)
    journal.append(closing(1))
    drain(tail)
    before = (tmp_path / "checkpoint").stat().st_ino
    drain(tail)
    assert (tmp_path / "checkpoint").stat().st_ino == before
    journal.close()


def test_a_new_segment_after_the_last_look_is_read_before_its_writer_is_given_up(
    tmp_path: Path,
) -> None:
    """Rotation and death may both happen between two looks."""
    journal = JournalWriter(tmp_path, segment_bytes=1)
    journal.append(opening(1))
    tail = Tail(tmp_path)
    drain(tail)
    journal.append(closing(1))
    journal.append(opening(2))
    journal.close()
    assert drain(tail) == ([closing(1)], [opening(2)])


def test_a_writer_that_died_before_its_first_record_leaves_nothing(tmp_path: Path) -> None:
    """A crash loop must not fill the directory with locks."""
    (tmp_path / lock_name("w-1")).touch()
    JournalWriter(tmp_path).close()
    drain(Tail(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_what_was_read_of_a_dead_writer_and_is_gone_is_no_problem(tmp_path: Path) -> None:
    """After a power cut a checkpoint may know more than the files do."""
    journal = JournalWriter(tmp_path)
    journal.append_many([opening(1), closing(2)])
    drain(Tail(tmp_path))
    journal.close()
    for path in (*tmp_path.glob("*.journal"), *tmp_path.glob("*.lock")):
        path.unlink()
    assert drain(Tail(tmp_path)) == ([], [opening(1)])


def test_a_segment_that_cannot_be_read_is_told_and_holds_up_nobody_else(tmp_path: Path) -> None:
    """It is tried again and again; the other writers' rows do not wait for it."""
    (tmp_path / segment_name("a-1", 1)).mkdir()
    journal = JournalWriter(tmp_path, name="b")
    journal.append(closing(1))
    tail = Tail(tmp_path)
    assert drain(tail) == ([closing(1)], [])
    assert f"cannot read {segment_name('a-1', 1)}: Is a directory" in str(tail.problem)
    (tmp_path / segment_name("a-1", 1)).rmdir()
    (tmp_path / segment_name("a-1", 1)).write_bytes(pack(closing(2)))
    assert drain(tail) == ([closing(2)], [])
    assert tail.problem is None
    journal.close()


def test_the_lag_is_what_has_not_been_handed_out(tmp_path: Path) -> None:
    """Health pages show it, in bytes of journal."""
    journal = JournalWriter(tmp_path, segment_bytes=len(pack(closing())) + 1)
    tail = Tail(tmp_path)
    for number in range(5):
        journal.append(closing(number))
    assert tail.lag_bytes() == 5 * len(pack(closing()))
    tail.read(2)
    assert tail.lag_bytes() == 3 * len(pack(closing()))
    drain(tail)
    assert tail.lag_bytes() == 0
    journal.close()


STREAM = pack(opening(1)) + pack(closing(1)) + pack(opening(2)) + pack(closing(2))


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, len(STREAM)), second=st.booleans())
def test_a_segment_torn_anywhere_gives_what_is_whole(
    tmp_path_factory: pytest.TempPathFactory,
    cut: int,
    second: bool,  # noqa: FBT001  given by hypothesis
) -> None:
    """Killed at any byte, in the last segment or before another: all calls have their row."""
    directory = tmp_path_factory.mktemp("journal")
    (directory / segment_name("w", 1)).write_bytes(STREAM[:cut])
    if second:
        (directory / segment_name("w", 2)).write_bytes(pack(closing(3)))
    tail = Tail(directory)
    closings, abandoned = drain(tail)
    ends = list(itertools.accumulate(len(pack(r)) for r in (opening(1), closing(1), opening(2))))
    assert (closing(1) in closings, closing(2) in closings) == (cut >= ends[1], cut == len(STREAM))
    assert (opening(1) in abandoned) == (ends[0] <= cut < ends[1])
    assert (opening(2) in abandoned) == (ends[2] <= cut < len(STREAM))
    assert (closing(3) in closings) == second
    assert [path.name for path in directory.iterdir()] == ["checkpoint"]


def test_records_appear_piece_by_piece_and_are_read_whole(tmp_path: Path) -> None:
    """A reader that looks while a write is under way waits for the rest."""
    journal = JournalWriter(tmp_path)
    path = next(tmp_path.glob("*.journal"))
    tail = Tail(tmp_path)
    seen: list[Closing] = []
    for start in range(0, len(STREAM), 50):
        with path.open("ab") as file:
            file.write(STREAM[start : start + 50])
        seen += drain(tail)[0]
    assert seen == [closing(1), closing(2)]
    assert tail.skipped_bytes == 0
    journal.close()


def test_garbage_in_a_segment_is_counted_and_passed(tmp_path: Path) -> None:
    """A bad block costs what was in it."""
    tail = Tail(tmp_path)
    content = pack(closing(1)) + bytes(3_000_000) + pack(closing(2)) + b"torn"
    (tmp_path / segment_name("w", 1)).write_bytes(content)
    assert drain(tail) == ([closing(1), closing(2)], [])
    assert tail.skipped_bytes == 3_000_004


def test_room_counts_records_and_bytes() -> None:
    """Whichever bound is met first ends the batch."""
    room: Callable[[Batch], int] = lambda batch: batch.room(10)  # noqa: E731
    assert room(Batch(records=3)) == 7
    assert room(Batch(records=3, size=BATCH_BYTES)) == 0


def test_lines_of_an_output_are_handed_out_before_the_end_of_their_call(tmp_path: Path) -> None:
    """They keep no call open, and no segment."""
    journal = JournalWriter(tmp_path)
    lines = Lines(event_id=opening(1).event_id, upstream="u", file_id="f", lines=())
    journal.append_many([opening(1), lines, closing(1)])
    tail = Tail(tmp_path)
    batch = tail.read(2)
    assert (batch.lines, batch.closings, batch.records) == ([lines], [], 2)
    assert tail.open_calls == 1
    assert tail.read(9).closings == [closing(1)]
    assert tail.open_calls == 0
    journal.close()


def test_what_a_writer_could_not_write_is_handed_out_with_its_end(tmp_path: Path) -> None:
    """Once while it lives and says so, and once when nothing is left of it."""
    journal = JournalWriter(tmp_path)
    journal.append(closing(1))
    tail = Tail(tmp_path)
    assert tail.read(10).gaps == []
    (lock,) = tmp_path.glob("*.lock")
    at = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    note = GapNote()
    note.lost(3, at)
    note.waits(2, at)
    lock.write_bytes(note.content())
    assert tail.read(10).gaps == [Unmetered(journal.writer, at, at, 3)]
    assert tail.read(10).gaps == []
    journal.close()
    assert tail.read(10).gaps == [Unmetered(journal.writer, at, at, 5)]
    assert tail.read(10).gaps == []
    tail.save()
    assert not lock.exists()

"""Tests of proxy.core.gaps."""

from datetime import UTC, datetime, timedelta

from proxy.core.gaps import MOST_GAPS, NOTE_BYTES, GapNote, Unmetered, unmetered

T = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_nothing_is_noted_of_a_disk_with_room() -> None:
    """The note takes its room all the same."""
    note = GapNote()
    note.over()
    note.waits(0, T)
    note.lost(0, T)
    assert note.content() == b" " * (NOTE_BYTES - 1) + b"\n"
    assert unmetered("w-1", note.content(), is_dead=True) == []


def test_what_waits_is_lost_only_with_its_writer() -> None:
    """While the writer lives it may still find room."""
    note = GapNote()
    note.waits(1, T)
    note.waits(3, T + SECOND)
    assert unmetered("w-1", note.content(), is_dead=False) == []
    assert unmetered("w-1", note.content(), is_dead=True) == [Unmetered("w-1", T, T + SECOND, 3)]
    note.over()
    assert unmetered("w-1", note.content(), is_dead=True) == []


def test_what_was_given_up_stays_noted() -> None:
    """Also when the disk has room again."""
    note = GapNote()
    note.waits(2, T)
    note.lost(5, T + SECOND)
    note.lost(1, T + 2 * SECOND)
    expected = Unmetered("w-1", T, T + 2 * SECOND, 6)
    assert unmetered("w-1", note.content(), is_dead=False) == [expected]
    note.over()
    note.lost(4, T + 9 * SECOND)
    assert unmetered("w-1", note.content(), is_dead=True) == [
        expected,
        Unmetered("w-1", T + 9 * SECOND, T + 9 * SECOND, 4),
    ]


def test_gaps_beyond_the_room_join_the_last_one() -> None:
    """No call is forgotten by that."""
    note = GapNote()
    for number in range(3 * MOST_GAPS):
        note.lost(number + 1, T + number * SECOND)
        note.over()
    found = unmetered("w-1", note.content(), is_dead=True)
    assert len(note.content()) == NOTE_BYTES
    assert len(found) == MOST_GAPS
    assert sum(one.calls for one in found) == sum(range(1, 3 * MOST_GAPS + 1))
    assert found[-1].until == T + (3 * MOST_GAPS - 1) * SECOND


def test_a_note_that_is_half_written_says_nothing_yet() -> None:
    """Nor does a lock file of an earlier release, which is empty."""
    note = GapNote()
    note.lost(1, T)
    assert unmetered("w-1", note.content()[:30], is_dead=True) == ()
    assert unmetered("w-1", b"", is_dead=True) == []
    assert unmetered("w-1", bytes(NOTE_BYTES), is_dead=True) == []

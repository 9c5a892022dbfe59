"""Tests of proxy.core.gaps."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

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


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["lost", "waits", "over"]),
            st.integers(0, 5),  # calls
            st.integers(-1, 2),  # seconds since the step before: clocks stand still and are set
            st.booleans(),  # the recorder looks now
        ),
        max_size=150,
    )
)
def test_what_the_ledger_is_told_adds_up_to_what_was_lost(
    steps: list[tuple[str, int, int, bool]],
) -> None:
    """Whenever the recorder looks: it keeps the most that was said of each beginning."""
    note, now, lost, waiting = GapNote(), T, 0, 0
    kept: dict[datetime, int] = {}

    def look(*, is_dead: bool) -> None:
        for gap in unmetered("w-1", note.content(), is_dead=is_dead):
            kept[gap.since] = max(kept.get(gap.since, 0), gap.calls)

    for step, calls, seconds, is_seen in steps:
        now += seconds * SECOND
        if step == "lost":
            note.lost(calls, now)
            lost += calls
        elif step == "waits":
            note.waits(calls, now)
            waiting = calls
        else:
            note.over()
            waiting = 0
        if is_seen:
            look(is_dead=False)
    look(is_dead=True)
    assert sum(kept.values()) == lost + waiting
    assert len(note.content()) == NOTE_BYTES


def test_a_gap_beyond_the_room_widens_the_last_one_from_its_first_call() -> None:
    """Else it would be told of by itself first, and once more with the one that it joins."""
    note = GapNote()
    for number in range(MOST_GAPS):
        note.lost(1, T + number * SECOND)
        note.over()
    note.waits(2, T + MOST_GAPS * SECOND)
    last = unmetered("w-1", note.content(), is_dead=True)[-1]
    began = T + (MOST_GAPS - 1) * SECOND
    assert last == Unmetered("w-1", began, T + MOST_GAPS * SECOND, 3)
    note.over()
    assert len(unmetered("w-1", note.content(), is_dead=True)) == MOST_GAPS


def test_a_note_that_is_half_written_says_nothing_yet() -> None:
    """Nor does a lock file of an earlier release, which is empty."""
    note = GapNote()
    note.lost(1, T)
    assert unmetered("w-1", note.content()[:30], is_dead=True) == ()
    assert unmetered("w-1", b"", is_dead=True) == []
    assert unmetered("w-1", bytes(NOTE_BYTES), is_dead=True) == []

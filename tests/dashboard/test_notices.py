from datetime import timedelta

from dashboard import tables
from dashboard.notices import notices
from tests.fakes.reports import MOMENT, report


def _gap(days_ago: int, calls: int) -> dict[str, object]:
    began = MOMENT - timedelta(days=days_ago)
    ended = began + timedelta(minutes=5)
    return {"started_at": began, "ended_at": ended, "calls": calls, "writer": "worker-0"}


def _open(kind: str, objects: int) -> dict[str, object]:
    made = {"first_made": MOMENT - timedelta(days=2), "last_made": MOMENT}
    return {"kind": kind, "objects": objects} | made


def test_a_gap_says_how_many_from_when_to_when_and_what_to_do() -> None:
    """Of several from the first to the last."""
    rows = [_gap(1, 12), _gap(3, 1000)]
    found = tables.plain("gaps", "Gaps", tables.GAPS, rows)
    [notice] = notices(report("overview", found))
    assert notice.urgent
    assert notice.title == "1,012 calls were not metered"
    assert "Between 2026-11-19 12:00:00 and 2026-11-21 12:05:00, 2 times: the proxy" in notice.words
    assert "METER_DATA_DIR" in notice.advice
    [notice] = notices(report("overview", tables.plain("gaps", "Gaps", tables.GAPS, [_gap(1, 1)])))
    assert notice.title == "1 call was not metered"
    assert "times" not in notice.words


def test_open_objects_are_told_by_kind() -> None:
    """A kind that is new has its own name."""
    rows = [_open("response", 2000), _open("batch", 1), _open("whatever", 1)]
    found = tables.plain("open_objects", "Open", tables.OPEN_OBJECTS, rows)
    [notice] = notices(report("overview", found))
    assert not notice.urgent
    assert notice.title == "2,002 objects are not charged yet"
    assert "2,000 background responses, 1 batch, 1 whatever; the oldest is of" in notice.words
    assert "2026-11-20 12:00:00" in notice.words


def test_a_count_that_ends_at_a_bound_says_so() -> None:
    """No more gaps and objects than these are looked at."""
    gaps = tables.plain("gaps", "Gaps", tables.GAPS, [_gap(1, 2)] * 1000)
    objects = [_open("response", 9_990), _open("batch", 10)]
    opened = tables.plain("open_objects", "Open", tables.OPEN_OBJECTS, objects)
    assert [notice.title for notice in notices(report("overview", gaps, opened))] == [
        "At least 2,000 calls were not metered",
        "At least 10,000 objects are not charged yet",
    ]


def test_as_a_rule_there_is_nothing_to_say() -> None:
    """Also on pages that do not look for it."""
    assert notices(report("users")) == []
    empty = tables.plain("gaps", "Gaps", tables.GAPS, [])
    assert notices(report("overview", empty)) == []

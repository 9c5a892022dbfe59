from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from asyncpg import BitString

from dashboard import selects
from dashboard.asking import Row
from dashboard.filters import Filter
from dashboard.opened import OpenDays
from dashboard.presence import MOST_UNPACKED, Part
from dashboard.rosters import Moment, Rosters, parts_of
from dashboard.stretches import Versions

FOLDED = datetime(2026, 11, 2, 1, tzinfo=UTC)
AGAIN = datetime(2026, 11, 2, 2, tzinfo=UTC)
FIRST, SECOND, THIRD = date(2026, 11, 1), date(2026, 11, 2), date(2026, 11, 3)
DAYS = Filter(
    range="custom",
    first=FIRST,
    last=SECOND,
    zone=ZoneInfo("UTC"),
    report_zone=ZoneInfo("UTC"),
)
IN_KOLKATA = DAYS.with_(zone=ZoneInfo("Asia/Kolkata"))


class Told:
    """A database that has two days of users 0 and 1, and 1 and 8193; and notes what it is asked."""

    def __init__(self, *, known: bool = True) -> None:
        self.asked: list[str] = []
        self._known = known

    async def fetch(self, statement: str, *values: Any) -> Sequence[Row]:
        """Answer as the statements of rosters are answered."""
        self.asked.append(statement)
        if statement == selects.ROSTERS:
            sets = {FIRST: [(0, {0, 1})], SECOND: [(0, {1}), (1, {1})]}
            return [
                {"day": day, "endpoint": "hint", "block": block, "users": _set(places)}
                for day in values[0]
                for block, places in sets[day]
            ]
        if statement == selects.OPEN_ROSTERS:
            open_day = {"numbers": [1, None, 8193], "names": [None, "new", None]}
            return [{"day": SECOND, "endpoint": "hint"} | open_day]
        if statement in {selects.ROSTERS_PACKED, selects.ROSTERS_OF_HOURS}:
            return []
        found = [{"endpoint": "hint", "numbers": [1], "names": None, "known": self._known}]
        return [row | {"place": place + 1} for place, _ in enumerate(values[0]) for row in found]


def _seen(told: Told, versions: Versions) -> Moment:
    return Moment(versions, OpenDays(told.fetch).present)


def _set(places: set[int]) -> BitString:
    bits = sum(1 << (8191 - place) for place in places)
    return BitString.frombytes(bits.to_bytes(1024, "big"))


async def test_days_are_put_together_and_read_once() -> None:
    """User 1 was there on both days; the second question asks nothing."""
    told, rosters = Told(), Rosters()
    moment = _seen(told, {FIRST: FOLDED, SECOND: FOLDED})
    assert await rosters.count(told.fetch, moment, DAYS, ()) == {(): 3}
    assert await rosters.count(told.fetch, moment, DAYS, ("day",)) == {(FIRST,): 2, (SECOND,): 2}
    assert await rosters.count(told.fetch, moment, DAYS, ("endpoint",)) == {("hint",): 3}
    assert told.asked == [selects.ROSTERS]


async def test_a_day_that_was_folded_again_is_read_again() -> None:
    """A row has come late for it."""
    told, rosters = Told(), Rosters()
    await rosters.count(told.fetch, _seen(told, {FIRST: FOLDED}), DAYS, ())
    await rosters.count(told.fetch, _seen(told, {FIRST: AGAIN}), DAYS, ())
    assert len(told.asked) == 2


async def test_a_day_that_is_open_is_read_once_for_a_snapshot() -> None:
    """The next one may see more users, some of whom have no number."""
    told, rosters = Told(), Rosters()
    moment = _seen(told, {FIRST: FOLDED, SECOND: None})
    assert await rosters.count(told.fetch, moment, DAYS, ()) == {(): 4}
    assert await rosters.count(told.fetch, moment, DAYS, ("day",)) == {(FIRST,): 2, (SECOND,): 3}
    later = _seen(told, {FIRST: FOLDED, SECOND: None})
    assert await rosters.count(told.fetch, later, DAYS, ("endpoint",)) == {("hint",): 4}
    assert await rosters.count(told.fetch, later, DAYS, ()) == {(): 4}
    assert told.asked.count(selects.OPEN_ROSTERS) == 2
    assert told.asked.count(selects.ROSTERS) == 1


async def test_of_somebody_before_and_after_nothing_is_said() -> None:
    """Whether one of the calls between lies in the range, only the rows know."""
    told = Told(known=False)
    moment = _seen(told, {FIRST: FOLDED, SECOND: FOLDED, THIRD: FOLDED})
    assert await Rosters().count(told.fetch, moment, IN_KOLKATA, ()) is None


async def test_what_is_kept_is_bounded() -> None:
    """The sets used last stay."""
    told, rosters = Told(), Rosters(most_bytes=1500)
    moment = _seen(told, {FIRST: FOLDED, SECOND: FOLDED})
    await rosters.count(told.fetch, moment, DAYS.with_(last=FIRST), ())
    await rosters.count(told.fetch, moment, DAYS.with_(first=SECOND), ())  # about 2,300 bytes
    await rosters.count(told.fetch, moment, DAYS.with_(last=FIRST), ())
    assert len(told.asked) == 3


async def test_what_is_not_packed_yet_is_asked_for_again() -> None:
    """The day will not be folded again when it is."""
    told, rosters = Told(), Rosters()
    days = {FIRST + timedelta(days=number): FOLDED for number in range(MOST_UNPACKED + 1)}
    wanted = DAYS.with_(last=max(days), models=("gpt-a",))
    elsewhere = wanted.with_(zone=IN_KOLKATA.zone)
    for asked in (1, 2):
        assert await rosters.count(told.fetch, _seen(told, days), wanted, ()) is None
        assert await rosters.count(told.fetch, _seen(told, days), elsewhere, ("day",)) is None
        assert told.asked.count(selects.ROSTERS_PACKED) == 2 * asked


async def test_only_the_endpoints_asked_for_count() -> None:
    """None of the calls went without an endpoint."""
    told = Told()
    moment = _seen(told, {FIRST: FOLDED})
    assert await Rosters().count(told.fetch, moment, DAYS.with_(endpoints=("hint",)), ()) == {(): 2}
    without = DAYS.with_(without=("endpoint",))
    assert await Rosters().count(told.fetch, moment, without, ()) == {(): 0}


def test_a_range_of_another_zone_is_days_and_parts_of_days() -> None:
    """In Kolkata the first of November begins at half past six in the evening of October's last."""
    october = date(2026, 10, 31)
    begin = datetime(2026, 10, 31, 18, 30, tzinfo=UTC)
    end = datetime(2026, 11, 2, 18, 30, tzinfo=UTC)
    days = [date(2026, 10, 30), october, FIRST, SECOND, THIRD]
    assert parts_of(IN_KOLKATA, days, by_endpoint=False) == [
        Part(october, begin, None, by_endpoint=False),
        Part(FIRST),
        Part(SECOND, None, end, by_endpoint=False),
    ]
    assert parts_of(DAYS, days, by_endpoint=False) == [Part(FIRST), Part(SECOND)]

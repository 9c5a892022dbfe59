"""Which stretches of time a range of days is made of, and in which days of the ledger. Pure.

Days of the report's zone are days as the sums by day know them; a day of another zone is the
quarters of hours between its midnights. Where clocks are put back from after midnight to before it,
a day is no stretch, and nothing is said of ranges that have such a day.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from dashboard.asking import DAY, EPOCH, QUARTER
from dashboard.filters import Filter, midnight

MICROSECOND = timedelta(microseconds=1)
MOST_REMEMBERED = 8192

Versions = Mapping[date, datetime | None]  # by day; None: it is open


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time, in full quarters of hours; and the days of the report's zone it is in."""

    since: datetime
    past: datetime
    touched: tuple[date, ...]
    is_report_day: bool = False  # all of that one, as the sums by day have it

    def version(self, versions: Versions) -> tuple[datetime | None, ...] | None:
        """Return what differs as soon as it has other calls; None: not all of it is over."""
        found = tuple(versions.get(day) for day in self.touched)
        if None in found and any(day in versions for day in self.touched if not versions.get(day)):
            return None
        return found


def pieces_of(wanted: Filter, versions: Versions) -> list[Stretch] | None:
    """Return the same as few stretches: days of the ledger, and less than one at either end."""
    if wanted.whole_report_days:
        return [stretch for _, stretch in stretches_of(wanted, versions) or ()]
    zone = wanted.report_zone
    first, last = wanted.report_days
    found = [_report_day(day, zone) for day in sorted(versions) if first <= day <= last]
    end = _quarter(wanted.end)
    ends = [] if last < first else [(_quarter(midnight(last + DAY, zone)), end)]
    if wanted.start is not None:
        until = end if last < first else _quarter(midnight(first, zone))
        ends.append((_quarter(wanted.start), until))
    edges = [_between(since, past, zone) for since, past in ends if since < past]
    torn = (
        is_torn(day, zone) for edge in edges for near in edge.touched for day in (near, near + DAY)
    )
    return None if any(torn) else [*found, *edges]


def stretches_of(wanted: Filter, versions: Versions) -> list[tuple[date, Stretch]] | None:
    """Return the days of a filter that may have calls; None: one of them is no stretch."""
    found = []
    for day in _days(wanted, versions):
        early = wanted.until is not None and day == wanted.last
        if wanted.in_report_zone and not early:
            found.append((day, _report_day(day, wanted.report_zone)))
            continue
        stretch = _local_day(day, wanted.zone, wanted.report_zone)
        if stretch is None:
            return None
        if early:
            past = min(stretch.past, _quarter(wanted.end))
            stretch = _between(stretch.since, past, wanted.report_zone)
        if stretch.since < stretch.past:
            found.append((day, stretch))
    return found


def is_torn(day: date, zone: ZoneInfo) -> bool:
    """Whether clocks are put back from that day to the one before."""
    again = datetime.combine(day, time(), tzinfo=zone).replace(fold=1).astimezone(UTC)
    return again > midnight(day, zone) and (again - MICROSECOND).astimezone(zone).date() < day


def _days(wanted: Filter, versions: Versions) -> Sequence[date]:
    first = wanted.first or date.min
    near: Iterable[date] = versions
    if not wanted.in_report_zone:
        near = {day + distance * DAY for day in versions for distance in (-1, 0, 1)}
    return sorted(day for day in near if first <= day <= wanted.last)


@lru_cache(maxsize=MOST_REMEMBERED)
def _report_day(day: date, zone: ZoneInfo) -> Stretch:
    return Stretch(midnight(day, zone), midnight(day + DAY, zone), (day,), is_report_day=True)


@lru_cache(maxsize=MOST_REMEMBERED)
def _local_day(day: date, zone: ZoneInfo, report_zone: ZoneInfo) -> Stretch | None:
    begin, past = _quarter(midnight(day, zone)), _quarter(midnight(day + DAY, zone))
    stretch = _between(begin, past, report_zone)
    torn = [is_torn(day, zone), is_torn(day + DAY, zone)]
    torn += [is_torn(touched, report_zone) for touched in stretch.touched]
    return None if any(torn) else stretch


def _between(since: datetime, past: datetime, report_zone: ZoneInfo) -> Stretch:
    first = since.astimezone(report_zone).date()
    last = (past - MICROSECOND).astimezone(report_zone).date()
    return Stretch(
        since, past, tuple(first + distance * DAY for distance in range((last - first).days + 1))
    )


def _quarter(moment: datetime) -> datetime:
    """Return the next full quarter of an hour: it counts where it begins."""
    return moment + (EPOCH - moment) % QUARTER

"""Which cells can answer a filter, and with which parameters they are asked. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from dashboard.cells import SUMS, Key, Source
from dashboard.errors import ParameterError
from dashboard.filters import OFFSET, Filter, midnight

FEW_USERS = 3  # up to which the days of each are read sooner than spans by endpoint and model
FEW_DAYS = 10  # up to which single days are read sooner than spans by endpoint and model
MANY_DAYS, FEW_NARROW_DAYS = 92, 45  # of which another zone's users are counted day by day
MANY_DAYS_OF_ROWS = 31  # of which users are counted where rows alone can tell
KEPT: frozenset[Source] = frozenset({"hours", "days", "day_pieces"})  # and added up here
PIECED: frozenset[Source] = frozenset({"day_pieces", "pieces", "feature_pieces", "user_pieces"})
SORTABLE = frozenset(SUMS) - {"audio_prompt_tokens", "audio_completion_tokens"}
MOST_DIGITS = 60  # of the place of a row
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
QUARTER = timedelta(minutes=15)
SLACK = timedelta(hours=3)  # by which the date of a row and the midnights of a day may disagree

Row = Mapping[str, Any]


def added(rows: Sequence[Row]) -> Row:
    """Return the sums of rows: of none 0, and None where nothing is known."""
    total: dict[str, Any] = {}
    for name in SUMS:
        known = [row[name] for row in rows if row[name] is not None]
        if name == "first_call":
            total[name] = min(known, default=None)
        elif name == "last_call":
            total[name] = max(known, default=None)
        else:
            nothing = Decimal(0) if name.endswith("_usd") else 0
            total[name] = sum(known, start=nothing) if known or not rows else None
    return total


def source_of(wanted: Filter, keys: tuple[Key, ...], search_in: str) -> Source:
    """Return the coarsest rows that can answer."""
    if wanted.by_call:
        return "calls"
    searched = wanted.search is not None and search_in == "user"
    if "user_id" in keys or "user" in wanted.without or wanted.users or searched:
        return _source_of_users(wanted, keys, search_in)
    if wanted.whole_report_days:
        return "days"
    return "hours" if "day" in keys else "day_pieces"


def in_daybook(wanted: Filter, keys: tuple[Key, ...], search_in: str) -> bool:
    """Whether sums are made of days that are kept, which know no user and no search."""
    if wanted.search is not None or wanted.after is not None:
        return False
    return source_of(wanted, keys, search_in) in KEPT


def in_sets(wanted: Filter, keys: tuple[Key, ...], search_in: str) -> bool:
    """Whether who is active can be told from the sets of users by day and endpoint."""
    if wanted.by_call or wanted.users or wanted.models or wanted.tiers:
        return False
    if {"user", "model"} & {*wanted.without}:
        return False
    if wanted.search is not None and search_in != "endpoint":
        return False
    return keys in {(), ("endpoint",)} or (keys == ("day",) and wanted.whole_report_days)


def in_rosters(wanted: Filter, keys: tuple[Key, ...]) -> bool:
    """Whether it can be told from the sets that are kept, which know models but no search."""
    if wanted.search is not None or wanted.by_call or wanted.users or wanted.tiers:
        return False
    return "user" not in wanted.without and keys in {(), ("endpoint",), ("day",)}


def knows_users(wanted: Filter, keys: tuple[Key, ...] = ()) -> bool:
    """Whether users are counted, by keys.

    Only of so many days they are of a service tier, which rows alone know, and of single days in
    another zone.
    """
    days = math.inf if wanted.first is None else (wanted.last - wanted.first).days
    if wanted.tiers and not wanted.users and days >= MANY_DAYS_OF_ROWS:
        return False
    if keys != ("day",) or wanted.whole_report_days:
        return True
    narrow = bool(wanted.endpoints or wanted.models or wanted.without)
    narrow = narrow or not in_rosters(wanted, keys)
    return days < (FEW_NARROW_DAYS if narrow else MANY_DAYS)


def _source_of_users(wanted: Filter, keys: tuple[Key, ...], search_in: str) -> Source:
    part_of_a_day = wanted.until is not None and wanted.first == wanted.last
    if wanted.tiers or "service_tier" in keys or part_of_a_day:
        return "calls"
    if "day" in keys:
        return "users" if wanted.in_report_zone else "calls"
    searched = set() if wanted.search is None else {search_in}
    by_feature = {"endpoint", "model"} & {*keys, *wanted.without, *searched}
    if not by_feature and not wanted.endpoints and not wanted.models:
        return "spans" if wanted.in_report_zone else "pieces"
    if wanted.users and (by_feature & {*keys} or len(wanted.users) <= FEW_USERS):
        return "users" if wanted.in_report_zone else "user_pieces"
    if not wanted.in_report_zone:
        return "feature_pieces"
    few_days = wanted.first is not None and (wanted.last - wanted.first).days < FEW_DAYS
    return "users" if few_days else "features"


def places(wanted: Filter, search_in: str, *, pieced: bool = False) -> tuple[object, ...]:
    """Return the parameters of every statement, in their order."""
    keys = [key for key, _ in wanted.metadata] or None
    first, last = wanted.report_days if pieced else (wanted.first, wanted.last)
    return (
        wanted.start,
        wanted.end,
        wanted.report_zone.key if pieced else wanted.zone.key,
        first,
        last,
        list(wanted.users) or None,
        list(wanted.endpoints) or None,
        list(wanted.models) or None,
        list(wanted.tiers) or None,
        list(wanted.outcomes) or None,
        list(wanted.without),
        keys,
        keys and [value for _, value in wanted.metadata],
        wanted.search,
        search_in,
    )


def cells_of(wanted: Filter) -> tuple[object, ...]:
    """Return the parameters that say which cells are ranked, in their order."""
    return list(wanted.endpoints) or None, list(wanted.models) or None, list(wanted.without)


def summing(
    wanted: Filter, keys: tuple[Key, ...], search_in: str, *, source: Source, limit: int | None
) -> tuple[object, ...]:
    """Return the parameters of a statement of sums."""
    column, direction = order_of(wanted, "name" if "day" in keys else "-cost_usd")
    place, name = sums_key(wanted)
    values = places(wanted, search_in, pieced=source in PIECED)
    return (*values, column, direction, place, name, limit, wanted.offset)


def in_order(wanted: Filter, keys: tuple[Key, ...], rows: Iterable[Row]) -> list[Row]:
    """Return rows of sums as the statement of sums orders them."""
    column, direction = order_of(wanted, "name" if "day" in keys else "-cost_usd")

    def name(row: Row) -> str:
        return "\x01".join("1" if row[key] is None else f"0{row[key]}" for key in keys)

    def place(row: Row) -> tuple[bool, Any]:
        value = row[column]
        return (True, 0) if value is None else (False, direction * _number(value))

    ordered = sorted(rows, key=name, reverse=column == "name" and direction == -1)
    return sorted(ordered, key=place) if column in SORTABLE else ordered


def _number(value: Any) -> Any:  # noqa: ANN401 - a sum or a moment, to be compared with its like
    return value - EPOCH if isinstance(value, datetime) else value


def is_narrow(wanted: Filter) -> bool:
    """Whether calls are asked for that may be rare, by what the sums of days know."""
    named = wanted.endpoints or wanted.models or wanted.tiers
    return not wanted.users and bool(named or {"endpoint", "model"} & {*wanted.without})


def on_days(wanted: Filter) -> Filter:
    """Return the filter as far as the sums of days know it, over all days that it touches."""
    return wanted.with_(
        first=None if wanted.first is None else wanted.first - 2 * DAY,
        last=wanted.last + 2 * DAY,
        zone=wanted.report_zone,
        outcomes=(),
        metadata=(),
        search=None,
        until=None,
    )


def to_quarter(wanted: Filter) -> Filter:
    """Return the filter with the end of its last day moved on to a full quarter of an hour."""
    if wanted.until is None:
        return wanted
    return wanted.with_(until=wanted.until + (EPOCH - wanted.until) % QUARTER)


def around(first: date, last: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return a time in which all of these days lie, also where a day has two midnights."""
    return midnight(first, zone) - SLACK, midnight(last + DAY, zone) + SLACK


def merged(wanted: Filter, ranks: Iterable[Row], *, limit: int) -> list[Row]:
    """Return ranks of several groups of users as those of all of them, as far as a page goes."""
    column, direction = order_of(wanted, "-cost_usd")
    if column == "name" and direction == -1:
        found = sorted(ranks, key=lambda row: str(row["after_name"]), reverse=True)
    else:
        found = sorted(ranks, key=lambda row: (Decimal(row["after_place"]), row["after_name"]))
    return found[wanted.offset : wanted.offset + limit]


def of_endpoint(wanted: Filter) -> tuple[object, ...]:
    """Return the parameters of what is known by endpoint alone."""
    without = "endpoint" in wanted.without
    return wanted.first, wanted.last, list(wanted.endpoints) or None, without


def moment(event_id: UUID) -> datetime:
    """Return when a call was admitted, as its id tells."""
    return EPOCH + timedelta(milliseconds=int.from_bytes(event_id.bytes[:6], "big"))


def order_of(wanted: Filter, default: str) -> tuple[str, int]:
    """Return by which column rows are sorted, and 1 or, the largest first, -1."""
    sort = wanted.sort or default
    return sort.removeprefix("-"), -1 if sort.startswith("-") else 1


def sums_key(wanted: Filter) -> tuple[Decimal | None, str | None]:
    """Return place and name of the row after which a page of sums begins."""
    if wanted.after is None or wanted.after[0] == OFFSET:
        return None, None
    try:
        place, name = wanted.after
        number = Decimal(str(place))
    except (ArithmeticError, ValueError):
        raise ParameterError("after", "expected what an earlier page has given") from None
    if number.is_nan() or name is None or not _is_short(number):
        raise ParameterError("after", "expected what an earlier page has given")
    return number, name


def _is_short(number: Decimal) -> bool:
    """Whether a place can be written out, as the next page's is: 0E-999999999 has a gigabyte."""
    _, digits, exponent = number.as_tuple()
    return not isinstance(exponent, int) or max(len(digits), abs(exponent)) <= MOST_DIGITS


def call_key(wanted: Filter) -> tuple[datetime | None, UUID | None]:
    """Return the call after which a page of calls begins."""
    if wanted.after is None:
        return None, None
    try:
        moment, event = wanted.after
        return datetime.fromisoformat(str(moment)), UUID(str(event))
    except ValueError:
        raise ParameterError("after", "expected what an earlier page has given") from None

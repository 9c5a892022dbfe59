"""Who was there on a day or in a part of one, read from the ledger as sets of bits.

Users have numbers, and a set is one number of as many bits; who is new today has none and is named.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import compress
from typing import NamedTuple, TypeVar

from dashboard import packed, selects
from dashboard.asking import EPOCH, Row
from dashboard.together import together

BLOCK = 8192  # users in one row of a set
MOST_UNPACKED = 8  # days whose sums are read one by one; with more of them longer spans are sooner
ONE = ord("1")
MILLENNIUM = datetime(2000, 1, 1, tzinfo=UTC)  # of packed moments
MICROSECOND = timedelta(microseconds=1)

T = TypeVar("T")
Fetch = Callable[..., Awaitable[Sequence[Row]]]
Present = Callable[..., Awaitable[Sequence[Row]]]  # who was there on open days, as `opened` tells


class Calls(NamedTuple):
    """The calls in which somebody has to be named; of these endpoints, or of these models, if any.

    `without_model`: of those that name none.
    """

    endpoints: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    without_model: bool = False

    @property
    def of_models(self) -> bool:
        """Whether the model matters, which the sets of days do not know."""
        return self.without_model or bool(self.models)

    @property
    def parameters(self) -> tuple[list[str] | None, list[str] | None, bool]:
        """Return them as statements take them."""
        return list(self.endpoints) or None, list(self.models) or None, self.without_model


ALL_CALLS = Calls()


class Part(NamedTuple):
    """A day of the report's zone, as far as it lies in a range; None: to its own end."""

    day: date
    since: datetime | None = None
    past: datetime | None = None
    by_endpoint: bool = True
    calls: Calls = ALL_CALLS

    @property
    def by_cell(self) -> bool:
        """Whether only sums by endpoint and model tell it."""
        return self.by_endpoint or self.calls.of_models

    @property
    def whole(self) -> bool:
        """Whether all of the day is meant."""
        return self.since is None and self.past is None

    @property
    def has_set(self) -> bool:
        """Whether a set of the ledger tells it: of all of a day that is over, of any model."""
        return self.whole and not self.calls.of_models

    @property
    def is_inside(self) -> bool:
        """Whether its day has begun before it and goes on after it."""
        return self.since is not None and self.past is not None


@dataclass(frozen=True, slots=True)
class Roster:
    """Users of a day: bits by endpoint, and the names of those who have no number yet."""

    numbered: Mapping[str | None, int] = field(default_factory=dict)
    nameless: Mapping[str | None, frozenset[str]] = field(default_factory=dict)
    known: bool = True  # False: the first and last calls do not tell, or too little is packed

    @property
    def size(self) -> int:
        """Return about how many bytes it takes."""
        return 600 + sum(100 + bits.bit_length() // 8 for bits in self.numbered.values())

    def with_(self, other: "Roster") -> "Roster":
        """Return it with other endpoints."""
        return Roster(
            {**self.numbered, **other.numbered},
            {**self.nameless, **other.nameless},
            self.known and other.known,
        )


async def of_folded_days(fetch: Fetch, parts: Sequence[Part]) -> dict[Part, Roster]:
    """Read the sets of folded days."""
    found: dict[date, dict[str | None, int]] = {part.day: {} for part in parts}
    for row in await fetch(selects.ROSTERS, list(found)):
        bits = int.from_bytes(row["users"].bytes, "big") << (BLOCK * row["block"])
        names = found[row["day"]]
        names[row["endpoint"]] = names.get(row["endpoint"], 0) | bits
    return {part: Roster(found[part.day]) for part in parts}


async def of_open_days(present: Present, parts: Sequence[Part]) -> dict[Part, Roster]:
    """Read who was there on days that are not folded yet, or in parts of them, all at once."""
    found: dict[Part, Roster] = {part: Roster() for part in parts}
    for alike in _alike(parts, lambda part: part.calls):
        by_endpoint = any(part.by_endpoint for part in alike)
        in_parts = not all(part.whole for part in alike)
        days = list({part.day for part in alike})
        calls = alike[0].calls
        for row in await present(days, calls, by_endpoint=by_endpoint, in_parts=in_parts):
            for part in alike:
                if part.day == row["day"]:
                    found[part] = found[part].with_(_of_open_day(row, part))
    return found


def _of_open_day(row: Row, part: Part) -> Roster:
    everybody = [
        name if number is None else number
        for number, name in zip(row["numbers"], row["names"], strict=True)
    ]
    here, known = everybody, True
    if not part.whole:
        begin = -math.inf if part.since is None else _moment(part.since, EPOCH)
        end = math.inf if part.past is None else _moment(part.past, EPOCH)
        here, known = _between(everybody, row["first_calls"], row["last_calls"], begin, end)
    return Roster(
        {row["endpoint"]: _bits([user for user in here if isinstance(user, int)])},
        {row["endpoint"]: frozenset(user for user in here if isinstance(user, str))},
        known,
    )


async def of_folded_parts(fetch: Fetch, parts: Sequence[Part]) -> dict[Part, Roster]:
    """Read who was there in parts of folded days, or at some models, which needs as much."""
    kinds = _alike(parts, lambda part: (part.is_inside, part.by_cell, part.calls))
    found: dict[Part, Roster] = {}
    for read in await together(*(_of_folded(fetch, some) for some in kinds)):
        found |= read
    return found


async def _of_folded(fetch: Fetch, parts: Sequence[Part]) -> dict[Part, Roster]:
    """Read parts that are alike from packed sums, or user by user where there are none."""
    found = await _of_packed(fetch, parts)
    missing = [part for part in parts if part not in found]
    if not missing:
        return found
    if len(missing) > MOST_UNPACKED and parts[0].calls.of_models:
        return found | dict.fromkeys(missing, Roster(known=False))
    statement = selects.ROSTERS_OF_DAYS if parts[0].by_cell else selects.ROSTERS_OF_SPANS
    return found | await _read(fetch, statement, missing)


def _alike(parts: Iterable[Part], kind: Callable[[Part], object]) -> list[list[Part]]:
    groups: dict[object, list[Part]] = {}
    for part in parts:
        groups.setdefault(kind(part), []).append(part)
    return [*groups.values()]


async def _of_packed(fetch: Fetch, parts: Sequence[Part]) -> dict[Part, Roster]:
    """Read it from packed sums, those of the days that have some; all parts ask for the same."""
    values = (
        [part.day for part in parts],
        [part.since for part in parts],
        [part.past for part in parts],
        parts[0].by_cell,
        *parts[0].calls.parameters,
    )
    statement = selects.ROSTERS_OF_HOURS if parts[0].is_inside else selects.ROSTERS_PACKED
    numbered: dict[int, dict[str | None, int]] = {}
    unknown: set[int] = set()
    for row in await fetch(statement, *values):
        place = row["place"] - 1
        names = numbered.setdefault(place, {})
        if row["users"] is None:
            continue
        here, known = _within(row, parts[place].since, parts[place].past)
        names[row["endpoint"]] = names.get(row["endpoint"], 0) | _bits(here)
        unknown |= set() if known else {place}
    return {
        parts[place]: Roster(names, known=place not in unknown) for place, names in numbered.items()
    }


async def _read(fetch: Fetch, statement: str, parts: Sequence[Part]) -> dict[Part, Roster]:
    _, models, without_model = parts[0].calls.parameters
    values = (
        [part.day for part in parts],
        [part.since for part in parts],
        [part.past for part in parts],
        models,
        without_model,
    )
    numbered: list[dict[str | None, int]] = [{} for _ in parts]
    nameless: list[dict[str | None, frozenset[str]]] = [{} for _ in parts]
    known = [True] * len(parts)
    for row in await fetch(statement, *values):
        place = row["place"] - 1
        numbered[place][row["endpoint"]] = _bits(row["numbers"] or ())
        nameless[place][row["endpoint"]] = frozenset(row["names"] or ())
        known[place] = known[place] and row["known"]
    return {
        part: Roster(numbered[place], nameless[place], known[place])
        for place, part in enumerate(parts)
    }


def _within(row: Row, since: datetime | None, past: datetime | None) -> tuple[list[int], bool]:
    """Return who of a packed row came in a part of its day, and whether that is known of all."""
    users = packed.numbers(row["users"], row["block"])
    if since is None and past is None:
        return list(users), True
    if past is None:
        lasts = packed.values(row["last_calls"], len(users))
        return list(compress(users, map(_moment(since or MILLENNIUM).__le__, lasts))), True
    if since is None:
        firsts = packed.values(row["first_calls"], len(users))
        return list(compress(users, map(_moment(past).__gt__, firsts))), True
    firsts = packed.values(row["first_calls"], len(users))
    lasts = packed.values(row["last_calls"], len(users))
    return _between(users, firsts, lasts, _moment(since), _moment(past))


def _between(
    users: Sequence[T], firsts: Sequence[int], lasts: Sequence[int], begin: float, end: float
) -> tuple[list[T], bool]:
    there = [
        (user, first >= begin or last < end)
        for user, first, last in zip(users, firsts, lasts, strict=True)
        if first < end and last >= begin and user is not None
    ]
    return [user for user, _ in there], all(known for _, known in there)


def _moment(moment: datetime, since: datetime = MILLENNIUM) -> int:
    return (moment - since) // MICROSECOND


def _bits(numbers: Sequence[int]) -> int:
    """Return a set of numbers, in the order in which the sets of the ledger have their bits."""
    blocks = max(numbers, default=0) // BLOCK + 1
    digits = bytearray(b"0") * (blocks * BLOCK)
    for number in numbers:
        digits[number] = ONE
    lowest_last = (digits[block * BLOCK : (block + 1) * BLOCK] for block in reversed(range(blocks)))
    return int(b"".join(lowest_last), 2)

"""Sums of many users, added up from packed columns without a row for each of them. Pure.

A packed row of the ledger holds the sums of thousands of users over some days: their numbers in one
column of bytes, and in another one value for each, all of one width and in the same order (see
usage_packed_span in schema.sql). To add up twenty spans of twenty thousand users is then some
hundred thousand steps here, where Postgres would take ten times as long over as many rows.
"""

import heapq
import sys
from array import array
from collections.abc import Iterator, MutableSequence, Sequence
from typing import Literal

BLOCK = 65_536  # numbers of users are kept modulo this one
NOBODY = -BLOCK  # the number that stands for calls without a user
Way = Literal["sum", "least", "greatest"]

_CODES = {1: "b", 2: "h", 4: "i", 8: "q"}
_UNTOUCHED: dict[Way, int] = {"sum": 0, "least": (1 << 63) - 1, "greatest": -(1 << 63)}


class Block:
    """One column of sums, of the users whose numbers lie in one block.

    `way` is how values of one user are put together; what is unknown counts as nothing, and a user
    of whom nothing is known has None.
    """

    def __init__(self, number: int, way: Way = "sum") -> None:
        self._first = number * BLOCK
        self._way = way
        self._untouched = _UNTOUCHED[way]
        self._totals: MutableSequence[int] = []
        self._all: list[Sequence[int]] = []  # the users of everything that was added
        self._unsure: set[int] = set()  # of whom something was unknown
        self._known: list[Sequence[int]] = []

    def add_packed(self, users: bytes, values: bytes | None, *, times: int = 1) -> None:
        """Add a packed row; each value counts so many times (1, unless scales differ)."""
        places = _unpacked(users, "H")
        self._all.append(places)
        if values is None:
            self._unsure.update(places)
            return
        self._known.append(places)
        if not values:  # all are 0
            return
        width = len(values) // len(places)
        found: Sequence[int] = _unpacked(values, _CODES[width])
        unknown = b"\x80" + bytes(width - 1)
        if unknown in values:  # or a row of bytes that looks like it
            least = -(1 << (8 * width - 1))
            self._known.pop()
            pairs = list(zip(places, found, strict=True))
            self._unsure.update(place for place, value in pairs if value == least)
            places = array("H", (place for place, value in pairs if value != least))
            found = [value for _, value in pairs if value != least]
            self._known.append(places)
        self._put(places, found if times == 1 else [value * times for value in found])

    def add(self, users: Sequence[int], values: Sequence[int | None], *, times: int = 1) -> None:
        """Add values of some users, by their whole numbers, so many times; None: unknown."""
        places = [user - self._first for user in users]
        self._all.append(places)
        known = [value * times for value in values if value is not None]
        if len(known) < len(places):
            pairs = list(zip(places, values, strict=True))
            self._unsure.update(place for place, value in pairs if value is None)
            places = [place for place, value in pairs if value is not None]
        self._known.append(places)
        self._put(places, known)

    def _put(self, places: Sequence[int], values: Sequence[int]) -> None:
        totals = self._totals
        missing = max(places, default=-1) + 1 - len(totals)
        if missing > 0:
            totals += [self._untouched] * missing
        if self._way == "sum":
            for place, value in zip(places, values, strict=True):
                totals[place] += value
        elif self._way == "least":
            for place, value in zip(places, values, strict=True):
                totals[place] = min(totals[place], value)
        else:
            for place, value in zip(places, values, strict=True):
                totals[place] = max(totals[place], value)

    def multiply(self, times: int) -> None:
        """Count everything so many times."""
        self._totals = [value * times for value in self._totals]

    def compacted(self) -> "Block":
        """Return the same in as little room as can be; what is added later goes to a `copy`.

        Raises OverflowError where a sum has more than 64 bits.
        """
        block = Block(self._first // BLOCK, self._way)
        block._totals = array("q", self._totals)
        named = set[int]().union(*self._all)
        block._all = [array("H", sorted(named))]
        block._unsure = self._unsure.difference(*self._known) if self._unsure else set()
        known = named - block._unsure
        block._known = [array("H", sorted(known))] if block._unsure else block._all
        return block

    def copy(self) -> "Block":
        """Return the same, to be added to."""
        block = Block(self._first // BLOCK, self._way)
        block._totals, block._unsure = [*self._totals], {*self._unsure}
        block._all, block._known = [*self._all], [*self._known]
        return block

    @property
    def size(self) -> int:
        """Return about how many bytes it takes, if it is compacted."""
        return 400 + 8 * len(self._totals) + 4 * sum(map(len, self._all)) + 60 * len(self._unsure)

    def others_than_zero(self) -> Iterator[tuple[int, int]]:
        """Yield number and value of each user who has one that is not 0."""
        first, untouched = self._first, self._untouched
        for place, value in enumerate(self._totals):
            if value != untouched:
                yield first + place, value

    def first(self, most: int, direction: int) -> list[tuple[int, int]]:
        """Return the same of those who come first, and of their equals; 1: least first, -1: last.

        There may be more than so many, where the last of them have equals.
        """
        first, untouched = self._first, self._untouched
        totals = [value for value in self._totals if value != untouched]
        least, greatest = min(totals, default=0), max(totals, default=0)
        if len(totals) > most:
            if direction > 0:
                greatest = heapq.nsmallest(most, totals)[-1]
            else:
                least = heapq.nlargest(most, totals)[-1]
        return [
            (first + place, value)
            for place, value in enumerate(self._totals)
            if least <= value <= greatest and value != untouched
        ]

    def zero_and_unknown(self) -> Iterator[tuple[int, int | None]]:
        """Yield the others who were named: their value is 0, or None where nothing is known."""
        totals, untouched = self._totals, self._untouched
        named = set[int]().union(*self._all)
        unknown = self._unsure.difference(*self._known) if self._unsure else self._unsure
        for place in sorted(named):
            if place in unknown:
                yield self._first + place, None
            elif place >= len(totals) or totals[place] == untouched:
                yield self._first + place, 0


def numbers(users: bytes, block: int) -> "array[int]":
    """Return the numbers of the users of a packed row."""
    found = _unpacked(users, "H")
    return array("i", (place + block * BLOCK for place in found)) if block else found


def _unpacked(column: bytes, code: str) -> "array[int]":
    found = array(code, column)
    if sys.byteorder == "little":
        found.byteswap()
    return found


def values(column: bytes, many: int) -> "array[int]":
    """Return so many values of which none is unknown and not all are 0."""
    return _unpacked(column, _CODES[len(column) // many])

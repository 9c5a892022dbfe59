"""Who comes first among many, block by block, without keeping more than a page of them. Pure.

A place is a whole number that grows downwards, or infinite for who is unknown and comes last. Names
decide among equals, and there may be a great many equals: of these only the numbers are kept, and
the ledger is asked for as many names as a page has.
"""

import heapq
import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Context, Decimal

from dashboard.errors import ParameterError
from dashboard.placing import EPOCH, SCALES

SCALE = 18  # decimal digits of money, at most
MOMENTS = ("first_call", "last_call")

Place = int | float | Decimal  # an infinite float, or what an address said
_EXACT = Context(prec=60)


@dataclass(slots=True)
class Places:
    """The `most` smallest places from one place on, and whose they are.

    `equal` are at the place where the page before has ended, some of them on it; `better` come
    after these and before `last`, who are all at one place and may be more than are wanted.
    """

    most: int
    after: Place = -math.inf
    equal: "array[int]" = field(default_factory=lambda: array("q"))
    better: list[tuple[Place, int]] = field(default_factory=list)
    last: "array[int]" = field(default_factory=lambda: array("q"))
    boundary: Place = math.inf

    def add(self, found: Iterable[tuple[Place, int]]) -> None:
        """Look at more users: at their places and numbers."""
        new = [pair for pair in found if pair[0] >= self.after]
        self.equal.extend(number for place, number in new if place == self.after)
        new = [pair for pair in new if self.after < pair[0] <= self.boundary]
        known = len(self.better) + len(self.last)
        places = [place for place, _ in self.better]
        places += [self.boundary] * min(len(self.last), self.most)
        places += [place for place, _ in new]
        if known + len(new) < self.most:
            self.better += new
            return
        boundary = heapq.nsmallest(self.most, places)[-1]
        if boundary < self.boundary or not known:
            self.last = array("q")
        self.last.extend(number for place, number in (*self.better, *new) if place == boundary)
        self.better = [pair for pair in (*self.better, *new) if pair[0] < boundary]
        self.boundary = boundary

    def is_full_before(self, place: Place) -> bool:
        """Whether nobody at this place, or further down, can be on the page."""
        return place > self.boundary


@dataclass(frozen=True, slots=True)
class Order:
    """A column, its direction (1 or -1), and the row after which a page begins, if any."""

    column: str
    direction: int
    after_place: Decimal | None
    after_name: str | None

    @property
    def after(self) -> Place:
        """Return the place after which the page begins, as places are counted here.

        Raises ParameterError for a number that no page has given.
        """
        if self.after_place is None or self.after_name is None:
            return -math.inf
        if not self.after_place.is_finite():
            return math.inf if self.after_place > 0 else -math.inf
        try:
            if self.column in SCALES:
                return _EXACT.scaleb(self.after_place, SCALE)
            if self.column in MOMENTS:
                return _EXACT.scaleb(self.after_place, 6) - self.direction * EPOCH
        except ArithmeticError:
            raise ParameterError("after", "expected what an earlier page has given") from None
        return self.after_place

    @property
    def falls(self) -> bool:
        """Whether names are in their order backwards."""
        return self.column == "name" and self.direction == -1

    def written(self, place: Place) -> str:
        """Return a place as an address says it."""
        if place == math.inf:
            return "Infinity"
        number = Decimal(place)
        if self.column in SCALES:
            number = _EXACT.scaleb(number, -SCALE)
        elif self.column in MOMENTS:
            number = _EXACT.scaleb(number + self.direction * EPOCH, -6)
        return f"{number:f}"

    def comes(self, name: str) -> bool:
        """Whether a name comes after that of the row after which the page begins."""
        if self.after_name is None:
            return True
        return name < self.after_name if self.falls else name > self.after_name

    def bound(self) -> tuple[bool, str | None]:
        """Return whether users may come after that row, and the id after which they do, if any."""
        if self.after_name is None:
            return True, None
        if self.after_name.startswith("0"):
            return True, self.after_name[1:]
        return self.comes("0"), None

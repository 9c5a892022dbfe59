"""A hand-written document, read strictly: every value knows its line and what it should have been.

Nothing is converted until somebody asks for it, and then only from the one spelling that is meant:
amounts are quoted decimals, factors begin with an x, days are ISO dates. Whatever else stands there
is refused with its line, what was found and what was expected.
"""

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import NoReturn

from proxy.errors import PriceFileError

_AMOUNT = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")
_FACTOR = re.compile(r"x[0-9]{1,3}(\.[0-9]{1,6})?")
_COUNT = re.compile(r"[0-9]{1,12}")
_LIST_LIMIT = 12  # names that fit a line
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a document; `kind` is what it looks like (str, int, float, map, seq)."""

    line: int
    kind: str
    scalar: str = ""
    sequence: "tuple[Value, ...]" = ()
    mapping: "tuple[tuple[Value, Value], ...]" = ()

    def members(
        self, known: Collection[str] | None = None, required: Collection[str] = ()
    ) -> "dict[str, Value]":
        """Return the members of a mapping; `known` None: any name will do."""
        if self.kind != "map":
            self.refuse("a mapping")
        found: dict[str, Value] = {}
        keys: dict[str, Value] = {}
        for key, value in self.mapping:
            name = key.text()
            if name in keys:
                key.refuse(f"each member once; line {keys[name].line} has it already")
            if known is not None:
                key.choice(known)
            keys[name], found[name] = key, value
        for name in required:
            if name not in found:
                self.refuse(f"a member {name!r}")
        return found

    def items(self) -> "tuple[Value, ...]":
        """Return the items of a list."""
        if self.kind != "seq":
            self.refuse("a list")
        return self.sequence

    def texts(self) -> tuple[str, ...]:
        """Return a list of texts."""
        return tuple(item.text() for item in self.items())

    def text(self) -> str:
        """Return a text that is not empty."""
        if self.kind != "str" or not self.scalar:
            self.refuse("a text (in quotes, where it looks like something else)")
        return self.scalar

    def choice(self, options: Collection[str]) -> str:
        """Return one of the texts that are possible here."""
        name = self.text()
        if name not in options:
            self.refuse(_one_of(name, options))
        return name

    def amount(self) -> Decimal:
        """Return an amount of USD, written as a quoted decimal."""
        if self.kind != "str" or not _AMOUNT.fullmatch(self.scalar):
            self.refuse('a quoted decimal with at most six places, such as "0.15"')
        return Decimal(self.scalar)

    def factor(self) -> Decimal:
        """Return a factor, written as x1.10."""
        if self.kind != "str" or not _FACTOR.fullmatch(self.scalar):
            self.refuse("a factor with at most six places, such as x1.10")
        return Decimal(self.scalar[1:])

    def count(self) -> int:
        """Return a whole number, written bare."""
        if self.kind != "int" or not _COUNT.fullmatch(self.scalar):
            self.refuse("a whole number, such as 272000")
        return int(self.scalar)

    def flag(self) -> bool:
        """Return true or false."""
        if self.kind != "bool" or self.scalar not in {"true", "false"}:
            self.refuse("true or false")
        return self.scalar == "true"

    def day(self) -> datetime:
        """Return the beginning of a day, UTC."""
        try:
            day = date.fromisoformat(self.scalar if _DAY.fullmatch(self.scalar) else "")
        except ValueError:
            self.refuse("a day that exists, such as 2026-11-22")
        return datetime(day.year, day.month, day.day, tzinfo=UTC)

    def refuse(self, expected: str) -> NoReturn:
        """Raise the error that names line, finding and expectation."""
        raise PriceFileError(f"line {self.line}: found {self._finding()}; expected {expected}")

    def _finding(self) -> str:
        match self.kind:
            case "map":
                return "a mapping"
            case "seq":
                return "a list"
            case "null":
                return "nothing"
            case "str" | "timestamp":
                return repr(self.scalar)
            case kind:
                return f"the {kind} {self.scalar}"


def _one_of(name: str, options: Collection[str]) -> str:
    """Say what is possible; where that is much, only what comes closest."""
    possible = sorted(options)
    listed = f"one of {', '.join(possible)}" if len(possible) <= _LIST_LIMIT else "a known name"
    closest = difflib.get_close_matches(name, possible, n=1)
    return f"{listed} (did you mean {closest[0]!r}?)" if closest else listed

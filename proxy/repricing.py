"""`openai-meter reprice`: price calls anew and append what has changed, or only say what would.

Rows are never updated: what a call costs more or less, or now that its price is known, is a row of
its own. Each page of calls is one transaction, and a call that costs what the price file says is
left alone, so that the command can be interrupted and run again at any time.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TextIO

from proxy.core.model import Correction, StoredCall, UsageSource
from proxy.core.pricing import NOTHING, PriceBook
from proxy.core.repricing import correction_of, recharged
from proxy.correcting import Calls, Found
from proxy.errors import OvertakenError
from proxy.ledger import Ledger

_BAR = 30  # characters
_TEXTS = 2  # columns; the others are numbers
_HEADINGS = ("month", "model", "calls", "changed", "before USD", "after USD", "difference USD")


@dataclass(slots=True)
class Line:
    """What is found of the calls of one model in one month."""

    calls: int = 0
    changed: int = 0
    priced: int = 0  # that had no price
    unpriced: int = 0  # that have none still
    kept: int = 0  # whose price the file does not know
    before: Decimal = NOTHING
    after: Decimal = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Where a difference belongs."""

    month: date
    model: str
    accounting_month: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A call, and what corrects it; `is_known`: the price file has a price for it."""

    found: Found
    change: Correction | None
    is_known: bool


class Tally:
    """The difference per model and month."""

    def __init__(self) -> None:
        self.lines: defaultdict[Key, Line] = defaultdict(Line)

    def add(self, judged: Judged) -> None:
        """Count a call."""
        call, change = judged.found.call, judged.change
        key = Key(
            month=judged.found.month,
            model=call.model or "(none)",
            accounting_month=judged.found.accounting_month,
        )
        line = self.lines[key]
        before = call.cost_usd or NOTHING
        line.calls += 1
        line.before += before
        line.after += before + ((change.cost_usd if change else None) or NOTHING)
        line.changed += change is not None
        line.priced += call.cost_usd is None and change is not None
        line.unpriced += change is None and _has_tokens_without_price(call)
        line.kept += call.cost_usd is not None and not judged.is_known

    @property
    def total(self) -> Line:
        """The sum of all lines."""
        total = Line()
        for line in self.lines.values():
            for name in Line.__slots__:
                setattr(total, name, getattr(total, name) + getattr(line, name))
        return total


async def reprice(
    calls: Calls, ledger: Ledger, book: PriceBook, *, dry_run: bool, bar: TextIO = sys.stderr
) -> Tally:
    """Bring all calls of the span to what the book says; return what was, or would be, changed."""
    tally = Tally()
    done = dry_run
    try:
        whole = await calls.count()
        if not dry_run:
            await ledger.store_prices(book.catalog_version, book.rates())
        async for page in calls.pages():
            judged = [_judged(found, book) for found in page]
            if not dry_run:
                await _append(ledger, judged)
            for each in judged:
                tally.add(each)
            _draw(bar, tally.total.calls, whole)
        done = True
    finally:
        _finish(bar, tally, is_complete=done)
    return tally


def report(tally: Tally, *, dry_run: bool) -> str:
    """Return the table that is printed, line by line, and what it means."""
    rows = [
        _cells(f"{key.month:%Y-%m}", key.model, line)
        for key, line in sorted(
            tally.lines.items(), key=lambda item: (item[0].month, item[0].model)
        )
        if line.changed
    ]
    total = tally.total
    words = list(_words(tally, total, dry_run=dry_run))
    if rows:
        words = [_table([_HEADINGS, *rows, _cells("total", "", total)]), "", *words]
    return "\n".join(words) + "\n"


def _has_tokens_without_price(call: StoredCall) -> bool:
    return call.usage_source != UsageSource.UNAVAILABLE and (
        call.cost_usd is None or call.unpriced_reason is not None
    )


def _judged(found: Found, book: PriceBook) -> Judged:
    row = recharged(found.call, book)
    return Judged(
        found=found,
        change=correction_of(found.call, row),
        is_known=row is not None and row.cost_usd is not None,
    )


async def _append(ledger: Ledger, judged: Sequence[Judged]) -> None:
    corrections = [each.change for each in judged if each.change is not None]
    if await ledger.correct(corrections) < len(corrections):
        raise OvertakenError


def _draw(bar: TextIO, done: int, whole: int) -> None:
    if bar.isatty():
        whole = max(done, whole, 1)
        full = "#" * (_BAR * done // whole)
        bar.write(f"\r[{full:<{_BAR}}] {100 * done // whole:3} %  {done:,} of {whole:,} calls")
        bar.flush()


def _finish(bar: TextIO, tally: Tally, *, is_complete: bool) -> None:
    if bar.isatty():
        bar.write("\n")
    if not is_complete:
        total = tally.total
        bar.write(
            f"interrupted after {_counted(total.calls, 'call', 'calls')}, "
            f"{total.changed:,} of them corrected: "
            "run the same again for the rest\n"
        )


def _cells(month: str, model: str, line: Line) -> tuple[str, ...]:
    amounts = (line.before, line.after, line.after - line.before)
    counts = (f"{line.calls:,}", f"{line.changed:,}")
    return (month, model, *counts, *(f"{amount:,.6f}" for amount in amounts))


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEADINGS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < _TEXTS else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _words(tally: Tally, total: Line, *, dry_run: bool) -> Iterator[str]:
    """Yield one sentence for each thing that is worth knowing."""
    if not total.calls:
        yield "No calls of these days, or none of this model: nothing to correct."
    elif not total.changed:
        calls = _counted(total.calls, "call costs", "calls cost")
        yield f"Nothing to correct: {calls} what the price file says."
    elif dry_run:
        calls = _counted(total.changed, "call", "calls")
        yield f"{calls} would be corrected; nothing has been written."
    else:
        yield f"{_counted(total.changed, 'correction', 'corrections')} appended."
    if total.priced:
        yield f"{total.priced:,} of them had no price before."
    if total.unpriced:
        calls = _counted(total.unpriced, "call has", "calls have")
        yield f"{calls} no price still, or not all of it."
    if total.kept:
        calls = _counted(total.kept, "call keeps", "calls keep")
        yield f"{calls} a cost that this price file does not know."
    moved = {
        (key.month, key.accounting_month)
        for key, line in tally.lines.items()
        if line.changed and key.month != key.accounting_month
    }
    for month, accounting_month in sorted(moved):
        yield f"{month:%Y-%m} is closed: its corrections count in {accounting_month:%Y-%m}."


def _counted(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"

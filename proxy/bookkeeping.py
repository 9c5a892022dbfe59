"""The commands that look after prices and the ledger, for people: what they do and what they print.

Tables and findings go to standard output, progress to standard error. Whatever is wrong is a
MeterError, which the command line makes one sentence of.
"""

import asyncio
import sys
from datetime import date
from pathlib import Path

from proxy.core.pricing import PriceBook
from proxy.correcting import Calls, Span
from proxy.errors import ClosingError
from proxy.freezing import ClosedMonth, Months
from proxy.ledger import Ledger
from proxy.pricefile import load_price_book
from proxy.repricing import report, reprice
from proxy.resources import resource

_FOR_EVER = date(9999, 1, 1)


def check_prices(path: Path | None, dsn: str | None, *, first: date | None) -> None:
    """Say that a pricing file can be used and, where there is a ledger, what it would change."""
    path = path or resource("pricing.yaml")
    book = load_price_book(path)
    rates = sum(1 for _ in book.rates())
    sys.stdout.write(f"{path}: catalogue {book.catalog_version}, {rates} unit prices, all well\n")
    if dsn is not None:
        span = Span(first=first, until=_FOR_EVER)
        sys.stdout.write(asyncio.run(_repriced(dsn, book, span, dry_run=True)))


def reprice_calls(
    path: Path | None, dsn: str, days: tuple[date, date], *, model: str | None, dry_run: bool
) -> None:
    """Price the calls of these days anew, or say what that would change."""
    book = load_price_book(path or resource("pricing.yaml"))
    span = Span(first=days[0], until=days[1], model=model)
    sys.stdout.write(asyncio.run(_repriced(dsn, book, span, dry_run=dry_run)))


async def _repriced(dsn: str, book: PriceBook, span: Span, *, dry_run: bool) -> str:
    calls = Calls(dsn, span)
    ledger = Ledger(dsn, report_timezone="UTC")  # which it is in earnest the database knows
    try:
        return report(await reprice(calls, ledger, book, dry_run=dry_run), dry_run=dry_run)
    finally:
        await calls.close()
        await ledger.close()


def close_month(dsn: str, month: date, *, export: Path | None) -> None:
    """Close a month and write its export, or only that where it is closed already."""
    months = Months(dsn)
    known = {closed.month: closed for closed in asyncio.run(months.all())}
    closed = known.get(month)
    if closed is None or closed.export_sha256 is None or export is None:
        closed = asyncio.run(months.close(month))
    sys.stdout.write(f"{_line(closed)}\n")
    sys.stdout.write(f"What comes for it from now on counts at {closed.ends_at:%Y-%m-%dT%H:%MZ}.\n")
    if export is not None:
        _export(months, month, export)
        sys.stdout.write(f"{export} is its export.\n")


def _export(months: Months, month: date, path: Path) -> None:
    """Write the export of a closed month to a file that has all of it, or is not there."""
    part = path if path.exists() and not path.is_file() else path.with_name(f"{path.name}.part")
    try:
        try:
            with part.open("wb") as file:
                asyncio.run(months.export(month, file.write))
            if part != path:
                part.replace(path)
        except BaseException:
            if part != path:
                part.unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise ClosingError(f"{path} cannot be written: {exc.strerror}") from exc


def verify_months(dsn: str, month: date | None) -> None:
    """Say of the closed months whether they are as they were; raise ClosingError if one is not."""
    found = asyncio.run(_findings(dsn, month))
    months = [closed for closed in asyncio.run(Months(dsn).all()) if month in {None, closed.month}]
    if month is not None and not months:
        raise ClosingError(f"{month:%Y-%m} is not closed")
    for closed in months:
        gone = "; its rows were let go of, only their hash is left" if closed.is_retired else ""
        sys.stdout.write(f"{_line(closed)}{gone}\n")
    if found:
        raise ClosingError("; ".join(found))
    sys.stdout.write("All are as they were closed.\n")


async def _findings(dsn: str, month: date | None) -> list[str]:
    return [finding async for finding in Months(dsn).findings(month)]


def _line(closed: ClosedMonth) -> str:
    cost = f"{closed.cost_usd or 0:f} USD"
    return (
        f"{closed.month:%Y-%m} ({closed.report_timezone}) is closed: {closed.export_rows} rows, "
        f"{cost}, SHA-256 of the export {closed.export_sha256}"
    )

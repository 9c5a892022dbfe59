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

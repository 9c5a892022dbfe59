"""`openai-meter verify`: hold the ledger to its word, check by check.

A check reads and changes nothing. It yields a sentence for each thing that is not as it should be,
and names it so that it can be found. Whoever has something that can be checked lists it here.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from proxy import freezing, rollups, seals
from proxy.database import connect
from proxy.rollups import Period
from proxy.seals import gaps

STATEMENT_SECONDS = 3600.0
MOST_FINDINGS = 1000  # of one check; who has more knows enough

Findings = AsyncIterator[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something that must be so; `findings` reads a ledger and yields what is not."""

    name: str
    promise: str
    findings: Callable[[str, Period], Findings]


CHECKS: tuple[Check, ...] = (
    Check(
        name="sums",
        promise="every rollup holds the sums of its rows",
        findings=rollups.findings,
    ),
    Check(
        name="seals",
        promise="every row is as it was recorded, none is missing, none was put in",
        findings=seals.findings,
    ),
    Check(
        name="months",
        promise="every closed month is as it was closed",
        findings=freezing.findings,
    ),
)


def run_verify(dsn: str, period: Period, tell: Callable[[str], object]) -> int:
    """Run all checks and return how many things were found."""
    return asyncio.run(_verify(dsn, period, tell))


async def _verify(dsn: str, period: Period, tell: Callable[[str], object]) -> int:
    await _reach(dsn)
    found = 0
    for check in CHECKS:
        mine = 0
        async for finding in check.findings(dsn, period):
            tell(f"{check.name}: {finding}")
            mine += 1
            if mine >= MOST_FINDINGS:
                tell(f"{check.name}: {mine} findings, not looked any further")
                break
        if not mine:
            tell(f"{check.name}: all well, {check.promise}")
        found += mine
    for gap in await gaps(dsn, period):
        tell(f"gaps: {gap}")
    return found


async def _reach(dsn: str) -> None:
    """Raise what a check could not say better: no database, wrong password."""
    (await connect(dsn, statement_seconds=STATEMENT_SECONDS)).terminate()

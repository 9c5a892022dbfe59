"""The numbers of a report: frozen, exact, and honest about what is not known. Pure."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Sums from one day on; None is unknown, and 0 only where there were no calls."""

    name: str  # today, month, overall
    since: date | None
    calls: int
    errors: int
    active_users: int
    unpriced_calls: int
    estimated_calls: int
    unavailable_calls: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    total_tokens: int | None
    cost_usd: Decimal | None

    @property
    def estimated_share(self) -> float | None:
        """Return which part of the calls has estimated usage; None without calls."""
        return round(self.estimated_calls / self.calls, 6) if self.calls else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What `/api/usage/stats` and the page show."""

    as_of: datetime
    newest_call: datetime | None
    report_timezone: str
    periods: tuple[Period, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What `/healthz` shows while the database answers."""

    newest_call: datetime | None

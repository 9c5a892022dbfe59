"""Sums by day as a chart: which days, which series, which scale. Pure.

The chart is drawn twice from the same numbers: as SVG, which needs nothing, and by the script of
the page, which adds the hover. Numbers are floats here, because pixels are; tables have the sums.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

MOST_SERIES = 6  # the rest is one more
MOST_BARS = 184  # more days than that become months
OTHER = "Other"
HEIGHT = 280
_STEPS = (1, 2, 2.5, 5, 10)
_LINES = 4
_LABELS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One colour of the chart, from the bottom up."""

    name: str | None  # None: what had no name
    values: tuple[float, ...]
    exact: tuple[str, ...]
    total: Decimal
    other: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A rectangle: horizontal places in per cent, vertical ones in pixels."""

    series: int
    x: str
    width: str
    y: str
    height: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Stacked bars: one for each day, or for each month."""

    starts: tuple[date, ...]
    monthly: bool
    series: tuple[Series, ...]
    top: float  # where the scale ends
    lines: tuple[float, ...]  # values of the lines of the grid, largest first

    @property
    def bars(self) -> list[Bar]:
        """Return all rectangles."""
        return [bar for index in range(len(self.starts)) for bar in self._stack(index)]

    @property
    def labels(self) -> list[date]:
        """Return the days that are named below the chart, evenly apart."""
        if len(self.starts) <= _LABELS:
            return list(self.starts)
        step = (len(self.starts) - 1) / (_LABELS - 1)
        return [self.starts[round(number * step)] for number in range(_LABELS)]

    @property
    def data(self) -> dict[str, Any]:
        """Return what the script draws."""
        return {
            "monthly": self.monthly,
            "days": [start.isoformat() for start in self.starts],
            "series": [
                {"name": series.name, "other": series.other, "values": series.exact}
                for series in self.series
            ],
        }

    def _stack(self, index: int) -> Iterable[Bar]:
        step = 100 / len(self.starts)
        floor = 0.0
        for number, series in enumerate(self.series):
            value = series.values[index]
            if value > 0:
                height = value / self.top * HEIGHT
                yield Bar(
                    series=number,
                    x=f"{step * (index + 0.12):.3f}%",
                    width=f"{step * 0.76:.3f}%",
                    y=f"{HEIGHT - floor - height:.2f}",
                    height=f"{height:.2f}",
                )
                floor += height


def chart(
    rows: Sequence[Mapping[str, Any]],
    *,
    first: date | None,
    last: date,
    by: str | None,
    value: str = "cost_usd",
) -> Chart | None:
    """Return the chart of rows that have a day and, unless None, a name; None: nothing to draw."""
    known = [row for row in rows if row[value]]
    if not known:
        return None
    begins = min(row["day"] for row in known) if first is None else first
    ends = max(last if first is not None else begins, *(row["day"] for row in known))
    monthly = (ends - begins).days + 1 > MOST_BARS
    starts = _months(begins, ends) if monthly else _days(begins, ends)
    places = {start: index for index, start in enumerate(starts)}
    sums: dict[str | None, list[Decimal]] = defaultdict(lambda: [Decimal(0)] * len(starts))
    for row in known:
        start = row["day"].replace(day=1) if monthly else row["day"]
        if start in places:
            sums[row[by] if by else value][places[start]] += row[value]
    series = _largest_first(sums, len(starts))
    if not series:
        return None
    most = max(map(sum, zip(*(one.values for one in series), strict=True)))
    lines = _scale(most)
    return Chart(starts=tuple(starts), monthly=monthly, series=series, top=lines[0], lines=lines)


def _largest_first(sums: Mapping[str | None, Sequence[Decimal]], length: int) -> tuple[Series, ...]:
    ranked = sorted(sums.items(), key=lambda item: (-sum(item[1]), str(item[0])))
    series = [_series(name, values) for name, values in ranked[:MOST_SERIES]]
    rest = [values for _, values in ranked[MOST_SERIES:]]
    if rest:
        added = [sum((values[index] for values in rest), Decimal(0)) for index in range(length)]
        series.append(_series(OTHER, added, other=True))
    return tuple(series)


def _series(name: str | None, values: Sequence[Decimal], *, other: bool = False) -> Series:
    return Series(
        name=name,
        values=tuple(max(0.0, float(value)) for value in values),
        exact=tuple(format(value, "f") for value in values),
        total=sum(values, Decimal(0)),
        other=other,
    )


def _scale(most: float) -> tuple[float, ...]:
    """Return round values from above the largest down to 0, evenly apart."""
    if most <= 0:
        return (1.0, 0.0)
    rough = most / _LINES
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(step * magnitude for step in _STEPS if step * magnitude >= rough * 0.999999)
    count = math.ceil(most / step * 0.999999)
    return tuple(step * number for number in range(count, -1, -1))


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _months(first: date, last: date) -> list[date]:
    found, month = [], first.replace(day=1)
    while month <= last:
        found.append(month)
        month = (month + timedelta(days=31)).replace(day=1)
    return found

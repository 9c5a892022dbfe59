"""Results as tables: medians with least and greatest values, ratios to nginx of the same round."""

import re
from pathlib import Path
from statistics import median
from typing import NamedTuple

from loads import Row

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
Results = dict[str, list[Row]]  # of each target: a row for each round


class Column(NamedTuple):
    """One column: its heading, the number, and what it is set against."""

    heading: str
    key: str
    digits: int = 0
    ratio: bool = False  # beside nginx in the same round
    added: bool = False  # less what nothing in between takes in the same round


def table(title: str, results: Results, columns: list[Column]) -> str:
    """Return one table."""
    lines = [f"### {title}", "", "| target | " + " | ".join(c.heading for c in columns) + " |"]
    lines.append("|---" + "|---:" * len(columns) + "|")
    for name, rows in results.items():
        cells = [_cell(name, rows, results, column) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(name: str, rows: list[Row], results: Results, column: Column) -> str:
    against = results.get("nginx" if column.ratio else "direct", [])
    values = []
    for number, row in enumerate(rows):
        if column.key not in row:
            continue
        value = row[column.key]
        other = against[number].get(column.key) if number < len(against) else None
        if column.ratio:
            if not other:
                continue
            value /= other
        elif column.added and name != "direct":
            if other is None:
                continue
            value -= other
        values.append(value)
    return spread(values, column.digits)


def spread(values: list[float], digits: int = 0) -> str:
    """Return the median and, where they differ, the least and the greatest value."""
    if not values:
        return ""
    shown = [f"{value:,.{digits}f}" for value in (median(values), min(values), max(values))]
    return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"


def put(page: Path, text: str) -> None:
    """Put the tables between the marks of a page."""
    old = page.read_text()
    pattern = re.compile(f"{BEGIN}.*{END}", re.DOTALL)
    if not pattern.search(old):
        raise SystemExit(f"{page} has no place for tables: {BEGIN} … {END}")
    page.write_text(pattern.sub(lambda _: f"{BEGIN}\n\n{text}\n\n{END}", old))

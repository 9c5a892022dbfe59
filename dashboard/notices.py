"""What is in no sum of a report, said in a sentence each: why, since when, and what to do. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dashboard import formatting
from dashboard.report import Report

MOST_GAPS, MOST_OBJECTS = 1000, 10_000  # that are looked at, as `selects` has it
_KINDS = {  # of objects: one, and more of them
    "response": ("background response", "background responses"),
    "run": ("run", "runs"),
    "batch": ("batch", "batches"),
    "job": ("fine-tuning job", "fine-tuning jobs"),
    "video": ("video", "videos"),
    "eval_run": ("evaluation", "evaluations"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that whoever reads the sums should know."""

    title: str
    words: str
    advice: str
    urgent: bool


def notices(report: Report) -> list[Notice]:
    """Return what is missing from the sums of a report; nothing, as a rule."""
    return [*_of_gaps(report), *_of_open_objects(report)]


def _of_gaps(report: Report) -> Sequence[Notice]:
    rows = _rows(report, "gaps")
    if not rows:
        return ()
    zone = report.filter.zone
    calls = sum(row["calls"] for row in rows)
    first = formatting.moment(min(row["started_at"] for row in rows), zone)
    last = formatting.moment(max(row["ended_at"] for row in rows), zone)
    least = "At least " if len(rows) >= MOST_GAPS else ""
    times = "" if len(rows) == 1 else f", {len(rows)} times"
    return (
        Notice(
            title=f"{least}{_counted(calls, 'call was', 'calls were')} not metered",
            words=f"Between {first} and {last}{times}: the proxy could not write them down. "
            "Whosever they were, they are in no sum here.",
            advice="Mostly the disk of METER_DATA_DIR was full: make room. openai-meter verify "
            "lists each time, and OpenAI’s own usage page has what they cost.",
            urgent=True,
        ),
    )


def _of_open_objects(report: Report) -> Sequence[Notice]:
    rows = _rows(report, "open_objects")
    if not rows:
        return ()
    objects = sum(row["objects"] for row in rows)
    kinds = ", ".join(
        _counted(row["objects"], *_KINDS.get(row["kind"], (row["kind"], row["kind"])))
        for row in rows
    )
    least = "At least " if objects >= MOST_OBJECTS else ""
    oldest = formatting.moment(min(row["first_made"] for row in rows), report.filter.zone)
    tiers = " Their service tier is not known before they are." if report.filter.tiers else ""
    return (
        Notice(
            title=f"{least}{_counted(objects, 'object is', 'objects are')} not charged yet",
            words=f"Made in these days and not seen done: {kinds}; the oldest is of {oldest}."
            + tiers,
            advice="What they cost is known, and counts on the day on which they were made, once a "
            "client asks for them through the proxy when they are done.",
            urgent=False,
        ),
    )


def _rows(report: Report, name: str) -> list[dict[str, Any]]:
    """Return the rows of a table, none where the report has no such table."""
    found = [table.records() for table in report.tables if table.name == name]
    return [dict(row) for row in found[0]] if found else []


def _counted(number: int, one: str, more: str) -> str:
    return f"{formatting.count(number)} {one if number == 1 else more}"

"""Pages, JSON, CSV and FOCUS tell what the rows tell, in any zone and over any days."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dashboard import rendering
from dashboard.copying import copy_file
from dashboard.exports import Form
from dashboard.filters import Filter, midnight
from dashboard.queries import Ledger
from dashboard.report import Report
from dashboard.reporting import Reporter
from dashboard.snapshot import Snapshot
from proxy.core.model import LedgerRow
from tests.dashboard.conftest import empty, fold, record
from tests.fakes.rows import ledger_row, unavailable_row, unpriced_row

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe",
    "Pacific/Apia",
)  # fmt: skip
# Around the days on which clocks change, a leap day, and ends of months and of a year.
DAYS = (
    date(2024, 2, 29), date(2026, 3, 8), date(2026, 3, 29), date(2026, 4, 5), date(2026, 10, 4),
    date(2026, 10, 25), date(2026, 10, 31), date(2026, 11, 1), date(2026, 12, 31),
)  # fmt: skip
USERS = ("ada", "bob", "=cmd()", 'O\'Neil "x"', "\u202e🙂", None)
ENDPOINTS = ("hint", "chat\nresponse", None)
MODELS = ("gpt-a", "gpt-b", None)
LEDGERS = 12
QUESTIONS_OF_EACH = 6

_moments = st.builds(
    lambda day, minutes: (
        datetime(day.year, day.month, day.day, tzinfo=UTC)
        + timedelta(minutes=minutes, milliseconds=minutes % 7)
    ),
    st.sampled_from(DAYS),
    st.integers(-2000, 2880),
)
_costs = st.integers(0, 10**9).map(lambda units: Decimal(units).scaleb(-12))


@dataclass(frozen=True)
class Question:
    """Days of a zone, and perhaps one user, one endpoint, or models ("": calls without one)."""

    zone: str
    first: date
    length: int
    user: str | None
    endpoint: str | None
    models: tuple[str, ...]

    def filter(self, report_zone: str) -> Filter:
        """Return it as the dashboard asks it."""
        return Filter(
            range="custom",
            first=self.first,
            last=self.first + timedelta(days=self.length),
            zone=ZoneInfo(self.zone),
            report_zone=ZoneInfo(report_zone),
            users=() if self.user is None else (self.user,),
            endpoints=() if self.endpoint is None else (self.endpoint,),
            models=() if self.models == ("",) else self.models,
            without=("model",) if self.models == ("",) else (),
        )

    def wants(self, row: LedgerRow) -> bool:
        """Whether a row is asked for."""
        zone = ZoneInfo(self.zone)
        begin = midnight(self.first, zone)
        end = midnight(self.first + timedelta(days=self.length + 1), zone)
        return (
            begin <= row.created_at < end
            and self.user in {None, row.user_id}
            and self.endpoint in {None, row.endpoint}
            and (not self.models or (row.model or "") in self.models)
        )


_questions = st.builds(
    Question,
    zone=st.sampled_from(ZONES),
    first=st.builds(
        lambda day, before: day - timedelta(days=before), st.sampled_from(DAYS), st.integers(0, 3)
    ),
    length=st.integers(0, 40),
    user=st.sampled_from((None, None, "ada", "=cmd()")),
    endpoint=st.sampled_from((None, None, "hint")),
    models=st.sampled_from(((), (), ("gpt-a",), ("gpt-none", "gpt-b"), ("gpt-a", "gpt-b"), ("",))),
)


@st.composite
def _ledgers(draw: st.DrawFn) -> list[LedgerRow]:
    """Return rows, priced, unpriced and unknown ones."""
    rows = []
    for number in range(draw(st.integers(0, 25))):
        kind = draw(st.sampled_from((ledger_row, ledger_row, unpriced_row, unavailable_row)))
        cost = {"cost_usd": draw(_costs)} if kind is ledger_row else {}
        rows.append(
            kind(
                number,
                created_at=draw(_moments),
                user_id=draw(st.sampled_from(USERS)),
                endpoint=draw(st.sampled_from(ENDPOINTS)),
                model=draw(st.sampled_from(MODELS)),
                **cost,
            )
        )
    return rows


@settings(
    max_examples=LEDGERS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    rows=_ledgers(),
    report_zone=st.sampled_from(ZONES[:4]),
    folds=st.sampled_from((0, 0, 3, 20, 1000)),
    questions=st.lists(_questions, min_size=1, max_size=QUESTIONS_OF_EACH),
)
async def test_every_form_tells_what_the_rows_tell(
    database: str,
    rows: list[LedgerRow],
    report_zone: str,
    folds: int,
    questions: list[Question],
) -> None:
    """To the last digit, and however much of it is folded."""
    await empty(database, report_zone)
    await record(database, rows, report_timezone=report_zone)
    await fold(database, folds)
    ledger = Ledger(database)
    try:
        for question in questions:
            await _compare(ledger, question, report_zone, [r for r in rows if question.wants(r)])
    finally:
        await ledger.close()


async def _compare(
    ledger: Ledger, question: Question, report_zone: str, rows: Sequence[LedgerRow]
) -> None:
    wanted = question.filter(report_zone)
    cost = sum((row.cost_usd or Decimal(0) for row in rows), Decimal(0))
    tokens = sum(row.total_tokens or 0 for row in rows)
    named = {row.user_id for row in rows}
    async with ledger.snapshot() as snapshot:
        reporter = Reporter(snapshot, now=datetime(2027, 1, 2, tzinfo=UTC))
        reports = [
            await reporter.users(wanted),
            await reporter.endpoints(wanted),
            await reporter.daily(wanted),
            await reporter.models(wanted),
        ]
        files = {form: await _file(ledger, snapshot, form, wanted) for form in ("calls", "summary")}
        focus_days = wanted.with_(zone=ZoneInfo("UTC"))
        files["focus-1.2"] = await _file(ledger, snapshot, "focus-1.2", focus_days)
        of_focus = await snapshot.totals(focus_days)
    for report in reports:
        document = json.loads(rendering.to_json(report))
        assert document["totals"]["calls"] == len(rows), report.name
        assert Decimal(document["totals"]["cost_usd"] or 0) == cost, report.name
        assert (document["totals"]["total_tokens"] or 0) == tokens, report.name
        assert sum(row["calls"] for row in document["rows"]) == len(rows), report.name
        assert sum(Decimal(row["cost_usd"] or 0) for row in document["rows"]) == cost
        text = rendering.to_csv(report.tables[0], raw=True)
        lines = list(csv.DictReader(io.StringIO(text, newline="")))
        assert sum(Decimal(line["cost_usd"] or 0) for line in lines) == cost
    assert {row["user_id"] for row in json.loads(rendering.to_json(reports[0]))["rows"]} == named
    days = {row["day"] for row in json.loads(rendering.to_json(reports[2]))["rows"]}
    zone = ZoneInfo(question.zone)
    assert days == {row.created_at.astimezone(zone).date().isoformat() for row in rows}
    _compare_users(reports[1], rows, [row.endpoint for row in rows])
    local = [row.created_at.astimezone(zone).date().isoformat() for row in rows]
    _compare_users(reports[2], rows, local)
    assert len(files["calls"]) == len(rows)
    assert sum(Decimal(line["cost_usd"] or 0) for line in files["calls"]) == cost
    assert {line["day"] for line in files["calls"]} == days
    assert sum(int(line["calls"]) for line in files["summary"]) == len(rows)
    assert sum(Decimal(line["cost_usd"] or 0) for line in files["summary"]) == cost
    billed = sum((Decimal(line["BilledCost"]) for line in files["focus-1.2"]), Decimal(0))
    assert billed == (of_focus["cost_usd"] or 0)


def _compare_users(report: Report, rows: Sequence[LedgerRow], keys: Sequence[str | None]) -> None:
    """Who is named in several rows counts once, in each group and in all."""
    document = json.loads(rendering.to_json(report))
    groups: dict[str | None, set[str]] = {}
    for row, key in zip(rows, keys, strict=True):
        groups.setdefault(key, set()).update([] if row.user_id is None else [row.user_id])
    name = report.name.removesuffix("s").replace("daily", "day")
    assert {row[name]: row["users"] for row in document["rows"]} == {
        key: len(users) for key, users in groups.items()
    }, report.name
    assert document["totals"]["users"] == len(set().union(*groups.values())), report.name


async def _file(
    ledger: Ledger, snapshot: Snapshot, form: Form, wanted: Filter
) -> list[dict[str, str]]:
    chunks: list[bytes] = []

    async def write(chunk: bytes) -> None:
        chunks.append(chunk)

    await copy_file(ledger, snapshot, form, "raw", wanted, write)
    return list(csv.DictReader(io.StringIO(b"".join(chunks).decode(), newline="")))

"""Ranks out of packed sums are those of the rows, page by page, whatever is packed."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dashboard import ranking
from dashboard.filters import Filter, Key
from dashboard.opened import OpenDays
from dashboard.queries import Ledger
from dashboard.snapshot import Snapshot
from dashboard.summing import Ranked
from dashboard.tallies import Tallies
from proxy.core.model import LedgerRow
from tests.dashboard.conftest import empty, fold, record
from tests.fakes.rows import ledger_row, unavailable_row, unpriced_row

DAYS = (date(2026, 3, 29), date(2026, 6, 14), date(2026, 6, 15), date(2026, 6, 30))
ZONES = ("UTC", "Asia/Kathmandu", "America/New_York", "Europe/Berlin")
USERS = ("ada", "bob", "Zoe", "=cmd()", "\u202e🙂", "a\nb", None)
ENDPOINTS = ("hint", "chat", None)
MODELS = ("gpt-a", None)
SORTS = (
    "cost_usd", "-cost_usd", "-calls", "errors", "-total_tokens", "cached_tokens", "name", "-name",
    "-first_call", "first_call", "last_call", "-last_call", "-unpriced_calls", "tool_cost_usd",
)  # fmt: skip
LEDGERS, QUESTIONS = 10, 8

_moments = st.builds(
    lambda day, minutes: (
        datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(minutes=minutes)
    ),
    st.sampled_from(DAYS),
    st.integers(-1500, 2880),
)


@st.composite
def _ledgers(draw: st.DrawFn) -> list[LedgerRow]:
    rows = []
    for number in range(draw(st.integers(0, 30))):
        kind = draw(st.sampled_from((ledger_row, ledger_row, unpriced_row, unavailable_row)))
        digits = draw(st.integers(0, 12))
        cost = {"cost_usd": Decimal(draw(st.integers(0, 999))).scaleb(-digits)}
        rows.append(
            kind(
                number,
                created_at=draw(_moments),
                user_id=draw(st.sampled_from(USERS)),
                endpoint=draw(st.sampled_from(ENDPOINTS)),
                model=draw(st.sampled_from(MODELS)),
                **(cost if kind is ledger_row else {}),
            )
        )
    return rows


_questions = st.builds(
    lambda zone, first, length, sort, size, endpoints, search: Filter(
        range="custom",
        first=first,
        last=(first or DAYS[0]) + timedelta(days=length),
        zone=ZoneInfo(zone),
        report_zone=ZoneInfo("UTC"),
        sort=sort,
        size=size,
        endpoints=endpoints,
        search=search,
    ),
    zone=st.sampled_from(ZONES),
    first=st.one_of(
        st.none(),
        st.builds(lambda day, n: day - timedelta(days=n), st.sampled_from(DAYS), st.integers(0, 3)),
    ),
    length=st.integers(0, 100),
    sort=st.sampled_from(SORTS),
    size=st.integers(1, 4),
    endpoints=st.sampled_from(((), (), ("hint",))),
    search=st.sampled_from((None, None, "O", "b")),
)


@settings(
    max_examples=LEDGERS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    rows=_ledgers(),
    folds=st.sampled_from((0, 10, 40, 1000, 1000)),
    questions=st.lists(_questions, min_size=QUESTIONS, max_size=QUESTIONS),
)
async def test_ranks_are_those_of_the_rows(
    database: str, rows: list[LedgerRow], folds: int, questions: list[Filter]
) -> None:
    """In any order and zone, and page after page."""
    await empty(database, "UTC")
    await record(database, rows)
    await fold(database, folds)
    ledger = Ledger(database)
    try:
        for question in questions:
            async with ledger.snapshot() as snapshot:
                found = await _walk(snapshot, question)
            assert found == _expected(rows, question)
    finally:
        await ledger.close()


async def _walk(snapshot: Snapshot, wanted: Filter) -> list[str | None]:
    """Return all users, a page at a time; pages by their numbers are the same."""
    found: list[str | None] = []
    after: Key | None = None
    while not found or after is not None:
        page = await _page(snapshot, wanted, after)
        numbered = await _page(snapshot, wanted, ("+", str(len(found))))
        assert numbered.users == page.users
        found += page.users
        after = page.after
        if not page.users:
            break
    return found


async def _page(snapshot: Snapshot, wanted: Filter, after: Key | None) -> Ranked:
    asked = wanted.with_(after=after)
    return await snapshot.first_users(asked, search_in="user", limit=asked.size)


def _expected(rows: list[LedgerRow], wanted: Filter) -> list[str | None]:
    """Return the same from the rows themselves."""
    begin = wanted.start or datetime.min.replace(tzinfo=UTC)
    column = (wanted.sort or "").removeprefix("-")
    falls = (wanted.sort or "").startswith("-")
    of: dict[str | None, list[LedgerRow]] = {}
    for row in rows:
        searched = wanted.search is None or (
            row.user_id is not None and wanted.search.lower() in row.user_id.lower()
        )
        named = not wanted.endpoints or row.endpoint in wanted.endpoints
        if begin <= row.created_at < wanted.end and searched and named:
            of.setdefault(row.user_id, []).append(row)

    def place(user: str | None) -> tuple[bool, object]:
        if column == "name":
            return False, 0
        values = [value for row in of[user] if (value := _value(row, column)) is not None]
        if not values:
            return True, 0
        if column in {"first_call", "last_call"}:
            moment = min(values) if column == "first_call" else max(values)
            return False, (-1 if falls else 1) * moment.timestamp()
        return False, (-1 if falls else 1) * sum(values)

    names = sorted(of, key=lambda user: (user is None, (user or "").encode()))
    if wanted.sort == "-name":
        return names[::-1]
    return sorted(names, key=place)


def _value(row: LedgerRow, column: str) -> Any:
    match column:
        case "calls":
            return 1
        case "errors":
            return int(row.outcome not in {"ok", "client_disconnected"})
        case "unpriced_calls":
            return int(row.cost_usd is None and row.usage_source != "unavailable")
        case "first_call" | "last_call":
            return row.created_at
        case _:
            return getattr(row, column)


YEAR = Filter(
    range="custom",
    first=date(2026, 1, 1),
    last=date(2026, 9, 30),
    zone=ZoneInfo("UTC"),
    report_zone=ZoneInfo("UTC"),
    sort="-cost_usd",
)
ROWS = [
    ledger_row(
        number,
        user_id=f"user-{number % 3}",
        created_at=datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=number),
        cost_usd=Decimal(number),
    )
    for number in range(20)
]


async def _ranks(
    database: str, wanted: Filter, tallies: Tallies | None = None
) -> list[str | None] | None:
    ledger = Ledger(database)
    async with ledger.snapshot() as snapshot:
        fetch, any_late = snapshot._fetch, snapshot._any_late  # noqa: SLF001 - no page tells
        sources = ranking.Sources(
            fetch=fetch,
            open_days=OpenDays(fetch),
            any_late=any_late,
            tallies=tallies or Tallies(),
        )
        found = await ranking.ranks(sources, wanted, limit=9)
    await ledger.close()
    return None if found is None else [row["user_id"] for row in found]


def _of_june(**changes: Any) -> Filter:
    return YEAR.with_(first=date(2026, 6, 10), last=date(2026, 6, 11), sort="-calls", **changes)


ALIKE = [
    _of_june(),
    _of_june(endpoints=("hint",)),
    _of_june(endpoints=("hint",), models=("gpt-a",)),
    _of_june(endpoints=("hint",), without=("model",)),
    _of_june().with_(sort="-total_tokens"),
    _of_june().with_(last=date(2026, 6, 12)),
    _of_june().with_(last=date(2026, 6, 10)),
    _of_june().with_(first=date(2026, 6, 11)),
    _of_june().with_(first=date(2026, 6, 11), last=date(2026, 6, 15)),  # one packed row of five
    _of_june(zone=ZoneInfo("Etc/GMT-1")),
    _of_june(zone=ZoneInfo("Etc/GMT-2")),
]


async def test_sums_are_kept_for_the_same_question_alone(database: str) -> None:
    """Another column, cell, range or hour is another question; what was packed again, too."""
    makers: dict[str, dict[str, Any]] = {
        "hint": {"endpoint": "hint", "model": "gpt-a"},
        "nameless": {"endpoint": "hint", "model": None},
        "chat": {"endpoint": "chat", "model": "gpt-a"},
    }
    rows = []
    for user in range(9):
        for number in range(20):
            name = list(makers)[(user * 7 + number) % 3]
            hours = (user * 11 + number * (user + 3)) % 96
            rows.append(
                ledger_row(
                    user * 100 + number,
                    user_id=f"user-{user}",
                    created_at=datetime(2026, 6, 9, tzinfo=UTC) + timedelta(hours=hours),
                    total_tokens=1 + (user * 31 + number * 17) % 97,
                    **makers[name],
                )
            )
    await record(database, rows)
    await _pack_at_once(database)
    tallies = Tallies()
    found = [await _ranks(database, wanted, tallies) for wanted in ALIKE]
    assert found == [await _ranks(database, wanted) for wanted in ALIKE]
    assert found == [await _ranks(database, wanted, tallies) for wanted in ALIKE]
    assert len({tuple(users or ()) for users in found}) == len(ALIKE)
    late = datetime(2026, 6, 10, 12, tzinfo=UTC)
    await record(
        database,
        [
            ledger_row(5000 + number, user_id="user-8", created_at=late, **makers["hint"])
            for number in range(100)
        ],
    )
    await _pack_at_once(database)
    again = [await _ranks(database, wanted, tallies) for wanted in ALIKE]
    assert again == [await _ranks(database, wanted) for wanted in ALIKE]
    assert [users[0] for users in again[:3] if users] == ["user-8"] * 3


async def _pack_at_once(dsn: str) -> None:
    """Fold and pack in one transaction, so that all of it says the same moment."""
    connection = await asyncpg.connect(dsn)
    async with connection.transaction():
        while await connection.fetchval("SELECT coalesce(fold_span(), pack_span())"):
            pass
    await connection.close()


async def test_what_is_packed_ranks(database: str) -> None:
    """And what is not, over many days, is left to the database, as is what could not be packed."""
    await record(database, ROWS)
    assert await _ranks(database, YEAR) is None
    await fold(database, 1000)
    assert await _ranks(database, YEAR) == ["user-1", "user-0", "user-2"]
    assert await _ranks(database, YEAR.with_(after=("+", "10000"))) == []
    assert await _ranks(database, YEAR.with_(after=("+", "10001"))) is None
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE usage_packed_span SET cost_usd = NULL, cost_scale = -1")
    await connection.close()
    assert await _ranks(database, YEAR) is None
    assert await _ranks(database, YEAR.with_(sort="-calls")) == ["user-0", "user-1", "user-2"]


async def test_users_of_several_blocks_are_ranked_together(database: str) -> None:
    """Also those who have no number yet."""
    await record(database, ROWS)
    connection = await asyncpg.connect(database)
    await connection.execute("INSERT INTO usage_user VALUES (70000, 'user-1'), (140000, 'user-2')")
    await connection.close()
    await fold(database, 1000)
    await record(
        database,
        [
            ledger_row(
                99, user_id="new", created_at=datetime(2026, 8, 1, tzinfo=UTC), cost_usd=Decimal(1)
            )
        ],
    )
    assert await _ranks(database, YEAR) == ["user-1", "user-0", "user-2", "new"]
    assert await _ranks(database, YEAR.with_(sort="name")) == ["new", "user-0", "user-1", "user-2"]


async def test_more_users_than_a_block_has_may_have_no_number(database: str) -> None:
    """As on the first day of a large product, before anything is folded."""
    await record(database, ROWS[:1])
    connection = await asyncpg.connect(database)
    await connection.execute(
        """
        INSERT INTO usage_by_user_day (
            day, user_id, calls, errors, unpriced_calls, estimated_calls, unavailable_calls,
            cost_usd, first_call, last_call
        )
        SELECT '2026-03-01', 'new ' || number, 1, 0, 0, 0, 0, number, now(), now()
        FROM generate_series(1, 65540) AS number
        """
    )
    await connection.close()
    found = await _ranks(database, YEAR)
    assert found == [f"new {number}" for number in range(65_540, 65_531, -1)]


async def test_who_is_ranked_has_sums_also_where_rows_were_let_go_of(database: str) -> None:
    """In another zone the ends of a range are parts of days, of which nothing is left then."""
    connection = await asyncpg.connect(database)
    await connection.execute(
        "CREATE TABLE user_api_usage_2026_03 PARTITION OF user_api_usage"
        " FOR VALUES FROM ('2026-03-01Z') TO ('2026-04-01Z')"
    )
    evening = datetime(2026, 3, 9, 20, tzinfo=UTC)  # the 10th has begun in Kathmandu
    await record(database, [*ROWS, ledger_row(99, user_id="only", created_at=evening)])
    await fold(database, 1000)
    await connection.execute("SELECT note_retired_month('user_api_usage_2026_03', '2026-03-01')")
    await connection.execute("SELECT drop_partition('user_api_usage_2026_03')")
    await connection.close()
    kathmandu = YEAR.with_(first=date(2026, 3, 10), zone=ZoneInfo("Asia/Kathmandu"), sort="-calls")
    ledger = Ledger(database)
    async with ledger.snapshot() as snapshot:
        page = await snapshot.first_users(kathmandu, search_in="user", limit=9)
    await ledger.close()
    assert page.users == ["user-0", "user-1", "user-2"]


@pytest.mark.parametrize(
    "unknown", [{"tiers": ("flex",)}, {"outcomes": ("ok",)}, {"users": ("a",)}]
)
def test_what_packed_rows_do_not_know_is_not_asked_of_them(unknown: dict[str, Any]) -> None:
    """They know endpoints and models."""
    assert ranking.is_packed(YEAR.with_(endpoints=("hint",), without=("model",)))
    assert not ranking.is_packed(YEAR.with_(**unknown))


async def test_a_row_that_counts_later_than_it_came_ranks_where_it_counts(database: str) -> None:
    """In another zone, where rows are read; and not where it came."""
    then, before = (datetime(2026, 3, day, 12, tzinfo=UTC) for day in (20, 10))
    await record(
        database,
        [ledger_row(1, created_at=then), ledger_row(2, user_id="late", created_at=before)],
    )
    connection = await asyncpg.connect(database)
    late = "UPDATE user_api_usage SET accounted_at = $1 WHERE user_id = 'late'"
    await connection.execute(late, then)
    await connection.close()
    wanted = YEAR.with_(zone=ZoneInfo("Asia/Kolkata"), sort="name")
    found = [
        await _ranks(database, wanted.with_(first=day.date(), last=day.date()))
        for day in (then, before)
    ]
    assert found == [["ada", "late"], []]

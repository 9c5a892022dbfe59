"""Tests of packed sums in schema.sql: whatever is packed adds up to its rows, and each row once."""

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import combinations
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.database import connect
from tests.conftest import NewDatabase
from tests.fakes.rows import event_id

COUNTS = ("calls", "errors", "unpriced_calls", "estimated_calls", "unavailable_calls")
TOKENS = (
    "prompt_tokens", "cached_tokens", "cache_write_tokens", "completion_tokens",
    "reasoning_tokens", "audio_prompt_tokens", "audio_completion_tokens", "total_tokens",
)  # fmt: skip
COSTS = {"cost_usd": "cost_scale", "tool_cost_usd": "tool_cost_scale"}
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
WIDTHS = {1: "b", 2: "h", 4: "i", 8: "q"}
NOT_HERE = "asks the rows"

INSERT = f"""
INSERT INTO user_api_usage (
    event_id, created_at, user_id, endpoint, model, {", ".join(TOKENS)}, cost_usd, tool_cost_usd,
    corrects, accounted_at, usage_source, outcome, api_path, operation_name, upstream, price_id,
    catalog_version
)
VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, '/',
    'chat', 'api.openai.com', 'p', 'c'
)
"""  # noqa: S608
COUNTED = f"""
SELECT
    (counted_at AT TIME ZONE $1)::date AS day, counted_at, created_at, user_id, endpoint, model,
    {", ".join((*COUNTS, *TOKENS, *COSTS))}
FROM counted_usage
"""  # noqa: S608
NUMBERS = "SELECT number, user_id FROM user_numbers"
TILES = "SELECT * FROM packed_between($1, $2)"

Sums = dict[str, object]
Cell = tuple[date, date, int | None, bool, str | None, str | None]


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    """Return a connection to an empty ledger."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def insert(
    connection: asyncpg.Connection, rows: Iterable[Mapping[str, Any]], first: int = 0
) -> None:
    """Insert calls, each with what is named of it."""
    await connection.executemany(
        INSERT,
        [
            (
                event_id(number, row["created_at"]),
                row["created_at"],
                *[row.get(name) for name in ("user_id", "endpoint", "model", *TOKENS, *COSTS)],
                row.get("corrects"),
                row.get("accounted_at"),
                row.get("usage_source", "reported"),
                row.get("outcome", "ok"),
            )
            for number, row in enumerate(rows, first)
        ],
    )


async def pack(connection: asyncpg.Connection) -> list[str]:
    """Fold and pack all that is over; return what was packed."""
    while await connection.fetchval("SELECT fold_span()"):
        pass
    made: list[str] = []
    while one := await connection.fetchval("SELECT pack_span()"):
        made.append(one)
    return made


def column(row: asyncpg.Record, name: str, users: int) -> list[int | None]:
    """Return the values of a packed column."""
    packed = row[name]
    if packed is None:
        return [None] * users
    if packed == b"":
        return [0] * users
    width, rest = divmod(len(packed), users)
    assert rest == 0
    values = struct.unpack(f">{users}{WIDTHS[width]}", packed)
    assert width == 1 or name in {"first_call", "last_call"} or needs(values, width)
    return [None if value == -(2 ** (8 * width - 1)) else value for value in values]


def needs(values: Iterable[int], width: int) -> bool:
    """Return whether some of the values would not fit into half the bytes."""
    unknown = -(2 ** (8 * width - 1))
    bound = 2 ** (4 * width - 1) - 1
    return any(abs(value) >= bound for value in values if value != unknown)


def decoded(
    rows: Iterable[asyncpg.Record], names: Mapping[int, str]
) -> dict[Cell, dict[Any, Sums]]:
    """Return the sums by cell and user."""
    cells: dict[Cell, dict[Any, Sums]] = {}
    for row in rows:
        count = len(row["users"]) // 2
        numbers = struct.unpack(f">{count}H", row["users"])
        assert list(numbers) == sorted(set(numbers))
        assert numbers
        users: list[str | None] = [None]
        if row["block"] >= 0:
            users = [names[65536 * row["block"] + number] for number in numbers]
        sums: dict[str, list[Any]] = {
            name: list(column(row, name, count)) for name in (*COUNTS, *TOKENS)
        }
        for name, scale in COSTS.items():
            if row[scale] == -1:
                assert row[name] is None
                sums[name] = [NOT_HERE] * count
            else:
                sums[name] = [
                    None if value is None else Decimal(value).scaleb(-row[scale])
                    for value in column(row, name, count)
                ]
        for name in ("first_call", "last_call"):
            sums[name] = [
                EPOCH + timedelta(microseconds=value or 0) for value in column(row, name, count)
            ]
        cell = tuple(row.values())[:6]
        known = cells.setdefault(cell, {})
        for place, user in enumerate(users):
            assert user not in known
            known[user] = {name: values[place] for name, values in sums.items()}
    return cells


def known_sum(values: Iterable[Any]) -> Any:
    """Return the sum of what is known; None: nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def summed(rows: Iterable[asyncpg.Record]) -> dict[Any, Sums]:
    """Return the sums of rows by user, with costs left out that do not fit into a packed column."""
    by_user: dict[Any, list[asyncpg.Record]] = {}
    for row in rows:
        by_user.setdefault(row["user_id"], []).append(row)
    sums: dict[Any, Sums] = {
        user: {name: known_sum(row[name] for row in its) for name in (*COUNTS, *TOKENS, *COSTS)}
        | {
            "first_call": min(row["created_at"] for row in its),
            "last_call": max(row["created_at"] for row in its),
        }
        for user, its in by_user.items()
    }
    for name in COSTS:
        for users in ([None], [user for user in sums if user is not None]):
            known = [
                amount
                for user in users
                if user in sums and isinstance(amount := sums[user][name], Decimal)
            ]
            scale = max((-int(each.normalize().as_tuple().exponent) for each in known), default=0)
            if any(abs(each.scaleb(max(scale, 0))) >= 2**63 - 1 for each in known):
                for user in users:
                    if user in sums:
                        sums[user][name] = NOT_HERE
    return sums


def expected(rows: list[asyncpg.Record], cell: Cell, begins: datetime) -> dict[Any, Sums]:
    """Return the sums of the rows that a cell is made of."""
    start, past, hour, is_total, endpoint, model = cell
    return summed(
        row
        for row in rows
        if start <= row["day"] < past
        and (is_total or (row["endpoint"], row["model"]) == (endpoint, model))
        and (hour is None or (row["counted_at"] - begins) // timedelta(hours=1) == hour)
    )


def all_cells(rows: list[asyncpg.Record], listed: asyncpg.Record, begins: datetime) -> set[Cell]:
    """Return the cells that there should be of what is listed."""
    start, past = listed["start"], listed["past"]
    its = [row for row in rows if start <= row["day"] < past]
    if listed["span"] == "hours":
        hour = timedelta(hours=1)
        return {
            (
                start,
                past,
                (row["counted_at"] - begins) // hour,
                False,
                row["endpoint"],
                row["model"],
            )
            for row in its
        }
    return {(start, past, None, True, None, None)} | {
        (start, past, None, False, row["endpoint"], row["model"]) for row in its
    }


async def check_all(connection: asyncpg.Connection, zone: str) -> int:
    """Hold everything that is packed against the rows; return how many cells that were."""
    rows = await connection.fetch(COUNTED, zone)
    names = {row["number"]: row["user_id"] for row in await connection.fetch(NUMBERS)}
    found = decoded(await connection.fetch("SELECT * FROM packed_spans"), names)
    wanted: set[Cell] = set()
    for listed in await connection.fetch(
        "SELECT *, day_begins(start) AS begins FROM spans WHERE span IN ('packed', 'hours')"
    ):
        cells = all_cells(rows, listed, listed["begins"])
        wanted |= cells
        for cell in cells:
            assert found[cell] == expected(rows, cell, listed["begins"]), cell
    assert found.keys() == wanted
    return len(wanted)


TOKEN_COUNTS = st.one_of(
    st.none(),
    st.sampled_from([0, 1, 126, 127, 32_766, 32_767, 2**31 - 2, 2**31 - 1, 2**40, 2**61]),
    st.integers(0, 5000),
)
AMOUNTS = st.one_of(
    st.none(),
    st.sampled_from([Decimal(0), Decimal("0.10"), Decimal(3), Decimal("99999999.000000000001")]),
    st.decimals(0, 100, places=9),
)


@st.composite
def ledgers(draw: st.DrawFn) -> list[dict[str, object]]:
    """Return calls and corrections of some weeks, of a few users, with anything in them."""
    rows: list[dict[str, object]] = []
    for _ in range(draw(st.integers(1, 14))):
        minutes = draw(st.integers(0, 60 * 24 * 9) | st.integers(0, 60 * 24 * 45))
        row: dict[str, object] = {
            "created_at": datetime(2024, 9, 28, tzinfo=UTC) + timedelta(minutes=minutes),
            "user_id": draw(st.sampled_from([None, "a", "b", "", "ü\n"])),
            "endpoint": draw(st.sampled_from([None, "hint", ""])),
            "model": draw(st.sampled_from([None, "m"])),
            "outcome": draw(st.sampled_from(["ok", "timeout"])),
            "usage_source": draw(st.sampled_from(["reported", "estimated"])),
            "accounted_at": draw(st.sampled_from([None, None, datetime(2024, 11, 1, tzinfo=UTC)])),
        }
        names = [*TOKENS, *COSTS]
        values = [draw(TOKEN_COUNTS) for _ in TOKENS] + [draw(AMOUNTS) for _ in COSTS]
        if draw(st.integers(0, 3)) == 0:
            row["corrects"] = UUID(int=7)
            values = [value if value is None or value > 2**60 else -value for value in values]
        rows.append(row | dict(zip(names, values, strict=True)))
    return rows


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=ledgers(),
    zone=st.sampled_from(["UTC", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Havana"]),
)
async def test_random_ledgers_add_up(
    new_database: NewDatabase, rows: list[dict[str, object]], zone: str
) -> None:
    """Spans and hours, with negative sums, unknown ones, odd scales and very large numbers."""
    connection = await asyncpg.connect(await new_database())
    await connection.fetchval("SELECT set_report_timezone($1)", zone)
    await insert(connection, rows)
    assert len(await pack(connection)) >= 7
    assert await check_all(connection, zone) >= 13
    await connection.close()


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([], None),
        ([None, None], None),
        ([0, 0, 0], ""),
        ([0, None], "00 80"),
        ([1, -1, 126, -126], "01 ff 7e 82"),
        ([127], "007f"),
        ([None, 5, -32_766], "8000 0005 8002"),
        ([32_767], "00007fff"),
        ([None, 2**31 - 2], "80000000 7ffffffe"),
        ([-(2**31) + 1, None], "ffffffff80000001 8000000000000000"),
        ([2**63 - 1, 0], "7fffffffffffffff 0000000000000000"),
    ],
)
async def test_numbers_are_as_wide_as_the_widest_of_them(
    connection: asyncpg.Connection, numbers: list[int | None], expected: str | None
) -> None:
    """And the least of that width is what is unknown."""
    packed = await connection.fetchval("SELECT packed($1::bigint[])", numbers)
    assert packed == (None if expected is None else bytes.fromhex(expected))


@pytest.mark.parametrize(
    ("amounts", "scale", "expected"),
    [
        ([None], 0, None),
        (["0", "0.00"], 0, ""),
        (["0.10", None, "-3"], 1, "01 80 e2"),
        (["12.000000000001", "0"], 12, "00000ae9f7bcc001 0000000000000000"),
        (["1200"], 0, "04b0"),
        (["9223372.036854775806"], 12, "7ffffffffffffffe"),
        (["9223372.036854775807"], -1, None),
        (["-99999999.000000000001", "1"], -1, None),
    ],
)
async def test_amounts_are_whole_numbers_of_the_scale_that_they_need(
    connection: asyncpg.Connection,
    amounts: list[str | None],
    scale: int,
    expected: str | None,
) -> None:
    """To the last digit, or not at all."""
    values = [None if amount is None else Decimal(amount) for amount in amounts]
    found = await connection.fetchval("SELECT packed_scale($1::numeric[])", values)
    assert found == scale
    packed = await connection.fetchval("SELECT packed($1::numeric[], $2)", values, found)
    assert packed == (None if expected is None else bytes.fromhex(expected))


ODD = {
    "UTC": datetime(2024, 11, 1, tzinfo=UTC),
    "Asia/Kathmandu": datetime(2024, 11, 1, tzinfo=UTC),
    "Europe/Berlin": datetime(2024, 10, 24, tzinfo=UTC),
    "America/Havana": datetime(2024, 11, 1, tzinfo=UTC),  # midnight comes twice
    "America/St_Johns": datetime(2010, 11, 5, tzinfo=UTC),  # the first minute of a day, then 59 of
    # the day before
    "Africa/Cairo": datetime(2024, 10, 29, tzinfo=UTC),  # the last hour of a day comes twice
    "Africa/Cairo ": datetime(2024, 4, 24, tzinfo=UTC),  # a day without its first hour
    "Pacific/Apia": datetime(2011, 12, 28, tzinfo=UTC),  # without a day
    "Australia/Lord_Howe": datetime(2024, 4, 4, tzinfo=UTC),  # by half an hour
}


KINDS = ({"open", "rows"}, {"packed", "hours", "rows"}, {"open", "packed", "hours", "rows"})


@pytest.mark.parametrize("zone", ODD)
async def test_a_range_has_each_row_once(connection: asyncpg.Connection, zone: str) -> None:
    """Wherever it begins and ends, and whatever clocks do; more is packed at each step."""
    begin = ODD[zone]
    zone = zone.strip()
    await connection.fetchval("SELECT set_report_timezone($1)", zone)
    moments = [begin + timedelta(minutes=n) for n in range(0, 60 * 24 * 6, 29)]
    await insert(connection, [{"created_at": moment, "user_id": "a"} for moment in moments])
    rows = await connection.fetch(COUNTED, zone)
    days = {
        datetime.combine(day, datetime.min.time(), ZoneInfo(zone)).replace(fold=fold)
        + timedelta(minutes=minutes)
        for day in {row["day"] for row in rows}
        for fold in (0, 1)
        for minutes in (0, 1, 40, 61, 300)
    }
    edges = [day.astimezone(UTC) for day in days] + [
        begin + timedelta(hours=n) for n in (5, 25, 70)
    ]
    ranges = [*combinations(sorted(set(edges)), 2)][::3]
    always, never = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    ranges += [(never, always), (never, edges[-1]), (edges[-1], always)]
    found = await connection.fetch("SELECT DISTINCT day, day_begins(day) AS begins FROM days")
    begins = {row["day"]: row["begins"] for row in found}
    for step in range(3):
        if step == 1:
            await pack(connection)
        if step == 2:
            late = {"created_at": moments[100], "user_id": "b"}
            await insert(connection, [late], first=9_999_999)
            rows = await connection.fetch(COUNTED, zone)
        kinds: Counter[str] = Counter()
        for since, past in ranges:
            tiles = await connection.fetch(TILES, since, past)
            kinds.update(tile["kind"] for tile in tiles)
            counted = sorted(row["counted_at"] for row in rows if since <= row["counted_at"] < past)
            read_of = sorted(moment for tile in tiles for moment in read(tile, rows, begins))
            assert read_of == counted, (since, past, tiles)
        assert kinds.keys() == KINDS[step]


def read(
    tile: asyncpg.Record, rows: list[asyncpg.Record], begins: Mapping[date, datetime]
) -> list[datetime]:
    """Return the moments of the rows that a tile stands for."""
    its = [row["counted_at"] for row in rows if tile["start"] <= row["day"] < tile["past"]]
    match tile["kind"]:
        case "rows":
            return [moment for moment in its if tile["since"] <= moment < tile["until"]]
        case "hours":
            hours = [(moment - begins[tile["start"]]) // timedelta(hours=1) for moment in its]
            found = zip(its, hours, strict=True)
            return [moment for moment, hour in found if hour == tile["hour"]]
        case _:
            assert (tile["hour"], tile["since"], tile["until"]) == (None, None, None)
            return its


def plain_calls(first: date, days: int, each: int = 2) -> list[dict[str, Any]]:
    """Return some calls of three users on each of many days."""
    begin = datetime(first.year, first.month, first.day, 9, tzinfo=UTC)
    return [
        {
            "created_at": begin + timedelta(hours=24 / each * number),
            "user_id": ("a", "b", None)[number % 3],
            "endpoint": ("hint", None)[number % 2],
            "model": "m",
            "prompt_tokens": 100 + number,
            "cost_usd": Decimal(number) / 1000,
        }
        for number in range(days * each)
    ]


async def listed(connection: asyncpg.Connection) -> set[tuple[str, date, date]]:
    """Return what is packed."""
    query = "SELECT span, start, past FROM spans WHERE span IN ('packed', 'hours')"
    return {(row["span"], row["start"], row["past"]) for row in await connection.fetch(query)}


async def test_short_and_new_spans_come_first(connection: asyncpg.Connection) -> None:
    """And hours last; a whole year is one row for each cell then."""
    await insert(connection, plain_calls(date(2024, 12, 28), 6))
    made = await pack(connection)
    assert made[:7] == [
        *[f"day 2025-01-0{day} packed" for day in (2, 1)],
        *[f"day 2024-12-{day} packed" for day in (31, 30, 29, 28)],
        "pentad 2025-01-01 packed",
    ]
    assert made[-7:-6] == ["year 2024-01-01 packed"]
    assert [one.split()[0] for one in made[-6:]] == ["users"] * 6
    assert await check_all(connection, "UTC") == 60
    tiles = "SELECT kind, start, past FROM packed_between('2023-05-01Z', '2025-01-03Z')"
    assert [tuple(row) for row in await connection.fetch(tiles)] == [
        ("packed", date(2024, 1, 1), date(2025, 1, 1)),
        ("packed", date(2025, 1, 1), date(2025, 1, 2)),
        ("packed", date(2025, 1, 2), date(2025, 1, 3)),
    ]


async def test_hours_are_those_of_the_day_and_the_rest_are_rows(
    connection: asyncpg.Connection,
) -> None:
    """In a zone whose days begin at half past, a range of whole hours leaves half hours over."""
    await connection.fetchval("SELECT set_report_timezone('Asia/Kolkata')")
    await insert(connection, plain_calls(date(2025, 3, 1), 3, each=24))
    await pack(connection)
    tiles = await connection.fetch(
        TILES, datetime(2025, 3, 2, 16, tzinfo=UTC), datetime(2025, 3, 3, 1, tzinfo=UTC)
    )

    def at(day: int, hour: int, minute: int) -> datetime:
        return datetime(2025, 3, day, hour, minute, tzinfo=UTC)

    def hours(day: int, first: int, past: int) -> list[tuple[object, ...]]:
        dates = (date(2025, 3, day), date(2025, 3, day + 1))
        return [("hours", *dates, hour, None, None) for hour in range(first, past)]

    assert sorted(map(tuple, tiles), key=str) == sorted(
        [
            *hours(2, 22, 24),
            *hours(3, 0, 6),
            ("rows", date(2025, 3, 2), date(2025, 3, 3), None, at(2, 16, 0), at(2, 16, 30)),
            ("rows", date(2025, 3, 3), date(2025, 3, 4), None, at(3, 0, 30), at(3, 1, 0)),
        ],
        key=str,
    )


async def test_a_late_call_unpacks_its_spans_and_no_others(
    connection: asyncpg.Connection,
) -> None:
    """Until they are folded and packed again, with it."""
    await insert(connection, plain_calls(date(2025, 1, 28), 6))
    await pack(connection)
    before = await listed(connection)
    late = {"created_at": datetime(2025, 1, 30, 12, tzinfo=UTC), "user_id": "new", "cost_usd": 1}
    await insert(connection, [late], first=999)
    day = date(2025, 1, 30)
    assert await listed(connection) == {one for one in before if not one[1] <= day < one[2]}
    assert len(await pack(connection)) == 7  # day, pentad, dekad, month, quarter, year, hours
    assert await listed(connection) == before
    await check_all(connection, "UTC")


async def test_a_cost_that_is_no_number_stops_no_packing(connection: asyncpg.Connection) -> None:
    """Postgres takes NaN for one that is not negative; its users are ranked by the rows."""
    row = {"created_at": datetime(2025, 1, 1, 12, tzinfo=UTC), "user_id": "a"}
    await insert(connection, [row | {"cost_usd": Decimal("NaN")}])
    assert len(await pack(connection)) == 7
    scales = await connection.fetch("SELECT DISTINCT cost_scale, cost_usd FROM packed_spans")
    assert [tuple(row) for row in scales] == [(-1, None)]


async def test_days_on_which_clocks_change_have_no_hours(connection: asyncpg.Connection) -> None:
    """Nor those beside them: a date may begin twice then. Their sums are packed all the same."""
    await connection.fetchval("SELECT set_report_timezone('Europe/Berlin')")
    await insert(connection, plain_calls(date(2024, 10, 24), 6))
    await pack(connection)
    found = await listed(connection)
    days = [date(2024, 10, day) for day in (24, 25, 29)]
    assert sorted(start for span, start, _ in found if span == "hours") == days
    assert {start for span, start, past in found if past - start == timedelta(days=1)} >= {
        date(2024, 10, day) for day in range(24, 30)
    }
    await check_all(connection, "Europe/Berlin")


@pytest.mark.parametrize("day", [date(2024, 11, 2), date(2024, 11, 3)])
async def test_a_day_is_whole_however_often_its_midnight_comes(
    connection: asyncpg.Connection, day: date
) -> None:
    """From the first one to the next day's first one: its rows may be gone."""
    zone = ZoneInfo("America/Havana")
    await connection.fetchval("SELECT set_report_timezone('America/Havana')")
    await insert(connection, plain_calls(date(2024, 11, 1), 4))
    await pack(connection)
    begin = datetime(day.year, day.month, day.day, tzinfo=zone)
    tiles = await connection.fetch(TILES, begin, begin + timedelta(days=1))
    assert [tuple(tile)[:3] for tile in tiles] == [("packed", day, day + timedelta(days=1))]


async def test_who_has_no_number_yet_is_left_out(connection: asyncpg.Connection) -> None:
    """And not taken for somebody else, or for nobody."""
    await insert(connection, plain_calls(date(2025, 1, 1), 2))
    packed = "SELECT * FROM packed_sums('2025-01-01', '2025-01-02', 'days')"
    assert decoded(await connection.fetch(packed), {}) == {}
    await pack(connection)
    before = await connection.fetch(packed)
    late = {"created_at": datetime(2025, 1, 1, 12, tzinfo=UTC), "user_id": "new"}
    await insert(connection, [late], first=999)
    assert await connection.fetch(packed) == before


async def test_users_of_another_block(connection: asyncpg.Connection) -> None:
    """From the 65,537th on they are in rows of their own."""
    rows = plain_calls(date(2025, 1, 1), 3)
    await insert(connection, rows)
    await connection.execute("INSERT INTO usage_user VALUES (65535, 'c'), (131071, 'a')")
    more = [
        row | {"user_id": "c", "created_at": row["created_at"] + timedelta(minutes=1)}
        for row in rows
    ]
    await insert(connection, more, first=1000)
    await pack(connection)
    assert await check_all(connection, "UTC")
    query = "SELECT DISTINCT block, users FROM packed_spans WHERE past - start > 80 AND is_total"
    assert {tuple(row) for row in await connection.fetch(query)} == {
        (-1, b"\x00\x00"), (0, b"\xff\xff"), (1, b"\xff\xff"), (2, b"\x00\x00"),
    }  # fmt: skip


async def test_a_day_is_packed_when_its_users_have_numbers(
    connection: asyncpg.Connection,
) -> None:
    """All of them, of every day of the span."""
    await insert(connection, plain_calls(date(2025, 1, 1), 3))
    while (await connection.fetchval("SELECT fold_span()")) != "day 2025-01-03":
        pass
    assert await connection.fetchval("SELECT pack_span()") is None
    assert await connection.fetchval("SELECT fold_span()") == "users 2025-01-01"
    assert await connection.fetchval("SELECT pack_span()") == "day 2025-01-01 packed"


async def test_sums_outlive_rows_and_hours_are_not_made_without_them(
    connection: asyncpg.Connection,
) -> None:
    """What was packed of a month that was let go of stays, but for the hours of its days."""
    await connection.execute(
        "CREATE TABLE user_api_usage_2025_01 PARTITION OF user_api_usage"
        " FOR VALUES FROM ('2025-01-01Z') TO ('2025-02-01Z')"
    )
    await insert(connection, plain_calls(date(2025, 1, 29), 6))
    await pack(connection)
    before = await listed(connection)
    packed = await connection.fetch("SELECT packed_spans::text FROM packed_spans ORDER BY 1")
    await connection.execute("DELETE FROM usage_span WHERE span = 'hours' AND start = '2025-01-31'")
    await connection.execute("SELECT note_retired_month('user_api_usage_2025_01', '2025-01-01')")
    await connection.execute("SELECT drop_partition('user_api_usage_2025_01')")
    assert await pack(connection) == []
    of_january = {("hours", date(2025, 1, day), date(2025, 1, day) + DAY) for day in (29, 30, 31)}
    assert await listed(connection) == before - of_january
    query = "SELECT packed_spans::text FROM packed_spans ORDER BY 1"
    assert set(await connection.fetch(query)) < set(packed)
    hours = "SELECT DISTINCT start FROM usage_packed_span WHERE hour IS NOT NULL ORDER BY 1"
    assert [row["start"].day for row in await connection.fetch(hours)] == [1, 2, 3]


async def test_another_zone_leaves_nothing_behind(connection: asyncpg.Connection) -> None:
    """Sums of its days are made anew, and hours of days that have none there are gone."""
    await insert(connection, plain_calls(date(2024, 10, 24), 6))
    await pack(connection)
    await connection.fetchval("SELECT set_report_timezone('Europe/Berlin')")
    assert await connection.fetchval("SELECT count(*) FROM usage_packed_span") == 0
    await pack(connection)
    assert await check_all(connection, "Europe/Berlin")


async def test_two_who_pack_do_not_hinder_each_other(database: str) -> None:
    """One packs, the other has nothing to do; nobody meets an error."""
    first, second = await asyncpg.connect(database), await asyncpg.connect(database)
    await insert(first, plain_calls(date(2025, 1, 1), 20))
    while await first.fetchval("SELECT fold_span()"):
        pass
    made: list[str | None] = []
    while True:
        turn = await asyncio.gather(
            first.fetchval("SELECT pack_span()"), second.fetchval("SELECT pack_span()")
        )
        if not any(turn):
            break
        made += filter(None, turn)
    assert len(made) == len(set(made)) == 20 + 4 + 2 + 1 + 1 + 1 + 20
    await check_all(first, "UTC")
    for each in (first, second):
        await each.close()


async def test_a_call_that_comes_while_its_day_is_packed_is_not_lost(database: str) -> None:
    """Whoever inserts does not wait; what was packed without it is not listed."""
    packer, writer = await asyncpg.connect(database), await asyncpg.connect(database)
    await insert(packer, plain_calls(date(2025, 1, 1), 1))
    while await packer.fetchval("SELECT fold_span()"):
        pass
    late = {"created_at": datetime(2025, 1, 1, 12, tzinfo=UTC), "user_id": "a"}
    async with writer.transaction():
        await insert(writer, [late], first=999)  # not committed: it still looks folded
        packing = asyncio.ensure_future(packer.fetchval("SELECT pack_span()"))
        await asyncio.sleep(0.5)
        assert not packing.done()
    assert await packing == "day 2025-01-01 not packed: it has changed meanwhile"
    assert await packer.fetchval("SELECT count(*) FROM usage_packed_span") == 0
    await pack(packer)
    assert await check_all(packer, "UTC")
    for each in (packer, writer):
        await each.close()


@pytest.mark.parametrize("change", ["folded again", "let go of"])
async def test_what_changes_while_it_is_packed_is_not_listed(database: str, change: str) -> None:
    """A span that was folded again is another one; and rows may go while they are read."""
    packer, holder = await asyncpg.connect(database), await asyncpg.connect(database)
    writer = await asyncpg.connect(database)
    await insert(writer, plain_calls(date(2025, 1, 1), 1))
    await pack(writer)
    unlisted = "packed" if change == "folded again" else "hours"
    await writer.execute("DELETE FROM usage_span WHERE span = $1 AND past - start = 1", unlisted)
    async with holder.transaction():
        await holder.execute("LOCK TABLE usage_packed_span IN SHARE MODE")
        packing = asyncio.ensure_future(packer.fetchval("SELECT pack_span()"))
        async with asyncio.timeout(30):
            waits = "SELECT NOT granted FROM pg_locks WHERE pid = $1 AND NOT granted"
            while not await writer.fetchval(waits, packer.get_server_pid()):
                await asyncio.sleep(0.01)
        if change == "folded again":
            late = {"created_at": datetime(2025, 1, 1, 12, tzinfo=UTC), "user_id": "a"}
            await insert(writer, [late], first=999)
            while await writer.fetchval("SELECT fold_span()"):
                pass
        else:
            await writer.execute("SELECT note_retired_month('user_api_usage', '2025-01-01')")
    assert (await packing).endswith("not packed: it has changed meanwhile")
    made = await pack(packer)
    assert len(made) == (7 if change == "folded again" else 0)
    if made:
        await check_all(packer, "UTC")
    for each in (packer, holder, writer):
        await each.close()


async def test_who_packs_waits_for_nobody_who_may_wait_for_it(database: str) -> None:
    """The file that makes tables has the lock of all writers, and then wants tables."""
    packer, owner = await asyncpg.connect(database), await asyncpg.connect(database)
    await insert(packer, plain_calls(date(2025, 1, 1), 1))
    while await packer.fetchval("SELECT fold_span()"):
        pass
    async with owner.transaction():
        await owner.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('openai-meter rollups', 0))"
        )
        packing = asyncio.ensure_future(packer.fetchval("SELECT pack_span()"))
        await asyncio.sleep(0.5)
        await owner.execute("LOCK TABLE usage_by_user_day, usage_packed_span")
    assert await packing == "day 2025-01-01 not packed: it has changed meanwhile"
    await pack(packer)
    assert await check_all(packer, "UTC")
    for each in (packer, owner):
        await each.close()


async def test_a_day_of_many_users_is_in_order(connection: asyncpg.Connection) -> None:
    """Whatever way Postgres takes through thousands of them."""
    await connection.execute(
        """
        INSERT INTO usage_by_user_day
        SELECT
            '2025-01-01', 'user ' || (number * 7919) % 30011, 'hint', 'm' || number % 3, number, 0,
            0, 0, 0, number, number, number, NULL, NULL, NULL, NULL, NULL, number / 1000.0, now(),
            now(), NULL
        FROM generate_series(1, 30000) AS number
        """
    )
    await connection.execute("SELECT number_users('2025-01-01')")
    packed = await connection.fetch(
        "SELECT * FROM packed_sums('2025-01-01', '2025-01-02', 'days') WHERE is_total"
    )
    names = {row["number"]: row["user_id"] for row in await connection.fetch(NUMBERS)}
    (users,) = decoded(packed, names).values()
    sums = await connection.fetch("SELECT user_id, calls, cost_usd FROM usage_by_user_day")
    assert len(users) == 30_000
    for user, calls, cost in sums:
        assert (users[user]["calls"], users[user]["cost_usd"]) == (calls, cost)


async def test_the_dashboard_reads_what_is_packed_and_nothing_else(database: str) -> None:
    """With the few rights that it has."""
    connection = await connect(database)
    await insert(connection, plain_calls(date(2025, 1, 1), 2))
    await pack(connection)
    async with connection.transaction():
        await connection.execute("SET LOCAL ROLE meter_dashboard")
        tiles = await connection.fetch(
            "SELECT kind, count(calls) AS rows FROM packed_between('2025-01-01 05:00Z', 'infinity')"
            " LEFT JOIN packed_spans USING (start, past)"
            " WHERE packed_spans.hour IS NOT DISTINCT FROM packed_between.hour GROUP BY 1"
        )
        assert {row["kind"] for row in tiles} == {"hours", "packed"}
    await connection.execute("SET ROLE meter_dashboard")
    for forbidden in ("TABLE usage_packed_span", "SELECT pack_span()"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(forbidden)
    await connection.close()

"""Who was there in a part of a day, whether it is open, folded or packed."""

from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest

from dashboard import presence
from dashboard.opened import OpenDays
from dashboard.presence import Calls, Part, Roster
from tests.dashboard.conftest import Asking, calls_of_day, fold, record
from tests.fakes.rows import ledger_row

DAY = date(2026, 10, 20)
MIDNIGHT = datetime(2026, 10, 20, tzinfo=UTC)
EIGHT, NOON = MIDNIGHT + timedelta(hours=8), MIDNIGHT + timedelta(hours=12)
CALLS = (  # who, where, at which hour, and of which model
    ("ada", "hint", 6, "gpt-a"), ("ada", "chat", 9, "gpt-b"), ("bob", "hint", 10, "gpt-a"),
    ("cyd", "chat", 12, None), (None, "hint", 9, "gpt-a"),
)  # fmt: skip


async def _named(asking: Asking, roster: Roster) -> set[str]:
    """Return the names of all in a roster."""
    known = await asking.fetch("SELECT number, user_id FROM user_numbers")
    names = set().union(*roster.nameless.values())
    for bits in roster.numbered.values():
        names |= {row["user_id"] for row in known if bits >> 8191 - row["number"] & 1}
    return names


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Part(DAY, EIGHT, None, by_endpoint=False), {"ada", "bob", "cyd"}),
        (Part(DAY, None, EIGHT, by_endpoint=False), {"ada"}),
        (Part(DAY, EIGHT, NOON, by_endpoint=False), {"ada", "bob"}),
        (Part(DAY, EIGHT, None, calls=Calls(("hint",))), {"bob"}),
        (Part(DAY, NOON, None, calls=Calls(("chat",))), {"cyd"}),
        (Part(DAY, None, EIGHT, calls=Calls(("chat",))), set()),
        (Part(DAY, calls=Calls(models=("gpt-a",))), {"ada", "bob"}),
        (Part(DAY, calls=Calls(models=("gpt-none",))), set()),
        (Part(DAY, calls=Calls(without_model=True)), {"cyd"}),
        (Part(DAY, EIGHT, None, calls=Calls(models=("gpt-a",))), {"bob"}),
        (Part(DAY, EIGHT, None, by_endpoint=False, calls=Calls(models=("gpt-a",))), {"bob"}),
        (Part(DAY, EIGHT, NOON, calls=Calls(models=("gpt-b", "gpt-c"))), {"ada"}),
        (Part(DAY, EIGHT, NOON, calls=Calls(without_model=True)), set()),
    ],
    ids=[
        "late", "early", "between", "late-hint", "late-chat", "early-chat", "model", "rare-model",
        "no-model", "late-model", "late-model-anywhere", "models-between", "no-model-between",
    ],
)  # fmt: skip
@pytest.mark.parametrize("folds", [0, 2, 1000], ids=["open", "folded", "packed"])
async def test_who_was_there_in_a_part_of_a_day(
    database: str, part: Part, expected: set[str], folds: int
) -> None:
    """Noon belongs to what comes after it."""
    await record(database, calls_of_day(MIDNIGHT, CALLS))
    await fold(database, folds)
    connection = await asyncpg.connect(database)
    asking = Asking(connection)
    found = await _read(asking, part, folds)
    asked = len(asking.asked)
    names = await _named(asking, _only(found, part))
    await connection.close()
    assert names == expected
    assert found.known
    assert asked == (2 if folds == 2 else 1)


async def _read(asking: Asking, part: Part, folds: int) -> Roster:
    if folds:
        return (await presence.of_folded_parts(asking.fetch, [part]))[part]
    return (await presence.of_open_days(OpenDays(asking.fetch).present, [part]))[part]


def _only(roster: Roster, part: Part) -> Roster:
    """Return what whoever asks looks at: the endpoints asked for."""
    wanted = {*roster.numbered, *roster.nameless}
    if part.calls.endpoints:
        wanted &= {*part.calls.endpoints}
    return Roster(
        {name: bits for name, bits in roster.numbered.items() if name in wanted},
        {name: names for name, names in roster.nameless.items() if name in wanted},
    )


@pytest.mark.parametrize("folds", [0, 2, 1000], ids=["open", "folded", "packed"])
async def test_of_somebody_before_and_after_nothing_is_said(database: str, folds: int) -> None:
    """Whether one of the calls between lies in the part, only rows know, or packed hours."""
    moments = (MIDNIGHT + timedelta(hours=hour) for hour in (6, 15))
    rows = [ledger_row(number, created_at=moment) for number, moment in enumerate(moments)]
    await record(database, rows)
    await fold(database, folds)
    connection = await asyncpg.connect(database)
    found = await _read(Asking(connection), Part(DAY, EIGHT, NOON, by_endpoint=False), folds)
    await connection.close()
    assert found.known is (folds == 1000)
    assert not any(found.numbered.values()) or not found.known


async def test_users_of_a_model_on_many_days_that_are_not_packed_are_unknown(
    database: str,
) -> None:
    """To look through the sums of all of them takes longer than whoever asks instead."""
    days = [DAY + timedelta(days=number) for number in range(presence.MOST_UNPACKED + 1)]
    await record(
        database,
        [
            ledger_row(number, created_at=MIDNIGHT + timedelta(days=number), model="gpt-a")
            for number in range(len(days))
        ],
    )
    await fold(database, 2 * len(days))
    connection = await asyncpg.connect(database)
    asking = Asking(connection)
    parts = [Part(day, calls=Calls(models=("gpt-a",))) for day in days]
    few = await presence.of_folded_parts(asking.fetch, parts[1:])
    many = await presence.of_folded_parts(asking.fetch, parts)
    await connection.close()
    assert [roster.known for roster in few.values()] == [True] * presence.MOST_UNPACKED
    assert not any(roster.known for roster in many.values())


def test_a_roster_knows_about_how_large_it_is() -> None:
    """So that many of them can be kept within a bound."""
    assert Roster({"hint": 1 << 8191}).size == 1724

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from proxy.core.catalog import MAX_KNOWN, Contract, Entry, Names, Period

MINI = Entry(model_id="gpt-4o-mini", names=("gpt-4o-mini",), dated=True, periods=(Period(),))
FULL = Entry(model_id="gpt-4o", names=("gpt-4o", "gpt-4o-2024-08-06"), periods=(Period(),))
TUNED = Entry(
    model_id="ft:gpt-4o", names=("ft:gpt-4o",), prefixes=("ft:gpt-4o:",), periods=(Period(),)
)
TUNED_OURS = Entry(
    model_id="ft:gpt-4o:acme", names=(), prefixes=("ft:gpt-4o:acme:",), periods=(Period(),)
)
NAMES = Names(
    [MINI, FULL, TUNED, TUNED_OURS], {"homework": "gpt-4o-mini-2024-07-18", "gpt-4o": "gpt-4o-mini"}
)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("gpt-4o-mini", MINI),
        ("gpt-4o-mini-2024-07-18", MINI),
        ("gpt-4o-2024-08-06", FULL),
        ("ft:gpt-4o:globex::1", TUNED),
        ("ft:gpt-4o:acme:tutor:1", TUNED_OURS),
        ("homework", MINI),
        ("gpt-4o", MINI),
    ],
    ids=["listed", "dated", "listed snapshot", "prefix", "longest prefix", "alias", "alias wins"],
)
def test_a_name_finds_the_entry_that_lists_it(name: str, entry: Entry) -> None:
    """Alias, listed name, listed name with a date, longest prefix: in this order."""
    assert NAMES.find(name) is entry


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        "gpt-4",
        "gpt-4o-2025-01-01",
        "gpt-4o-mini-2024-13-01",
        "gpt-4o-mini-2024-W01-1",
        "gpt-4o-mini-20240718xx",
        "gpt-4o-mini_2024-07-18",
        "gpt-4o-mini-2024-07-18-x",
        "gpt-4o-mini-audio",
        "ft:gpt-4o-mini:acme::1",
        "ft:gpt-4",
    ],
)
def test_a_similar_name_finds_nothing(name: str | None) -> None:
    """A price guessed from a neighbour is wrong more often than not."""
    assert NAMES.find(name) is None


def test_how_many_names_are_remembered_is_bounded() -> None:
    """Clients choose names, and those that are none are remembered as well."""
    names = Names([MINI], {})
    for number in range(MAX_KNOWN + 1):
        assert names.find(f"model-{number}") is None
    assert len(names._known) == 1  # noqa: SLF001 - what is kept is the point
    assert names.find("gpt-4o-mini") is MINI


def test_a_contract_covers_its_models_from_its_day_on() -> None:
    """Whatever was sent before is at list price."""
    begin = datetime(2027, 1, 1, tzinfo=UTC)
    ours = Contract(start=begin, factor=Decimal("0.9"), models=frozenset({"gpt-4o"}))
    assert ours.covers("gpt-4o", begin)
    assert not ours.covers("gpt-4o", datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert not ours.covers("o3", begin)
    assert Contract(start=begin, factor=Decimal("0.9")).covers("o3", begin)

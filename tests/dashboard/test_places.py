import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.errors import ParameterError
from dashboard.places import Order, Place, Places
from dashboard.placing import EPOCH

_places = st.one_of(st.integers(-3, 3), st.just(math.inf))


@given(
    groups=st.lists(st.lists(_places, max_size=12), max_size=5),
    most=st.integers(1, 12),
    after=st.one_of(st.just(-math.inf), _places, st.just(Decimal("-1.5"))),
)
def test_the_first_are_found_however_they_come(
    groups: list[list[Place]], most: int, after: Place
) -> None:
    """Nobody is missing who may be on the page, and who surely is not is left out."""
    places = Places(most, after)
    everybody: list[tuple[Place, int]] = []
    for group in groups:
        pairs = [(place, len(everybody) + n) for n, place in enumerate(group)]
        places.add(pairs)
        everybody += pairs
    equal = [number for place, number in everybody if place == after]
    later = sorted(pair for pair in everybody if pair[0] > after)
    assert [*places.equal] == equal
    if len(later) < most:
        assert sorted(places.better) == later
        assert not places.last
        return
    boundary = later[most - 1][0]
    assert places.boundary == boundary
    assert sorted(places.better) == [pair for pair in later if pair[0] < boundary]
    assert sorted(places.last) == [number for place, number in later if place == boundary]
    assert places.is_full_before(boundary + 1 if boundary < math.inf else boundary) == (
        boundary < math.inf
    )


@pytest.mark.parametrize(
    ("column", "direction", "place", "written"),
    [
        ("calls", -1, -12, "-12"),
        ("cost_usd", -1, -1_500_000_000_000_000_001, "-1.500000000000000001"),
        ("last_call", -1, -(1_700_000_000_000_007 - EPOCH), "-1700000000.000007"),
        ("first_call", 1, 1_700_000_000_000_000 - EPOCH, "1700000000.000000"),
        ("cost_usd", 1, math.inf, "Infinity"),
        ("name", 1, 0, "0"),
    ],
)
def test_a_place_is_written_as_the_database_writes_it(
    column: str, direction: int, place: Place, written: str
) -> None:
    """So that a page goes on where another ended, whichever way they were made."""
    order = Order(column, direction, Decimal(written), "0ada")
    assert order.written(place) == written
    assert order.after == place


def test_a_place_that_no_page_has_given_is_refused() -> None:
    """It may be as large as somebody likes."""
    order = Order("cost_usd", 1, Decimal("9E+999999"), "0ada")
    with pytest.raises(ParameterError, match="an earlier page"):
        order.after  # noqa: B018 - it raises


@pytest.mark.parametrize(
    ("order", "bound", "comes", "nobody_comes"),
    [
        (Order("calls", -1, None, None), (True, None), True, True),
        (Order("calls", -1, Decimal(-1), "0ada"), (True, "ada"), False, True),
        (Order("calls", -1, Decimal(-1), "0Zoe"), (True, "Zoe"), True, True),
        (Order("calls", -1, Decimal(-1), "1"), (False, None), False, False),
        (Order("name", -1, Decimal(0), "1"), (True, None), True, False),
        (Order("name", -1, Decimal(0), "0bob"), (True, "bob"), True, False),
        (Order("name", -1, Decimal(0), ""), (False, None), False, False),
        (Order("name", 1, Decimal(0), ""), (True, None), True, True),
    ],
)
def test_names_go_on_after_the_last_one(
    order: Order,
    bound: tuple[bool, str | None],
    comes: bool,  # noqa: FBT001 - a table
    nobody_comes: bool,  # noqa: FBT001
) -> None:
    """Calls without a user come after all users, or backwards before them."""
    assert order.bound() == bound
    assert order.comes("0ada") == comes
    assert order.comes("1") == nobody_comes

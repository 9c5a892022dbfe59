from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.packed import BLOCK, NOBODY, Block, Way, numbers

Row = dict[int, int | None]  # one value of each user; None: unknown
WIDTHS = (1, 2, 4, 8)

_values = st.one_of(st.none(), st.just(0), st.integers(-120, 120), st.integers(-(1 << 62), 1 << 62))
rows_of = st.lists(st.dictionaries(st.integers(0, 300), _values, min_size=1), max_size=6)


def packed(row: Row, width: int | None = None) -> tuple[bytes, bytes | None]:
    """Return users and values as the ledger packs them, as narrow as they can be."""
    users = b"".join(user.to_bytes(2, "big") for user in sorted(row))
    known = [value for value in row.values() if value is not None]
    if not known:
        return users, None
    if len(known) == len(row) and not any(known):
        return users, b""
    fits = (w for w in WIDTHS if all(abs(value) < (1 << (8 * w - 1)) - 1 for value in known))
    width = width or next(fits)
    unknown = -(1 << (8 * width - 1))
    values = (unknown if row[user] is None else row[user] for user in sorted(row))
    return users, b"".join((value or 0).to_bytes(width, "big", signed=True) for value in values)


def added(block: Block) -> Row:
    """Return what a block has for each user; it names nobody twice."""
    found = [*block.others_than_zero(), *block.zero_and_unknown()]
    assert len(found) == len(dict(found))
    return dict(found)


def together(rows: Sequence[Row]) -> Row:
    """Add rows up, one value after another."""
    total: Row = {}
    for row in rows:
        for user, value in row.items():
            if value is None:
                total.setdefault(user, None)
            else:
                total[user] = (total.get(user) or 0) + value
    return total


@given(rows=rows_of, more=rows_of)
def test_packed_rows_add_up_to_what_their_values_do(rows: list[Row], more: list[Row]) -> None:
    """Whatever is known of whom, in any width, and with values that are not packed among them."""
    block = Block(0)
    for row in rows:
        block.add_packed(*packed(row))
    for row in more:
        block.add([*row], [*row.values()])
    assert added(block) == together([*rows, *more])


@given(row=st.dictionaries(st.integers(0, 300), _values, min_size=1), times=st.integers(1, 10**6))
def test_values_of_a_coarser_scale_count_several_times(row: Row, times: int) -> None:
    """As amounts of fewer decimal digits do."""
    block = Block(0)
    block.add_packed(*packed(row), times=times)
    assert added(block) == {
        user: None if value is None else value * times for user, value in row.items()
    }


@given(
    row=st.dictionaries(st.integers(0, 300), st.integers(-9, 9), min_size=1),
    most=st.integers(1, 20),
    direction=st.sampled_from((1, -1)),
)
def test_who_comes_first_is_among_the_first(row: dict[int, int], most: int, direction: int) -> None:
    """With all their equals, and nobody else."""
    block = Block(0)
    block.add_packed(*packed({**row}))
    others = {user: value for user, value in row.items() if value}
    bound = sorted(others.values(), key=lambda value: value * direction)[:most]
    assert dict(block.first(most, direction)) == {
        user: value for user, value in others.items() if value * direction <= bound[-1] * direction
    }


@pytest.mark.parametrize("width", WIDTHS)
def test_bytes_that_only_look_unknown_are_values(width: int) -> None:
    """The mark of what is unknown may lie across two values."""
    row: Row = {1: 0x80 if width > 1 else 1, 2: 0, 3: None, 4: 5}
    block = Block(0)
    block.add_packed(*packed(row, width))
    assert added(block) == row


@pytest.mark.parametrize(("way", "found"), [("least", -3), ("greatest", 9)])
def test_moments_are_the_first_or_the_last(way: Way, found: int) -> None:
    """Of a user who came several times; who came once has that one, also if it is 0."""
    block = Block(0, way)
    block.add_packed(*packed({7: 9, 8: 0}))
    block.add([7], [-3])
    assert dict(block.others_than_zero()) == {7: found, 8: 0}


def test_numbers_are_those_of_the_block() -> None:
    """And calls without a user have one of their own."""
    second, nobody = Block(1), Block(-1)
    second.add_packed(*packed({3: 5}))
    second.add([BLOCK + 3, BLOCK + 4], [1, None])
    nobody.add_packed(*packed({0: 4}))
    assert added(second) == {BLOCK + 3: 6, BLOCK + 4: None}
    assert added(nobody) == {NOBODY: 4}


def test_users_of_a_packed_row_have_numbers() -> None:
    """Those of their block."""
    users, _ = packed({3: 1, 300: 1})
    assert [*numbers(users, 0)] == [3, 300]
    assert [*numbers(users, 2)] == [2 * BLOCK + 3, 2 * BLOCK + 300]

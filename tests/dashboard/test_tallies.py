import pytest
from hypothesis import given

from dashboard.packed import Block
from dashboard.tallies import Tallies, Tally, added
from tests.dashboard.test_packed import Row, packed, rows_of, together
from tests.dashboard.test_packed import added as values

NUMBER, VERSION = 0, ("2026-03-01", 1)


@given(rows=rows_of, more=rows_of)
def test_what_was_kept_is_what_was_added_up(rows: list[Row], more: list[Row]) -> None:
    """Also with what is added to it later, which is not kept."""
    tallies = Tallies()
    summed = added([_row(row) for row in rows], Block(NUMBER))
    tallies.keep(NUMBER, VERSION, summed)
    for _ in range(2):
        tally = tallies.get(NUMBER, VERSION) or summed  # sums of more than 64 bits are not kept
        block = tally.at(0)
        assert block is not None
        for row in more:
            block.add([*row], [*row.values()])
        assert values(block) == together([*rows, *more])


def test_what_was_packed_again_is_added_up_again() -> None:
    """It has another version."""
    tallies = Tallies()
    tallies.keep(NUMBER, VERSION, added([_row({1: 5})], Block(NUMBER)))
    assert tallies.get(NUMBER, VERSION) is not None
    assert tallies.get(NUMBER, ("2026-03-01", 2)) is None


def test_what_one_question_has_kept_it_does_not_throw_out_itself() -> None:
    """Of more blocks than there is room for, the first ones are there when it is asked again."""
    summed = added([_row({1: 5})], Block(NUMBER))
    tallies = Tallies(most_bytes=1000)
    tallies.begin()
    for number in range(4):
        tallies.keep(number, VERSION, summed)
    kept = [tallies.get(number, VERSION) is not None for number in range(4)]
    assert kept == [True, True, False, False]


def test_amounts_of_several_scales_are_added_in_the_widest() -> None:
    """0.5 and 0.25 are 75 hundredths, and 750 thousandths."""
    tally = added([_row({1: 5}, scale=1), _row({1: 25}, scale=2)], Block(NUMBER))
    assert tally.scale == 2
    assert [_at(tally, scale) for scale in (2, 3, 2)] == [{1: 75}, {1: 750}, {1: 75}]


def test_what_could_not_be_packed_is_no_sum() -> None:
    """Its scale says so, and whoever asks has to add up rows."""
    tally = added([_row({1: 5}), _row({1: 5}, scale=-1)], Block(NUMBER))
    assert tally.at(0) is None
    tallies = Tallies()
    tallies.keep(NUMBER, VERSION, tally)
    assert tallies.get(NUMBER, VERSION) is None


@pytest.mark.parametrize(("way", "expected"), [("least", {1: 3, 2: 9}), ("greatest", {1: 7, 2: 9})])
def test_first_and_last_calls_are_kept_as_well(way: str, expected: Row) -> None:
    """Of those who made any."""
    block = Block(NUMBER, "least" if way == "least" else "greatest")
    tallies = Tallies()
    tallies.keep(NUMBER, VERSION, added([_row({1: 7, 2: 9}), _row({1: 3})], block))
    kept = tallies.get(NUMBER, VERSION)
    assert kept is not None
    found = kept.at(0)
    assert found is not None
    assert dict(found.others_than_zero()) == expected


def _row(row: Row, scale: int = 0) -> dict[str, object]:
    users, sums = packed(row)
    return {"users": users, "sums": sums, "scale": scale}


def _at(tally: Tally, scale: int) -> Row:
    block = tally.at(scale)
    assert block is not None
    return values(block)

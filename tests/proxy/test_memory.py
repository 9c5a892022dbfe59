"""Memory goes back when many connections have gone, and only then."""

from proxy.memory import MANY, Tide, trim


def test_the_tide_goes_out() -> None:
    """When three quarters have gone, for three looks; and again after it was high again."""
    tide = Tide()
    assert not any(tide.is_out(count) for count in (10, MANY, MANY // 2))
    assert [tide.is_out(count) for count in (MANY // 4, 3, 0, 0)] == [True, True, True, False]
    assert [tide.is_out(count) for count in (4 * MANY, MANY + 1, MANY)] == [False, False, True]


def test_few_connections_are_no_tide() -> None:
    """There is nothing to gain."""
    tide = Tide()
    assert not any(tide.is_out(count) for count in (MANY - 1, 0))


def test_trimming_twice_finds_nothing_more_to_give() -> None:
    """It can be asked at any time."""
    held = [bytes(100_000) for _ in range(100)]
    del held
    trim()
    assert trim() in (True, False)

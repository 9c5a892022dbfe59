from random import Random

from prove.stepping import FARTHEST_SECONDS, stepping

SECOND = 10**9


def test_a_clock_is_set_every_few_moments() -> None:
    """Forwards and backwards, by 40 days at most; it goes on in between."""
    moments = iter([100 * SECOND, 100 * SECOND + 7, 101 * SECOND, 102 * SECOND, 103 * SECOND])
    clock = stepping(Random(1), lambda: next(moments))
    first, second, *others = (clock() for _ in range(5))
    assert second - first == 7
    steps = [first - 100 * SECOND, *(o - (101 + n) * SECOND for n, o in enumerate(others))]
    assert len(set(steps)) == 4
    assert any(step < 0 for step in steps)
    assert any(step > 0 for step in steps)
    assert all(abs(step) <= FARTHEST_SECONDS * SECOND for step in steps)

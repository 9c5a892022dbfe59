"""Memory goes back when many connections have gone, and only then."""

import subprocess
import sys

from proxy.memory import MANY, Tide, trim

FAULTS = """
import resource, sys
from proxy.memory import keep
if len(sys.argv) > 1:
    keep()
held = [bytes(1000) for _ in range(1000)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    pieces = [b"." * 100_000 for _ in range(20)]
    del pieces
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


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


def test_the_memory_of_a_piece_is_there_for_the_next() -> None:
    """Fifty times 2 MB are 500 pages, taken once: not 25,000 of them."""
    found = subprocess.run(  # noqa: S603 (our own text)
        [sys.executable, "-c", FAULTS, "keep"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert int(found.stdout) < 1000

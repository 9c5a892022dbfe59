import asyncio
from base64 import b64encode
from collections.abc import Callable

import pytest
from argon2 import PasswordHasher

from dashboard.access import MOST_ADDRESSES, MOST_FAILURES, Access, Throttle
from dashboard.errors import TooManyAttemptsError

HASHED = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("pass:word")


class Clock:
    """A clock that stands still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def _access(clock: Callable[[], float]) -> Access:
    return Access(user="ada", hashed=HASHED, tokens=("token-1", "token-2"), clock=clock)


def _basic(credentials: str) -> str:
    return "Basic " + b64encode(credentials.encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "allowed"),
    [
        ("Bearer token-1", True),
        ("bearer  token-2 ", True),
        (_basic("ada:pass:word"), True),
        (_basic("ada:pass"), False),
        (_basic("eve:pass:word"), False),
        (_basic("ada"), False),
        ("Basic !!!", False),
        ("Basic /w==", False),
        ("Bearer token-3", False),
        ("Bearer ", False),
        ("Digest x", False),
        ("", False),
    ],
)
async def test_only_tokens_and_the_admin_may_read(authorization: str, *, allowed: bool) -> None:
    """Schemes are case-insensitive; a password may hold a colon."""
    assert await _access(Clock()).allows(authorization, address="a") is allowed


async def test_without_tokens_no_bearer_is_let_in() -> None:
    """An empty list is no wildcard."""
    access = Access(user="ada", hashed=HASHED, tokens=(), clock=Clock())
    assert not await access.allows("Bearer ", address="a")


async def test_guessing_has_to_wait_but_nobody_else_does() -> None:
    """After some failures the address waits, even with the right password, for a minute."""
    clock = Clock()
    access = _access(clock)
    for _ in range(MOST_FAILURES):
        assert not await access.allows(_basic("ada:wrong"), address="guesser")
    with pytest.raises(TooManyAttemptsError):
        await access.allows(_basic("ada:pass:word"), address="guesser")
    assert await access.allows(_basic("ada:pass:word"), address="other")
    clock.now += 61
    assert not await access.allows(_basic("ada:wrong"), address="guesser")


async def test_guesses_at_the_same_time_are_counted_too() -> None:
    """A hundred at once get no more tries than one after another."""
    access = _access(Clock())
    guesses = [access.allows(_basic(f"ada:{n}"), address="guesser") for n in range(20)]
    found = await asyncio.gather(*guesses, return_exceptions=True)
    assert sum(1 for each in found if each is False) == MOST_FAILURES


async def test_who_is_logged_in_stays_so_while_others_guess() -> None:
    """A password that was right is remembered, and does not count as an attempt."""
    access = _access(Clock())
    assert await access.allows(_basic("ada:pass:word"), address="a")
    for _ in range(MOST_FAILURES):
        await access.allows(_basic("ada:wrong"), address="a")
    assert await access.allows(_basic("ada:pass:word"), address="a")


def test_addresses_are_forgotten_before_they_fill_the_memory() -> None:
    """The oldest go first."""
    throttle = Throttle(Clock())
    for number in range(MOST_ADDRESSES + 1):
        for _ in range(MOST_FAILURES):
            throttle.failed(str(number))
    throttle.check("0")
    with pytest.raises(TooManyAttemptsError):
        throttle.check("1")

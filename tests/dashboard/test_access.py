import asyncio
from base64 import b64encode
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from dashboard.access import (
    MOST_ADDRESSES,
    MOST_FAILURES,
    MOST_FAILURES_OF_ACCOUNT,
    Access,
    Throttle,
    guesser,
)
from dashboard.errors import TooManyAttemptsError
from dashboard.register import Account, Register

HASHED = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("pass:word")


class Clock:
    """A clock that stands still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def register(tmp_path: Path) -> Register:
    """Return a register with one account beside the admin, and nothing else."""
    register = Register(tmp_path)
    register.add_account(Account(name="flo", role="viewer", hashed=HASHED), now=0)
    return register


@pytest.fixture
def clock() -> Clock:
    """Return a clock that the test moves."""
    return Clock()


@pytest.fixture
def access(register: Register, clock: Clock) -> Access:
    """Return what decides, with two tokens of the settings."""
    return Access(
        user="ada",
        hashed=HASHED,
        tokens=("token-1", "token-2"),
        register=register,
        clock=clock,
        now=clock,
    )


async def _allows(access: Access, authorization: str, address: str = "a") -> bool:
    return await access.viewer(authorization, "", address=address) is not None


def _basic(credentials: str) -> str:
    return "Basic " + b64encode(credentials.encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "allowed"),
    [
        ("Bearer token-1", True),
        ("bearer  token-2 ", True),
        (_basic("ada:pass:word"), True),
        (_basic("ada:pass"), False),
        (_basic("flo:pass:word"), True),
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
async def test_only_tokens_and_accounts_may_read(
    access: Access, authorization: str, *, allowed: bool
) -> None:
    """Schemes are case-insensitive; a password may hold a colon."""
    assert await _allows(access, authorization) is allowed


async def test_everybody_has_a_role(access: Access) -> None:
    """Tokens of the settings read and export; accounts have the role that they were given."""
    roles = {}
    for authorization in ("Bearer token-1", _basic("ada:pass:word"), _basic("flo:pass:word")):
        viewer = await access.viewer(authorization, "", address="a")
        assert viewer is not None
        roles[viewer.name] = viewer.role
    assert roles == {"METER_API_TOKENS": "finance", "ada": "admin", "flo": "viewer"}


async def test_without_tokens_no_bearer_is_let_in(register: Register) -> None:
    """An empty list is no wildcard."""
    clock = Clock()
    access = await asyncio.to_thread(
        Access, user="ada", hashed=HASHED, tokens=(), register=register, clock=clock, now=clock
    )
    assert not await _allows(access, "Bearer ")


async def test_a_token_is_good_until_it_is_revoked_or_old(
    access: Access, register: Register, clock: Clock
) -> None:
    """And has the role that it was made with."""
    token = await asyncio.to_thread(
        register.add_token, "ci", "viewer", now=0, expires_at=clock.now + 60
    )
    viewer = await access.viewer(f"Bearer {token}", "", address="a")
    assert (viewer.name, viewer.role) == ("ci", "viewer") if viewer else False
    clock.now += 61
    assert not await _allows(access, f"Bearer {token}")
    other = await asyncio.to_thread(register.add_token, "cd", "admin", now=0, expires_at=None)
    assert await _allows(access, f"Bearer {other}")
    for kept in await asyncio.to_thread(register.tokens):
        await asyncio.to_thread(register.revoke_token, kept.id, now=1)
    assert not await _allows(access, f"Bearer {other}")


async def test_a_session_begins_with_the_password_and_ends_when_it_is_told_to(
    access: Access,
) -> None:
    """Its cookie says nothing and opens everything until then."""
    cookie = await access.log_in("flo", "pass:word", address="a")
    assert cookie is not None
    viewer = await access.viewer("", cookie, address="b")
    assert (viewer.name, viewer.role, viewer.via) == ("flo", "viewer", "session") if viewer else 0
    assert "flo" not in cookie
    await access.log_out(cookie)
    assert await access.viewer("", cookie, address="b") is None


async def test_a_session_ends_by_itself(access: Access, clock: Clock) -> None:
    """After twelve hours."""
    cookie = await access.log_in("ada", "pass:word", address="a")
    assert cookie is not None
    clock.now += 12 * 3600
    assert await access.viewer("", cookie, address="a") is None


async def test_a_session_ends_with_its_account(access: Access, register: Register) -> None:
    """At once."""
    cookie = await access.log_in("flo", "pass:word", address="a")
    assert cookie is not None
    await asyncio.to_thread(register.remove_account, "flo")
    assert await access.viewer("", cookie, address="a") is None
    assert await access.log_in("flo", "pass:word", address="a") is None


@pytest.mark.parametrize("cookie", ["", "x", "x.y", "W10.W10", "\udcff.\udcff", "é.é"])
async def test_a_cookie_that_is_not_ours_opens_nothing(access: Access, cookie: str) -> None:
    """Whatever it is: so a session cannot be chosen for somebody else."""
    assert await access.viewer("", cookie, address="a") is None


async def test_each_login_is_another_session(access: Access) -> None:
    """What was known before it is worth nothing after it."""
    first = await access.log_in("ada", "pass:word", address="a")
    assert first != await access.log_in("ada", "pass:word", address="a")


def test_a_form_belongs_to_its_cookie(access: Access, clock: Clock) -> None:
    """For an hour, and to no other cookie."""
    cookie, sent = access.invitation()
    other, _ = access.invitation()
    assert access.is_invited(cookie, sent)
    assert not access.is_invited(other, sent)
    assert not access.is_invited("", sent)
    assert not access.is_invited(cookie, "\udcff")
    clock.now += 3600
    assert not access.is_invited(cookie, sent)


async def test_guessing_has_to_wait_but_nobody_else_does(access: Access, clock: Clock) -> None:
    """After some failures the address waits, even with the right password, for a minute."""
    for _ in range(MOST_FAILURES):
        assert not await _allows(access, _basic("ada:wrong"), "guesser")
    with pytest.raises(TooManyAttemptsError):
        await _allows(access, _basic("ada:pass:word"), "guesser")
    assert await _allows(access, _basic("ada:pass:word"), "other")
    clock.now += 61
    assert not await _allows(access, _basic("ada:wrong"), "guesser")


async def test_guessing_from_many_addresses_has_to_wait_too(access: Access) -> None:
    """The account waits; where its password was right before, it does not."""
    assert await _allows(access, _basic("ada:pass:word"), "home")
    for number in range(MOST_FAILURES_OF_ACCOUNT):
        assert not await _allows(access, _basic("ada:wrong"), f"guesser {number}")
    with pytest.raises(TooManyAttemptsError):
        await _allows(access, _basic("ada:wrong"), "guesser of another address")
    assert not await _allows(access, _basic("ada:wrong"), "home")
    assert await _allows(access, _basic("ada:pass:word"), "home")


async def test_guesses_at_the_same_time_are_counted_too(access: Access) -> None:
    """A hundred at once get no more tries than one after another."""
    guesses = [_allows(access, _basic(f"ada:{n}"), "guesser") for n in range(20)]
    found = await asyncio.gather(*guesses, return_exceptions=True)
    assert sum(1 for each in found if each is False) == MOST_FAILURES


async def test_who_is_logged_in_stays_so_while_others_guess(access: Access) -> None:
    """A session asks for no password, and where a password was right before it stays so."""
    session = await access.log_in("ada", "pass:word", address="home")
    assert session is not None
    for number in range(MOST_FAILURES_OF_ACCOUNT):
        assert not await _allows(access, _basic("ada:wrong"), f"guesser {number % 4}")
        if number % 4 == 3:
            assert await _allows(access, _basic("ada:pass:word"), "home")
    viewer = await access.viewer("", session, address="guesser 1")
    assert viewer is not None
    assert viewer.name == "ada"


@pytest.mark.parametrize("guesser_is_at", ["home", "elsewhere"])
async def test_brute_force_is_not_told_a_password_that_is_remembered(
    access: Access, clock: Clock, guesser_is_at: str
) -> None:
    """Who has to wait is answered alike whatever the guess, though the password is known by now."""
    assert await _allows(access, _basic("ada:pass:word"), "home")
    for _ in range(MOST_FAILURES):
        assert not await _allows(access, _basic("ada:wrong"), guesser_is_at)
    for guess in ("ada:wrong", "ada:pass:word"):
        with pytest.raises(TooManyAttemptsError):
            await _allows(access, _basic(guess), guesser_is_at)
    clock.now += 61
    assert await _allows(access, _basic("ada:pass:word"), guesser_is_at)


def test_addresses_are_forgotten_before_they_fill_the_memory() -> None:
    """The oldest go first."""
    throttle = Throttle(Clock())
    for number in range(MOST_ADDRESSES + 1):
        for _ in range(MOST_FAILURES):
            throttle.failed(str(number))
    throttle.check("0")
    with pytest.raises(TooManyAttemptsError):
        throttle.check("1")


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
    ],
)
def test_a_network_of_ipv6_is_one_guesser(address: str, named: str) -> None:
    """Whoever has one address of it has 2 to the power of 64."""
    assert guesser(address) == named


async def test_brute_force_from_many_addresses_of_one_network_waits(access: Access) -> None:
    """As from a single one."""
    for number in range(MOST_FAILURES):
        assert not await _allows(access, _basic("ada:wrong"), f"2001:db8::{number + 1}")
    with pytest.raises(TooManyAttemptsError):
        await _allows(access, _basic("ada:pass:word"), "2001:db8::ffff")
    assert await _allows(access, _basic("ada:pass:word"), "2001:db8:0:1::1")

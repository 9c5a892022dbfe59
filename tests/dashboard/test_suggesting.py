from dashboard.errors import TooSlowError
from dashboard.queries import Ledger
from dashboard.suggesting import KEPT_SECONDS, Names, Suggester
from tests.dashboard.conftest import record
from tests.fakes.rows import ledger_row


class Asked:
    """A ledger that counts how often it is asked, and may be too slow to answer."""

    def __init__(self) -> None:
        self.times = 0
        self.slow = False
        self.now = 0.0

    async def __call__(self, *, at_most: int) -> Names:
        """Return one name, which tells how often this was asked."""
        assert at_most == 100
        self.times += 1
        if self.slow:
            raise TooSlowError
        return {"user": (f"user {self.times}",)}


async def test_the_ledger_is_asked_once_a_minute() -> None:
    """However many look; and what was known is kept where it cannot say."""
    asked = Asked()
    suggester = Suggester(asked, clock=lambda: asked.now)
    assert [await suggester.names() for _ in range(3)] == [{"user": ("user 1",)}] * 3
    asked.now += KEPT_SECONDS
    assert await suggester.names() == {"user": ("user 2",)}
    asked.now, asked.slow = asked.now + KEPT_SECONDS, True
    assert await suggester.names() == {"user": ("user 2",)}
    assert asked.times == 3


async def test_names_are_those_of_recent_calls(database: str) -> None:
    """The most frequent, in their order; those that cannot stand in a field are left out."""
    ledger = Ledger(database)
    assert await ledger.names(at_most=9) == {}
    ids = ["bob", "bob", "ada", '"><script>', "two\nlines", "x" * 65, None]
    rows = [ledger_row(n, user_id=user, metadata={"n": 1}) for n, user in enumerate(ids)]
    await record(database, rows)
    assert await ledger.names(at_most=9) == {
        "user": ('"><script>', "ada", "bob"),
        "endpoint": ("analyze_homework",),
        "model": ("gpt-4o-mini-2024-07-18",),
        "metadata": ("n=1",),
    }
    assert (await ledger.names(at_most=1))["user"] == ("bob",)
    await ledger.close()

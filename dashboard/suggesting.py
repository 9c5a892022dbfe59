"""Suggest what a filter may be about: the names that recent calls have, asked for once a minute.

Whoever looks at a page gets those that were found last, so that no page waits for them but the
first. Who must not see users is suggested none: the fields for them are not on their pages.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeAlias

from dashboard.errors import DatabaseUnavailableError, TooSlowError

KEPT_SECONDS = 60.0
AT_MOST = 100  # of each kind

Names: TypeAlias = Mapping[str, tuple[str, ...]]


class Ask(Protocol):
    """Asks the ledger."""

    def __call__(self, *, at_most: int) -> Awaitable[Names]:
        """Return names by parameter."""


class Suggester:
    """Knows names; `clock` only moves forward."""

    def __init__(self, ask: Ask, *, clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._asked_at = float("-inf")
        self._names: Names = {}

    async def names(self) -> Names:
        """Return the names by parameter; none where the ledger cannot say."""
        now = self._clock()
        if now - self._asked_at < KEPT_SECONDS:
            return self._names
        self._asked_at = now  # others take what there is meanwhile
        with contextlib.suppress(DatabaseUnavailableError, TooSlowError):
            self._names = await self._ask(at_most=AT_MOST)
        return self._names

"""Who may read: bearer tokens, and the admin by HTTP Basic.

Comparisons take constant time. A password is checked in a thread, one at a time, and an address
that fails too often has to wait; one that was right is remembered as a keyed digest, so that a
browser which sends it with every request does not pay for it every time.
"""

import asyncio
import binascii
import hashlib
import hmac
import secrets
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from dashboard.errors import TooManyAttemptsError
from dashboard.passwords import matches

MOST_FAILURES = 5
WINDOW_SECONDS = 60.0
MOST_ADDRESSES = 1024


@dataclass(slots=True)
class Throttle:
    """Counts failures by address within a window; bounded, the oldest addresses are forgotten."""

    clock: Callable[[], float]
    _failures: "OrderedDict[str, tuple[int, float]]" = field(default_factory=OrderedDict)

    def check(self, address: str) -> None:
        """Raise TooManyAttemptsError if the address has to wait."""
        count, since = self._failures.get(address, (0, 0.0))
        if count >= MOST_FAILURES and self.clock() - since < WINDOW_SECONDS:
            raise TooManyAttemptsError

    def failed(self, address: str) -> None:
        """Count a failure."""
        count, since = self._failures.pop(address, (0, 0.0))
        now = self.clock()
        fresh = now - since >= WINDOW_SECONDS
        self._failures[address] = (1, now) if fresh else (count + 1, since)
        if len(self._failures) > MOST_ADDRESSES:
            self._failures.popitem(last=False)


class Access:
    """Decides about the Authorization field of a request."""

    def __init__(
        self, *, user: str, hashed: str, tokens: tuple[str, ...], clock: Callable[[], float]
    ) -> None:
        self._user = user
        self._hashed = hashed
        self._key = secrets.token_bytes(32)
        self._tokens = [self._digest(token) for token in tokens]
        self._remembered = b""
        self._throttle = Throttle(clock)
        self._checking = asyncio.Semaphore(1)

    async def allows(self, authorization: str, *, address: str) -> bool:
        """Whether the field value is good; raise TooManyAttemptsError for who guesses too often."""
        scheme, _, credentials = authorization.strip().partition(" ")
        if scheme.lower() == "bearer":
            return self._knows(credentials.strip())
        if scheme.lower() == "basic":
            return await self._is_admin(credentials.strip(), address)
        return False

    def _knows(self, token: str) -> bool:
        given = self._digest(token)
        found = [hmac.compare_digest(given, known) for known in self._tokens]
        return any(found)

    async def _is_admin(self, credentials: str, address: str) -> bool:
        given = self._digest(credentials)
        if hmac.compare_digest(given, self._remembered):
            return True
        self._throttle.check(address)
        user, password = _user_and_password(credentials)
        async with self._checking:
            self._throttle.check(address)
            right = await asyncio.to_thread(matches, self._hashed, password)
            right = hmac.compare_digest(self._digest(user), self._digest(self._user)) and right
            if not right:
                self._throttle.failed(address)
                return False
        self._remembered = given
        return True

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._key, text.encode("utf-8", "surrogateescape"), hashlib.sha256)


def _user_and_password(credentials: str) -> tuple[str, str]:
    """Decode the credentials of RFC 7617; what cannot be decoded names nobody."""
    try:
        user, _, password = b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return user, password

"""Who is asking: a bearer token, a session's cookie, or HTTP Basic.

Comparisons take constant time. A password is checked in a thread, one at a time, and who fails too
often has to wait: an address, and an account at addresses that it has never been right from. So has
an address that guesses tokens, unless it sends one that has been right. A
password that was right is remembered as a keyed digest, so that a script which sends it with every
request does not pay for it every time; while its address waits it waits as well, or the one guess
that is answered would be the right one.
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
from ipaddress import IPv4Address, IPv6Address, ip_address

from dashboard import signing
from dashboard.errors import TooManyAttemptsError
from dashboard.passwords import matches
from dashboard.register import TOKEN_PREFIX, Register
from dashboard.roles import Role, Viewer

MOST_FAILURES = 5
MOST_FAILURES_OF_ACCOUNT = 20
MOST_FAILURES_OF_TOKENS = 20
WINDOW_SECONDS = 60.0
MOST_ADDRESSES = 1024
SESSION_SECONDS = 12 * 3600.0
LOGIN_SECONDS = 3600.0
MOST_OF_A_NAME = 1024


@dataclass(slots=True)
class Throttle:
    """Counts failures by name within a window; bounded, the oldest names are forgotten."""

    clock: Callable[[], float]
    most: int = MOST_FAILURES
    _failures: "OrderedDict[str, tuple[int, float]]" = field(default_factory=OrderedDict)

    def check(self, name: str) -> None:
        """Raise TooManyAttemptsError if the name has to wait."""
        count, since = self._failures.get(name, (0, 0.0))
        if count >= self.most and self.clock() - since < WINDOW_SECONDS:
            self._failures[name] = (count + 1, since)
            raise TooManyAttemptsError(is_first=count == self.most)

    def failed(self, name: str) -> None:
        """Count a failure."""
        count, since = self._failures.pop(name, (0, 0.0))
        now = self.clock()
        fresh = now - since >= WINDOW_SECONDS
        self._failures[name] = (1, now) if fresh else (count + 1, since)
        if len(self._failures) > MOST_ADDRESSES:
            self._failures.popitem(last=False)


class Access:
    """Decides who somebody is; `clock` only moves forward, `now` is the time of day."""

    def __init__(
        self,
        *,
        user: str,
        hashed: str,
        tokens: tuple[str, ...],
        register: Register,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._user = user
        self._hashed = hashed
        self._register = register
        self._key = register.key()
        self._tokens = [self._digest(token) for token in tokens]
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._by_address = Throttle(clock)
        self._by_account = Throttle(clock, most=MOST_FAILURES_OF_ACCOUNT)
        self._by_tokens = Throttle(clock, most=MOST_FAILURES_OF_TOKENS)
        self._checking = asyncio.Semaphore(1)
        self._now = now

    @property
    def key(self) -> bytes:
        """Return what cookies, links and pseudonyms are made with."""
        return self._key

    async def viewer(self, authorization: str, session: str, *, address: str) -> Viewer | None:
        """Return who is asking; None: nobody we know. Raise TooManyAttemptsError for guessing."""
        scheme, _, credentials = authorization.strip().partition(" ")
        match scheme.lower():
            case "bearer":
                return await self._bearer(credentials.strip(), guesser(address))
            case "basic":
                return await self._basic(credentials.strip(), guesser(address))
            case "" if session:
                return await self._session(session)
            case _:
                return None

    async def log_in(self, name: str, password: str, *, address: str) -> str | None:
        """Return a new session's cookie; None: name or password are wrong."""
        role = await self._role(name, password, guesser(address))
        return None if role is None else await self.begin(name, role)

    def demand_patience(self, address: str) -> None:
        """Raise TooManyAttemptsError if an address has to wait."""
        self._by_address.check(guesser(address))

    def failed(self, address: str) -> None:
        """Count a log-in that failed elsewhere than by a password."""
        self._by_address.failed(guesser(address))

    async def begin(self, name: str, role: Role) -> str:
        """Return the cookie of a new session, whatever session there was before."""
        now = self._now()
        expires_at = now + SESSION_SECONDS
        secret = await asyncio.to_thread(
            self._register.begin_session, name, role, expires_at=expires_at, now=now
        )
        return signing.signed(self._key, "session", secret, expires_at=expires_at)

    async def log_out(self, session: str) -> None:
        """End the session of a cookie."""
        fields = signing.opened(self._key, "session", session, now=self._now())
        if fields is not None:
            await asyncio.to_thread(self._register.end_session, fields[0])

    def invitation(self) -> tuple[str, str]:
        """Return the cookie of somebody who is about to log in, and what the form has to send."""
        expires_at = self._now() + LOGIN_SECONDS
        cookie = signing.signed(self._key, "login", secrets.token_hex(16), expires_at=expires_at)
        return cookie, signing.form_token(self._key, cookie)

    def is_invited(self, cookie: str, sent: str) -> bool:
        """Whether a form comes from the page that we gave to this browser."""
        known = signing.opened(self._key, "login", cookie, now=self._now()) is not None
        return known and self.is_form(cookie, sent)

    def is_form(self, cookie: str, sent: str) -> bool:
        """Whether what a form sent belongs to the cookie that came with it."""
        wanted = signing.form_token(self._key, cookie).encode()
        return hmac.compare_digest(wanted, sent.encode("utf-8", "surrogatepass"))

    async def _bearer(self, token: str, address: str) -> Viewer | None:
        sent = self._digest(f"token\0{token}")
        if sent not in self._remembered:
            self._by_tokens.check(address)
        viewer = await self._holder(token)
        if viewer is None:
            self._by_tokens.failed(address)
        else:
            _remember(self._remembered, sent)
        return viewer

    async def _holder(self, token: str) -> Viewer | None:
        given = self._digest(token)
        if any(hmac.compare_digest(given, known) for known in self._tokens):
            return Viewer(name="METER_API_TOKENS", role="finance", via="token")
        if not token.startswith(TOKEN_PREFIX):
            return None
        found = await asyncio.to_thread(self._register.token, token, now=self._now())
        if found is None:
            return None
        name, role, scopes = found
        return Viewer(name=name, role=role, via="token", scopes=frozenset(scopes) or None)

    async def _session(self, cookie: str) -> Viewer | None:
        now = self._now()
        fields = signing.opened(self._key, "session", cookie, now=now)
        if fields is None:
            return None
        found = await asyncio.to_thread(self._register.session, fields[0], now=now)
        if found is None:
            return None
        csrf = signing.form_token(self._key, cookie)
        return Viewer(name=found[0], role=found[1], via="session", csrf=csrf)

    async def _basic(self, credentials: str, address: str) -> Viewer | None:
        name, password = _user_and_password(credentials)
        role = await self._role(name, password, address)
        return None if role is None else Viewer(name=name, role=role, via="basic")

    async def _role(self, name: str, password: str, address: str) -> Role | None:
        """Return the role of an account if the password is right."""
        hashed, role = await self._account(name)
        given = self._digest(f"{hashed}\0{name}\0{password}")
        self._check(name, address)
        if given in self._remembered:
            _remember(self._known, self._digest(f"{name}\0{address}"))
            return role
        async with self._checking:
            self._check(name, address)
            if not await asyncio.to_thread(matches, hashed, password) or role is None:
                self._by_address.failed(address)
                self._by_account.failed(name)
                return None
        _remember(self._remembered, given)
        _remember(self._known, self._digest(f"{name}\0{address}"))
        return role

    def _check(self, name: str, address: str) -> None:
        self._by_address.check(address)
        if self._digest(f"{name}\0{address}") not in self._known:
            self._by_account.check(name)

    async def _account(self, name: str) -> tuple[str, Role | None]:
        """Return hash and role; for a stranger a hash to compare with, so that it takes as long."""
        if hmac.compare_digest(self._digest(name), self._digest(self._user)):
            return self._hashed, "admin"
        for account in await asyncio.to_thread(self._register.accounts):
            if account.name == name:
                return account.hashed, account.role
        return self._hashed, None

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._key, text.encode("utf-8", "surrogateescape"), hashlib.sha256)


def guesser(address: str) -> str:
    """Return what one guesser has: an address, or all of the IPv6 network that is given to one."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv4Address):
        return address
    return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))


def claimed(authorization: str) -> str:
    """Return who somebody says to be by HTTP Basic, as far as a log has room; empty: nobody."""
    scheme, _, credentials = authorization.strip().partition(" ")
    name = _user_and_password(credentials.strip())[0] if scheme.lower() == "basic" else ""
    return name[:MOST_OF_A_NAME]


def _remember(kept: OrderedDict[bytes, None], digest: bytes) -> None:
    """Keep a digest; the oldest beyond a bound are forgotten."""
    kept[digest] = None
    if len(kept) > MOST_ADDRESSES:
        kept.popitem(last=False)


def _user_and_password(credentials: str) -> tuple[str, str]:
    """Decode the credentials of RFC 7617; what cannot be decoded names nobody."""
    try:
        user, _, password = b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return user, password

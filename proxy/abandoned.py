"""Calls whose client has hung up, read to their end: what they used is then reported, not guessed.

The upstream's link gets a reader that looks and passes nothing on. How long it may read, how much,
and how many of them there are, has a bound; what exceeds it is cancelled, and so is what is still
being read when the worker must stop. The row is `client_disconnected` in any case.
"""

from collections.abc import Callable
from dataclasses import dataclass

from proxy.accounting import Account
from proxy.core import headers
from proxy.core.leaving import Policy
from proxy.core.model import Outcome
from proxy.errors import RelayError, UpstreamTimeoutError
from proxy.framing import AnswerHead
from proxy.upstream import UpstreamLink

TOO_MANY = "drain_calls_exceeded"
TOO_LONG = "drain_seconds_exceeded"
TOO_LARGE = "drain_bytes_exceeded"
STOPPED = "proxy_stopped"
NO_CLIENT = "client_gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is read for nobody."""

    seconds: float  # since the client hung up
    size: int  # bytes of body since then
    calls: int  # at once, in one worker


class Abandoned:
    """The calls of a worker that are read for nobody."""

    __slots__ = ("_bounds", "_now", "_policy", "_readers", "completed", "cut")

    def __init__(self, policy: Policy, bounds: Bounds, now: Callable[[], float]) -> None:
        self._policy = policy
        self._bounds = bounds
        self._now = now  # a monotonic clock, in seconds
        self._readers: set[Reader] = set()
        self.completed = 0  # calls that came to their end
        self.cut = 0  # calls that a bound has ended, or the worker's stop

    def __len__(self) -> int:
        """Return how many are being read."""
        return len(self._readers)

    def take(
        self, account: Account, link: UpstreamLink, method: bytes, *, idle_seconds: float
    ) -> bool:
        """Read a call to its end; False: it is to be cancelled, and a full house says so."""
        endpoint = account.attribution.endpoint
        reads_usage = account.operation.reads_usage or account.session is not None
        if not self._policy.drains(endpoint, method, reads_usage=reads_usage):
            return False
        if len(self._readers) >= self._bounds.calls:
            self.cut += 1
            link.abort()
            account.close(Outcome.CLIENT_DISCONNECTED, error_type=TOO_MANY)
            return True
        reader = Reader(self, account, link, self._bounds.size, self._now(), idle_seconds)
        self._readers.add(reader)
        link.caller = reader
        link.resume()
        return True

    def check(self, now: float) -> None:
        """End what has taken too long; called about twice a second."""
        for reader in tuple(self._readers):
            reader.check(now, self._bounds.seconds)

    def stop(self) -> None:
        """End them all: the worker must stop."""
        for reader in tuple(self._readers):
            reader.cut(STOPPED)

    def over(self, reader: "Reader", *, complete: bool) -> None:
        """Learn from a reader that it is done."""
        if reader in self._readers:
            self._readers.discard(reader)
            self.completed += complete
            self.cut += not complete


class Reader:
    """One call that is read for nobody: what takes the client's place at the upstream's link."""

    __slots__ = ("_account", "_all", "_idle_seconds", "_left", "_link", "_since", "_started")

    def __init__(
        self,
        everyone: Abandoned,
        account: Account,
        link: UpstreamLink,
        size: int,
        now: float,
        idle_seconds: float,
    ) -> None:
        self._all = everyone
        self._account = account
        self._link = link
        self._left = size
        self._started = self._since = now
        self._idle_seconds = idle_seconds

    def check(self, now: float, seconds: float) -> None:
        """Look whether it has taken too long."""
        if self._link.active:
            self._link.active = False
            self._since = now
        if now - self._started > seconds:
            self.cut(TOO_LONG)
        elif now - self._since > self._idle_seconds:
            self.cut(UpstreamTimeoutError.type)

    def cut(self, error_type: str) -> None:
        """Cancel the call: of its usage no more will be known than has come."""
        self._look_at_all(self._link.take_rest())
        self._link.abort()
        self._end(error_type)

    def answer(self, head: AnswerHead | None, raw: bytes, body: bytes, *, done: bool) -> None:  # noqa: ARG002 - nobody gets the bytes
        """Look at the next part of the answer."""
        if head is not None:
            self._account.answer_begins(head)
        self._account.answer_part(body)
        self._left -= len(body)
        if done:
            self._end(None)
        elif self._left < 0:
            self.cut(TOO_LARGE)

    def upstream_lost(self, error: RelayError) -> None:
        """Learn that the answer will not be completed."""
        self._end(error.type)

    def _end(self, error_type: str | None) -> None:
        self._all.over(self, complete=error_type is None)
        self._account.close(Outcome.CLIENT_DISCONNECTED, error_type=error_type)

    def switched(self, head: bytes, rest: bytes) -> bytes:  # noqa: ARG002 - as above
        """Cancel what would become a tunnel to nobody."""
        self.cut(NO_CLIENT)
        return b""

    def connected(self, link: UpstreamLink) -> None:
        """Take no connection: there is one."""

    def connect_failed(self, error: RelayError) -> None:
        """Miss no connection: there is one."""

    def tunnelled(self, data: bytes) -> bytes:
        """Look at more of a session, until what was being made in it is done."""
        session = self._account.session
        rest = session.look(data) if session is not None else b""
        self._left -= len(data) - len(rest)
        if rest:
            return rest  # something else may begin in it
        if session is None or not session.is_busy:
            self._link.close()
            self._end(None)
        elif self._left < 0:
            self.cut(TOO_LARGE)
        return b""

    def _look_at_all(self, data: bytes) -> None:
        session = self._account.session
        if session is not None:
            session.look_at_all(data)

    def interim(self, head: headers.Head) -> None:
        """Pass nothing on."""

    def upstream_paused(self) -> None:
        """Nothing is written any more."""

    def upstream_resumed(self) -> None:
        """Nothing is written any more."""

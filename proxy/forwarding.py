"""One exchange over HTTP: a request goes up, an answer comes down, and what it used is noted.

Bytes first: what has arrived is passed on, then looked at. Two moments wait for the journal, one
`write` each: the opening is there before the upstream sees the request, the closing before the
client sees the last byte. A request is held back in one case only: a chat or completion request
must be whole before `stream_options.include_usage` can be spliced into it (or, where a user is
required, before its body can be asked for one).
"""

from dataclasses import dataclass

from proxy import framing, requesting
from proxy.abandoned import Abandoned
from proxy.accounting import Account
from proxy.answering import Reframed, ends_with_link, reframed, with_head
from proxy.books import Books
from proxy.client import INVALID_FRAMING, ClientLink
from proxy.core import headers, passage
from proxy.core.gathering import Pieces
from proxy.core.model import Outcome
from proxy.errors import (
    ClientTimeoutError,
    FramingError,
    RelayError,
    UpstreamTimeoutError,
    UserRequiredError,
)
from proxy.framing import AnswerHead, Request
from proxy.pool import Pool
from proxy.realtime import Session
from proxy.replies import error_answer
from proxy.upstream import UpstreamLink

JOINED_BYTES = 16_384  # of a body behind its head: beyond that a copy costs more than a second part
HALF_CLOSED_SECONDS = 1.5  # how long a client that closed its half may wait for a first byte
_INVITATION = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an exchange bears with."""

    upstream_idle_seconds: float
    client_idle_seconds: float
    held_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """What all exchanges of a worker share."""

    pool: Pool
    books: Books
    limits: Limits
    require_user: bool
    abandoned: Abandoned
    asks_usage: bool = True  # of streams that would not tell it unasked


class Exchange:
    """One request and its answer. Its account is closed exactly once, whatever happens."""

    answering = False  # bytes of the final answer have gone out
    _request_done = False
    _held: Pieces | None = None
    _invited = False  # the client was told to go on, so the upstream need not say it
    _last_part: bytes | None = None  # what waits for the closing
    _last_rest = b""  # and what follows it
    _up: UpstreamLink | None = None
    _up_since = 0.0
    _spliced = False
    _reframed: Reframed | None = None
    _ends_with_link = False  # the end of the link is the end of the answer
    _switched = False

    def __init__(self, relay: Relay, link: ClientLink, request: Request) -> None:
        self._relay = relay
        self._link = link
        self._request = request
        self._account = Account(relay.books, request)
        self._pending: list[bytes] = []  # what waits for the opening or for a connection
        self._close_after = not request.plan.keeps_alive

    # The request, as the client's link tells of it.

    def start(self, body: bytes, *, complete: bool, trailers: framing.Trailers) -> None:
        """Begin: the head is known, and what came of the body with it."""
        if complete:
            self._request_done = True
            self._account.request_whole(body)
            self._forward_whole(body, trailers)
        elif self._must_hold():
            self._hold(body)
        else:
            self._account.request_part(body)
            self._forward_begun(body)

    def request_body(self, data: bytes) -> None:
        """Take more of the body."""
        self._account.request_part(data)
        if self._held is None:
            self._send(requesting.part(self._request, data))
            return
        self._held.add(data)
        if self._held.size > self._relay.limits.held_bytes:
            held, self._held = self._held, None
            self._forward_begun(held.joined())

    def request_end(self, trailers: framing.Trailers) -> None:
        """Learn that the body is over."""
        self._request_done = True
        if self._held is not None:
            held, self._held = self._held, None
            self._account.learn()
            self._forward_whole(held.joined(), trailers)
            return
        if self._request.length == framing.CHUNKED:
            self._send(requesting.last_chunk(self._request, trailers))
        if self._up is not None:
            self._up.request_sent = True

    def request_broken(self, error: FramingError) -> None:
        """Learn that the rest of the body cannot be read: the upstream call is cancelled."""
        self._abort_upstream()
        self._account.close(Outcome.REFUSED, error_type=INVALID_FRAMING, status=error.status)

    def client_gone(self) -> None:
        """Learn that the client has left: the upstream call is read to its end, or cancelled."""
        self._look_at_rest()
        if self._is_read_for_nobody():
            return
        if self._switched and self._up is not None:
            self._up.close()  # what the client said last is still on its way
            self._up = None
        self._abort_upstream()
        session = self._account.session
        is_over = session is not None and not session.is_busy
        outcome = Outcome.OK if is_over else Outcome.CLIENT_DISCONNECTED
        self._account.close(outcome, error_type="not_sent" if self._pending else None)

    def interrupt(self) -> None:
        """Give up because the worker must stop."""
        self._look_at_rest()
        self._abort_upstream()
        self._account.close(Outcome.INTERRUPTED, error_type="proxy_stopped")
        self._link.drop()

    def client_paused(self) -> None:
        """Stop reading the answer: the client does not keep up."""
        if self._up is not None:
            self._up.pause()

    def client_resumed(self) -> None:
        """Go on reading the answer."""
        if self._up is not None:
            self._up.resume()

    def tunnelled_up(self, data: bytes) -> bytes:
        """Take bytes from the client's end of the tunnel; return those for the next turn."""
        session = self._account.session
        rest = session.hear(data) if session is not None else b""
        data = data.removesuffix(rest)
        self._account.request_part(data)
        self._send(data)
        return rest

    def check(self, now: float) -> None:
        """Look whether something has taken too long; called about once a second."""
        link, up = self._link, self._up
        limits = self._relay.limits
        if self._last_part is not None:
            return  # it is about to go out
        if self._account.over:  # a fault has ended it, and nobody told the client
            link.drop()
            return
        if link.half_closed and not self.answering:
            if link.idle_seconds(now) > HALF_CLOSED_SECONDS:
                self.client_gone()
                link.drop()
            return
        if up is not None and (up.active or up.reading_paused):
            up.active = False
            self._up_since = now
        client_idle = link.idle_seconds(now)
        if link.writing_paused or (link.request_incomplete and not link.reading_paused):
            if client_idle > limits.client_idle_seconds:
                self._client_too_slow()
            return
        silent = up is not None and now - self._up_since > limits.upstream_idle_seconds
        if silent and not (self._switched and client_idle <= limits.upstream_idle_seconds):
            limit = limits.upstream_idle_seconds
            self.upstream_lost(UpstreamTimeoutError(f"nothing from the upstream for {limit:g} s"))

    def _client_too_slow(self) -> None:
        if self.answering:
            if not self._is_read_for_nobody():
                self._abort_upstream()
                self._account.close(Outcome.CLIENT_DISCONNECTED)
            self._link.drop()
            return
        self._abort_upstream()
        error = ClientTimeoutError()
        self._account.close(Outcome.TIMEOUT, error_type=error.type, status=error.status)
        self._link.refuse(error, status=error.status, error_type=error.type)

    def _is_read_for_nobody(self) -> bool:
        """Hand the upstream's link over, where the call is to be read to its end."""
        up, session = self._up, self._account.session
        if up is None or not self._request_done or self._account.over:
            return False
        if session is not None and not session.is_busy:
            return False
        relay = self._relay
        self._up = None
        if relay.abandoned.take(
            self._account,
            up,
            self._request.plan.line.method,
            idle_seconds=relay.limits.upstream_idle_seconds,
        ):
            return True
        self._up = up
        return False

    def _must_hold(self) -> bool:
        if self._request.plan.is_encoded:
            return False
        return self._asks_usage or self._lacks_user

    @property
    def _asks_usage(self) -> bool:
        return self._relay.asks_usage and self._account.may_be_spliced

    @property
    def _lacks_user(self) -> bool:
        return self._relay.require_user and self._account.attribution.user_id is None

    def _hold(self, body: bytes) -> None:
        """Keep the body back until it is whole, and ask for the rest of it."""
        self._held = Pieces()
        if self._request.plan.is_invited:
            self._invited = True
            self._link.write(_INVITATION)
        if body:
            self.request_body(body)

    def _forward_whole(self, body: bytes, trailers: framing.Trailers) -> None:
        sent, self._spliced = requesting.whole(
            self._request, body, trailers, asks_usage=self._asks_usage, invited=self._invited
        )
        self._forward(sent)

    def _forward_begun(self, body: bytes) -> None:
        data = requesting.part(self._request, body)
        self._forward(requesting.with_head(self._request, data, invited=self._invited))

    def _forward(self, data: bytes) -> None:
        """Open, and send the first bytes up once that is written."""
        self._pending.append(data)
        self._account.open(self._dispatch)

    def _dispatch(self) -> None:
        if self._account.over:
            return  # the client has left meanwhile
        if self._lacks_user:
            self._refuse_for_user()
            return
        up = self._relay.pool.take()
        if up is not None:
            self._attach(up)
            return
        if not self._request_done:
            self._link.pause()
        self._relay.pool.connect(self)

    def _refuse_for_user(self) -> None:
        error = UserRequiredError(self._account.what_is_missing())
        self._account.close(Outcome.REFUSED, error_type=error.type, status=error.status)
        self._link.refuse(error, status=error.status, error_type=error.type)

    def _attach(self, up: UpstreamLink) -> None:
        pending, self._pending = self._pending, []
        self._up = up
        self._account.sent = True
        up.begin(
            self,
            pending[0] if len(pending) == 1 else b"".join(pending),
            head_only=self._request.plan.line.method == b"HEAD",
            may_switch=self._request.plan.wants_websocket,
        )
        up.request_sent = self._request_done

    def _send(self, data: bytes) -> None:
        if self._up is not None:
            self._up.write(data)
        else:
            self._pending.append(data)

    def _abort_upstream(self) -> None:
        up, self._up = self._up, None
        if up is not None:
            up.abort()

    # What the upstream's link tells.

    def connected(self, link: UpstreamLink) -> None:
        """Take a new connection."""
        if self._account.over:
            self._relay.pool.keep(link)
            return
        self._link.resume()
        self._attach(link)

    def connect_failed(self, error: RelayError) -> None:
        """Answer that no connection could be made."""
        self._pending.clear()
        if not self._account.over:
            self.upstream_lost(error)

    def upstream_lost(self, error: RelayError) -> None:
        """End what will not be completed: by an answer, or by a connection that breaks off."""
        self._abort_upstream()
        timed_out = isinstance(error, UpstreamTimeoutError)
        outcome = Outcome.TIMEOUT if timed_out else Outcome.UPSTREAM_ERROR
        if self.answering:
            self._account.close(outcome, error_type=error.type)
            self._link.break_off(reset=self._ends_with_link)
            return
        self._account.close(outcome, error_type=error.type, status=error.status)
        line, link = self._request.plan.line, self._link
        close = link.request_incomplete or link.closing or line.minor_version == 0
        close = close or self._close_after
        head_only = line.method == b"HEAD"
        link.write(
            error_answer(error.status, str(error), error.type, close=close, head_only=head_only)
        )
        link.finished(close=close)

    def upstream_paused(self) -> None:
        """Stop reading the request: the upstream does not keep up."""
        if self._link.request_incomplete or self._switched:
            self._link.pause()

    def upstream_resumed(self) -> None:
        """Go on reading the request."""
        if self._link.request_incomplete or self._switched:
            self._link.resume()

    def interim(self, head: headers.Head) -> None:
        """Pass a 1xx answer on (RFC 9110 section 15.2); HTTP/1.0 knows none."""
        if self._request.plan.line.minor_version == 1:
            self._link.write(passage.answer_head(head))

    def switched(self, head: bytes, rest: bytes) -> bytes:
        """Become a tunnel: a 101 leaves as it came."""
        self._switched = True
        self._close_after = self._ends_with_link = True
        self.answering = True
        session = Session(self._account, framing.judged_answer(head, head_only=True))
        later = session.look(rest)
        rest = rest.removesuffix(later)
        self._link.write(head + rest)
        self._account.answer_part(rest)
        self._link.tunnel()
        return later

    def tunnelled(self, data: bytes) -> bytes:
        """Take bytes from the upstream's end of the tunnel; what they bill is noted first.

        Return those for the next turn.
        """
        session = self._account.session
        rest = session.look(data) if session is not None else b""
        data = data.removesuffix(rest)
        self._link.write(data)
        self._account.answer_part(data)
        return rest

    def _look_at_rest(self) -> None:
        """Note what is billed in bytes that have come and that nobody will get."""
        session = self._account.session
        if session is not None and self._up is not None:
            rest = self._up.take_rest()
            session.look_at_all(rest)
            self._account.answer_part(rest)

    def answer(self, head: AnswerHead | None, raw: bytes, body: bytes, *, done: bool) -> None:
        """Pass the next part of the answer on, then look at it; the last part waits for us."""
        account, rest = self._account, b""
        if head is None and not done:
            reframed_body = self._reframed
            if reframed_body is not None:
                raw = reframed_body.part(body, done=False)
            if raw:
                self._link.transport.write(raw)
            account.answer_part(body)
            return
        if head is not None:
            raw, rest = self._answer_begins(head, raw, body, done=done)
        elif self._reframed is not None:
            raw = self._reframed.part(body, done=done)
        if not done:
            self._send_down(raw, rest)
            account.answer_part(body)
            return
        self._up = None
        if head is None:
            account.answer_part(body)
        else:
            account.answer_whole(body)
        self._last_part, self._last_rest = raw, rest
        account.close_then(self._deliver)

    def _send_down(self, data: bytes, rest: bytes) -> None:
        """Write to the client; what follows is sent with it, without a copy."""
        if data:
            self._link.write(data)
        if rest:
            self._link.write(rest)

    def _deliver(self) -> None:
        """Send the last part: the closing is written."""
        out, self._last_part = self._last_part, None
        link = self._link
        if link.exchange is not self:
            return  # the client has left meanwhile
        self._send_down(out or b"", self._last_rest)
        link.finished(close=self._close_after)

    def _answer_begins(
        self, head: AnswerHead, raw: bytes, body: bytes, *, done: bool
    ) -> tuple[bytes, bytes]:
        """Return the head for the client and the first part, and settle how the rest goes down.

        A small part is joined to the head, and nothing follows it.
        """
        self._account.answer_begins(head)
        self.answering = True
        link, minor_version = self._link, self._request.plan.line.minor_version
        if self._spliced or minor_version == 0:
            self._reframed = reframed(
                head,
                spliced=self._spliced,
                minor_version=minor_version,
                max_event_bytes=self._relay.books.event_bytes,
            )
        ends = self._ends_with_link = ends_with_link(head, self._reframed)
        if ends or link.closing or (link.request_incomplete and not head.keeps_alive):
            self._close_after = True
        if self._reframed is not None:
            raw = self._reframed.part(body, done=done)
        rest = raw if len(raw) > JOINED_BYTES else b""
        part = b"" if rest else raw
        close, reframed_body = self._close_after, self._reframed
        return with_head(head, reframed_body, part, close=close, minor_version=minor_version), rest

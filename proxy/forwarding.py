"""One exchange over HTTP: a request goes up, an answer comes down, and what it used is noted.

Bytes first: what has arrived is passed on, then looked at. Two moments wait for the journal, one
`write` each: the opening is there before the upstream sees the request, the closing before the
client sees the last byte. A request is held back in one case only: a chat or completion request
must be whole before `stream_options.include_usage` can be spliced into it (or, where a user is
required, before its body can be asked for one).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from proxy import framing
from proxy.answering import Reframed, reframed
from proxy.client import ClientLink
from proxy.core import attribution, headers, noting, passage
from proxy.core.metering import AnswerMeter, Observation, RequestFacts, RequestMeter
from proxy.core.model import Attribution, Closing, Opening, Outcome, Record
from proxy.core.operations import Operation, operation_of
from proxy.core.splicing import splice_include_usage
from proxy.errors import (
    ClientTimeoutError,
    FramingError,
    RelayError,
    UpstreamTimeoutError,
    UserRequiredError,
)
from proxy.framing import AnswerHead, Request
from proxy.replies import error_answer
from proxy.upstream import Pool, UpstreamLink

HALF_CLOSED_SECONDS = 1.5  # how long a client that closed its half may wait for a first byte
_INVITATION = b"HTTP/1.1 100 Continue\r\n\r\n"
_SWITCHED = 101
_ERROR_STATUS = 400
_NO_FACTS = RequestFacts()


class Journal(Protocol):
    """Where records go; `append` never raises."""

    def append(self, record: Record) -> bool:
        """Write a record and tell whether that worked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an exchange bears with."""

    upstream_idle_seconds: float
    client_idle_seconds: float
    held_bytes: int
    metered_body_bytes: int = 1_048_576
    event_bytes: int


@dataclass(slots=True, kw_only=True)
class Counts:
    """What a worker has done since it started."""

    calls: int = 0
    in_flight: int = 0
    refused: int = 0
    by_outcome: dict[str, int]
    request_bytes: int = 0
    answer_bytes: int = 0
    latency_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """What all exchanges of a worker share."""

    pool: Pool
    destination: passage.Destination
    journal: Journal
    fields: attribution.AttributionFields
    limits: Limits
    counts: Counts
    worker: str
    require_user: bool
    new_id: Callable[[], bytes]
    now_us: Callable[[], int]  # a monotonic clock, microseconds
    log_call: Callable[[Mapping[str, object]], None] | None


class Exchange:
    """One request and its answer. Ends exactly once, in `_end`."""

    __slots__ = (
        "_answer_bytes",
        "_answer_meter",
        "_attribution",
        "_close_after",
        "_connecting",
        "_ends_with_link",
        "_facts",
        "_first_byte_us",
        "_head",
        "_held",
        "_held_bytes",
        "_invited",
        "_link",
        "_opening",
        "_operation",
        "_over",
        "_pending",
        "_reframed",
        "_relay",
        "_request",
        "_request_bytes",
        "_request_done",
        "_request_meter",
        "_spliced",
        "_started_us",
        "_switched",
        "_up",
        "_up_since",
        "answering",
    )

    def __init__(self, relay: Relay, link: ClientLink, request: Request) -> None:
        self._relay = relay
        self._link = link
        self._request = request
        self._started_us = relay.now_us()
        self._operation: Operation
        self._attribution: Attribution
        self._facts = _NO_FACTS
        self._opening: Opening | None = None
        self._request_meter: RequestMeter | None = None
        self._request_bytes = 0
        self._request_done = False
        self._held: list[bytes] | None = None
        self._held_bytes = 0
        self._invited = False  # the client was told to go on, so the upstream need not say it
        self._pending: list[bytes] = []
        self._connecting = False
        self._up: UpstreamLink | None = None
        self._up_since = 0.0
        self.answering = False  # bytes of the final answer have gone out
        self._head: AnswerHead | None = None
        self._answer_meter: AnswerMeter | None = None
        self._answer_bytes = 0
        self._first_byte_us: int | None = None
        self._spliced = False
        self._reframed: Reframed | None = None
        self._close_after = not request.keeps_alive
        self._ends_with_link = False  # the end of the link is the end of the answer
        self._switched = False
        self._over = False

    # The request, as the client's link tells of it.

    def start(self, body: bytes, *, complete: bool, trailers: framing.Trailers) -> None:
        """Begin: the head is known, and what came of the body with it."""
        line, fields = self._request.line, self._request.fields
        self._relay.counts.in_flight += 1
        self._operation = operation_of(line.method.decode("ascii"), noting.path_of(line.target))
        self._attribution = attribution.from_headers(fields, self._relay.fields)
        content_type = headers.text(fields, b"content-type")
        if not content_type or "json" in content_type.lower():
            self._request_meter = RequestMeter(
                self._operation,
                content_type=content_type,
                content_encoding=headers.text(fields, b"content-encoding"),
                max_bytes=self._relay.limits.metered_body_bytes,
            )
        self._request_done = complete
        if complete:
            self._note_request(body)
            self._forward_whole(body, trailers)
        elif self._must_hold():
            self._hold(body)
        else:
            self._note_request(body)
            self._forward(self._head_for_upstream(None) + self._framed(body))

    def request_body(self, data: bytes) -> None:
        """Take more of the body."""
        self._note_request(data)
        if self._held is None:
            self._send(self._framed(data))
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > self._relay.limits.held_bytes:
            held, self._held = self._held, None
            self._forward(self._head_for_upstream(None) + self._framed(b"".join(held)))

    def request_end(self, trailers: framing.Trailers) -> None:
        """Learn that the body is over."""
        self._request_done = True
        if self._held is not None:
            held, self._held = self._held, None
            self._forward_whole(b"".join(held), trailers)
            return
        if self._request.length == framing.CHUNKED:
            self._send(self._last_chunk(trailers))
        if self._up is not None:
            self._up.request_sent = True

    def request_broken(self, error: FramingError) -> None:
        """Learn that the rest of the body cannot be read: the upstream call is cancelled."""
        self._abort_upstream()
        self._end(Outcome.REFUSED, error_type="invalid_request_framing", status=error.status)

    def client_gone(self) -> None:
        """Learn that the client has left: the upstream call is cancelled."""
        if self._switched and self._up is not None:
            self._up.close()  # what the client said last is still on its way
            self._up = None
        self._abort_upstream()
        self._end(Outcome.OK if self._switched else Outcome.CLIENT_DISCONNECTED)

    def interrupt(self) -> None:
        """Give up because the worker must stop."""
        self._abort_upstream()
        self._end(Outcome.INTERRUPTED, error_type="proxy_stopped")
        self._link.drop()

    def client_paused(self) -> None:
        """Stop reading the answer: the client does not keep up."""
        if self._up is not None:
            self._up.pause()

    def client_resumed(self) -> None:
        """Go on reading the answer."""
        if self._up is not None:
            self._up.resume()

    def tunnelled_up(self, data: bytes) -> None:
        """Take bytes from the client's end of the tunnel."""
        self._request_bytes += len(data)
        if self._up is not None:
            self._up.write(data)

    def check(self, now: float) -> None:
        """Look whether something has taken too long; called about once a second."""
        link, up = self._link, self._up
        limits = self._relay.limits
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
            self._abort_upstream()
            limit = limits.upstream_idle_seconds
            self.upstream_lost(UpstreamTimeoutError(f"nothing from the upstream for {limit:g} s"))

    def _client_too_slow(self) -> None:
        self._abort_upstream()
        if self.answering:
            self._end(Outcome.CLIENT_DISCONNECTED)
            self._link.drop()
            return
        error = ClientTimeoutError()
        self._end(Outcome.TIMEOUT, error_type=error.type, status=error.status)
        self._link.refuse(error, status=error.status, error_type=error.type)

    # How it goes up.

    def _must_hold(self) -> bool:
        if b"content-encoding" in self._request.fields:
            return False
        splices = self._operation.splices and self._request_meter is not None
        return splices or (self._relay.require_user and self._attribution.user_id is None)

    def _hold(self, body: bytes) -> None:
        """Keep the body back until it is whole, and ask for the rest of it."""
        self._held = []
        if headers.text(self._request.fields, b"expect").lower() == "100-continue":
            self._invited = True
            self._link.write(_INVITATION)
        if body:
            self.request_body(body)

    def _note_request(self, data: bytes) -> None:
        self._request_bytes += len(data)
        if self._request_meter is not None:
            self._request_meter.feed(data)

    def _learn(self) -> None:
        """Take what the body says of model, user and metadata, once."""
        meter, self._request_meter = self._request_meter, None
        if meter is None:
            return
        facts = self._facts = meter.finish()
        if facts.user or facts.safety_identifier or facts.metadata:
            self._attribution = attribution.with_body(
                self._attribution,
                user=facts.safety_identifier or facts.user,
                metadata=facts.metadata,
            )

    def _forward_whole(self, body: bytes, trailers: framing.Trailers) -> None:
        self._learn()
        reads = self._facts is not _NO_FACTS and b"content-encoding" not in self._request.fields
        if reads and self._operation.splices:
            spliced = splice_include_usage(body)
            if spliced is not None:
                self._spliced = True
                body = spliced
        head = self._head_for_upstream(len(body) if self._spliced else None)
        if self._request.length == framing.CHUNKED:
            body = self._framed(body) + self._last_chunk(trailers)
        self._forward(head + body)

    def _framed(self, data: bytes) -> bytes:
        if self._request.length == framing.CHUNKED:
            return framing.chunk(data) if data else b""
        return data

    def _last_chunk(self, trailers: framing.Trailers) -> bytes:
        if trailers:
            trailers = passage.request_trailers(trailers, self._relay.destination)
        return framing.last_chunk(trailers)

    def _head_for_upstream(self, spliced_length: int | None) -> bytes:
        return passage.request_head(
            self._request.head,
            self._request.line,
            self._relay.destination,
            invited=self._invited,
            spliced_length=spliced_length,
        )

    def _open(self) -> None:
        """Write the opening: from here on the exchange has a row."""
        relay, (_, line, fields, length) = self._relay, self._request
        self._opening = noting.opening_of(
            relay.new_id(),
            line,
            fields,
            length=length,
            operation=self._operation,
            who=self._attribution,
            facts=self._facts,
            upstream=relay.pool.address.host,
            worker=relay.worker,
        )
        relay.journal.append(self._opening)

    def _forward(self, data: bytes) -> None:
        """Open, and send the first bytes up."""
        self._open()
        if self._relay.require_user and self._attribution.user_id is None:
            self._refuse_for_user()
            return
        up = self._relay.pool.take()
        if up is not None:
            self._attach(up, data)
            return
        self._pending.append(data)
        self._connecting = True
        if not self._request_done:
            self._link.pause()
        self._relay.pool.connect(self)

    def _refuse_for_user(self) -> None:
        error = UserRequiredError(_what_is_missing(self._relay, self._attribution))
        self._end(Outcome.REFUSED, error_type=error.type, status=error.status)
        self._link.refuse(error, status=error.status, error_type=error.type)

    def _attach(self, up: UpstreamLink, data: bytes) -> None:
        self._up = up
        up.begin(
            self,
            data,
            head_only=self._request.line.method == b"HEAD",
            may_switch=b"upgrade" in self._request.fields
            and passage.wants_websocket(self._request.line, self._request.fields),
        )
        up.request_sent = self._request_done

    def _send(self, data: bytes) -> None:
        if self._up is not None:
            self._up.write(data)
        elif self._connecting:
            self._pending.append(data)

    def _abort_upstream(self) -> None:
        up, self._up = self._up, None
        if up is not None:
            up.abort()

    # What the upstream's link tells.

    def connected(self, link: UpstreamLink) -> None:
        """Take a new connection."""
        self._connecting = False
        if self._over:
            self._relay.pool.keep(link)
            return
        data = b"".join(self._pending)
        self._pending.clear()
        self._link.resume()
        self._attach(link, data)

    def connect_failed(self, error: RelayError) -> None:
        """Answer that no connection could be made."""
        self._connecting = False
        self._pending.clear()
        if not self._over:
            self.upstream_lost(error)

    def upstream_lost(self, error: RelayError) -> None:
        """End an exchange whose answer will not be completed.

        Once bytes have gone out, the only honest signal is a connection that breaks off.
        """
        self._abort_upstream()
        timed_out = isinstance(error, UpstreamTimeoutError)
        outcome = Outcome.TIMEOUT if timed_out else Outcome.UPSTREAM_ERROR
        if self.answering:
            self._end(outcome, error_type=error.type)
            self._link.break_off(reset=self._ends_with_link)
            return
        self._end(outcome, error_type=error.type, status=error.status)
        line, link = self._request.line, self._link
        close = self._close_after or link.request_incomplete or link.closing
        close = close or line.minor_version == 0
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
        if self._request.line.minor_version == 1:
            self._link.write(passage.answer_head(head))

    def switched(self, head: bytes, rest: bytes) -> None:
        """Become a tunnel: a 101 leaves as it came."""
        self._switched = True
        self._close_after = self._ends_with_link = True
        self.answering = True
        self._first_byte_us = self._relay.now_us() - self._started_us
        self._link.write(head + rest)
        self._answer_bytes += len(rest)
        self._link.tunnel()

    def tunnelled(self, data: bytes) -> None:
        """Take bytes from the upstream's end of the tunnel."""
        self._answer_bytes += len(data)
        self._link.write(data)

    def answer(self, head: AnswerHead | None, raw: bytes, body: bytes, *, done: bool) -> None:
        """Pass the next part of the answer on, then look at it; the last part waits for us."""
        out = b""
        if head is not None:
            out = self._answer_head(head)
        out += raw if self._reframed is None else self._reframed.part(body, done=done)
        self._answer_bytes += len(body)
        if not done:
            if out:
                self._link.write(out)
            self._meter(body)
            return
        self._up = None
        self._meter(body)
        self._end(Outcome.OK)
        if out:
            self._link.write(out)
        self._link.finished(close=self._close_after)

    def _meter(self, body: bytes) -> None:
        if self._answer_meter is not None and body:
            self._answer_meter.feed(body)

    def _answer_head(self, head: AnswerHead) -> bytes:
        """Return the head for the client, and settle how the body will reach it."""
        self._head = head
        self._first_byte_us = self._relay.now_us() - self._started_us
        max_event_bytes = self._relay.limits.event_bytes
        self._answer_meter = AnswerMeter(
            self._operation,
            status=head.line.status,
            content_type=headers.text(head.fields, b"content-type"),
            content_encoding=headers.text(head.fields, b"content-encoding"),
            max_event_bytes=max_event_bytes,
        )
        minor_version = self._request.line.minor_version
        body = self._reframed = reframed(
            head,
            spliced=self._spliced,
            minor_version=minor_version,
            max_event_bytes=max_event_bytes,
        )
        self._settle_the_end(head, body)
        self.answering = True
        added = b"" if body is None else body.added
        if self._close_after:
            added += b"Connection: close\r\n"
        elif minor_version == 0 or head.line.minor_version == 0:
            added += b"Connection: keep-alive\r\n"
        without = () if body is None else body.without
        return passage.answer_head(head.head, without=without, added=added)

    def _settle_the_end(self, head: AnswerHead, body: Reframed | None) -> None:
        """Find out whether the client's link ends with this answer."""
        ends = head.length == framing.UNTIL_CLOSE if body is None else body.closes
        self._ends_with_link = ends
        unread = self._link.request_incomplete and not head.keeps_alive
        if ends or unread or self._link.closing:
            self._close_after = True

    # The end.

    def _end(
        self, outcome: Outcome, *, error_type: str | None = None, status: int | None = None
    ) -> None:
        """Write the closing: once, and before the client sees the end of the answer."""
        if self._over:
            return
        self._over = True
        counts = self._relay.counts
        counts.in_flight -= 1
        self._learn()
        if self._opening is None:
            return  # nothing was sent upstream, so there is nothing to account for
        closing = self._closing(outcome, error_type, status)
        self._relay.journal.append(closing)
        counts.calls += 1
        counts.by_outcome[closing.outcome] = counts.by_outcome.get(closing.outcome, 0) + 1
        counts.request_bytes += self._request_bytes
        counts.answer_bytes += self._answer_bytes
        counts.latency_us += closing.latency_us or 0
        if self._relay.log_call is not None:
            self._relay.log_call(noting.log_line(closing))

    def _closing(self, outcome: Outcome, error_type: str | None, status: int | None) -> Closing:
        head, opening = self._head, self._opening
        assert opening is not None  # noqa: S101 (`_end` has looked)
        if self._facts is not _NO_FACTS and opening.request_model is None:
            opening = noting.completed(opening, self._facts, self._attribution)
        seen = self._answer_meter.finish() if self._answer_meter is not None else Observation()
        if status is None and head is not None:
            status = head.line.status
        if self._switched:
            status = _SWITCHED
        failed = seen.failed or (status is not None and status >= _ERROR_STATUS)
        if outcome is Outcome.OK and failed:
            outcome = Outcome.UPSTREAM_ERROR
        return Closing(
            opening=opening,
            outcome=outcome.value,
            status=status,
            response_model=seen.response_model,
            response_service_tier=seen.response_service_tier,
            response_id=seen.response_id,
            response_status=seen.response_status,
            upstream_request_id=noting.upstream_request_id(head.fields) if head else None,
            usage=seen.usage,
            usage_problem=seen.usage_problem,
            error_type=error_type or seen.error_type,
            latency_us=self._relay.now_us() - self._started_us,
            time_to_first_byte_us=self._first_byte_us,
            request_body_bytes=self._request_bytes,
            response_body_bytes=self._answer_bytes,
        )


def _what_is_missing(relay: Relay, who: Attribution) -> str:
    name = relay.fields.user[0].decode() if relay.fields.user else "user"
    if who.problem:
        return f"the call's user cannot be read ({who.problem})"
    return f"the call names no user: send {name}, or safety_identifier in the body"

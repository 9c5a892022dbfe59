"""One exchange over HTTP: a request goes up, an answer comes down, and what it used is noted.

Bytes first: what has arrived is passed on, then looked at. Two moments wait for the journal, one
`write` each: the opening is there before the upstream sees the request, the closing before the
client sees the last byte. A request is held back in one case only: a chat or completion request
must be whole before `stream_options.include_usage` can be spliced into it (or, where a user is
required, before its body can be asked for one).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from proxy import framing
from proxy.client import ClientLink, Request, error_answer
from proxy.core import attribution, headers
from proxy.core.encoding import Decoder, decoder_for
from proxy.core.metering import AnswerMeter, Observation, RequestFacts, RequestMeter
from proxy.core.model import Attribution, Closing, Opening, Outcome, Record
from proxy.core.operations import Operation, operation_of
from proxy.core.splicing import UsageStripper, splice_include_usage
from proxy.errors import (
    ClientTimeoutError,
    RelayError,
    UpstreamTimeoutError,
    UserRequiredError,
)
from proxy.upstream import AnswerHead, Pool, UpstreamLink

MAX_PATH_CHARACTERS = 512
HALF_CLOSED_SECONDS = 1.5  # how long a client that closed its half may wait for a first byte


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
        "_answering",
        "_attribution",
        "_close_after",
        "_connecting",
        "_dechunk",
        "_decoder",
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
        "_relay",
        "_request",
        "_request_bytes",
        "_request_done",
        "_request_meter",
        "_spliced",
        "_started_us",
        "_stripper",
        "_switched",
        "_up",
        "_up_since",
    )

    def __init__(self, relay: Relay, link: ClientLink, request: Request) -> None:
        self._relay = relay
        self._link = link
        self._request = request
        self._started_us = relay.now_us()
        self._operation: Operation
        self._attribution: Attribution
        self._facts: RequestFacts | None = None
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
        self._head: AnswerHead | None = None
        self._answer_meter: AnswerMeter | None = None
        self._answer_bytes = 0
        self._first_byte_us: int | None = None
        self._answering = False
        self._spliced = False
        self._stripper: UsageStripper | None = None
        self._decoder: Decoder | None = None
        self._dechunk = False
        self._close_after = not request.keeps_alive
        self._switched = False
        self._over = False

    # The request, as the client's link tells of it.

    @property
    def answering(self) -> bool:
        """Whether bytes of an answer have gone out."""
        return self._answering

    def start(self, body: bytes, *, complete: bool) -> None:
        """Begin: the head is known, and the whole body where it is complete."""
        fields = self._request.fields
        method = self._request.line.method.decode("ascii")
        self._relay.counts.in_flight += 1
        self._operation = operation_of(method, _path(self._request.line.target))
        self._attribution = attribution.from_headers(fields, self._relay.fields)
        content_type = headers.text(fields, b"content-type")
        if not content_type or "json" in content_type.lower():
            self._request_meter = RequestMeter(
                self._operation,
                content_type=content_type,
                content_encoding=headers.text(fields, b"content-encoding"),
                max_bytes=self._relay.limits.metered_body_bytes,
            )
        if complete:
            self._request_done = True
            self._note_request(body)
            self._forward_whole(body, [])
        elif self._must_hold():
            self._held = []
            if headers.text(fields, b"expect").lower() == "100-continue":
                self._invited = True
                self._link.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        else:
            self._forward(self._head_for_upstream(None))

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
            if not self._refused_for_user():
                self._forward(self._head_for_upstream(None) + self._framed(b"".join(held)))

    def request_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """Learn that the body is over."""
        self._request_done = True
        if self._held is not None:
            held, self._held = self._held, None
            self._forward_whole(b"".join(held), trailers)
            return
        if self._request.length == framing.CHUNKED:
            self._send(framing.last_chunk(trailers))
        if self._up is not None:
            self._up.request_sent = True

    def client_gone(self) -> None:
        """Learn that the client has left: the upstream call is cancelled."""
        if not self._over:
            self._abort_upstream()
            outcome = Outcome.OK if self._switched else Outcome.CLIENT_DISCONNECTED
            self._end(outcome)

    def interrupt(self) -> None:
        """Give up because the worker must stop."""
        if not self._over:
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
        if link.half_closed and not self._answering:
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
        if self._answering:
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

    def _refused_for_user(self) -> bool:
        if not self._relay.require_user or self._attribution.user_id is not None:
            return False
        error = UserRequiredError(_what_is_missing(self._relay, self._attribution))
        self._open()
        self._end(Outcome.REFUSED, error_type=error.type, status=error.status)
        self._link.refuse(error, status=error.status, error_type=error.type)
        return True

    def _forward_whole(self, body: bytes, trailers: list[tuple[bytes, bytes]]) -> None:
        self._learn()
        if self._refused_for_user():
            return
        encoded = b"content-encoding" in self._request.fields
        if self._operation.splices and self._facts is not None and not encoded:
            spliced = splice_include_usage(body)
            if spliced is not None:
                self._spliced = True
                body = spliced
        head = self._head_for_upstream(len(body) if self._spliced else None)
        if self._request.length == framing.CHUNKED:
            body = self._framed(body) + framing.last_chunk(trailers)
        self._forward(head + body)

    def _framed(self, data: bytes) -> bytes:
        if self._request.length == framing.CHUNKED:
            return framing.chunk(data) if data else b""
        return data

    def _head_for_upstream(self, spliced_length: int | None) -> bytes:
        """Return the client's head less what the transparency contract takes out."""
        head, line, fields, _ = self._request
        address = self._relay.pool.address
        names = self._relay.fields
        cuts = headers.removals(fields, (*headers.HOP_BY_HOP, *names.names))
        if b"connection" in fields:
            cuts += headers.nominated(head, fields)
        if self._invited:
            cuts += headers.removals(fields, (b"expect",))
        if names.metadata_prefixes:
            cuts += headers.removals(
                fields, [name for name in fields if name.startswith(names.metadata_prefixes)]
            )
        host = fields.get(b"host")
        if host is not None:
            cuts.append(headers.replaced(head, host[0], address.authority))
        if spliced_length is not None:
            cuts += self._cuts_for_splice(spliced_length)
        target = address.base_path + line.target if address.base_path else line.target
        first_line = b"%b %b HTTP/1.1" % (line.method, target)
        if host is None:
            first_line += b"\r\nHost: " + address.authority
        cuts.append((0, line.end, first_line))
        edited = headers.edited(head, cuts)
        if self._wants_websocket():
            return edited[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        return edited

    def _cuts_for_splice(self, length: int) -> list[headers.Cut]:
        head, _, fields, _ = self._request
        cuts: list[headers.Cut] = []
        if b"content-length" in fields:
            cuts.append(headers.replaced(head, fields[b"content-length"][0], b"%d" % length))
        codings = fields.get(b"accept-encoding")
        if codings:
            cuts.append(headers.replaced(head, codings[0], b"identity"))
            cuts += [(field.start, field.end, b"") for field in codings[1:]]
        else:
            end = len(head) - 4
            cuts.append((end, end, b"\r\nAccept-Encoding: identity"))
        return cuts

    def _wants_websocket(self) -> bool:
        """Whether this asks for a WebSocket; no other upgrade is relayed (RFC 9113 drops h2c)."""
        fields = self._request.fields
        return (
            self._request.line.method == b"GET"
            and b"upgrade" in fields
            and headers.tokens(fields, b"upgrade") == [b"websocket"]
            and b"upgrade" in headers.tokens(fields, b"connection")
        )

    def _open(self) -> None:
        """Write the opening: from here on the exchange has a row."""
        line, fields, facts = self._request.line, self._request.fields, self._facts
        retries = headers.first(fields, b"x-stainless-retry-count")
        who = self._attribution
        opening = Opening(
            event_id=self._relay.new_id(),
            operation_name=self._operation.name,
            method=line.method.decode("ascii"),
            api_path=_path(line.target)[:MAX_PATH_CHARACTERS],
            upstream=self._relay.pool.address.host,
            user_id=who.user_id,
            endpoint=who.endpoint,
            metadata=who.metadata,
            attribution_problem=who.problem,
            request_model=facts.model if facts is not None else None,
            request_service_tier=facts.service_tier if facts is not None else None,
            stream=facts.stream if facts is not None else None,
            request_bytes=self._request.length if self._request.length >= 0 else None,
            retry_count=_small_number(retries),
            worker=self._relay.worker,
        )
        self._opening = opening
        self._relay.journal.append(opening)

    def _forward(self, data: bytes) -> None:
        """Open, and send the first bytes up."""
        if not self._request_done and self._relay.require_user and self._refused_for_user():
            return
        self._open()
        up = self._relay.pool.take()
        if up is not None:
            self._attach(up, data)
            return
        self._pending.append(data)
        self._connecting = True
        if not self._request_done:
            self._link.pause()
        self._relay.pool.connect(self)

    def _attach(self, up: UpstreamLink, data: bytes) -> None:
        self._up = up
        up.begin(
            self,
            data,
            head_only=self._request.line.method == b"HEAD",
            may_switch=self._wants_websocket(),
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
        self._attach(link, data)
        if not self._request_done:
            self._link.resume()

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
        self._up = None
        timed_out = isinstance(error, UpstreamTimeoutError)
        outcome = Outcome.TIMEOUT if timed_out else Outcome.UPSTREAM_ERROR
        if self._answering:
            self._end(outcome, error_type=error.type)
            self._break_off()
            return
        self._end(outcome, error_type=error.type, status=error.status)
        close = self._close_after or self._link.request_incomplete
        head_only = self._request.line.method == b"HEAD"
        self._link.write(
            error_answer(error.status, str(error), error.type, close=close, head_only=head_only)
        )
        self._link.finished(close=close)

    def _break_off(self) -> None:
        """End the link so that the client sees an incomplete answer, after what has been sent."""
        until_close = self._head is not None and self._head.length == framing.UNTIL_CLOSE
        if until_close or self._dechunk:
            self._link.drop()  # a clean end would look like a complete answer
            return
        self._link.exchange = None
        self._link.closing = True
        self._link.transport.close()

    def upstream_paused(self) -> None:
        """Stop reading the request: the upstream does not keep up."""
        if self._link.request_incomplete or self._switched:
            self._link.pause()

    def upstream_resumed(self) -> None:
        """Go on reading the request."""
        if self._link.request_incomplete or self._switched:
            self._link.resume()

    def interim(self, head: bytes, fields: headers.Fields) -> None:
        """Pass a 1xx answer on (RFC 9110 section 15.2); HTTP/1.0 knows none."""
        if self._request.line.minor_version == 1:
            self._link.write(headers.edited(head, headers.removals(fields, headers.HOP_BY_HOP)))

    def switched(self, head: bytes, rest: bytes) -> None:
        """Become a tunnel: a 101 leaves as it came."""
        self._switched = True
        self._answering = True
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
        out = raw
        if head is not None:
            out = self._answer_head(head) + self._body_for_client(raw, body, done=done)
        elif self._stripper is not None or self._dechunk:
            out = self._body_for_client(raw, body, done=done)
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
        self._answering = True
        self._first_byte_us = self._relay.now_us() - self._started_us
        content_type = headers.text(head.fields, b"content-type")
        content_encoding = headers.text(head.fields, b"content-encoding")
        self._answer_meter = AnswerMeter(
            self._operation,
            status=head.line.status,
            content_type=content_type,
            content_encoding=content_encoding,
            max_event_bytes=self._relay.limits.event_bytes,
        )
        cuts = headers.removals(head.fields, headers.HOP_BY_HOP)
        if b"connection" in head.fields:
            cuts += headers.nominated(head.raw, head.fields)
        added = b""
        if head.length != 0 and self._strips(head, content_type, content_encoding):
            cuts += headers.removals(
                head.fields, (b"content-length", b"transfer-encoding", b"content-encoding")
            )
            added = b"Transfer-Encoding: chunked\r\n"
        if head.length == framing.UNTIL_CLOSE and self._stripper is None:
            self._close_after = True
        if self._request.line.minor_version == 0:
            added = self._settle_for_http_1_0(head, cuts)
        if self._link.closing:
            self._close_after = True
        if self._close_after:
            added += b"Connection: close\r\n"
        elif self._request.line.minor_version == 0:
            added += b"Connection: keep-alive\r\n"
        if not cuts and not added:
            return head.raw
        edited = headers.edited(head.raw, cuts)
        return edited[:-2] + added + b"\r\n" if added else edited

    def _strips(self, head: AnswerHead, content_type: str, content_encoding: str) -> bool:
        """Tell whether the traces of the spliced option are to be taken out of this answer."""
        if not self._spliced or "text/event-stream" not in content_type.lower():
            return False
        if content_encoding and content_encoding.lower() != "identity":
            self._decoder = decoder_for(content_encoding)  # identity was asked for
            if self._decoder is None:
                return False
        self._stripper = UsageStripper(self._relay.limits.event_bytes)
        return head.line.status == 200  # noqa: PLR2004

    def _settle_for_http_1_0(self, head: AnswerHead, cuts: list[headers.Cut]) -> bytes:
        """HTTP/1.0 knows no chunks: the end of the connection is the end of the body."""
        if head.length == framing.CHUNKED or self._stripper is not None:
            cuts += headers.removals(head.fields, (b"transfer-encoding",))
            self._dechunk = True
            self._close_after = True
        return b""

    def _body_for_client(self, raw: bytes, body: bytes, *, done: bool) -> bytes:
        if self._stripper is None:
            return body if self._dechunk else raw
        if self._decoder is not None:
            body = self._decoder.feed(body)
        kept = self._stripper.feed(body)
        if done:
            kept += self._stripper.finish()
        if self._dechunk:
            return kept
        framed = framing.chunk(kept) if kept else b""
        return framed + framing.last_chunk(()) if done else framed

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
            self._relay.log_call(_line(closing))

    def _closing(self, outcome: Outcome, error_type: str | None, status: int | None) -> Closing:
        head, opening = self._head, self._opening
        assert opening is not None  # noqa: S101 (`_end` has looked)
        seen = self._answer_meter.finish() if self._answer_meter is not None else Observation()
        if status is None and head is not None:
            status = head.line.status
        if self._switched:
            status = 101
        failed = seen.failed or (status is not None and status >= 400)  # noqa: PLR2004
        if outcome is Outcome.OK and failed:
            outcome = Outcome.UPSTREAM_ERROR
        return Closing(
            opening=self._completed(opening),
            outcome=outcome.value,
            status=status,
            response_model=seen.response_model,
            response_service_tier=seen.response_service_tier,
            response_id=seen.response_id,
            response_status=seen.response_status,
            upstream_request_id=_upstream_request_id(head),
            usage=seen.usage,
            usage_problem=seen.usage_problem,
            error_type=error_type or seen.error_type,
            latency_us=self._relay.now_us() - self._started_us,
            time_to_first_byte_us=self._first_byte_us,
            request_body_bytes=self._request_bytes,
            response_body_bytes=self._answer_bytes,
        )

    def _completed(self, opening: Opening) -> Opening:
        """Return the opening with what the body said after it was written."""
        facts, who = self._facts, self._attribution
        if facts is None or opening.request_model is not None:
            return opening
        return Opening(
            event_id=opening.event_id,
            operation_name=opening.operation_name,
            method=opening.method,
            api_path=opening.api_path,
            upstream=opening.upstream,
            user_id=who.user_id,
            endpoint=who.endpoint,
            metadata=who.metadata,
            attribution_problem=who.problem,
            request_model=facts.model,
            request_service_tier=facts.service_tier,
            stream=facts.stream,
            request_bytes=opening.request_bytes,
            retry_count=opening.retry_count,
            worker=opening.worker,
        )


def _path(target: bytes) -> str:
    """Return the path of a request target: the query may hold what nobody should keep."""
    return target.partition(b"?")[0].decode("latin-1")


def _small_number(value: bytes | None) -> int | None:
    return int(value) if value is not None and value.isdigit() and len(value) < 5 else None  # noqa: PLR2004


def _upstream_request_id(head: AnswerHead | None) -> str | None:
    if head is None:
        return None
    value = headers.first(head.fields, b"x-request-id")
    if value is None:
        value = headers.first(head.fields, b"apim-request-id")
    return value.decode("latin-1")[:256] if value else None


def _what_is_missing(relay: Relay, who: Attribution) -> str:
    name = relay.fields.user[0].decode() if relay.fields.user else "user"
    if who.problem:
        return f"the call's user cannot be read ({who.problem})"
    return f"the call names no user: send {name}, or safety_identifier in the body"


def _line(closing: Closing) -> dict[str, Any]:
    """Return the facts of the canonical log line: no content, no key, no metadata."""
    opening = closing.opening
    return {
        "event_id": opening.event_id.hex(),
        "user": opening.user_id,
        "endpoint": opening.endpoint,
        "operation_name": opening.operation_name,
        "method": opening.method,
        "api_path": opening.api_path,
        "request_model": opening.request_model,
        "response_model": closing.response_model,
        "status": closing.status,
        "outcome": closing.outcome,
        "error_type": closing.error_type,
        "usage": "reported" if closing.usage else "unavailable",
        "usage_problem": closing.usage_problem,
        "latency_us": closing.latency_us,
        "time_to_first_byte_us": closing.time_to_first_byte_us,
        "upstream_request_id": closing.upstream_request_id,
    }

"""What is noted of one call: who made it, what it asked for, what came of it, once.

An account looks at bytes that have been passed on; it passes on nothing itself. Its opening is
written before the upstream sees the request, its closing before the client sees the last byte.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from proxy.core import attribution, headers, noting
from proxy.core.metering import AnswerMeter, Observation, RequestFacts, RequestMeter
from proxy.core.model import Closing, Opening, Outcome, Record
from proxy.framing import AnswerHead, Request

SWITCHED = 101
_ERROR_STATUS = 400
_NO_FACTS = RequestFacts()


class Journal(Protocol):
    """Where records go; nothing here raises."""

    def append(self, record: Record) -> object:
        """Write a record now."""

    def append_then(self, record: Record, then: Callable[[], None]) -> None:
        """Write a record soon, and do then what waits for it."""


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
class Books:
    """What all accounts of a worker share."""

    journal: Journal
    fields: attribution.AttributionFields
    counts: Counts
    upstream: str
    worker: str
    base_path: str  # of the upstream's URL
    mount: str | None = None  # the upstream's name, where it is not the one at `/`
    metered_body_bytes: int = 1_048_576
    event_bytes: int
    new_id: Callable[[], bytes]
    now_ns: Callable[[], int]  # a monotonic clock
    log_call: Callable[[Mapping[str, object]], None] | None


class Account:
    """The account of one call."""

    __slots__ = (
        "_answer_bytes",
        "_answer_meter",
        "_books",
        "_facts",
        "_first_byte_us",
        "_head",
        "_opening",
        "_request",
        "_request_bytes",
        "_request_meter",
        "_started_ns",
        "_switched",
        "attribution",
        "operation",
        "over",
        "reads",
    )

    def __init__(self, books: Books, request: Request) -> None:
        line, fields = request.line, request.fields
        self._books = books
        self._request = request
        self._started_ns = books.now_ns()
        books.counts.in_flight += 1
        self.over = False
        self.operation = noting.operation_asked(line, books.base_path)
        self.attribution = attribution.from_headers(fields, books.fields)
        self._facts = _NO_FACTS
        self._opening: Opening | None = None
        self._request_meter: RequestMeter | None
        self._request_bytes = 0
        self._head: AnswerHead | None = None
        self._answer_meter: AnswerMeter | None = None
        self._answer_bytes = 0
        self._first_byte_us: int | None = None
        self._switched = False
        meter = self._request_meter = RequestMeter(
            self.operation,
            content_type=headers.text(fields, b"content-type"),
            content_encoding=headers.text(fields, b"content-encoding"),
            max_bytes=books.metered_body_bytes,
        )
        self.reads = meter.reads_json  # the request's body is one that can be spliced

    def request_part(self, data: bytes) -> None:
        """Look at more of the request's body."""
        self._request_bytes += len(data)
        if self._request_meter is not None:
            self._request_meter.feed(data)

    def learn(self) -> None:
        """Take what the body says of model, user and metadata, once."""
        meter, self._request_meter = self._request_meter, None
        if meter is None:
            return
        facts = self._facts = meter.finish()
        if facts.user or facts.safety_identifier or facts.metadata:
            self.attribution = attribution.with_body(
                self.attribution,
                user=facts.safety_identifier or facts.user,
                metadata=facts.metadata,
            )

    @property
    def may_stream(self) -> bool:
        """Whether the body, once it is known, asks for a stream or could not be read."""
        return self.reads and self._facts.stream is not False

    def what_is_missing(self) -> str:
        """Say what a call lacks that names no user."""
        names, problem = self._books.fields.user, self.attribution.problem
        if problem:
            return f"the call's user cannot be read ({problem})"
        name = names[0].decode() if names else "user"
        return f"the call names no user: send {name}, or safety_identifier in the body"

    def open(self, then: Callable[[], None]) -> None:
        """Write the opening, then go on: from here on the call has a row."""
        books, (_, line, fields, length) = self._books, self._request
        self._opening = noting.opening_of(
            books.new_id(),
            line,
            fields,
            length=length,
            operation=self.operation,
            who=self.attribution,
            facts=self._facts,
            upstream=books.upstream,
            worker=books.worker,
            mount=books.mount,
        )
        books.journal.append_then(self._opening, then)

    def answer_begins(self, head: AnswerHead) -> None:
        """Note the first byte, and get ready to look at the body."""
        self._head = head
        self._first_byte_us = self._elapsed_us()
        self._answer_meter = AnswerMeter(
            self.operation,
            status=head.line.status,
            content_type=headers.text(head.fields, b"content-type"),
            content_encoding=headers.text(head.fields, b"content-encoding"),
            max_event_bytes=self._books.event_bytes,
        )

    def answer_part(self, body: bytes) -> None:
        """Look at more of the answer's body."""
        self._answer_bytes += len(body)
        if self._answer_meter is not None and body:
            self._answer_meter.feed(body)

    def tunnel_begins(self) -> None:
        """Note that the answer is a tunnel."""
        self._switched = True
        self._first_byte_us = self._elapsed_us()

    def close(
        self, outcome: Outcome, *, error_type: str | None = None, status: int | None = None
    ) -> None:
        """Write the closing, once; `status` is given where the proxy itself has answered."""
        closing = self._closed(outcome, error_type, status)
        if closing is not None:
            self._books.journal.append(closing)
            self._tell(closing)

    def close_then(self, then: Callable[[], None]) -> None:
        """Write the closing of a call whose answer is whole, then go on."""
        closing = self._closed(Outcome.OK, None, None)
        if closing is None:
            then()
        else:
            self._books.journal.append_then(closing, then)
            self._tell(closing)

    def _closed(
        self, outcome: Outcome, error_type: str | None, status: int | None
    ) -> Closing | None:
        """Return the closing, None where there was one or nothing was sent upstream."""
        if self.over:
            return None
        self.over = True
        self._books.counts.in_flight -= 1
        self.learn()
        if self._opening is None:
            return None
        return self._closing(self._opening, outcome, error_type, status)

    def _tell(self, closing: Closing) -> None:
        """Count the call, and write its line to the log."""
        counts = self._books.counts
        counts.calls += 1
        counts.by_outcome[closing.outcome] = counts.by_outcome.get(closing.outcome, 0) + 1
        counts.request_bytes += self._request_bytes
        counts.answer_bytes += self._answer_bytes
        counts.latency_us += closing.latency_us or 0
        if self._books.log_call is not None:
            self._books.log_call(noting.log_line(closing))

    def _elapsed_us(self) -> int:
        return (self._books.now_ns() - self._started_ns) // 1000

    def _closing(
        self, opening: Opening, outcome: Outcome, error_type: str | None, status: int | None
    ) -> Closing:
        head = self._head
        if self._facts is not _NO_FACTS and opening.request_model is None:
            opening = noting.completed(opening, self._facts, self.attribution)
        seen = self._answer_meter.finish() if self._answer_meter is not None else Observation()
        if status is None and head is not None:
            status = head.line.status
        if self._switched:
            status = SWITCHED
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
            latency_us=self._elapsed_us(),
            time_to_first_byte_us=self._first_byte_us,
            request_body_bytes=self._request_bytes,
            response_body_bytes=self._answer_bytes,
            request_units=self._facts.units,
            answer_units=seen.units,
        )

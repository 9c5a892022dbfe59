"""What is noted of one call: who made it, what it asked for, what came of it, once.

An account looks at bytes that have been passed on; it passes on nothing itself. Its opening is
written before the upstream sees the request, its closing before the client sees the last byte.
"""

from collections.abc import Callable

import msgspec

from proxy.books import Books, Session, tell
from proxy.core import attribution, evidence, noting
from proxy.core.estimates import Question
from proxy.core.metering import (
    READ_AT_ONCE,
    AnswerMeter,
    Observation,
    RequestFacts,
    RequestMeter,
    facts_of_whole,
    observed_whole,
)
from proxy.core.model import Closing, Estimate, Opening, Outcome, Sighting
from proxy.core.plans import AnswerPlan
from proxy.framing import AnswerHead, Request

_ERROR_STATUS = 400
WAITING_SECONDS = 5.0  # how long a client's last bytes may wait for an estimate
LATE_SECONDS = 20.0  # how long a closing may wait for which nobody waits
_NO_FACTS = RequestFacts()
_NAMES = {outcome: outcome.value for outcome in Outcome}


class Account:
    """The account of one call."""

    over = False
    sent = False  # bytes of the request have gone up
    _body: bytes | None = None  # of the request, should its tokens have to be counted
    _opening: Opening | None = None
    _facts: RequestFacts | None = None  # what the body says, once it is known
    _request_meter: RequestMeter | None = None
    _request_bytes = 0
    _head: AnswerPlan | None = None
    _request_id: str | None = None  # the upstream's
    _answer_meter: AnswerMeter | None = None
    _answer_bytes = 0
    _seen: Observation | None = None  # what a whole answer says, or one without usage
    _first_byte_us: int | None = None
    session: Session | None = None

    def __init__(self, books: Books, request: Request) -> None:
        plan = request.plan
        self._books = books
        self._plan = plan
        self._length = request.length
        self._started_ns = books.now_ns()
        self.operation = plan.operation
        self.attribution = books.attributions.of(plan.attributed, request.lines)
        books.counts.in_flight += 1

    def request_whole(self, body: bytes) -> None:
        """Look at the request's body, all of which is here, and take what it says."""
        if self._plan.is_json and len(body) <= self._books.metered_body_bytes:
            self._request_bytes = len(body)
            self._body = self._keepable(body)
            self._take(facts_of_whole(body))
        else:
            self.request_part(body)
            self.learn()

    def request_part(self, data: bytes) -> None:
        """Look at more of the request's body."""
        self._request_bytes += len(data)
        if self._facts is not None:
            return
        if self._request_meter is None:
            self._request_meter = self._new_request_meter()
        self._request_meter.feed(data)

    def learn(self) -> RequestFacts:
        """Take what the body says of model, user and metadata, once."""
        if self._facts is None:
            meter, self._request_meter = self._request_meter or self._new_request_meter(), None
            self._take(meter.finish())
            self._body = self._keepable(meter.body)
        return self._facts or _NO_FACTS

    def _take(self, facts: RequestFacts) -> None:
        self._facts = facts
        if facts.user or facts.safety_identifier or facts.metadata:
            self.attribution = attribution.with_body(
                self.attribution,
                user=facts.safety_identifier or facts.user,
                metadata=facts.metadata,
            )

    def _keepable(self, body: bytes | None) -> bytes | None:
        if body is None or len(body) <= evidence.SMALL_BYTES:
            return body
        return evidence.keepable(body, self._books.counts.in_flight)

    @property
    def may_be_spliced(self) -> bool:
        """Whether an option may have to be put into the body, once that is known."""
        facts = self._facts
        return self._plan.is_splicable and (facts is None or facts.stream is not False)

    @property
    def call_id(self) -> str | None:
        """The realtime call that the socket attends, by its call_id."""
        return noting.call_attended(self._plan.line.target)

    def what_is_missing(self) -> str:
        """Say what a call lacks that names no user."""
        names, problem = self._books.fields.user, self.attribution.problem
        if problem:
            return f"the call's user cannot be read ({problem})"
        name = names[0].decode() if names else "user"
        return f"the call names no user: send {name}, or safety_identifier in the body"

    def open(self, then: Callable[[], None]) -> None:
        """Write the opening, then go on: from here on the call has a row."""
        books, plan, who = self._books, self._plan, self.attribution
        facts = self._facts or _NO_FACTS
        opening = self._opening = Opening(
            event_id=books.new_id(),
            operation_name=plan.operation.name,
            method=plan.method,
            api_path=plan.api_path,
            upstream=books.upstream,
            user_id=who.user_id,
            endpoint=who.endpoint,
            metadata=who.metadata,
            attribution_problem=who.problem,
            request_model=facts.model or plan.request_model,
            request_service_tier=facts.service_tier,
            stream=facts.stream,
            request_bytes=self._length if self._length >= 0 else None,
            retry_count=plan.retry_count,
            worker=books.worker,
            deployment=plan.operation.deployment,
            mount=books.mount,
        )
        books.journal.append_then(opening, then)

    def answer_begins(self, head: AnswerHead) -> None:
        """Note the first byte, and what the body is."""
        self._head = head.plan
        self._request_id = head.request_id
        self._first_byte_us = self._elapsed_us()

    def answer_whole(self, body: bytes) -> None:
        """Look at the answer's body, all of which is here."""
        head = self._head
        if head is not None and head.is_json and self.operation.name in READ_AT_ONCE:
            self._seen = observed_whole(body)
        if self._seen is None:
            self.answer_part(body)
        else:
            self._answer_bytes = len(body)

    def answer_part(self, body: bytes) -> None:
        """Look at more of the answer's body."""
        self._answer_bytes += len(body)
        meter = self._answer_meter
        if meter is None:
            if self._head is None or self.session is not None or not body:
                return
            meter = self._answer_meter = self._new_answer_meter(self._head)
        meter.feed(body)
        if meter.lines:
            self._note_lines(meter.lines)

    @property
    def books(self) -> Books:
        """What all accounts of a worker share."""
        return self._books

    @property
    def opening(self) -> Opening | None:
        """What was written before the upstream saw the request."""
        return self._opening

    def session_begins(self, head: AnswerHead, session: Session) -> None:
        """Note that the answer is a WebSocket, and who takes notes within it."""
        self.answer_begins(head)
        self.session = session

    def close(
        self, outcome: Outcome, *, error_type: str | None = None, status: int | None = None
    ) -> None:
        """Write the closing, once; `status` is given where the proxy itself has answered."""
        closing = self._closed(outcome, error_type, status)
        if closing is None:
            return
        question = self._question(closing) if closing.usage is None else None
        if question is not None:
            self._ask(question, closing, self._books.journal.append, LATE_SECONDS)
        else:
            self._books.journal.append(closing)
            tell(self._books, closing)

    def close_then(self, then: Callable[[], None]) -> None:
        """Write the closing of a call whose answer is whole, then go on."""
        closing = self._closed(Outcome.OK, None, None)
        append = self._books.journal.append_then
        question = None
        if closing is not None and closing.usage is None:
            question = self._question(closing)
        if closing is None:
            then()
        elif question is not None:
            self._ask(question, closing, lambda record: append(record, then), WAITING_SECONDS)
        else:
            append(closing, then)
            tell(self._books, closing)

    def _question(self, closing: Closing) -> Question | None:
        """Return what is to be asked about a call without usage."""
        if not self.sent or self._books.estimator is None:
            return None
        seen = self._seen or Observation()
        return evidence.question(closing, self.operation, seen, self._body)

    def _ask(
        self,
        question: Question,
        closing: Closing,
        write: Callable[[Closing], object],
        seconds: float,
    ) -> None:
        """Write the closing once there is an estimate, or word that there is none."""

        def done(estimate: Estimate) -> None:
            completed = msgspec.structs.replace(closing, estimate=estimate)
            write(completed)
            tell(self._books, completed)

        if self._books.estimator is not None:
            self._books.estimator.ask(question, done, seconds=seconds)

    def _new_request_meter(self) -> RequestMeter:
        plan = self._plan
        return RequestMeter(
            plan.operation,
            content_type=plan.content_type,
            content_encoding=plan.content_encoding,
            max_bytes=self._books.metered_body_bytes,
        )

    def _new_answer_meter(self, head: AnswerPlan) -> AnswerMeter:
        return AnswerMeter(
            self.operation,
            status=head.line.status,
            content_type=head.content_type,
            content_encoding=head.content_encoding,
            max_event_bytes=self._books.event_bytes,
            keep_bytes=evidence.answer_room(self._books.counts.in_flight),
        )

    def _closed(
        self, outcome: Outcome, error_type: str | None, status: int | None
    ) -> Closing | None:
        """Return the closing, None where there was one or nothing was sent upstream."""
        if self.over:
            return None
        self.over = True
        self._books.counts.in_flight -= 1
        if self._opening is None:
            return None
        if self._facts is None:
            self._opening = noting.completed(self._opening, self.learn(), self.attribution)
        return self._closing(self._opening, outcome, error_type, status)

    def _note_lines(self, lines: list[Sighting]) -> None:
        """Write what the lines of a batch's output say, in records of a bounded size."""
        opening = self._opening
        if opening is not None:
            for record in noting.lines_of(opening, lines):
                self._books.journal.append(record)
        lines.clear()

    def _elapsed_us(self) -> int:
        return (self._books.now_ns() - self._started_ns) // 1000

    def _observation(self, outcome: Outcome) -> Observation:
        """Return what the answer said."""
        if self.session is not None:
            return self.session.end(outcome)
        if self._seen is not None:
            return self._seen
        if self._answer_meter is None:
            if self._head is None:
                return Observation()
            self._answer_meter = self._new_answer_meter(self._head)
        meter = self._answer_meter
        seen = meter.finish()
        if meter.lines:
            self._note_lines(meter.lines)
        return seen

    def _closing(
        self, opening: Opening, outcome: Outcome, error_type: str | None, status: int | None
    ) -> Closing:
        head, facts, seen = self._head, self._facts or _NO_FACTS, self._observation(outcome)
        if seen.usage is None:
            self._seen = seen
        if status is None and head is not None:
            status = head.line.status
        failed = seen.failed or (status is not None and status >= _ERROR_STATUS)
        if outcome is Outcome.OK and failed:
            outcome = Outcome.UPSTREAM_ERROR
        return Closing(
            opening=opening,
            outcome=_NAMES[outcome],
            status=status,
            response_model=seen.response_model,
            response_service_tier=seen.response_service_tier,
            response_id=seen.response_id,
            response_status=seen.response_status,
            upstream_request_id=self._request_id,
            usage=seen.usage,
            usage_problem=seen.usage_problem,
            error_type=error_type or seen.error_type,
            latency_us=self._elapsed_us(),
            time_to_first_byte_us=self._first_byte_us,
            request_body_bytes=self._request_bytes,
            response_body_bytes=self._answer_bytes,
            request_units=facts.units,
            answer_units=seen.units,
            sightings=seen.sightings,
        )

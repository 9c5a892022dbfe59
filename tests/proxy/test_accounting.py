"""Each call has one opening and one closing, with what was seen of it."""

import re
from collections.abc import Callable, Mapping

import pytest

from proxy import framing
from proxy.accounting import Account
from proxy.books import Books, Counts, Estimator
from proxy.core.attribution import AttributionFields, Attributions
from proxy.core.estimates import Question
from proxy.core.headers import request_pattern
from proxy.core.metering import Observation
from proxy.core.model import Closing, Estimate, Lines, Opening, Outcome, Record
from proxy.core.passage import Destination
from proxy.core.plans import RequestPlans

NAMES = AttributionFields()
PLANS = RequestPlans(
    request_pattern(NAMES.names, NAMES.metadata_prefixes),
    Destination(
        authority=b"api.example",
        base_path=b"",
        own_names=NAMES.names,
        own_prefixes=NAMES.metadata_prefixes,
    ),
)
OK = framing.judged_answer(
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: r\r\n\r\n", head_only=False
)
SWITCHED = framing.judged_answer(
    b"HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nx-request-id: r\r\n\r\n",
    head_only=True,
)
ANSWER = b'{"id":"c","model":"m-1","usage":{"prompt_tokens":1,"completion_tokens":2}}'


class Pages:
    """A journal in memory, and a clock that goes on by a millisecond a look."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.lines: list[Mapping[str, object]] = []
        self.now = 0
        self.counts = Counts(by_outcome={})

    def append(self, record: Record) -> bool:
        """Keep a record."""
        self.records.append(record)
        return True

    def append_then(self, record: Record, then: Callable[[], None]) -> None:
        """Keep a record, and go on."""
        self.records.append(record)
        then()

    def clock(self) -> int:
        """Return the next millisecond."""
        self.now += 1_000_000
        return self.now

    def account(
        self,
        lines: bytes = b"",
        *,
        path: bytes = b"/v1/chat/completions",
        method: bytes = b"POST",
        estimator: Estimator | None = None,
    ) -> Account:
        """Return the account of a call."""
        head = b"%b %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: 9\r\n\r\n"
        raw = head % (method, path, lines)
        books = Books(
            journal=self,
            fields=NAMES,
            attributions=Attributions(NAMES),
            counts=self.counts,
            upstream="api.example",
            worker="w",
            event_bytes=1000,
            new_id=lambda: bytes(16),
            now_ns=self.clock,
            log_call=self.lines.append,
            estimator=estimator,
        )
        return Account(books, framing.judged_request(raw, PLANS))

    def closing(self) -> Closing:
        """Return the one closing."""
        opening, closing = self.records
        assert isinstance(opening, Opening)
        assert isinstance(closing, Closing)
        return closing


def test_a_call_from_beginning_to_end() -> None:
    """What the journal, the counts and the log hold of it."""
    pages = Pages()
    account = pages.account(b"X-Meter-User: ada\r\n")
    assert pages.counts.in_flight == 1
    account.request_part(b'{"model":"m","user":"bob"}')
    account.learn()
    account.open(lambda: None)
    account.answer_begins(OK)
    account.answer_part(ANSWER)
    account.close(Outcome.OK)
    account.close(Outcome.INTERRUPTED)
    closing = pages.closing()
    assert (closing.outcome, closing.status, closing.response_model) == ("ok", 200, "m-1")
    assert (closing.opening.user_id, closing.opening.request_model) == ("ada", "m")
    assert closing.usage == b'{"prompt_tokens":1,"completion_tokens":2}'
    assert (closing.upstream_request_id, closing.error_type) == ("r", None)
    assert (closing.time_to_first_byte_us, closing.latency_us) == (1000, 2000)
    assert (closing.request_body_bytes, closing.response_body_bytes) == (26, len(ANSWER))
    assert (pages.counts.calls, pages.counts.in_flight) == (1, 0)
    assert pages.counts.by_outcome == {"ok": 1}
    assert [line["outcome"] for line in pages.lines] == ["ok"]


def test_a_call_that_was_never_opened_has_no_row() -> None:
    """Nothing was sent upstream, so there is nothing to account for."""
    pages = Pages()
    pages.account().close(Outcome.CLIENT_DISCONNECTED)
    assert pages.records == []
    assert (pages.counts.calls, pages.counts.in_flight) == (0, 0)


def test_what_is_learnt_late_completes_the_opening() -> None:
    """A streamed request is opened before its body is there."""
    pages = Pages()
    account = pages.account(path=b"/v1/responses")
    account.open(lambda: None)
    account.request_part(b'{"model":"m","metadata":{"a":"b"},"safety_identifier":"eve"}')
    account.close(Outcome.CLIENT_DISCONNECTED)
    closing = pages.closing()
    assert (closing.status, closing.time_to_first_byte_us) == (None, None)
    assert (closing.opening.request_model, closing.opening.user_id) == ("m", "eve")
    assert closing.opening.metadata == {"a": "b"}


def test_an_error_answer_makes_an_upstream_error() -> None:
    """Whether by its status or by what it says."""
    pages = Pages()
    account = pages.account()
    account.open(lambda: None)
    head = framing.judged_answer(b"HTTP/1.1 429 No\r\n\r\n", head_only=False)
    account.answer_begins(head)
    account.answer_part(b'{"error":{"type":"tokens"}}')
    account.close(Outcome.OK)
    assert pages.closing().outcome == "upstream_error"


def test_an_answer_of_the_proxys_own_is_noted_as_that() -> None:
    """With its status and its type."""
    pages = Pages()
    account = pages.account()
    account.open(lambda: None)
    account.close(Outcome.TIMEOUT, error_type="upstream_timeout", status=504)
    closing = pages.closing()
    assert (closing.outcome, closing.error_type, closing.status) == (
        "timeout",
        "upstream_timeout",
        504,
    )


class Silence:
    """A session in which nothing was billed."""

    is_busy = False

    def look(self, data: bytes) -> bytes:
        """Find nothing."""
        del data
        return b""

    def look_at_all(self, data: bytes) -> None:
        """Find nothing."""

    def hear(self, data: bytes) -> bytes:
        """Listen to nobody."""
        del data
        return b""

    def end(self, outcome: Outcome) -> Observation:
        """Tell the outcome that it has heard of."""
        return Observation(response_model="m", response_id=outcome.value)


def test_a_session_is_a_101() -> None:
    """Its bytes are counted both ways, and it says itself what it was."""
    pages = Pages()
    account = pages.account()
    account.open(lambda: None)
    account.session_begins(SWITCHED, Silence())
    account.request_part(b"12")
    account.answer_part(b"123")
    account.close(Outcome.OK)
    closing = pages.closing()
    assert (closing.status, closing.outcome, closing.upstream_request_id) == (101, "ok", "r")
    assert (closing.response_model, closing.response_id) == ("m", "ok")
    assert (closing.request_body_bytes, closing.response_body_bytes) == (2, 3)


@pytest.mark.parametrize(
    ("content_type", "body", "may_be"),
    [
        (b"", b'{"model":"m","stream":true}', True),
        (b"application/json; charset=utf-8", b"{}", False),
        (b"application/json", b'{"stream":', True),
        (b"multipart/form-data", b'{"stream":true}', False),
    ],
)
def test_which_bodies_may_be_spliced(content_type: bytes, body: bytes, *, may_be: bool) -> None:
    """JSON, and what does not say what it is, unless it is known not to ask for a stream."""
    account = Pages().account(b"Content-Type: " + content_type + b"\r\n" if content_type else b"")
    assert account.may_be_spliced is not content_type.startswith(b"multi")
    account.request_whole(body)
    assert account.may_be_spliced is may_be


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"", "names no user: send x-meter-user"),
        (b"X-Meter-User: \xff\r\n", r"cannot be read \(x-meter-user: not UTF-8\)"),
    ],
)
def test_a_call_without_a_user_is_told_what_it_lacks(lines: bytes, expected: str) -> None:
    """And never the value that could not be read."""
    assert re.search(expected, Pages().account(lines).what_is_missing())


class Oracle:
    """Knows an estimate, and tells it when it is asked to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Question, float]] = []
        self.tell: Callable[[Estimate], None]

    def ask(self, question: Question, done: Callable[[Estimate], None], *, seconds: float) -> None:
        """Keep the question."""
        self.asked.append((question, seconds))
        self.tell = done


def silent_call(pages: Pages, oracle: Oracle, *, answer: bytes = b"{}") -> Account:
    """Return the account of a call whose answer tells no usage."""
    account = pages.account(estimator=oracle)
    account.request_whole(b'{"model":"m"}')
    account.open(lambda: None)
    account.sent = True
    account.answer_begins(OK)
    account.answer_part(answer)
    return account


def test_a_closing_waits_for_an_estimate_and_the_last_bytes_for_the_closing() -> None:
    """Where the answer has told no usage."""
    pages, oracle, sent = Pages(), Oracle(), list[int]()
    silent_call(pages, oracle).close_then(lambda: sent.append(len(pages.records)))
    assert (len(pages.records), sent, pages.counts.calls) == (1, [], 0)
    oracle.tell(Estimate(input_tokens=9))
    assert (pages.closing().estimate, sent) == (Estimate(input_tokens=9), [2])
    assert pages.closing().latency_us == 2000  # not the time that was waited
    assert (pages.counts.calls, pages.lines[0]["usage"]) == (1, "estimated")
    ((question, seconds),) = oracle.asked
    assert (question.model, question.request, question.answer) == ("m", b'{"model":"m"}', b"{}")
    assert seconds == 5.0


def test_nobody_waits_for_the_estimate_of_a_call_that_was_left() -> None:
    """Its closing may take a while."""
    pages, oracle = Pages(), Oracle()
    silent_call(pages, oracle).close(Outcome.CLIENT_DISCONNECTED)
    assert (len(pages.records), oracle.asked[0][1]) == (1, 20.0)
    oracle.tell(Estimate(note="estimator_busy"))
    assert pages.closing().estimate == Estimate(note="estimator_busy")


def test_nothing_is_asked_about_a_call_that_tells_its_usage() -> None:
    """Or that never went up."""
    pages, oracle = Pages(), Oracle()
    silent_call(pages, oracle, answer=ANSWER).close(Outcome.OK)
    unsent = pages.account(estimator=oracle)
    unsent.open(lambda: None)
    unsent.close(Outcome.CLIENT_DISCONNECTED, error_type="not_sent")
    assert oracle.asked == []
    assert [type(record) for record in pages.records] == [Opening, Closing, Opening, Closing]


def test_a_large_request_is_kept_while_there_are_few() -> None:
    """Many of them would fill the memory."""
    oracle, body = Oracle(), b'{"a":"' + b"x" * 100_000 + b'"}'
    for calls in (1, 10_000):
        pages = Pages()
        account = pages.account(estimator=oracle)
        pages.counts.in_flight = calls
        account.request_whole(body)
        account.open(lambda: None)
        account.sent = True
        account.close(Outcome.TIMEOUT)
    assert [question.request for question, _ in oracle.asked] == [body, None]


def test_lines_of_an_output_are_noted_as_they_pass_by() -> None:
    """In records of their own, before the closing that says whether all of them did."""
    line = (
        b'{"id":"batch_req_%d","custom_id":"c","response":'
        b'{"status_code":200,"body":{"id":"x","usage":{"prompt_tokens":1}}}}'
    )
    pages = Pages()
    account = pages.account(path=b"/v1/files/file-1/content", method=b"GET")
    account.open(lambda: None)
    account.answer_begins(OK)
    second_line = line % 2
    account.answer_part(line % 1 + b"\n" + second_line[:20])
    account.answer_part(second_line[20:])
    account.close(Outcome.OK)
    _, first, second, closing = pages.records
    assert isinstance(first, Lines)
    assert isinstance(second, Lines)
    assert isinstance(closing, Closing)
    assert [one.part for one in (*first.lines, *second.lines)] == ["batch_req_1", "batch_req_2"]
    assert {record.file_id for record in (first, second)} == {"file-1"}
    assert [(one.kind, one.requests) for one in closing.sightings] == [("output", 2)]

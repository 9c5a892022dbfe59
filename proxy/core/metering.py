"""Read from the bytes that pass by what a charge needs: `feed(chunk)` looks, `finish()` tells.

`RequestMeter` reads the client's JSON or form, `AnswerMeter` the upstream's JSON or event stream,
each from a copy that it decodes itself. Nothing here raises into the relay: whatever the bytes, a
fault becomes a problem, a constant phrase. Usage is handed on as the bytes that came; it is read
where it is priced.
"""

import msgspec

from proxy.core import encoding
from proxy.core.answers import (
    NOT_JSON,
    TRUNCATED,
    NoReader,
    Reader,
    reader_for,
    watcher_for,
)
from proxy.core.asking import (
    BILLED_BY_UNITS,
    Form,
    RequestFacts,
    facts_of_json,
    facts_with_units,
)
from proxy.core.counting import COUNTERS
from proxy.core.findings import NOTHING, Findings, Kept, name_of, read_members
from proxy.core.mending import UNREADABLE
from proxy.core.model import AnswerUnits, Sighting
from proxy.core.registry import Operation
from proxy.core.scanning import BodyKeeper
from proxy.core.streams import SEVERAL
from proxy.core.thinning import Thinner

__all__ = ["AnswerMeter", "Observation", "RequestFacts", "RequestMeter"]

MAX_BODY_BYTES = 1 << 20  # of an answer that is kept whole; a larger one is condensed
MAX_UNFOLDED_BYTES = 1 << 22  # of what comes at once
SMALL_BYTES = 1024  # of a piece of an answer that waits for more
ROW = 16  # such pieces, that are looked at at once
MAX_RATIO = 128  # to what came; a stream that says the same again and again has 50
ERROR_STATUS = 400
CHARGED_STATUS = range(200, 300)
OK = 200
UNFINISHED = {"queued", "in_progress"}
UNKNOWN_ENCODING = "unknown_content_encoding"
NO_USAGE = "no_usage_in_answer"
DEFERRED = "usage_deferred"
FAULT = "meter_fault"
FORMS = {"images", "audio", "videos"}  # api_types
# Operations whose JSON answers hold all that is to be read at their top level.
READ_AT_ONCE = {"chat", "text_completion", "embeddings"}


class Observation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an answer says; None where it says nothing that can be read."""

    response_model: str | None = None
    response_service_tier: str | None = None
    response_id: str | None = None
    response_status: str | None = None
    usage: bytes | None = None  # the JSON of the usage object, as it came
    usage_problem: str | None = None  # why there is no usage although there should be
    error_type: str | None = None
    failed: bool = False  # the answer is an error, although its status may be 200
    complete: bool = False  # the answer came to its own end
    units: AnswerUnits | None = None  # what is billed beside tokens; None: nobody has looked
    kept: Kept | None = None  # of an answer that tells no usage; content, never to be written
    sightings: tuple[Sighting, ...] = ()  # of objects that are billed when they are done


def facts_of_whole(body: bytes) -> RequestFacts:
    """Return what a JSON body says that is here at once: what a `RequestMeter` would find."""
    try:
        return facts_of_json(body)
    except Exception as exc:  # noqa: BLE001 (metering never fails a call)
        return RequestFacts(problem=NOT_JSON if isinstance(exc, UNREADABLE) else FAULT)


def observed_whole(body: bytes) -> Observation | None:
    """Return what an `AnswerMeter` would find in a JSON answer that is here at once.

    For a success of an operation that is READ_AT_ONCE. None: it takes a meter to tell.
    """
    try:
        answer = read_members(body)
    except Exception:  # noqa: BLE001 (as above)
        return None
    usage = bytes(answer.usage)
    if not usage.startswith(b"{") or bytes(answer.error) not in NOTHING or answer.status:
        return None
    return Observation(
        response_model=name_of(answer.model),
        response_service_tier=name_of(answer.service_tier),
        response_id=name_of(answer.id),
        usage=usage,
        complete=True,
    )


class RequestMeter:
    """Read what a client asks for, from its JSON or its form; other bodies say nothing."""

    __slots__ = (
        "_decoder",
        "_form",
        "_keeper",
        "_max_bytes",
        "_operation",
        "_problem",
        "_read",
        "_thinner",
        "body",
    )

    def __init__(
        self, operation: Operation, *, content_type: str, content_encoding: str, max_bytes: int
    ) -> None:
        self._operation = operation
        self.body: bytes | None = None  # less bulky base64, in the end; None: too large, no JSON
        self._thinner: Thinner | None = None
        self._max_bytes = max_bytes
        self._keeper: BodyKeeper | None = None
        self._form: Form | None = None
        self._decoder: encoding.Decoder | None = None
        self._problem: str | None = None
        if not content_type or "json" in content_type.lower():
            self._keeper = BodyKeeper(max_bytes=max_bytes, also=self._thin)
            self._read = self._keeper.feed
        elif operation.api_type in FORMS and "multipart/form-data" in content_type.lower():
            self._form = Form(operation, content_type)
            self._read = self._form.feed
        else:
            self._read = _ignore
            return
        if content_encoding:
            self._decoder = _decoder_for(content_encoding)
            if self._decoder is None:
                self._stop(UNKNOWN_ENCODING)

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        try:
            self._read(chunk if self._decoder is None else self._decoder.feed(chunk))
        except Exception:  # noqa: BLE001 (metering never fails a call)
            self._stop(FAULT)

    def finish(self) -> RequestFacts:
        """Return what the body said."""
        try:
            if self._decoder is not None:
                self._decoder.finish()
                if self._decoder.problem is not None:
                    return RequestFacts(problem=self._decoder.problem)
            if self._keeper is not None:
                body = self._keeper.finish()
                self.body = self._thinner.finish() if self._thinner else body
                if self._operation.name in BILLED_BY_UNITS:
                    return facts_with_units(body, self._operation)
                return facts_of_json(body)
            if self._form is not None:
                return self._form.finish()
        except Exception as exc:  # noqa: BLE001 (metering never fails a call)
            return RequestFacts(problem=NOT_JSON if isinstance(exc, UNREADABLE) else FAULT)
        return RequestFacts(problem=self._problem)

    def _thin(self, chunk: bytes) -> None:
        """Keep of a large body what its prompt can be counted by."""
        if self._thinner is None:
            self._thinner = Thinner(max_bytes=self._max_bytes)
        self._thinner.feed(chunk)

    def _stop(self, problem: str) -> None:
        self._keeper = self._form = self._decoder = None
        self._read = _ignore
        self._problem = problem


def _decoder_for(content_encoding: str) -> encoding.Decoder | None:
    """Return what decodes a copy; what unfolds to very much is worth no call's delay."""
    return encoding.decoder_for(
        content_encoding, max_bytes_per_feed=MAX_UNFOLDED_BYTES, max_ratio=MAX_RATIO
    )


def _doubt(problem: str | None) -> str | None:
    """Return what is doubtful of a usage that was read; other problems are in its place."""
    return problem if problem == SEVERAL else None


def _ignore(chunk: bytes) -> None:
    """Look away."""


_NO_READER = NoReader()


class AnswerMeter:
    """Read what an upstream answers, from its content-encoded body without transfer coding.

    A stream comes in small pieces, of which few say something: a row of them is looked at at once.
    """

    __slots__ = (
        "_charged",
        "_decoder",
        "_findings",
        "_makes",
        "_operation",
        "_problem",
        "_reader",
        "_row",
        "_status",
        "_waiting",
        "lines",
    )

    def __init__(
        self,
        operation: Operation,
        *,
        status: int,
        content_type: str,
        content_encoding: str,
        max_event_bytes: int,
        max_body_bytes: int = MAX_BODY_BYTES,
        keep_bytes: int = 0,
    ) -> None:
        self._findings = Findings()
        self._row = 1  # pieces that are looked at at once
        self._waiting: list[bytes] = []  # fewer than a row, each of them small
        self.lines = self._findings.lines  # of a batch's output; whoever takes them clears it
        self._status = status
        self._operation = operation
        self._charged = operation.reads_usage and status in CHARGED_STATUS
        watches = operation.shows is not None and not self._charged and status == OK
        self._makes = operation.makes and status in CHARGED_STATUS
        self._problem: str | None = None
        self._reader: Reader = _NO_READER
        self._decoder: encoding.Decoder | None = None
        if self._charged:
            self._row = ROW  # nothing of it is wanted before its end
        elif status < ERROR_STATUS:
            self._findings.complete = True  # nothing is looked for, so nothing is missed
            if not watches:
                return
        decoder = _decoder_for(content_encoding) if content_encoding else None
        content_type = content_type.lower()
        bounds = {"max_event_bytes": max_event_bytes, "max_body_bytes": max_body_bytes}
        reader: Reader | None
        if watches:
            reader = watcher_for(self._findings, operation, content_type, **bounds)
        else:
            reader = reader_for(
                self._findings,
                operation.api_type,
                content_type,
                keep_bytes=keep_bytes if self._charged else 0,
                count=COUNTERS.get(operation.name) if self._charged else None,
                **bounds,
            )
        if content_encoding and decoder is None:
            self._problem = UNKNOWN_ENCODING
        elif reader is None and watches:
            self._findings.complete = True  # a film: nothing is to be found in it
        elif reader is None:
            self._problem = NOT_JSON
        else:
            self._reader, self._decoder = reader, decoder
            if decoder is not None:
                self._row = 1  # what is damaged would take with it what came before

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes: look at them, or let them wait for more."""
        try:
            waiting = self._waiting
            if len(chunk) > SMALL_BYTES:
                self._look(chunk)
            else:
                waiting.append(chunk)
                if len(waiting) >= self._row:
                    self._look(b"")
        except Exception:  # noqa: BLE001 (metering never fails a call)
            self._stop()

    def _look(self, chunk: bytes) -> None:
        """Look at what has waited, and at these bytes behind it."""
        if self._waiting:
            chunk = b"".join((*self._waiting, chunk))
            self._waiting.clear()
        decoder = self._decoder
        self._reader.feed(chunk if decoder is None else decoder.feed(chunk))

    def finish(self) -> Observation:
        """Return what the answer said."""
        try:
            if self._waiting:
                self._look(b"")
            if self._decoder is not None:
                self._decoder.finish()
                self._problem = self._problem or self._decoder.problem
            self._reader.finish()
        except Exception:  # noqa: BLE001 (metering never fails a call)
            self._stop()
        found = self._findings
        usage = found.usage if self._charged else None
        sightings, only = self._sightings(), None
        if len({seen.object_id for seen in sightings}) == 1:
            only = sightings[0]
        return Observation(
            response_model=found.model or (only.model if only and only.is_new else None),
            response_service_tier=found.service_tier,
            response_id=found.response_id or (only.object_id or None if only else None),
            response_status=found.status,
            usage=usage,
            usage_problem=self._usage_problem() if usage is None else _doubt(found.problem),
            error_type=found.error_type,
            failed=found.failed or self._status >= ERROR_STATUS,
            complete=found.complete,
            units=found.units,
            kept=found.kept if self._charged else None,
            sightings=sightings,
        )

    def _sightings(self) -> tuple[Sighting, ...]:
        """Return what is told of objects that are billed when they are done."""
        found = self._findings
        if not self._charged:
            return tuple(found.seen.values())
        if self._operation.shows is None or found.response_id is None:
            return ()
        is_later = found.background or (found.complete and found.status in UNFINISHED)
        if not is_later:
            return ()
        made = Sighting(
            kind=self._operation.shows,
            object_id=found.response_id,
            is_new=True,
            state=found.status,
            model=found.model,
        )
        return (made,)

    def _usage_problem(self) -> str | None:
        """Say why there is no usage; None for an answer that owes none."""
        found = self._findings
        if found.failed or not (self._charged or self._makes):
            return None
        if self._makes and found.seen:
            return DEFERRED
        if self._charged and found.background:
            return DEFERRED  # whether or not its stream was seen to its end
        if problem := self._problem or found.problem:
            return problem
        if not found.complete:
            return TRUNCATED
        return DEFERRED if found.status in UNFINISHED else NO_USAGE

    def _stop(self) -> None:
        self._reader = _NO_READER
        self._problem = FAULT

"""Read from the bytes that pass by what a charge needs: `feed(chunk)` looks, `finish()` tells.

`RequestMeter` reads the client's JSON, `AnswerMeter` the upstream's JSON or event stream, each from
a copy that it decodes itself. Nothing here raises into the relay: whatever the bytes, a fault
becomes a problem, a constant phrase. Usage is handed on as the bytes that came; it is read where it
is priced.
"""

from typing import Any

import msgspec

from proxy.core import encoding
from proxy.core.answers import NOT_JSON, TOO_LARGE, TRUNCATED, NoReader, Reader, reader_for
from proxy.core.findings import Findings, name_of, text_of
from proxy.core.mending import UNREADABLE, read
from proxy.core.operations import Operation
from proxy.core.scanning import BodyKeeper
from proxy.core.sse import BOM

MAX_BODY_BYTES = 1 << 20  # of an answer that is kept whole; a larger one is condensed
ERROR_STATUS = 400
CHARGED_STATUS = range(200, 300)
UNFINISHED = {"queued", "in_progress"}
UNKNOWN_ENCODING = "unknown_content_encoding"
NO_USAGE = "no_usage_in_answer"
DEFERRED = "usage_deferred"
FAULT = "meter_fault"


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the body of a request says; None where it says nothing that can be read."""

    model: str | None = None
    stream: bool | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None
    problem: str | None = None  # why the body could not be read


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


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    stream: bool | None = False
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None


class _OddRequest(msgspec.Struct):
    model: msgspec.Raw = msgspec.Raw()
    stream: msgspec.Raw = msgspec.Raw()
    service_tier: msgspec.Raw = msgspec.Raw()
    user: msgspec.Raw = msgspec.Raw()
    safety_identifier: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()


_read_request = msgspec.json.Decoder(_Request).decode
_read_odd_request = msgspec.json.Decoder(_OddRequest).decode
_read_value = msgspec.json.Decoder().decode
TRUTHS = {b"true": True, b"false": False, b"": False, b"null": False}


class RequestMeter:
    """Read what a client asks for from its JSON body; other bodies say nothing."""

    __slots__ = ("_decoder", "_keeper", "_problem")

    def __init__(
        self, operation: Operation, *, content_type: str, content_encoding: str, max_bytes: int
    ) -> None:
        del operation  # multipart bodies will differ by it
        reads = not content_type or "json" in content_type.lower()
        self._keeper = BodyKeeper(max_bytes=max_bytes) if reads else None
        self._decoder = encoding.decoder_for(content_encoding) if content_encoding else None
        self._problem: str | None = None
        if content_encoding and self._decoder is None:
            self._stop(UNKNOWN_ENCODING)

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        if self._keeper is None:
            return
        try:
            self._keeper.feed(chunk if self._decoder is None else self._decoder.feed(chunk))
        except Exception:  # noqa: BLE001 (metering never fails a call)
            self._stop(FAULT)

    def finish(self) -> RequestFacts:
        """Return what the body said."""
        if self._keeper is None:
            return RequestFacts(problem=self._problem)
        try:
            if self._decoder is not None:
                self._decoder.finish()
                if self._decoder.problem is not None:
                    return RequestFacts(problem=self._decoder.problem)
            return _facts(self._keeper.finish())
        except Exception as exc:  # noqa: BLE001 (metering never fails a call)
            return RequestFacts(problem=NOT_JSON if isinstance(exc, UNREADABLE) else FAULT)

    def _stop(self, problem: str) -> None:
        self._keeper = None
        self._problem = problem


def _facts(body: bytes | None) -> RequestFacts:
    if body is None:
        return RequestFacts(problem=TOO_LARGE)
    if not body:
        return RequestFacts()
    body = body.removeprefix(BOM)
    try:
        request = read(_read_request, body)
    except (msgspec.ValidationError, UnicodeDecodeError):
        return _odd_facts(read(_read_odd_request, body))
    return RequestFacts(
        model=name_of(request.model),
        stream=bool(request.stream),
        service_tier=name_of(request.service_tier),
        user=request.user,
        safety_identifier=request.safety_identifier,
        metadata=request.metadata,
    )


def _odd_facts(request: _OddRequest) -> RequestFacts:
    """Return what can be taken of a request with a member of an unexpected type."""
    return RequestFacts(
        model=text_of(request.model),
        stream=TRUTHS.get(bytes(request.stream)),
        service_tier=text_of(request.service_tier),
        user=_person(request.user),
        safety_identifier=_person(request.safety_identifier),
        metadata=_object(request.metadata),
    )


def _person(raw: msgspec.Raw) -> str | None:
    """Return who is meant, however odd: attribution judges it, and says why it was refused."""
    value = _value(raw)
    return value if isinstance(value, str) else None


def _object(raw: msgspec.Raw) -> dict[str, Any] | None:
    value = _value(raw)
    return value if isinstance(value, dict) else None


def _value(raw: msgspec.Raw) -> object:
    value = bytes(raw)
    try:
        return read(_read_value, value) if value else None
    except UNREADABLE:  # not UTF-8
        return None


class AnswerMeter:
    """Read what an upstream answers, from its content-encoded body without transfer coding."""

    __slots__ = ("_charged", "_decoder", "_findings", "_problem", "_reader", "_status")

    def __init__(
        self,
        operation: Operation,
        *,
        status: int,
        content_type: str,
        content_encoding: str,
        max_event_bytes: int,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._findings = Findings()
        self._status = status
        self._charged = operation.reads_usage and status in CHARGED_STATUS
        self._problem: str | None = None
        self._reader: Reader = NoReader()
        self._decoder: encoding.Decoder | None = None
        if not self._charged and status < ERROR_STATUS:
            self._findings.complete = True  # nothing is looked for, so nothing is missed
            return
        decoder = encoding.decoder_for(content_encoding) if content_encoding else None
        reader = reader_for(
            self._findings,
            operation.api_type,
            content_type.lower(),
            max_event_bytes=max_event_bytes,
            max_body_bytes=max_body_bytes,
        )
        if content_encoding and decoder is None:
            self._problem = UNKNOWN_ENCODING
        elif reader is None:
            self._problem = NOT_JSON
        else:
            self._reader, self._decoder = reader, decoder

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        try:
            decoder = self._decoder
            self._reader.feed(chunk if decoder is None else decoder.feed(chunk))
        except Exception:  # noqa: BLE001 (metering never fails a call)
            self._stop()

    def finish(self) -> Observation:
        """Return what the answer said."""
        try:
            if self._decoder is not None:
                self._decoder.finish()
                self._problem = self._problem or self._decoder.problem
            self._reader.finish()
        except Exception:  # noqa: BLE001 (metering never fails a call)
            self._stop()
        found = self._findings
        usage = found.usage if self._charged else None
        return Observation(
            response_model=found.model,
            response_service_tier=found.service_tier,
            response_id=found.response_id,
            response_status=found.status,
            usage=usage,
            usage_problem=self._usage_problem() if self._charged and usage is None else None,
            error_type=found.error_type,
            failed=found.failed or self._status >= ERROR_STATUS,
            complete=found.complete,
        )

    def _usage_problem(self) -> str | None:
        """Say why there is no usage; None for a failed answer, which owes none."""
        found = self._findings
        if found.failed:
            return None
        if problem := self._problem or found.problem:
            return problem
        if not found.complete:
            return TRUNCATED
        return DEFERRED if found.status in UNFINISHED else NO_USAGE

    def _stop(self) -> None:
        self._reader = NoReader()
        self._problem = FAULT

"""Read from a WebSocket what was billed in it: `feed(chunk)` tells at once, `finish()` the rest.

A session is no charge of its own: each response in it is one, and each transcription of what was
said into it, by a model of its own. Usage is in what the upstream says last of them; of the client
no more is read than the models that it asks for. Prompts, transcripts and answers are passed over.
Nothing here raises into the relay: what cannot be read becomes the session's problem, because
something may have been missed.
"""

import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from proxy.core.counting import NONE, UNREAD, tools_used
from proxy.core.dialects import TOOL_EVENTS, Dialect
from proxy.core.findings import Findings, Members, name_of, read_members, text_of
from proxy.core.hearing import ClientReader
from proxy.core.inflating import Extensions
from proxy.core.mending import UNREADABLE, read
from proxy.core.messages import MessageReader
from proxy.core.metering import FAULT, NO_USAGE, Observation
from proxy.core.model import AnswerUnits
from proxy.core.streams import NOT_JSON

MAX_REMEMBERED = 1024  # responses that are over; a second end of one of them is no second charge
CLEAN_CLOSES = (1000, 1001, 1005)  # RFC 6455 section 7.4.1


class Begun(msgspec.Struct, frozen=True, gc=False):
    """A response is being made."""

    response_id: str
    model: str | None
    request_model: str | None = None


class Billed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A response or a transcription is over."""

    operation_name: str
    seen: Observation
    user: str | None = None
    metadata: dict[str, Any] | None = None
    request_model: str | None = None


TRANSCRIPTION = "realtime.transcription"


class _Event(msgspec.Struct, gc=False):
    type: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    session: msgspec.Raw = msgspec.Raw()
    item_id: msgspec.Raw = msgspec.Raw()
    content_index: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    event: msgspec.Raw = msgspec.Raw()
    decision: msgspec.Raw = msgspec.Raw()


class _Response(msgspec.Struct, gc=False):
    """What a response echoes of its request, and why it failed."""

    user: msgspec.Raw = msgspec.Raw()
    safety_identifier: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()
    status_details: msgspec.Raw = msgspec.Raw()


class _Session(msgspec.Struct, gc=False):
    """A session, as the API says it today and as the beta did."""

    id: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()
    audio: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    transcription: msgspec.Raw = msgspec.Raw()
    input_audio_transcription: msgspec.Raw = msgspec.Raw()


_read_event = msgspec.json.Decoder(_Event).decode
_read_response = msgspec.json.Decoder(_Response).decode
_read_session = msgspec.json.Decoder(_Session).decode
_read_object = msgspec.json.Decoder(dict[str, Any]).decode


class SessionMeter:
    """Reads what the upstream says in one session; of the client, what `hearing` tells."""

    __slots__ = (
        "_begun",
        "_client",
        "_client_closed",
        "_dialect",
        "_error_type",
        "_id",
        "_messages",
        "_model",
        "_over",
        "_problem",
        "_tools_ran",
        "_transcriber",
        "_usage",
    )

    def __init__(
        self,
        dialect: Dialect,
        extensions: Extensions,
        *,
        max_event_bytes: int,
        at_once: int = sys.maxsize,
    ) -> None:
        """Take what the session speaks, and the effort of one look: about so many frames."""
        self._dialect = dialect
        self._messages = MessageReader(
            extensions, max_bytes=max_event_bytes, matters=dialect.matters, at_once=at_once
        )
        self._client = ClientReader(
            dialect.asks, extensions, max_bytes=max_event_bytes, at_once=at_once
        )
        self._begun: str | None = None  # the last response
        self._client_closed = False  # before the upstream did
        self._id: str | None = None
        self._model: str | None = None
        self._transcriber: str | None = None
        self._error_type: str | None = None
        self._problem: str | None = None
        self._tools_ran = False  # hosted ones, in something delegated
        self._usage: bytes | None = None  # of the session itself, so far
        self._over: deque[str] = deque(maxlen=MAX_REMEMBERED)

    def feed(self, chunk: bytes) -> Iterator[Begun | Billed]:
        """Yield what begins and what is billed in these bytes, one thing after another."""
        if self._problem == FAULT:
            return
        try:
            for message in self._messages.feed(chunk):
                yield from self._read(message)
        except Exception:  # noqa: BLE001 (metering never fails a call)
            self._problem = FAULT

    @property
    def unread(self) -> int:
        """Return how many bytes at the end of the last ones are to be fed again."""
        return self._messages.unread

    def feed_client(self, chunk: bytes) -> int:
        """Look for requests in what the client says, and for a close frame.

        Return how many bytes at its end are to be fed again.
        """
        if self._messages.close_code is not None:
            return 0
        self._client.feed(chunk)
        self._client_closed = self._client.has_closed
        return self._client.unread

    def finish(self) -> Observation:
        """Return what is known of the session itself."""
        messages = self._messages
        messages.finish()
        code = messages.close_code
        failed = code is not None and code not in CLEAN_CLOSES and not self._client_closed
        return Observation(
            response_model=self._model or self._transcriber,
            response_id=self._id,
            usage=self._usage,
            usage_problem=self._problem or messages.problem,
            error_type=f"websocket_close_{code}" if failed else self._error_type,
            failed=failed,
        )

    def _read(self, message: bytes) -> list[Begun | Billed]:
        found: list[Begun | Billed] = []
        try:
            event = read(_read_event, message)
            kind = _kind(event)
            if kind in self._dialect.wraps:
                message = _object(event.event)
                event = read(_read_event, message)
                kind = _kind(event)
                self._tools_ran = self._tools_ran or kind.startswith(TOOL_EVENTS)
            self._note(kind, event, message, found)
        except UNREADABLE:
            self._problem = NOT_JSON
        return found

    def _note(
        self, kind: bytes, event: _Event, message: bytes, found: list[Begun | Billed]
    ) -> None:
        dialect = self._dialect
        if kind == b"error":
            errors = Findings()
            errors.note_error(read_members(message))
            self._error_type = errors.error_type
            self._client.next_model()  # to that request this is the answer
        elif kind in dialect.tells_session:
            self._note_session(_read_session(_object(event.session)))
            if bytes(event.usage).startswith(b"{"):
                self._usage = bytes(event.usage)
        elif kind and kind == dialect.begins:
            begun = read_members(_object(event.response))
            if (response_id := name_of(begun.id)) is not None:
                asked, self._begun = self._client.next_model(), response_id
                model = name_of(begun.model) or self._default_model
                found.append(Begun(response_id, model, asked))
        elif kind in dialect.ends:
            self._note_response(_object(event.response), found)
        elif kind and kind == dialect.transcribes:
            found.append(self._transcription(event))
        elif kind and kind == dialect.decides:
            found.append(_decision(_object(event.decision)))

    def _note_session(self, session: _Session) -> None:
        self._id = text_of(session.id) or self._id
        self._model = text_of(session.model) or self._model
        audio = _read_session(_object(session.audio))
        heard = _read_session(_object(audio.input)).transcription
        transcriber = _read_session(_object(heard)).model
        older = _read_session(_object(session.input_audio_transcription)).model
        self._transcriber = text_of(transcriber) or text_of(older) or self._transcriber

    def _note_response(self, response: bytes, found: list[Begun | Billed]) -> None:
        answer, echo = read_members(response), read(_read_response, response)
        findings = Findings(model=self._default_model)
        findings.note(answer)
        details = _object(echo.status_details)
        if findings.failed and b'"error"' in details:
            findings.note_error(read_members(details))
        if findings.response_id in self._over:
            return
        if findings.response_id is not None:
            self._over.append(findings.response_id)
        asked = None if findings.response_id == self._begun else self._client.next_model()
        self._begun = None
        metadata = _object(echo.metadata)
        found.append(
            Billed(
                operation_name=self._dialect.operation_name,
                seen=Observation(
                    response_model=findings.model,
                    response_service_tier=findings.service_tier,
                    response_id=findings.response_id,
                    response_status=findings.status,
                    usage=findings.usage,
                    usage_problem=None if findings.usage or findings.failed else NO_USAGE,
                    error_type=findings.error_type,
                    failed=findings.failed,
                    complete=True,
                    units=self._units(response, answer),
                ),
                user=text_of(echo.safety_identifier) or text_of(echo.user),
                metadata=read(_read_object, metadata) if metadata != _NO_OBJECT else None,
                request_model=asked,
            )
        )

    def _units(self, response: bytes, answer: Members) -> AnswerUnits:
        """Count hosted tools; what is delegated is told without its output, and so without them."""
        if not self._dialect.wraps:
            return tools_used(response, answer, is_condensed=False)
        return UNREAD if self._tools_ran else NONE

    @property
    def _default_model(self) -> str | None:
        """Return the model of a response that does not name its own: never that of a delegate."""
        return None if self._dialect.wraps else self._model

    def _transcription(self, event: _Event) -> Billed:
        usage, part = bytes(event.usage), bytes(event.content_index)
        told = usage.startswith(b"{")
        name = text_of(event.item_id)
        if name is not None and part.isdigit() and part != b"0":
            name = name_of(f"{name}/{part.decode()}")  # a further part of the same item
        seen = Observation(
            response_model=self._transcriber,
            response_id=name,
            usage=usage if told else None,
            usage_problem=None if told else NO_USAGE,
            complete=True,
        )
        return Billed(operation_name=TRANSCRIPTION, seen=seen)


_NO_OBJECT = b"{}"


def _kind(event: _Event) -> bytes:
    return (text_of(event.type) or "").encode()


def _decision(decision: bytes) -> Billed:
    findings = Findings()
    findings.note(read_members(decision))
    seen = Observation(
        response_model=findings.model,
        response_service_tier=findings.service_tier,
        response_id=findings.response_id,
        usage=findings.usage,
        usage_problem=None if findings.usage else NO_USAGE,
        complete=True,
    )
    return Billed(operation_name="decisions", seen=seen)


def _object(raw: msgspec.Raw) -> bytes:
    """Return the JSON of an object, an empty one where it is none."""
    text = bytes(raw)
    return text if text.startswith(b"{") else _NO_OBJECT

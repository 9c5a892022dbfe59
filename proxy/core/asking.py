"""What a request asks for: model, stream, who it is for, and what may be billed by the unit.

From a JSON body or from the fields of a form. Members are taken as they come: one of an unexpected
type says nothing, and the upstream will refuse it.
"""

from typing import Any

import msgspec

from proxy.core.durations import AudioProbe
from proxy.core.findings import name_of, text_of
from proxy.core.mending import UNREADABLE, read
from proxy.core.model import BACKGROUND_TIER, RequestUnits
from proxy.core.multipart import FormReader, boundary_of
from proxy.core.registry import Operation
from proxy.core.sse import BOM

TOO_LARGE = "body_too_large"
FORM_FIELDS = frozenset(
    (b"model", b"stream", b"user", b"safety_identifier", b"n", b"size", b"quality", b"seconds")
)
SPEECH = "audio.speech"
HEARERS = {"audio.transcriptions", "audio.translations"}  # of a file whose length may be billed
BILLED_BY_UNITS = {
    SPEECH,
    "images.generations",
    "images.edits",
    "images.variations",
    "videos.extensions",
}
MAX_WORD = 32
SOONEST = "soonest"
MAX_COUNT_DIGITS = 4


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the body of a request says; None where it says nothing that can be read."""

    model: str | None = None
    stream: bool | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None
    problem: str | None = None  # why the body could not be read
    units: RequestUnits | None = None  # of an operation that may be billed by them


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    stream: bool | None = False
    service_tier: str | None = None
    background_options: msgspec.Raw = msgspec.Raw()
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None


class _OddRequest(msgspec.Struct):
    model: msgspec.Raw = msgspec.Raw()
    stream: msgspec.Raw = msgspec.Raw()
    service_tier: msgspec.Raw = msgspec.Raw()
    background_options: msgspec.Raw = msgspec.Raw()
    user: msgspec.Raw = msgspec.Raw()
    safety_identifier: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()


class _BackgroundOptions(msgspec.Struct):
    completion_window: msgspec.Raw = msgspec.Raw()


class _Asked(msgspec.Struct):
    """What images, speech and the extension of a video are billed by."""

    n: msgspec.Raw = msgspec.Raw()
    size: msgspec.Raw = msgspec.Raw()
    quality: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    stream_format: msgspec.Raw = msgspec.Raw()
    seconds: msgspec.Raw = msgspec.Raw()


_read_options = msgspec.json.Decoder(_BackgroundOptions).decode
_read_asked = msgspec.json.Decoder(_Asked).decode
_read_request = msgspec.json.Decoder(_Request).decode
_read_odd_request = msgspec.json.Decoder(_OddRequest).decode
_read_value = msgspec.json.Decoder().decode
TRUTHS = {b"true": True, b"false": False, b"": False, b"null": False}


def facts_of_json(body: bytes | None) -> RequestFacts:
    """Return what a JSON body says; None: it was too large to be kept. Raises one of UNREADABLE."""
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
        service_tier=_tier(name_of(request.service_tier), request.background_options),
        user=request.user,
        safety_identifier=request.safety_identifier,
        metadata=request.metadata,
    )


def facts_with_units(body: bytes | None, operation: Operation) -> RequestFacts:
    """Return what a JSON body says, and what of it is billed by the unit."""
    facts = facts_of_json(body)
    if not body:
        return facts
    asked = read(_read_asked, body.removeprefix(BOM))
    speaks = operation.name == SPEECH
    text = _value(asked.input) if speaks else None
    streams = facts.stream or (speaks and text_of(asked.stream_format) == "sse")
    units = RequestUnits(
        images=_small_count(bytes(asked.n).decode("ascii", "replace")),
        size=_word(text_of(asked.size)),
        quality=_word(text_of(asked.quality)),
        characters=len(text) if isinstance(text, str) else None,
        video_seconds=_small_count(bytes(asked.seconds).strip(b'"').decode("ascii", "replace")),
    )
    return msgspec.structs.replace(facts, stream=streams, units=units)


class Form:
    """A form that is uploaded: a few of its fields, and how long its file plays."""

    def __init__(self, operation: Operation, content_type: str) -> None:
        self._probe = AudioProbe() if operation.name in HEARERS else None
        self._reader = FormReader(
            boundary_of(content_type),
            names=FORM_FIELDS,
            file_name=b"file",
            show=self._probe.feed if self._probe else None,
        )
        self.feed = self._reader.feed

    def finish(self) -> RequestFacts:
        """Return what the form said."""
        self._reader.finish()
        texts = {name.decode(): _text_of(value) for name, value in self._reader.fields.items()}
        units = RequestUnits(
            images=_small_count(texts.get("n", "")),
            size=_word(texts.get("size")),
            quality=_word(texts.get("quality")),
            audio_seconds=self._probe.finish() if self._probe else None,
            video_seconds=_small_count(texts.get("seconds", "")),
        )
        return RequestFacts(
            model=name_of(texts.get("model")),
            stream=texts.get("stream", "").lower() in {"true", "1"},
            user=texts.get("user") or None,
            safety_identifier=texts.get("safety_identifier") or None,
            problem=self._reader.problem,
            units=units if self._reader.problem is None else None,
        )


def _odd_facts(request: _OddRequest) -> RequestFacts:
    """Return what can be taken of a request with a member of an unexpected type."""
    return RequestFacts(
        model=text_of(request.model),
        stream=TRUTHS.get(bytes(request.stream)),
        service_tier=_tier(text_of(request.service_tier), request.background_options),
        user=_person(request.user),
        safety_identifier=_person(request.safety_identifier),
        metadata=_object(request.metadata),
    )


def _tier(service_tier: str | None, background_options: msgspec.Raw) -> str | None:
    """Return the tier; to let an answer wait for hours has a price of its own."""
    options = bytes(background_options)
    if not options.startswith(b"{"):
        return service_tier
    window = text_of(read(_read_options, options).completion_window)
    return service_tier if window in {None, SOONEST} else f"{BACKGROUND_TIER}{window}"


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


def _text_of(value: bytes) -> str:
    return value.decode(errors="replace").strip()


def _word(text: str | None) -> str | None:
    """Return a size or a quality: a short word that is a key of the price list, or is not."""
    return text if text and len(text) <= MAX_WORD and text.isprintable() else None


def _small_count(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= MAX_COUNT_DIGITS else None

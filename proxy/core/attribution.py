"""Who a call is for, read from header fields and, where those are silent, from the body.

Nothing here fails a call: what cannot be read, or looks like a key, is left out, and `problem`
names the field and the reason. Values are never put into that text: they may be personal.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from proxy.core.headers import Fields
from proxy.core.model import Attribution

MAX_ID_CHARACTERS = 256
MAX_METADATA_BYTES = 8192
MAX_METADATA_KEYS = 64
MAX_REMEMBERED = 1024
MAX_REMEMBERED_BYTES = 512  # of the lines of one call
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_KEY_SHAPED = re.compile(r"\b(sk|sess|ek)-[A-Za-z0-9_-]{8,}|(?i:\bbearer )[!-~]{8,}")  # as in logs
_SHORTEST_KEY = 11  # characters
_KEY = "looks like a key"
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


NOBODY = Attribution()


class Attributed(Protocol):
    """Where the attribution fields stand in heads of one shape."""

    @property
    def names(self) -> tuple[bytes, ...]:
        """Their lower-case names, in the order of the head."""

    @property
    def pick(self) -> Callable[[list[bytes]], tuple[bytes, ...]]:
        """What takes their lines out of a head's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributionFields:
    """The lower-case names of the header fields that carry attribution, first one wins."""

    user: tuple[bytes, ...] = (b"x-meter-user",)
    endpoint: tuple[bytes, ...] = (b"x-meter-endpoint",)
    metadata: tuple[bytes, ...] = (b"x-meter-metadata",)
    metadata_prefixes: tuple[bytes, ...] = (b"x-meter-metadata-",)

    @property
    def names(self) -> tuple[bytes, ...]:
        """All names that are whole."""
        return (*self.user, *self.endpoint, *self.metadata)

    def singles(self, fields: Fields) -> list[tuple[bytes, bytes]]:
        """Return the fields that carry one value of metadata each: name and key."""
        prefixes = self.metadata_prefixes
        return [
            (name, name[len(prefix) :])
            for name in fields
            if name.startswith(prefixes) and name not in self.names
            for prefix in prefixes
            if name.startswith(prefix) and len(name) > len(prefix)
        ]


class _UnreadableError(ValueError):
    """A value that cannot be taken; the text says why."""


def from_headers(fields: Fields, names: AttributionFields) -> Attribution:
    """Return what the header fields say."""
    problems: list[str] = []
    return Attribution(
        user_id=_identifier(fields, names.user, problems),
        endpoint=_identifier(fields, names.endpoint, problems),
        metadata=_metadata(fields, names, problems) or None,
        problem="; ".join(problems) or None,  # evaluated last
    )


class Attributions:
    """Whom calls are for, as their header lines say; lines that come again are looked up.

    How many are remembered is bounded, because clients choose them, and what looks like a key is
    not among them.
    """

    def __init__(self, names: AttributionFields) -> None:
        """Take the names of the fields."""
        self._names = names
        self._known: dict[tuple[bytes, ...], Attribution] = {}

    def of(self, attributed: Attributed | None, lines: list[bytes]) -> Attribution:
        """Return what the lines of a head say."""
        if attributed is None:
            return NOBODY
        found = attributed.pick(lines)
        who = self._known.get(found)
        if who is None:
            who = from_headers(_fields(attributed.names, found), self._names)
            if who.problem is None and sum(map(len, found)) <= MAX_REMEMBERED_BYTES:
                if len(self._known) >= MAX_REMEMBERED:
                    self._known.clear()
                self._known[found] = who
        return who


def _fields(names: Iterable[bytes], lines: Iterable[bytes]) -> Fields:
    fields: Fields = {}
    for name, line in zip(names, lines, strict=True):
        fields.setdefault(name, []).append(line.partition(b":")[2].strip(b" \t"))
    return fields


def with_body(
    headers: Attribution, *, user: str | None, metadata: Mapping[str, Any] | None
) -> Attribution:
    """Return the attribution with the body's user and metadata below that of the headers.

    A user field that was sent but could not be read is not replaced: that would be a guess.
    """
    if (user is None or headers.user_id is not None) and not metadata:
        return headers
    problems = [headers.problem] if headers.problem else []
    user_id = headers.user_id
    if user and user_id is None and not problems:
        try:
            user_id = _checked(user)
        except _UnreadableError as exc:
            problems.append(f"body user: {exc}")
    merged = headers.metadata
    if metadata:
        kept = _without_keys(metadata)
        if len(kept) < len(metadata):
            problems.append(f"body metadata: {_KEY}")
        merged = {**kept, **(headers.metadata or {})} or None
        if (fault := _metadata_fault(merged or {})) is not None:
            problems.append(f"body metadata: {fault}")
            merged = headers.metadata
    return Attribution(
        user_id=user_id,
        endpoint=headers.endpoint,
        metadata=merged,
        problem="; ".join(problems) or None,
    )


def _identifier(fields: Fields, names: tuple[bytes, ...], problems: list[str]) -> str | None:
    for name in names:
        for value in fields.get(name, ()):
            if not value:
                continue
            try:
                return _checked(_utf8(value))
            except _UnreadableError as exc:
                problems.append(f"{name.decode()}: {exc}")
                return None
    return None


def _metadata(
    fields: Fields, names: AttributionFields, problems: list[str]
) -> dict[str, Any] | None:
    merged: dict[str, Any] = {}
    for name in names.metadata:
        for value in fields.get(name, ()):
            try:
                found = _object(value)
            except _UnreadableError as exc:
                problems.append(f"{name.decode()}: {exc}")
                continue
            if _may_hold_a_key(value.decode("latin-1")):
                kept = _without_keys(found)
                if len(kept) < len(found):
                    problems.append(f"{name.decode()}: {_KEY}")
                found = kept
            merged = {**found, **merged} if merged else found
    for name, key in names.singles(fields):
        if len(key) >= _SHORTEST_KEY and _looks_like_key(key.decode("latin-1")):
            problems.append(f"{name.removesuffix(key).decode()}: {_KEY}")
            continue
        try:
            merged[_utf8(key)] = _checked(_utf8(fields[name][0]))
        except _UnreadableError as exc:
            problems.append(f"{name.decode('latin-1')}: {exc}")
    if len(merged) > MAX_METADATA_KEYS:
        problems.append(f"metadata: more than {MAX_METADATA_KEYS} keys")
        return None
    return merged


def _object(value: bytes) -> dict[str, Any]:
    """Return a JSON object; a header field holds no control character that is not escaped."""
    if not value:
        return {}
    if len(value) > MAX_METADATA_BYTES:
        raise _UnreadableError(f"longer than {MAX_METADATA_BYTES} bytes")
    try:
        found = _decode_object(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _UnreadableError("not a JSON object") from exc
    if b"\\u" in value and (fault := _metadata_fault(found)) is not None:
        raise _UnreadableError(fault)
    return found


def _metadata_fault(metadata: Mapping[str, Any]) -> str | None:
    if len(metadata) > MAX_METADATA_KEYS:
        return f"more than {MAX_METADATA_KEYS} keys"
    try:
        encoded = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return "not representable as JSON"
    if len(encoded.encode("utf-8", "surrogatepass")) > MAX_METADATA_BYTES:
        return f"longer than {MAX_METADATA_BYTES} bytes"
    if _CONTROL.search(encoded) or "\\u0000" in encoded:
        return "control characters"
    return None


def _utf8(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise _UnreadableError("not UTF-8") from exc


def _checked(value: str) -> str:
    if len(value) > MAX_ID_CHARACTERS:
        raise _UnreadableError(f"longer than {MAX_ID_CHARACTERS} characters")
    if not value.isprintable() and _CONTROL.search(value):
        raise _UnreadableError("control characters")
    if len(value) >= _SHORTEST_KEY and _looks_like_key(value):
        raise _UnreadableError(_KEY)
    return value


def _without_keys(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out each member that holds what looks like a key, however deep."""
    return {
        name: value
        for name, value in metadata.items()
        if not any(map(_looks_like_key, _strings([name, value])))
    }


def _strings(value: object) -> Iterator[str]:
    """Yield the strings in a JSON value; it may be deeper than Python recurses."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            left += (*one, *one.values())
        elif isinstance(one, list):
            left += one


def _may_hold_a_key(text: str) -> bool:
    """Tell whether a closer look at an object is due: this one is taken at every call."""
    return "k-" in text or "sess-" in text or "r " in text or "R " in text or "\\" in text


def _looks_like_key(text: str) -> bool:
    """Tell whether a secret was sent by mistake; the first look is cheap, it is taken always."""
    return ("k-" in text or "sess-" in text or " " in text) and bool(_KEY_SHAPED.search(text))

"""Ask for usage in a stream whose client did not, and take its traces out of the answer again.

A streamed chat or text completion tells its usage only if `stream_options.include_usage` is true.
The request gets that one option as bytes, everything else in it stays where it was. The answer then
has an event more (no choices, only usage) and `"usage":null` in the others; `UsageStripper` takes
out exactly these. What is not certain to be one of them passes as it came.

Most events end in `,"usage":null}`, perhaps with a few plain members behind it, or begin with plain
members up to it. Then the member is at the top level for certain, since in valid JSON nothing but
the whole object can begin or end there, and it is cut without reading the event.
"""

import re

import msgspec

from proxy.core.mending import UNREADABLE, read
from proxy.core.scanning import Member, members_of
from proxy.core.sse import BOM, SseFramer, has_many_lines, split

PLAIN = rb'"(?!usage")[^"\\]*+":(?:"[^"\\]*+"|null|true|false|-?[0-9.]++)'
HEAD = re.compile(rb"data: ?\{(?:" + PLAIN + rb',)*+("usage":null,)(?=")')
TAIL = re.compile(rb',"usage":null(?:,' + PLAIN + rb")*+\} ?(?:\r\n|\r|\n)*+\Z")
NULL_MEMBER = b',"usage":null'
LINE = re.compile(rb"([^\r\n]*+)(\r\n|\r|\n|\Z)")
DATA_FIELD = re.compile(rb"data(?:: ?|\Z)")
LINE_END_BEFORE_OTHER_FIELD = re.compile(rb"(?:\r\n|\r(?!\n)|\n)(?!data)")
EMPTY_OBJECT = re.compile(rb"\{[ \t\r\n]*+\}")
EMPTY_ARRAY = re.compile(rb"\[[ \t\r\n]*+\]")
LEAD = re.compile(rb"(?:\xef\xbb\xbf)?[\r\n]*+")
OPTION = b'"include_usage":true'


class _StreamRequest(msgspec.Struct):
    stream: msgspec.Raw = msgspec.Raw()
    stream_options: msgspec.Raw = msgspec.Raw()


class _StreamOptions(msgspec.Struct):
    include_usage: msgspec.Raw = msgspec.Raw()


class _Chunk(msgspec.Struct):
    choices: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()


_read_request = msgspec.json.Decoder(_StreamRequest).decode
_read_options = msgspec.json.Decoder(_StreamOptions).decode
_read_chunk = msgspec.json.Decoder(_Chunk).decode


def splice_include_usage(body: bytes) -> bytes | None:
    """Return a streamed request that asks for usage; None: nothing to do, forward it as it is."""
    if b'"stream"' not in body:
        return None
    try:
        request = read(_read_request, body.removeprefix(BOM))
        if bytes(request.stream) != b"true":
            return None
        return _splice(body, bytes(request.stream_options))
    except (*UNREADABLE, ValueError):
        return None


def _splice(body: bytes, options: bytes) -> bytes | None:
    if not options:
        return _insert(body, 0, b'"stream_options":{' + OPTION + b"}")
    asked = b"" if options == b"null" else bytes(_read_options(options).include_usage)
    if asked not in {b"", b"null", b"false"}:
        return None  # it asks already
    member = _last(members_of(body), b'"stream_options"')
    if member is None:
        return None
    if options == b"null":
        return _replace(body, member, b"{" + OPTION + b"}")
    if not asked:
        return _insert(body, member.value_start, OPTION)
    inner = _last(members_of(body, member.value_start), b'"include_usage"')
    return None if inner is None else _replace(body, inner, b"true")


def _insert(body: bytes, start: int, member: bytes) -> bytes:
    """Put a member right behind the brace that opens the object at start."""
    brace = body.index(b"{", start) + 1
    comma = b"" if EMPTY_OBJECT.match(body, start) else b","
    return body[:brace] + member + comma + body[brace:]


def _replace(body: bytes, member: Member, value: bytes) -> bytes:
    return body[: member.value_start] + value + body[member.value_end :]


def _last(members: list[Member], key: bytes) -> Member | None:
    """Return the member that counts where a key stands twice: the last one."""
    return next((member for member in reversed(members) if member.key == key), None)


class UsageStripper:
    """Give back the stream that would have come without the option."""

    __slots__ = ("_framer", "_max_event_bytes")

    def __init__(self, max_event_bytes: int) -> None:
        self._framer = SseFramer(max_event_bytes=max_event_bytes)
        self._max_event_bytes = max_event_bytes

    def feed(self, chunk: bytes) -> bytes:
        """Return the bytes for the client: all events that are whole, less the traces."""
        at = chunk.rfind(NULL_MEMBER)
        if (
            at >= 0
            and self._framer.between
            and chunk.endswith(b"\n\n")
            and chunk.find(b"\n") == len(chunk) - 2 <= self._max_event_bytes
            and chunk.startswith(b"data:")
            and chunk.find(b"\r") < 0
            and TAIL.match(chunk, at)
        ):  # one event of one line, as nearly all are: what `_strip_plainly` would find
            return chunk[:at] + chunk[at + len(NULL_MEMBER) :]
        spill, whole = self._framer.feed(chunk)
        if b'"usage"' not in whole:
            return spill + whole if spill else whole
        return spill + b"".join(map(self._strip, split(whole)))

    def finish(self) -> bytes:
        """Return what is held of an event that the stream did not end."""
        return self._strip(self._framer.finish())

    def _strip(self, event: bytes) -> bytes:
        if b'"usage"' not in event or len(event) > self._max_event_bytes:
            return event
        return _strip_plainly(event) or _strip_carefully(event)


def _strip_plainly(event: bytes) -> bytes | None:
    """Cut the member where it is at the top level at first sight; None: look closer."""
    if not event.startswith(b"data:"):
        return None
    at = event.rfind(NULL_MEMBER)
    if at < 0 or event.find(b"\n", 0, at) >= 0 or event.find(b"\r", 0, at) >= 0:
        return None
    if TAIL.match(event, at):
        return event[:at] + event[at + len(NULL_MEMBER) :]
    found = HEAD.match(event)
    return event[: found.start(1)] + event[found.end(1) :] if found else None


def _strip_carefully(event: bytes) -> bytes:
    if has_many_lines(event):
        return event
    text = _json_in_place(event)
    try:
        chunk = read(_read_chunk, text)
        usage, choices = bytes(chunk.usage), bytes(chunk.choices)
        if usage.startswith(b"{") and EMPTY_ARRAY.fullmatch(choices):
            return event[: LEAD.match(event).end()]  # type: ignore[union-attr]  # matches anything
        if usage == b"null" or (usage.startswith(b"{") and choices.startswith(b"[")):
            return _cut_member(event, members_of(text))
    except (*UNREADABLE, ValueError):
        pass
    return event


def _cut_member(event: bytes, members: list[Member]) -> bytes:
    """Take the usage member out, with the comma and the space that came with it."""
    keys = [member.key for member in members]
    if b'"usage"' not in keys:
        return event
    index = keys.index(b'"usage"')
    start, end = members[index].start, members[index].value_end
    if index > 0:
        start = members[index - 1].value_end
    elif len(members) > 1:
        end = members[1].start
    if LINE_END_BEFORE_OTHER_FIELD.search(event, start, end):
        return event
    return event[:start] + event[end:]


def _json_in_place(event: bytes) -> bytes:
    """Return the data of an event at the offsets it has there, all other bytes blank."""
    text = bytearray(b" " * len(event))
    for line in LINE.finditer(event, len(BOM) if event.startswith(BOM) else 0):
        field = DATA_FIELD.match(line[1])
        if field is not None:
            start, end = line.start(1) + field.end(), line.end(1)
            text[start:end] = event[start:end]
    return bytes(text)

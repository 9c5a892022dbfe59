"""What has been read of an answer, and the members of its JSON in which that stands.

Later words win over earlier ones: that is how the served tier of a Responses stream is known,
`auto` when it is created and `default` when it is completed. Members are taken as they come,
whatever their type: an answer with an odd model still has its usage.
"""

from typing import NamedTuple

import msgspec

from proxy.core.mending import UNREADABLE, read
from proxy.core.model import AnswerUnits, Sighting

NOTHING = {b"", b"null"}
MAX_TEXT_BYTES = 2048  # of a name or an id with its quotes and escapes


class Members(msgspec.Struct, gc=False):
    """The members that matter in an answer, in a chunk of one, and in an event about one."""

    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    status: str | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    type: msgspec.Raw = msgspec.Raw()
    code: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()
    tool_usage: msgspec.Raw = msgspec.Raw()
    background: msgspec.Raw = msgspec.Raw()
    item: msgspec.Raw = msgspec.Raw()


class _OddMembers(msgspec.Struct):
    """The same, of any type."""

    id: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()
    service_tier: msgspec.Raw = msgspec.Raw()
    status: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    type: msgspec.Raw = msgspec.Raw()
    code: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()
    tool_usage: msgspec.Raw = msgspec.Raw()
    background: msgspec.Raw = msgspec.Raw()
    item: msgspec.Raw = msgspec.Raw()


_read_members = msgspec.json.Decoder(Members).decode
_read_odd_members = msgspec.json.Decoder(_OddMembers).decode
_read_text = msgspec.json.Decoder(str).decode


def name_of(text: str | None) -> str | None:
    """Return a name or an id; None for what is empty, far too long or unprintable."""
    return text if text and len(text) <= MAX_TEXT_BYTES and text.isprintable() else None


def text_of(raw: msgspec.Raw) -> str | None:
    """Return a name or an id; None for what is no string, empty, far too long or unprintable."""
    value = bytes(raw)
    if not value.startswith(b'"') or len(value) > MAX_TEXT_BYTES:
        return None
    try:
        return name_of(_read_text(value))
    except UNREADABLE:  # half a character, or not UTF-8
        return None


def read_members(text: bytes) -> Members:
    """Return the members of an answer or an event; raises one of UNREADABLE."""
    try:
        return read(_read_members, text)
    except (msgspec.ValidationError, UnicodeDecodeError):
        odd = read(_read_odd_members, text)
    return Members(
        id=text_of(odd.id),
        model=text_of(odd.model),
        service_tier=text_of(odd.service_tier),
        status=text_of(odd.status),
        usage=odd.usage,
        error=odd.error,
        type=odd.type,
        code=odd.code,
        response=odd.response,
        tools=odd.tools,
        output=odd.output,
        tool_usage=odd.tool_usage,
        background=odd.background,
        item=odd.item,
    )


class Kept(NamedTuple):
    """The beginning of an answer that does not say what it used, so that it can be counted."""

    kind: str  # stream, json, text, or sound (of which nothing is kept)
    data: bytes  # decoded
    size: int  # of all that came


class Findings(msgspec.Struct, gc=False):
    """What has been read of an answer so far."""

    model: str | None = None
    service_tier: str | None = None
    response_id: str | None = None
    status: str | None = None
    usage: bytes | None = None
    problem: str | None = None
    error_type: str | None = None
    failed: bool = False
    complete: bool = False
    units: AnswerUnits | None = None
    kept: Kept | None = None
    background: bool = False
    seen: dict[tuple[str, str, bool], Sighting] = {}  # by object, part, and whether it is new
    lines: list[Sighting] = []  # of a batch's output, until somebody takes them

    def note(self, answer: Members) -> None:
        """Take over what an answer says, or a chunk of one."""
        self.model = name_of(answer.model) or self.model
        self.service_tier = name_of(answer.service_tier) or self.service_tier
        self.response_id = name_of(answer.id) or self.response_id
        self.status = name_of(answer.status) or self.status
        self.background = self.background or bytes(answer.background) == b"true"
        usage = bytes(answer.usage)
        if usage.startswith(b"{"):
            self.usage = usage
        if bytes(answer.error) not in NOTHING:
            self.note_error(answer)
        elif self.status == "failed":
            self.failed = True

    def see(self, sightings: tuple[Sighting, ...]) -> None:
        """Take over what an answer tells of objects that are billed when they are done."""
        for seen in sightings:
            self.seen[seen.object_id, seen.part, seen.is_new] = seen

    def note_error(self, answer: Members) -> None:
        """Take over an error: its code, where it has none its type."""
        self.failed = True
        error = bytes(answer.error)
        members = read_members(error) if error.startswith(b"{") else answer
        self.error_type = _code_of(members) or self.error_type


def _code_of(error: Members) -> str | None:
    """Return what names an error; codes are words, and sometimes numbers."""
    code = bytes(error.code)
    return code.decode() if code.isdigit() else text_of(error.code) or text_of(error.type)

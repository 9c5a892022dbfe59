"""What has been read of an answer, and the members of its JSON in which that stands.

Later words win over earlier ones: that is how the served tier of a Responses stream is known,
`auto` when it is created and `default` when it is completed. Members are taken as they come,
whatever their type: an answer with an odd model still has its usage.
"""

import msgspec

from proxy.core.mending import UNREADABLE, read

NOTHING = {b"", b"null"}
MAX_TEXT_BYTES = 2048  # of a name or an id with its quotes and escapes


class Members(msgspec.Struct):
    """The members that matter in an answer, in a chunk of one, and in an event about one."""

    id: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()
    service_tier: msgspec.Raw = msgspec.Raw()
    status: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    type: msgspec.Raw = msgspec.Raw()
    code: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()


_read_members = msgspec.json.Decoder(Members).decode
_read_text = msgspec.json.Decoder(str).decode


def text_of(raw: msgspec.Raw) -> str | None:
    """Return a name or an id; None for what is no string, empty, far too long or unprintable."""
    value = bytes(raw)
    if not value.startswith(b'"') or len(value) > MAX_TEXT_BYTES:
        return None
    try:
        text = _read_text(value)
    except UNREADABLE:  # half a character, or not UTF-8
        return None
    return text if text and text.isprintable() else None


def read_members(text: bytes) -> Members:
    """Return the members of an answer or an event; raises one of UNREADABLE."""
    return read(_read_members, text)


class Findings:
    """What has been read of an answer so far."""

    __slots__ = (
        "complete",
        "error_type",
        "failed",
        "model",
        "problem",
        "response_id",
        "service_tier",
        "status",
        "usage",
    )

    def __init__(self) -> None:
        self.model: str | None = None
        self.service_tier: str | None = None
        self.response_id: str | None = None
        self.status: str | None = None
        self.usage: bytes | None = None
        self.problem: str | None = None
        self.error_type: str | None = None
        self.failed = False
        self.complete = False

    def note(self, answer: Members) -> None:
        """Take over what an answer says, or a chunk of one."""
        self.model = text_of(answer.model) or self.model
        self.service_tier = text_of(answer.service_tier) or self.service_tier
        self.response_id = text_of(answer.id) or self.response_id
        self.status = text_of(answer.status) or self.status
        usage = bytes(answer.usage)
        if usage.startswith(b"{"):
            self.usage = usage
        if bytes(answer.error) not in NOTHING:
            self.note_error(answer)
        elif self.status == "failed":
            self.failed = True

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

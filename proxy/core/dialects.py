"""What the events of one API mean over a WebSocket, and which of them bill something.

A dialect is data: a further API is a further line in `DIALECTS`. Most events are deltas, and most
of those are known by their first bytes, so that they need not be kept, let alone decoded.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

TRANSCRIBED = b"conversation.item.input_audio_transcription.completed"
# The kind of an event, where only scalars stand before it.
KIND = re.compile(
    rb'\s*\{\s*(?:"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[-+.\w]+)\s*,\s*)*?"type"\s*:\s*"([^"\\]*)"'
)
TOOL_EVENTS = (
    b"response.web_search_call.",
    b"response.file_search_call.",
    b"response.code_interpreter_call.",
    b"response.image_generation_call.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What the events of one API mean."""

    operation_name: str  # of a response
    ends: frozenset[bytes]
    begins: bytes = b"response.created"
    transcribes: bytes = b""
    tells_session: frozenset[bytes] = frozenset()
    wraps: frozenset[bytes] = frozenset()  # events that hold an event of something delegated
    decides: bytes = b""  # one of those
    asks: bytes = b""  # what a client asks for a response with, where that names a model

    def matters(self, start: bytes) -> bool:
        """Say no only where the first bytes of an event show that nothing is to be found in it."""
        found = KIND.match(start)
        if found is None:
            return True
        kind = found[1]
        if kind in self.ends or kind in self.tells_session or kind in self.wraps:
            return True
        return kind in {self.begins, self.transcribes, self.decides, b"error"}


_TERMINAL = frozenset((b"response.completed", b"response.incomplete", b"response.failed"))
_LIVE = Dialect(  # billed by the time that it lasts, and what it delegates by itself
    operation_name="responses",
    ends=_TERMINAL,
    tells_session=frozenset(
        (b"session.started", b"session.updated", b"session.usage.updated", b"session.closed")
    ),
    wraps=frozenset((b"response.event", b"decision.event")),
    decides=b"decision.completed",
)
DIALECTS: Mapping[str, Dialect] = {  # by the operation that opens the session
    "realtime.connect": Dialect(
        operation_name="realtime.response",
        ends=frozenset((b"response.done",)),
        transcribes=TRANSCRIBED,
        tells_session=frozenset(
            (
                b"session.created",
                b"session.updated",
                b"transcription_session.created",
                b"transcription_session.updated",
            )
        ),
    ),
    "responses.connect": Dialect(
        operation_name="responses",
        ends=_TERMINAL,
        asks=b"response.create",
    ),
    "realtime.translations.connect": Dialect(
        operation_name="",
        ends=frozenset(),
        begins=b"",
        tells_session=frozenset((b"session.created", b"session.updated")),
    ),
    "live.connect": _LIVE,
    "live.fork": _LIVE,
}

"""Recorded WebSocket sessions, an upstream that says its part of them, and their client."""

import gzip
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from tests.fakes import replay
from tests.fakes.relay import Wire
from tests.fakes.upstream import Call, Script
from tests.fakes.websocket import (
    DEFLATE,
    PING,
    Deflater,
    close,
    fragments,
    frame,
    switched,
    upgrade,
)

MASK = b"\x11\x22\x33\x44"
KINDS = {  # what is billed, and the kind of the row that it makes
    "response.done": "realtime.response",
    "conversation.item.input_audio_transcription.completed": "realtime.transcription",
}


class Way(StrEnum):
    """How messages are sent."""

    PLAIN = "plain"
    FRAGMENTS = "fragments"
    COMPRESSED = "compressed"
    AFRESH = "compressed afresh"  # no message refers to another


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One recorded session."""

    id: str
    model: str
    messages: tuple[tuple[bool, bytes], ...]  # whether it came from the upstream, and its text
    billed: tuple[dict[str, Any], ...]

    @property
    def target(self) -> bytes:
        """What the client asked for."""
        return b"/v1/realtime?model=" + self.model.encode()

    def said(self, way: Way) -> Iterator[tuple[bool, bytes]]:
        """Yield the frames of both sides in their order, at last a close frame of each."""
        chance = random.Random(f"{self.id} {way}")  # noqa: S311 - cuts, not secrets
        pack = _packing(way, chance)
        for received, text in self.messages:
            yield received, pack(text) if received else frame(text, mask=MASK)
        yield False, frame(b"\x03\xe8", 8, mask=MASK)
        yield True, close(1000)

    @property
    def usages(self) -> list[tuple[str, str, Any, float | None]]:
        """Return of each that was billed: kind, id, usage, and its cost where it was computed."""
        return [
            (
                KINDS[event["event"]],
                event.get("response_id") or event["item_id"],
                event["usage"],
                event.get("cost_genai_prices"),
            )
            for event in self.billed
        ]


def _packing(way: Way, chance: random.Random) -> Callable[[bytes], bytes]:
    """Return what makes frames of a message."""
    if way in {Way.COMPRESSED, Way.AFRESH}:
        return Deflater(takes_over=way is Way.COMPRESSED).frame
    if way is Way.PLAIN:
        return frame

    def pieces(text: bytes) -> bytes:
        return frame(b"", PING).join(fragments(replay.cut(text, chance)))

    return pieces


@cache
def load(path: Path) -> tuple[Recorded, ...]:
    """Return the recorded sessions."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return tuple(_recorded(json.loads(line)) for line in lines)


def _recorded(row: dict[str, Any]) -> Recorded:
    return Recorded(
        id=row["id"],
        model=row["model"],
        messages=tuple(
            (message["direction"] == "received", json.dumps(message["data"]).encode())
            for message in row["messages"]
        ),
        billed=tuple(row["usage_events"]),
    )


def agreed(way: Way) -> bytes:
    """Return the fields in which the upstream agrees to a way."""
    if way is Way.AFRESH:
        return DEFLATE.replace(b"\r\n", b"; server_no_context_takeover\r\n")
    return DEFLATE if way is Way.COMPRESSED else b""


def replaying(sessions: tuple[Recorded, ...], way: Way) -> Script:
    """Return a script that says the upstream's part of the session that a call names."""
    known = {session.id: session for session in sessions}

    async def script(call: Call) -> None:
        name = call.header(replay.NAME)
        assert name is not None
        await call.send(switched(agreed(way)))
        for received, data in known[name.decode()].said(way):
            if received:
                await call.send(data)
            else:
                assert await call.reader.readexactly(len(data)) == data
        call.close()

    return script


async def speak(session: Recorded, port: int, way: Way) -> None:
    """Say the client's part of a session; fail where a byte is not what the upstream sent."""
    wire = await Wire.to(port)
    name = session.id.encode()
    fields = b"%b: %b\r\nX-Meter-User: %b\r\n" % (replay.NAME.encode(), name, name)
    await wire.send(upgrade(session.target, fields))
    assert await wire.head() == switched(agreed(way))
    for received, data in session.said(way):
        if received:
            assert await wire.exactly(len(data)) == data
        else:
            await wire.send(data)
    assert await wire.rest() == b""
    await wire.close()

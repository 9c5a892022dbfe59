"""Where an upstream reports nothing: what was used is counted, marked, and content is kept nowhere.

Prices are those of gpt-4o-mini (0.15 and 0.60 USD a million)
and of the models of audio.
"""

import base64
import io
import json
import struct
import wave
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.fakes.relay import Wire
from tests.fakes.running import Metering, metering
from tests.fakes.upstream import Call, Upstream

MARKER = "xylophone"
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say this is a test!"}]}
PROMPT_TOKENS = 13  # of that
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 100, 100) + bytes(1 << 21)
PICTURED = {  # two megabytes of a small image
    "role": "user",
    "content": [
        {"type": "text", "text": "what this"},
        {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64," + base64.b64encode(PNG).decode()},
        },
    ],
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM = b"text/event-stream"


def message(path: str, body: bytes, user: str, content_type: str = "application/json") -> bytes:
    """Return a request of a user, who stands for the case."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\n"
        f"X-Meter-User: {user}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def chat(user: str, **members: Any) -> bytes:
    """Return a request for a chat completion."""
    return message(
        "/v1/chat/completions", json.dumps(CHAT | {"user": user} | members).encode(), user
    )


def chunk(data: bytes) -> bytes:
    """Return a piece of a body in chunks."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(content_type: bytes, body: bytes) -> bytes:
    """Return an answer."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (content_type, len(body)) + body


def words(*texts: str) -> bytes:
    """Return chunks of a chat completion."""
    events = [
        {
            "id": "chatcmpl-1",
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [{"index": 0, "delta": {"content": text}}],
        }
        for text in texts
    ]
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def sound(seconds: float) -> bytes:
    """Return a WAV file of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as made:
        made.setnchannels(1)
        made.setsampwidth(2)
        made.setframerate(8000)
        made.writeframes(bytes(2 * int(8000 * seconds)))
    return file.getvalue()


class Case:
    """Answers as the user of a call wants it; the scripts are its methods."""

    async def __call__(self, call: Call) -> None:
        """Answer a call."""
        user = json.loads(call.body).get("user") if call.body.startswith(b"{") else "hears"
        await getattr(self, str(user))(call)

    async def leaves(self, call: Call) -> None:
        """Say some words, then nothing more."""
        await call.send(HEAD % STREAM + chunk(words(" This is", " a", " test.")))
        await call.gone()

    async def cut(self, call: Call) -> None:
        """Break off in the middle of an event."""
        part = words(" This is", " a", " test.") + words(" Never said.")[:-30]
        await call.send(HEAD % STREAM + chunk(part))
        call.reset()

    async def pictured(self, call: Call) -> None:
        """Break off, whatever was shown."""
        await self.cut(call)

    async def cut_response(self, call: Call) -> None:
        """Break off a response."""
        created = b'{"type":"response.created","response":{"id":"resp_1","model":"gpt-4o-mini"}}'
        said = b'{"type":"response.output_text.delta","output_index":0,"delta":"This is a test."}'
        events = b"".join(b"data: %b\n\n" % event for event in (created, said))
        await call.send(HEAD % STREAM + chunk(events))
        call.reset()

    async def silent(self, call: Call) -> None:
        """Say nothing."""
        await call.gone()

    async def lost(self, call: Call) -> None:
        """Break off before anything was said."""
        call.reset()

    async def plain(self, call: Call) -> None:
        """Answer without usage."""
        body = {
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "This is a test."}}
            ],
        }
        await call.send(whole(b"application/json", json.dumps(body).encode()))

    async def legacy(self, call: Call) -> None:
        """Complete without usage."""
        body = b'{"model":"gpt-3.5-turbo-instruct","choices":[{"index":0,"text":" a test."}]}'
        await call.send(whole(b"application/json", body))

    async def embeds(self, call: Call) -> None:
        """Embed without usage."""
        body = b'{"model":"text-embedding-3-small","data":[{"embedding":[0.1]}]}'
        await call.send(whole(b"application/json", body))

    async def speaks(self, call: Call) -> None:
        """Speak for two seconds."""
        await call.send(whole(b"audio/wav", sound(2.0)))

    async def hears(self, call: Call) -> None:
        """Write down what was said."""
        await call.send(whole(b"text/plain; charset=utf-8", b"Hello friend.\n"))


async def leave_in_midstream(port: int) -> None:
    """Go once there are words."""
    wire = await Wire.to(port)
    await wire.send(chat("leaves", stream=True))
    await wire.until(b"test.")
    wire.reset()


async def told(port: int, request: bytes) -> bytes:
    """Make a call, and return what comes until its end or the connection's."""
    wire = await Wire.to(port)
    await wire.send(request)
    head = await wire.head()
    try:
        if b"content-length" in head.lower():
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            return await wire.exactly(length)
        return await wire.rest()
    finally:
        await wire.close()


async def row_of(running: Metering, count: int, user: str) -> dict[str, Any]:
    """Return the row of a user, once there are so many rows."""
    return next(row for row in await running.rows(count) if row["user_id"] == user)


def tokens(row: dict[str, Any]) -> tuple[int | None, int | None, int | None]:
    """Return the counts of a row."""
    return row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]


async def test_calls_that_end_early_are_counted(tmp_path: Path, database: str) -> None:
    """By a client that leaves, an upstream that breaks off, or the proxy's patience."""
    async with (
        Upstream(script=Case()) as upstream,
        metering(
            tmp_path,
            upstream.url,
            database,
            on_disconnect="cancel",
            upstream_idle_timeout_seconds=1.0,
        ) as running,
    ):
        await leave_in_midstream(running.port)
        left = await row_of(running, 1, "leaves")
        await told(running.port, chat("cut", stream=True))
        cut = await row_of(running, 2, "cut")
        asked = {"model": "gpt-4o-mini", "input": "Say this is a test!", "user": "cut_response"}
        body = json.dumps(asked).encode()
        await told(running.port, message("/v1/responses", body, "cut_response"))
        response = await row_of(running, 3, "cut_response")
        await told(running.port, chat("silent"))
        silent = await row_of(running, 4, "silent")
        await told(running.port, chat("pictured", messages=[PICTURED], stream=True))
        pictured = await row_of(running, 5, "pictured")
        await told(running.port, chat("lost"))
        lost = await row_of(running, 6, "lost")
    assert (left["outcome"], left["usage_source"]) == ("client_disconnected", "estimated")
    assert tokens(left) == (PROMPT_TOKENS, 5, 18)
    assert left["cost_usd"] == Decimal("0.00000495")  # (13 × 0.15 + 5 × 0.60) / 1,000,000
    assert (left["usage_problem"], left["model"]) == ("truncated", "gpt-4o-mini-2024-07-18")
    assert (cut["outcome"], cut["usage_source"]) == ("upstream_error", "estimated")
    assert tokens(cut)[0] == PROMPT_TOKENS
    assert (cut["raw_usage"], cut["cached_tokens"]) == (None, None)
    assert (response["outcome"], response["usage_source"]) == ("upstream_error", "estimated")
    assert tokens(response) == (PROMPT_TOKENS, 6, 19)
    assert (silent["outcome"], silent["status"]) == ("timeout", 504)
    assert (silent["usage_source"], silent["usage_problem"]) == ("estimated", "answer_not_seen")
    assert tokens(silent) == (PROMPT_TOKENS, None, None)
    assert silent["cost_usd"] == Decimal("0.00000195")
    assert tokens(pictured)[0] == 3 + 1 + 2 + 8500 + 3
    assert (pictured["usage_source"], pictured["request_bytes"] > 2**21) == ("estimated", True)
    assert (lost["usage_source"], lost["cost_usd"]) == ("unavailable", None)
    _nothing_kept(tmp_path)


async def test_answers_without_usage_are_counted(tmp_path: Path, database: str) -> None:
    """Before the client has their last bytes, which are those that were sent."""
    form = (
        b"--b\r\nContent-Disposition: form-data; name=model\r\n\r\ngpt-4o-mini-transcribe\r\n"
        b'--b\r\nContent-Disposition: form-data; name=file; filename="a.wav"\r\n\r\n'
        b"%b\r\n--b--\r\n" % sound(2.2)
    )
    calls = {
        "plain": chat("plain"),
        "legacy": message(
            "/v1/completions",
            b'{"model":"gpt-3.5-turbo-instruct","prompt":"Say this is","user":"legacy"}',
            "legacy",
        ),
        "embeds": message(
            "/v1/embeddings",
            b'{"model":"text-embedding-3-small","input":["a test","another"],"user":"embeds"}',
            "embeds",
        ),
        "speaks": message(
            "/v1/audio/speech",
            b'{"model":"gpt-4o-mini-tts","input":"Say this is a test!","user":"speaks"}',
            "speaks",
        ),
        "hears": message(
            "/v1/audio/transcriptions", form, "hears", "multipart/form-data; boundary=b"
        ),
    }
    async with (
        Upstream(script=Case()) as upstream,
        metering(tmp_path, upstream.url, database) as running,
    ):
        answers = {user: await told(running.port, request) for user, request in calls.items()}
        rows = {row["user_id"]: row for row in await running.rows(len(calls))}
    assert b"This is a test." in answers["plain"]
    assert (answers["speaks"], answers["hears"]) == (sound(2.0), b"Hello friend.\n")
    assert {row["usage_source"] for row in rows.values()} == {"estimated"}
    assert {row["outcome"] for row in rows.values()} == {"ok"}
    assert {row["usage_problem"] for row in rows.values()} == {"no_usage_in_answer"}
    counts = {user: tokens(row) for user, row in rows.items()}
    assert counts == {
        "plain": (PROMPT_TOKENS, 5, 18),
        "legacy": (3, 3, 6),
        "embeds": (3, None, None),
        "speaks": (6, 61, 67),
        "hears": (22, 4, 26),
    }
    audio = [rows["speaks"]["audio_completion_tokens"], rows["hears"]["audio_prompt_tokens"]]
    assert audio == [61, 22]
    costs = {user: row["cost_usd"] for user, row in rows.items()}
    assert costs == {
        "plain": Decimal("0.00000495"),
        "legacy": Decimal("0.0000105"),  # (3 × 1.50 + 3 × 2.00) / 1,000,000
        "embeds": Decimal("0.00000006"),  # 3 × 0.02 / 1,000,000
        "speaks": Decimal("0.0007356"),  # (6 × 0.60 + 61 × 12) / 1,000,000
        "hears": Decimal("0.0000475"),  # (22 × 1.25 + 4 × 5) / 1,000,000
    }
    _nothing_kept(tmp_path)


async def test_what_was_asked_and_answered_is_written_nowhere(
    tmp_path: Path, database: str
) -> None:
    """Neither in the journal nor in the ledger, although it has been counted."""
    secret = [{"role": "user", "content": MARKER}]
    async with (
        Upstream(script=Case()) as upstream,
        metering(tmp_path, upstream.url, database) as running,
    ):
        await told(running.port, chat("plain", messages=secret))
        rows = await running.rows(1)
    assert rows[0]["usage_source"] == "estimated"
    assert MARKER not in repr(rows)
    _nothing_kept(tmp_path, MARKER)


def _nothing_kept(directory: Path, content: str = "a test") -> None:
    """Look for content in what was written."""
    for path in directory.rglob("*"):
        assert not path.is_file() or content.encode() not in path.read_bytes()

"""What OpenAI would say: a script for the fake upstream that answers chat calls, streamed or not.

As the API does, a stream holds usage only where the request asks for it.
"""

import json

from tests.fakes.upstream import Call, Script

MODEL = "gpt-5.4-mini-2026-03-17"
WORDS = ("Hello", ", world.")


def answer(usage: bytes) -> Script:
    """Return the script for calls that use so much."""
    counts = json.loads(usage)

    async def script(call: Call) -> None:
        request = json.loads(call.body)
        if request.get("stream"):
            asked = (request.get("stream_options") or {}).get("include_usage", False)
            await call.send(_stream(counts, with_usage=asked))
            return
        await call.send(_framed(b"application/json", json.dumps(_whole(counts)).encode()))

    return script


def _whole(counts: object) -> dict[str, object]:
    message = {"role": "assistant", "content": "".join(WORDS), "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {**_named("chat.completion"), "choices": [choice], "usage": counts}


def _stream(counts: object, *, with_usage: bool) -> bytes:
    choices: list[object] = [_choice({"content": word}) for word in WORDS]
    choices.append(_choice({}, finish_reason="stop"))
    chunk = _named("chat.completion.chunk") | ({"usage": None} if with_usage else {})
    events = [chunk | {"choices": [choice]} for choice in choices]
    if with_usage:
        events.append(chunk | {"choices": [], "usage": counts})
    data = [json.dumps(event, separators=(",", ":")) for event in events]
    text = "".join(f"data: {line}\n\n" for line in [*data, "[DONE]"])
    return _framed(b"text/event-stream", text.encode())


def _choice(delta: dict[str, str], *, finish_reason: str | None = None) -> dict[str, object]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def _named(kind: str) -> dict[str, object]:
    return {
        "id": "chatcmpl-1",
        "object": kind,
        "created": 1_795_305_600,
        "model": MODEL,
        "service_tier": "default",
    }


def _framed(content_type: bytes, body: bytes) -> bytes:
    head = (
        b"HTTP/1.1 200 OK\r\nX-Request-ID: req_1\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    )
    return head % (content_type, len(body)) + body

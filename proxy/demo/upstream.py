"""An upstream that speaks OpenAI's API as far as a demonstration needs it, and invents nothing.

What it says stands in the header field `X-Demo-Answer` of each request: a JSON object with counts
of tokens, a status, and how long it shall take. It listens on a socket that it is handed.
"""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import uvloop
from aiohttp import web

FIELD = "X-Demo-Answer"
PIECES = 6  # of a streamed answer
WORDS = "Look at the denominator first: what happens to it when you factor it?"
PICTURE = "iVBORw0KGgo="

_ERRORS = {
    400: ("invalid_request_error", "The picture cannot be read."),
    429: ("rate_limit_error", "Rate limit reached for requests per minute."),
    500: ("server_error", "The server had an error while processing your request."),
    503: ("server_error", "The engine is overloaded, please try again later."),
}


def create_app() -> web.Application:
    """Return the application."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", _chat)
    app.router.add_post("/v1/responses", _responses)
    app.router.add_post("/v1/embeddings", _embeddings)
    app.router.add_post("/v1/images/generations", _images)
    app.router.add_post("/v1/audio/speech", _speech)
    return app


async def _chat(request: web.Request) -> web.StreamResponse:
    asked, told = await _read(request)
    if (refused := _refused(told)) is not None:
        return refused
    message = {"role": "assistant", "content": WORDS, "refusal": None}
    named = _named("chatcmpl", "chat.completion", asked)
    if asked.get("stream"):
        return await _stream(request, asked, told, named)
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return _json(named | {"choices": [choice], "usage": _chat_usage(told)})


async def _stream(
    request: web.Request,
    asked: Mapping[str, Any],
    told: Mapping[str, Any],
    named: Mapping[str, Any],
) -> web.StreamResponse:
    """Say the answer in pieces; its usage last, where it was asked for."""
    answer = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "X-Request-Id": _request_id()}
    )
    await answer.prepare(request)
    chunk = {**named, "object": "chat.completion.chunk"}
    deltas = [{"content": f"{piece} "} for piece in WORDS.split(" ", PIECES)]
    events = [
        chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]
    events.append(chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (asked.get("stream_options") or {}).get("include_usage"):
        events.append(chunk | {"choices": [], "usage": _chat_usage(told)})
    pause = float(told.get("seconds", 0)) / len(events) / 2
    with contextlib.suppress(ConnectionResetError):  # the client has heard enough
        for event in events:
            await answer.write(_event(event))
            await asyncio.sleep(pause)
        await answer.write(b"data: [DONE]\n\n")
    return answer


async def _responses(request: web.Request) -> web.StreamResponse:
    asked, told = await _read(request)
    if (refused := _refused(told)) is not None:
        return refused
    searches = [
        {"type": "web_search_call", "id": f"ws_{n}", "status": "completed"}
        | {"action": {"type": "search", "query": "homework"}}
        for n in range(int(told.get("searches", 0)))
    ]
    text = {"type": "output_text", "text": WORDS, "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    written, prompt = int(told.get("completion_tokens", 1)), int(told.get("prompt_tokens", 1))
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": int(told.get("cached_tokens", 0))},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": int(told.get("reasoning_tokens", 0))},
        "total_tokens": prompt + written,
    }
    return _json(
        _named("resp", "response", asked)
        | {"status": "completed", "error": None, "tools": asked.get("tools", [])}
        | {"output": [*searches, message | {"content": [text]}], "usage": usage}
    )


async def _embeddings(request: web.Request) -> web.StreamResponse:
    asked, told = await _read(request)
    if (refused := _refused(told)) is not None:
        return refused
    count = int(told.get("prompt_tokens", 1))
    vector = {"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}
    usage = {"prompt_tokens": count, "total_tokens": count}
    return _json({"object": "list", "data": [vector], "model": asked.get("model"), "usage": usage})


async def _images(request: web.Request) -> web.StreamResponse:
    _, told = await _read(request)
    if (refused := _refused(told)) is not None:
        return refused
    return _json({"created": int(time.time()), "data": [{"b64_json": PICTURE}]})


async def _speech(request: web.Request) -> web.StreamResponse:
    _, told = await _read(request)
    if (refused := _refused(told)) is not None:
        return refused
    return web.Response(body=b"\xff\xfb\x90\0" * 64, content_type="audio/mpeg")


async def _read(request: web.Request) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the request and what is to be said to it, after the time that this takes."""
    asked, told = await request.json(), json.loads(request.headers.get(FIELD, "{}"))
    half = 2 if asked.get("stream") else 1
    await asyncio.sleep(float(told.get("seconds", 0)) / half)
    return asked, told


def _refused(told: Mapping[str, Any]) -> web.Response | None:
    status = int(told.get("status", 200))
    if status not in _ERRORS:
        return None
    kind, message = _ERRORS[status]
    error = {"message": message, "type": kind, "param": None, "code": None}
    return _json({"error": error}, status=status)


def _chat_usage(told: Mapping[str, Any]) -> dict[str, Any]:
    prompt, written = int(told.get("prompt_tokens", 1)), int(told.get("completion_tokens", 1))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": int(told.get("cached_tokens", 0))},
        "completion_tokens_details": {"reasoning_tokens": int(told.get("reasoning_tokens", 0))},
    }


def _named(prefix: str, kind: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": f"{prefix}_{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": asked.get("model"),
        "service_tier": "default",
    }


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _json(value: Mapping[str, Any], *, status: int = 200) -> web.Response:
    return web.json_response(value, status=status, headers={"X-Request-Id": _request_id()})


def _request_id() -> str:
    return f"req_{secrets.token_hex(16)}"


def main() -> int:
    """Serve until SIGTERM, or until whoever started this is gone."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--listen-fd", type=int, required=True)
    options = parser.parse_args()
    threading.Thread(target=_follow_parent, daemon=True).start()
    uvloop.run(_serve(socket.socket(fileno=options.listen_fd)))
    return 0


async def _serve(listener: socket.socket) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(create_app(), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    with contextlib.closing(listener):
        await web.SockSite(runner, listener, backlog=1024).start()
        await stop.wait()
        await runner.cleanup()


def _follow_parent() -> None:
    while os.read(0, 64):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())

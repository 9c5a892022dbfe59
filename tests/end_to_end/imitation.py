"""An imitation of the OpenAI API: made up answers, the same for the same request.

It counts what it was asked: `asked` and `answered` hold the value of the `X-Call` field of each
request, in order. It can be slow, so that there is something to interrupt.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

CALL = "X-Call"
MODEL = "gpt-4o-mini-2024-07-18"
WORDS = ("It", " is", " all", " made", " up", ", naïvely", " 🌱", ".")
USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 8,
    "total_tokens": 27,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0},
}
RESPONSES_USAGE = {
    "input_tokens": 19,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 8,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 27,
}
EMBEDDINGS_USAGE = {"prompt_tokens": 19, "total_tokens": 19}
_MADE = {"created": 1_795_000_000, "model": MODEL, "service_tier": "default"}


@dataclass(slots=True)
class Imitation:
    """The imitation at `url`; answers take `pause` seconds at each of their pieces."""

    url: str = ""
    pause: float = 0.0
    asked: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)

    def app(self) -> web.Application:
        """Return its application."""
        app = web.Application(middlewares=[self._count])
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._chat),
                web.get("/v1/chat/completions/{id}", self._stored_chat),
                web.post("/v1/completions", self._completion),
                web.post("/v1/responses", self._response),
                web.get("/v1/responses/{id}", self._stored_response),
                web.post("/v1/embeddings", self._embeddings),
                web.post("/openai/deployments/{name}/chat/completions", self._chat),
                web.post("/openai/deployments/{name}/embeddings", self._embeddings),
                web.post("/v1/files", self._upload),
                web.get("/v1/files/{id}/content", self._download),
                web.get("/v1/models", self._models),
            ]
        )
        return app

    @web.middleware
    async def _count(self, request: web.Request, handler: Any) -> web.StreamResponse:
        number = request.headers.get(CALL, "")
        self.asked.append(number)
        answer: web.StreamResponse = await handler(request)
        if not answer.prepared:
            await asyncio.sleep(self.pause)
            answer.headers["X-Request-Id"] = f"req_{number}"
            await answer.prepare(request)
            await answer.write_eof()
        self.answered.append(number)
        return answer

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if asked["model"] == "no-such-model":
            return _missing(asked["model"])
        if asked.get("stream"):
            return await self._streamed(request, _chat_chunks, asked)
        message = {"role": "assistant", "content": "".join(WORDS), "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        made = {"id": "chatcmpl-1", "object": "chat.completion", **_MADE}
        return web.json_response(made | {"choices": [choice], "usage": USAGE})

    async def _stored_chat(self, request: web.Request) -> web.StreamResponse:
        made = {"id": request.match_info["id"], "object": "chat.completion", **_MADE}
        return web.json_response(made | {"choices": [], "usage": USAGE})

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if asked.get("stream"):
            return await self._streamed(request, _text_chunks, asked)
        choice = {"index": 0, "text": "".join(WORDS), "finish_reason": "stop", "logprobs": None}
        made = {"id": "cmpl-1", "object": "text_completion", **_MADE}
        return web.json_response(made | {"choices": [choice], "usage": USAGE})

    async def _response(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if asked.get("stream"):
            return await self._send(request, _response_events())
        return web.json_response(_response_object("completed"))

    async def _stored_response(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(_response_object("completed") | {"id": request.match_info["id"]})

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        vector = "AACAPwAAAEAAAEBA" if asked.get("encoding_format") == "base64" else [1.0, 2.0, 3.0]
        data = [{"object": "embedding", "index": 0, "embedding": vector}]
        made = {"object": "list", "data": data, "model": "text-embedding-3-small"}
        return web.json_response(made | {"usage": EMBEDDINGS_USAGE})

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        file = (await request.post())["file"]
        assert isinstance(file, web.FileField)
        size, name = len(file.file.read()), file.filename
        made = {"id": "file-1", "object": "file", "bytes": size, "created_at": 1, "filename": name}
        return web.json_response(made | {"purpose": "batch", "status": "processed"})

    async def _download(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=bytes(range(256)) * 400, content_type="application/octet-stream")

    async def _models(self, _request: web.Request) -> web.StreamResponse:
        model = {"id": MODEL, "object": "model", "created": 1, "owned_by": "nobody"}
        return web.json_response({"object": "list", "data": [model]})

    async def _streamed(
        self, request: web.Request, chunks: Any, asked: dict[str, Any]
    ) -> web.StreamResponse:
        includes_usage = (asked.get("stream_options") or {}).get("include_usage", False)
        data = [*map(_dumps, chunks(includes_usage=includes_usage)), "[DONE]"]
        return await self._send(request, [f"data: {item}\n\n" for item in data])

    async def _send(self, request: web.Request, events: list[str]) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for event in events:
            await answer.write(event.encode())
            await asyncio.sleep(self.pause / len(events))
        await answer.write_eof()
        return answer


@asynccontextmanager
async def imitating(*, pause: float = 0.0) -> AsyncIterator[Imitation]:
    """Run an imitation on a free port."""
    imitation = Imitation(pause=pause)
    runner = web.AppRunner(imitation.app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    imitation.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield imitation
    finally:
        await runner.cleanup()


def _missing(model: str) -> web.Response:
    error = {"message": f"The model `{model}` does not exist", "type": "invalid_request_error"}
    error |= {"param": None, "code": "model_not_found"}  # type: ignore[dict-item]  # a JSON null
    return web.json_response({"error": error}, status=404)


def _chat_chunks(*, includes_usage: bool) -> Iterator[dict[str, Any]]:
    made = {"id": "chatcmpl-1", "object": "chat.completion.chunk", **_MADE}
    usage = {"usage": None} if includes_usage else {}
    for word in WORDS:
        choice = {"index": 0, "delta": {"content": word}, "finish_reason": None, "logprobs": None}
        yield made | {"choices": [choice]} | usage
    yield made | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]} | usage
    if includes_usage:
        yield made | {"choices": [], "usage": USAGE}


def _text_chunks(*, includes_usage: bool) -> Iterator[dict[str, Any]]:
    made = {"id": "cmpl-1", "object": "text_completion", **_MADE}
    usage = {"usage": None} if includes_usage else {}
    for word in WORDS:
        choice = {"index": 0, "text": word, "finish_reason": None, "logprobs": None}
        yield made | {"choices": [choice]} | usage
    if includes_usage:
        yield made | {"choices": [], "usage": USAGE}


def _response_object(status: str) -> dict[str, Any]:
    done = status == "completed"
    text = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_795_000_000,
        "status": status,
        "model": MODEL,
        "output": [message | {"content": [text]}] if done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "service_tier": "default" if done else "auto",
        "usage": RESPONSES_USAGE if done else None,
    }


def _response_events() -> list[str]:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    data: list[dict[str, Any]] = [
        {"type": "response.created", "response": _response_object("in_progress")},
        *({"type": "response.output_text.delta", "delta": word, **place} for word in WORDS),
        {"type": "response.completed", "response": _response_object("completed")},
    ]
    numbered = [item | {"sequence_number": number} for number, item in enumerate(data)]
    return [f"event: {item['type']}\ndata: {_dumps(item)}\n\n" for item in numbered]


def _dumps(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))

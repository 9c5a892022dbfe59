"""An imitation of what takes its time at OpenAI: made by one call, done some polls later.

Whatever is made is `queued`; an object is done as soon as `finish` was called. Nothing else is
known of it: it can be polled, listed, resumed and downloaded as often as anybody likes.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

MODEL = "gpt-4o-mini-2024-07-18"
MADE_AT = 1_795_000_000
USAGE = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
RUN_USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
LINE_USAGE = {"prompt_tokens": 40, "completion_tokens": 5, "total_tokens": 45}
NO_USAGE = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
OVER = {"job": "succeeded"}


@dataclass(slots=True)
class Workshop:
    """The imitation at `url`; `over` holds the ids of what is done, and how it ended."""

    url: str = ""
    over: dict[str, str] = field(default_factory=dict)
    made: int = 0

    def finish(self, object_id: str, state: str = "completed") -> None:
        """Let an object be done."""
        self.over[object_id] = state

    def app(self) -> web.Application:
        """Return its application."""
        app = web.Application()
        app.add_routes(
            [
                web.post("/v1/responses", self._make_response),
                web.get("/v1/responses/{id}", self._show_response),
                web.post("/v1/responses/{id}/cancel", self._show_response),
                web.post("/v1/threads/{thread}/runs", self._make_run),
                web.get("/v1/threads/{thread}/runs", self._list(self._run)),
                web.get("/v1/threads/{thread}/runs/{id}", self._show(self._run)),
                web.post("/v1/batches", self._make("batch", self._batch)),
                web.get("/v1/batches", self._list(self._batch)),
                web.get("/v1/batches/{id}", self._show(self._batch)),
                web.get("/v1/files/{id}/content", self._output),
                web.post("/v1/fine_tuning/jobs", self._make("ftjob", self._job)),
                web.get("/v1/fine_tuning/jobs/{id}", self._show(self._job)),
                web.post("/v1/videos", self._make("video", self._video)),
                web.post("/v1/videos/extensions", self._make("video", self._video)),
                web.get("/v1/videos/{id}", self._show(self._video)),
                web.get("/v1/videos/{id}/content", self._film),
                web.post("/v1/evals/{eval}/runs", self._make("evalrun", self._eval_run)),
                web.get("/v1/evals/{eval}/runs/{id}", self._show(self._eval_run)),
                web.get("/v1/chat/completions/{id}", self._stored),
            ]
        )
        return app

    def _new(self, kind: str) -> str:
        self.made += 1
        return f"{kind}_{self.made}"

    def _make(self, kind: str, show: Any) -> Any:
        async def make(request: web.Request) -> web.StreamResponse:
            await request.read()
            return web.json_response(show(self._new(kind)))

        return make

    def _show(self, show: Any) -> Any:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.json_response(show(request.match_info["id"]))

        return answer

    def _list(self, show: Any) -> Any:
        kind = {"_run": "run", "_batch": "batch"}[show.__name__]

        async def answer(_request: web.Request) -> web.StreamResponse:
            data = [show(f"{kind}_{number}") for number in range(1, self.made + 1)]
            page = {"object": "list", "data": data, "has_more": False}
            return web.json_response(page | {"first_id": None, "last_id": None})

        return answer

    def _response(self, object_id: str) -> dict[str, Any]:
        state = self.over.get(object_id)
        return {
            "id": object_id,
            "object": "response",
            "created_at": MADE_AT,
            "background": True,
            "status": state or "queued",
            "model": MODEL,
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "service_tier": "default" if state else "auto",
            "usage": USAGE if state else None,
        }

    async def _make_response(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        response = self._response(self._new("resp"))
        if not asked.get("stream"):
            return web.json_response(response)
        return await _send(request, [("response.created", {"response": response})])

    async def _show_response(self, request: web.Request) -> web.StreamResponse:
        response = self._response(request.match_info["id"])
        if request.query.get("stream") != "true":
            return web.json_response(response)
        return await _send(request, [("response.completed", {"response": response})])

    def _run(self, object_id: str) -> dict[str, Any]:
        state = self.over.get(object_id)
        return {
            "id": object_id,
            "object": "thread.run",
            "created_at": MADE_AT,
            "assistant_id": "asst_1",
            "thread_id": "thread_1",
            "status": state or "in_progress",
            "model": MODEL,
            "instructions": "",
            "parallel_tool_calls": True,
            "tools": [],
            "usage": RUN_USAGE if state else None,
        }

    async def _make_run(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        object_id = self._new("run")
        if not asked.get("stream"):
            return web.json_response(self._run(object_id))
        begun = self._run(object_id)
        self.finish(object_id)
        step = {"id": "step_1", "object": "thread.run.step", "usage": RUN_USAGE}
        events = [("created", begun), ("step.completed", step), ("completed", self._run(object_id))]
        return await _send(request, [(f"thread.run.{name}", data) for name, data in events])

    def _batch(self, object_id: str) -> dict[str, Any]:
        state = self.over.get(object_id)
        return {
            "id": object_id,
            "object": "batch",
            "completion_window": "24h",
            "created_at": MADE_AT,
            "endpoint": "/v1/chat/completions",
            "input_file_id": "file-in",
            "model": MODEL,
            "status": state or "in_progress",
            "output_file_id": f"file-{object_id}" if state else None,
            "request_counts": {"total": 2, "completed": 2 if state else 0, "failed": 0},
            "usage": USAGE if state else NO_USAGE,
        }

    async def _output(self, request: web.Request) -> web.StreamResponse:
        lines = (
            {
                "id": f"batch_req_{number}",
                "custom_id": f"homework-{number}",
                "response": {
                    "status_code": 200,
                    "request_id": "r",
                    "body": {"id": f"chatcmpl-{number}", "model": MODEL, "usage": LINE_USAGE},
                },
                "error": None,
            }
            for number in (1, 2)
        )
        body = "".join(json.dumps(line) + "\n" for line in lines).encode()
        part = request.http_range
        status = 200 if part == slice(None, None, 1) else 206
        content = "application/octet-stream"
        return web.Response(body=body[part], status=status, content_type=content)

    def _job(self, object_id: str) -> dict[str, Any]:
        state = self.over.get(object_id)
        return {
            "id": object_id,
            "object": "fine_tuning.job",
            "created_at": MADE_AT,
            "model": MODEL,
            "status": "succeeded" if state else "running",
            "hyperparameters": {},
            "organization_id": "org",
            "result_files": [],
            "seed": 1,
            "training_file": "file-in",
            "trained_tokens": 5000 if state else None,
        }

    def _video(self, object_id: str) -> dict[str, Any]:
        return {
            "id": object_id,
            "object": "video",
            "created_at": MADE_AT,
            "model": "sora-2",
            "progress": 100,
            "seconds": "8",
            "size": "720x1280",
            "status": self.over.get(object_id, "queued"),
        }

    async def _film(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=bytes(100_000), content_type="video/mp4")

    def _eval_run(self, object_id: str) -> dict[str, Any]:
        state = self.over.get(object_id)
        count = {"invocation_count": 1, "cached_tokens": 0}
        usage = [
            RUN_USAGE | count | {"model_name": MODEL},
            RUN_USAGE | count | {"model_name": "gpt-4o-2024-08-06"},
        ]
        return {
            "id": object_id,
            "object": "eval.run",
            "created_at": MADE_AT,
            "eval_id": "eval_1",
            "model": MODEL,
            "status": state or "queued",
            "per_model_usage": usage if state else None,
        }

    async def _stored(self, request: web.Request) -> web.StreamResponse:
        made = {"id": request.match_info["id"], "object": "chat.completion", "created": MADE_AT}
        return web.json_response(made | {"model": MODEL, "choices": [], "usage": RUN_USAGE})


@asynccontextmanager
async def working() -> AsyncIterator[Workshop]:
    """Run a workshop on a free port."""
    workshop = Workshop()
    runner = web.AppRunner(workshop.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    workshop.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield workshop
    finally:
        await runner.cleanup()


async def _send(
    request: web.Request, events: list[tuple[str, dict[str, Any]]]
) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    for number, (name, data) in enumerate(events):
        told = data | {"type": name, "sequence_number": number} if "response" in data else data
        await answer.write(f"event: {name}\ndata: {json.dumps(told)}\n\n".encode())
    await answer.write_eof()
    return answer

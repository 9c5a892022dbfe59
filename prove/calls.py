"""What each call asks and what is right: all of it follows from the seed and the call's number.

No two calls that follow each other use the same tokens, so that a charge that lands on another
call's row cannot look right.
"""

import json
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from random import Random
from typing import Any

MODEL = "gpt-4o-mini-2024-07-18"
EMBEDDER = "text-embedding-3-small"
CALL = "X-Call"  # which call it is, for the upstream
WORDS = ("It", " is", " all", " made", " up", ", naïvely", " 🌱", ".")
MILLION = 1_000_000
INPUT, CACHED, OUTPUT, EMBEDDED = map(Decimal, ("0.15", "0.075", "0.60", "0.02"))
SIXTEEN = 16  # most ids repeat after so many digits of hex: enough for any run


class Kind(StrEnum):
    """What a call is."""

    JSON = "json"
    STREAM = "stream"  # without usage, which the proxy asks for and takes out again
    STREAM_WITH_USAGE = "stream with usage"
    RESPONSE = "response stream"
    EMBEDDING = "embedding"
    ERROR = "upstream error"
    CUT = "cut by the upstream"
    HANG_UP = "hung up by the client"
    BACKGROUND = "background"
    POLL = "poll"


WEIGHTS = {
    Kind.JSON: 24,
    Kind.STREAM: 20,
    Kind.STREAM_WITH_USAGE: 8,
    Kind.RESPONSE: 14,
    Kind.EMBEDDING: 8,
    Kind.ERROR: 6,
    Kind.CUT: 4,
    Kind.HANG_UP: 6,
    Kind.BACKGROUND: 10,
}
ERRORS = {
    400: "invalid_request_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a call used, as the upstream says."""

    prompt: int
    cached: int
    completion: int
    reasoning: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: its number, what it is, and how the upstream will answer it."""

    number: int
    kind: Kind
    tokens: Tokens
    pause: float  # seconds that the upstream takes, in all
    status: int
    user: str

    @property
    def response_id(self) -> str:
        """Return the id of what the upstream makes."""
        return f"resp_{self.number:0{SIXTEEN}x}"

    @property
    def cost(self) -> Decimal:
        """Return what it costs, in USD."""
        used = self.tokens
        if self.kind is Kind.EMBEDDING:
            return used.prompt * EMBEDDED / MILLION
        fresh = used.prompt - used.cached
        return (fresh * INPUT + used.cached * CACHED + used.completion * OUTPUT) / MILLION

    @property
    def has_usage(self) -> bool:
        """Whether the answer to the call itself tells what was used."""
        return self.kind not in {Kind.ERROR, Kind.CUT, Kind.BACKGROUND, Kind.POLL}


def call(seed: int, number: int) -> Call:
    """Return the call with that number."""
    chance = Random(seed * 1_000_003 + number)
    kinds = list(WEIGHTS)
    kind = chance.choices(kinds, weights=list(WEIGHTS.values()))[0]
    prompt, completion = 11 + number % 89, 3 + number % 53
    is_short = kind is Kind.EMBEDDING
    return Call(
        number=number,
        kind=kind,
        tokens=Tokens(
            prompt=prompt,
            cached=0 if is_short else number % 11,
            completion=0 if is_short else completion,
            reasoning=0 if is_short else number % 3,
        ),
        pause=chance.choice((0.0, 0.02, 0.1, 0.4, 1.2)),
        status=chance.choice(list(ERRORS)) if kind is Kind.ERROR else 200,
        user=f"user-{number % 7}",
    )


def poll(made: Call, number: int) -> Call:
    """Return the call that asks what became of a background response."""
    return Call(
        number=number,
        kind=Kind.POLL,
        tokens=made.tokens,
        pause=0.0,
        status=200,
        user=f"user-{number % 7}",
    )


def request(asked: Call, *, of: Call | None = None) -> bytes:
    """Return the request as bytes; `of`: the background response that is polled."""
    path, body = _asked(asked) if of is None else (f"/v1/responses/{of.response_id}", None)
    data = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
        "Host: api.openai.com",
        *(["Content-Type: application/json", f"Content-Length: {len(data)}"] if data else []),
        f"{CALL}: {asked.number}",
        f"X-Meter-User: {asked.user}",
        f"X-Meter-Endpoint: {asked.kind.value.replace(' ', '_')}",
        f"X-Meter-Metadata-Call: {asked.number}",
        "\r\n",
    ]
    return "\r\n".join(lines).encode() + data


def pieces(asked: Call, *, with_usage: bool) -> list[bytes]:
    """Return the body of the upstream's answer; `with_usage`: a chat stream that tells it."""
    match asked.kind:
        case Kind.ERROR:
            return [_json({"error": _error(asked)})]
        case Kind.EMBEDDING:
            return [_json(_embedding(asked))]
        case Kind.BACKGROUND:
            return [_json(response(asked, "queued"))]
        case Kind.RESPONSE:
            return _response_events(asked)
        case Kind.STREAM | Kind.STREAM_WITH_USAGE | Kind.HANG_UP:
            return _chat_events(asked, with_usage=with_usage)
        case Kind.JSON | Kind.CUT | Kind.POLL:
            return [_json(_chat(asked))]


def expected(asked: Call) -> bytes:
    """Return the body that the client is to get, where it gets all of it."""
    with_usage = asked.kind is Kind.STREAM_WITH_USAGE
    return b"".join(pieces(asked, with_usage=with_usage))


def response(made: Call, status: str) -> dict[str, Any]:
    """Return a response object."""
    used, is_over = made.tokens, status == "completed"
    usage = {
        "input_tokens": used.prompt,
        "input_tokens_details": {"cached_tokens": used.cached},
        "output_tokens": used.completion,
        "output_tokens_details": {"reasoning_tokens": used.reasoning},
        "total_tokens": used.total,
    }
    return {
        "id": made.response_id,
        "object": "response",
        "created_at": 1_795_000_000,
        "background": made.kind is Kind.BACKGROUND,
        "status": status,
        "model": MODEL,
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "service_tier": "default" if is_over else "auto",
        "usage": usage if is_over else None,
    }


def _asked(asked: Call) -> tuple[str, dict[str, Any]]:
    chat: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "?"}]}
    match asked.kind:
        case Kind.STREAM | Kind.HANG_UP:
            return "/v1/chat/completions", chat | {"stream": True}
        case Kind.STREAM_WITH_USAGE:
            options = {"stream": True, "stream_options": {"include_usage": True}}
            return "/v1/chat/completions", chat | options
        case Kind.RESPONSE:
            return "/v1/responses", {"model": "gpt-4o-mini", "input": "?", "stream": True}
        case Kind.BACKGROUND:
            return "/v1/responses", {"model": "gpt-4o-mini", "input": "?", "background": True}
        case Kind.EMBEDDING:
            return "/v1/embeddings", {"model": EMBEDDER, "input": "?"}
        case Kind.JSON | Kind.ERROR | Kind.CUT | Kind.POLL:
            return "/v1/chat/completions", chat


def _usage(asked: Call) -> dict[str, Any]:
    used = asked.tokens
    return {
        "prompt_tokens": used.prompt,
        "completion_tokens": used.completion,
        "total_tokens": used.total,
        "prompt_tokens_details": {"cached_tokens": used.cached},
        "completion_tokens_details": {"reasoning_tokens": used.reasoning},
    }


def _made(asked: Call, kind: str) -> dict[str, Any]:
    made = {"id": f"chatcmpl-{asked.number}", "object": kind, "created": 1_795_000_000}
    return made | {"model": MODEL, "service_tier": "default"}


def _chat(asked: Call) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(WORDS), "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return _made(asked, "chat.completion") | {"choices": [choice], "usage": _usage(asked)}


def _embedding(asked: Call) -> dict[str, Any]:
    data = [{"object": "embedding", "index": 0, "embedding": [1.0, 2.0]}]
    usage = {"prompt_tokens": asked.tokens.prompt, "total_tokens": asked.tokens.prompt}
    return {"object": "list", "data": data, "model": EMBEDDER, "usage": usage}


def _error(asked: Call) -> dict[str, Any]:
    return {"message": "made up", "type": ERRORS[asked.status], "param": None, "code": None}


def _chat_events(asked: Call, *, with_usage: bool) -> list[bytes]:
    made = _made(asked, "chat.completion.chunk")
    nothing = {"usage": None} if with_usage else {}
    events = []
    for word in WORDS:
        choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
        events.append(made | {"choices": [choice]} | nothing)
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    events.append(made | {"choices": [last]} | nothing)
    if with_usage:
        events.append(made | {"choices": [], "usage": _usage(asked)})
    return [*(b"data: %b\n\n" % _json(event) for event in events), b"data: [DONE]\n\n"]


def _response_events(asked: Call) -> list[bytes]:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    data: list[dict[str, Any]] = [
        {"type": "response.created", "response": response(asked, "in_progress")},
        *({"type": "response.output_text.delta", "delta": word, **place} for word in WORDS),
        {"type": "response.completed", "response": response(asked, "completed")},
    ]
    numbered = [event | {"sequence_number": number} for number, event in enumerate(data)]
    return [b"event: %b\ndata: %b\n\n" % (e["type"].encode(), _json(e)) for e in numbered]


def _json(data: object) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()

from datetime import UTC, datetime
from typing import Any

from proxy.demo.homework import Call
from proxy.demo.traffic import Backend
from tests.fakes.answers import answer
from tests.fakes.upstream import Upstream

USAGE = b'{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}'


def _call(user: str | None = "pupil-0001", **more: Any) -> Call:
    return Call(
        at=datetime(2026, 11, 22, tzinfo=UTC),
        user=user,
        endpoint="generate_hint",
        metadata={"course": "algebra-1"},
        path="/v1/chat/completions",
        body={"model": "gpt-5.4-mini", "messages": [], "stream": True},
        **more,
    )


async def test_a_call_says_who_made_it() -> None:
    """In the header fields that a backend sends."""
    async with Upstream(script=answer(USAGE)) as upstream, Backend(upstream.url) as backend:
        await backend.send(_call())
        await backend.send(_call(user=None))
    first, second = (b"\n".join(call.lines).lower() for call in upstream.calls)
    assert b"x-meter-user: pupil-0001" in first
    assert b"x-meter-endpoint: generate_hint" in first
    assert b'x-meter-metadata: {"course": "algebra-1"}' in first
    assert b"x-meter-user" not in second


async def test_many_calls_are_made_and_counted() -> None:
    """So that whoever waits sees how far it is; one of them hangs up."""
    done: list[int] = []
    calls = [_call(hangs_up=number == 3) for number in range(20)]
    async with Upstream(script=answer(USAGE)) as upstream, Backend(upstream.url) as backend:
        await backend.send_all(calls, at_once=4, sent=done.append)
        assert len(upstream.calls) == 20
    assert done == list(range(1, 21))

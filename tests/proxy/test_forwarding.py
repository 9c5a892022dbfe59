"""Who made a call is noted and goes no further; a user may be demanded."""

import asyncio
from pathlib import Path

import pytest

from tests.fakes.relay import Wire, roundtrip, running_worker
from tests.fakes.upstream import Upstream


def post(body: bytes, lines: bytes = b"", *, path: bytes = b"/v1/responses") -> bytes:
    """Return a request that ends its connection."""
    return (
        b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"%bContent-Length: %d\r\n\r\n%b" % (path, lines, len(body), body)
    )


@pytest.mark.parametrize(
    ("lines", "body", "expected"),
    [
        (b"X-Meter-User: ada\r\nX-Meter-Endpoint: hint\r\n", b"{}", ("ada", "hint", None, None)),
        (b"", b'{"user":"u","safety_identifier":"s"}', ("s", None, None, None)),
        (b"", b'{"user":"u","metadata":{"a":"b"}}', ("u", None, {"a": "b"}, None)),
        (
            b'X-Meter-Metadata: {"a":1,"b":2}\r\nX-Meter-Metadata-B: 3\r\n',
            b'{"metadata":{"a":"x","c":"y"}}',
            (None, None, {"a": 1, "b": "3", "c": "y"}, None),
        ),
        (b"X-Meter-User: \xc3\xa9ve\r\n", b"{}", ("\xe9ve", None, None, None)),
        (b"X-Meter-User: \xff\r\n", b"{}", (None, None, None, "x-meter-user: not UTF-8")),
        (
            b"X-Meter-Metadata: [1]\r\n",
            b"{}",
            (None, None, None, "x-meter-metadata: not a JSON object"),
        ),
    ],
    ids=["headers", "safety", "body", "merged", "UTF-8", "unreadable", "no object"],
)
@pytest.mark.parametrize("path", [b"/v1/responses", b"/v1/chat/completions"])
async def test_attribution_is_noted_and_goes_no_further(
    tmp_path: Path, lines: bytes, body: bytes, path: bytes, expected: tuple[object, ...]
) -> None:
    """From headers, else from the body; what cannot be read fails no call."""
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        answer = await roundtrip(worker.port, post(body, lines, path=path))
        assert answer.endswith(b"{}")
        opening = (await worker.closing()).opening
        found = (opening.user_id, opening.endpoint, opening.metadata, opening.attribution_problem)
        assert found == expected
        assert b"x-meter" not in upstream.calls[0].head.lower()
        assert upstream.calls[0].body == body


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "in parts"])
@pytest.mark.parametrize(
    ("lines", "body", "relayed"),
    [
        (b"", b"{}", False),
        (b"", b'{"user":"bob"}', True),
        (b"X-Meter-User: ada\r\n", b"{}", True),
        (b"X-Meter-User: \xff\r\n", b'{"user":"bob"}', False),
        (b"Content-Encoding: odd\r\n", b"??", False),
    ],
    ids=["nobody", "body", "header", "unreadable", "encoded"],
)
async def test_a_user_may_be_demanded(
    tmp_path: Path, lines: bytes, body: bytes, *, relayed: bool, whole: bool
) -> None:
    """A call without one is answered 400, with a row that says so, and sent nowhere."""
    request = post(body, lines)
    async with (
        asyncio.timeout(10),
        Upstream() as upstream,
        running_worker(tmp_path, upstream.url, require_user=True) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(request if whole else request[:-1])
        if not whole:
            await asyncio.sleep(0.01)
            await wire.send(request[-1:])
        answer = await wire.rest()
        await wire.close()
        closing = await worker.closed_once("ok" if relayed else "refused")
        assert answer.startswith(b"HTTP/1.1 200 " if relayed else b"HTTP/1.1 400 ")
        assert len(upstream.calls) == int(relayed)
        if not relayed:
            assert b'"type":"user_required"' in answer
            assert (closing.status, closing.error_type) == (400, "user_required")


async def test_a_demand_for_a_user_holds_no_more_than_it_may(tmp_path: Path) -> None:
    """A body that is too large to be looked into names nobody."""
    settings = {"require_user": True, "max_held_bytes": 4096}
    request = post(b'{"x":"' + b"a" * 900_000 + b'","user":"bob"}')
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url, **settings) as worker:  # type: ignore[arg-type]
        assert (await roundtrip(worker.port, request)).startswith(b"HTTP/1.1 400 ")
        await worker.closed_once("refused")
        assert upstream.calls == []


async def test_what_the_log_says_of_a_call(tmp_path: Path) -> None:
    """Facts; neither the key nor what was asked."""
    lines = b"X-Meter-User: ada\r\nAuthorization: Bearer none-of-your-business\r\n"
    body = b'{"model":"m","input":"a secret"}'
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        await roundtrip(worker.port, post(body, lines, path=b"/v1/responses?key=hidden"))
        line = worker.lines[0]
    assert (line["user"], line["request_model"], line["outcome"]) == ("ada", "m", "ok")
    assert not [word for word in ("secret", "business", "hidden") if word in str(line)]

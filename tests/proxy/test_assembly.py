"""A worker is what its settings make of it."""

import asyncio
from pathlib import Path

from proxy.assembly import IdSource
from proxy.core.model import created_at
from tests.fakes.relay import Wire, roundtrip, running_worker
from tests.fakes.upstream import Upstream


def test_ids_tell_the_time_and_never_repeat() -> None:
    """UUIDv7, whatever the clock does."""
    source = IdSource(lambda: 1_788_000_000_000_000_000)
    ids = {source() for _ in range(2000)}
    assert len(ids) == 2000
    assert {created_at(event_id).year for event_id in ids} == {2026}


async def test_a_client_may_leave_out_what_the_upstreams_url_says(tmp_path: Path) -> None:
    """The call is known for what it is, and its stream is asked for its usage."""
    body = b'{"model":"m","stream":true}'
    request = (
        b"POST /chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    async with (
        asyncio.timeout(20),
        Upstream() as upstream,
        running_worker(tmp_path, upstream.url + "/v1") as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(request)
        await wire.answer()
        await wire.close()
        assert upstream.calls[0].first_line == b"POST /v1/chat/completions HTTP/1.1"
        assert b'"include_usage":true' in upstream.calls[0].body
        opening = (await worker.closing()).opening
        assert (opening.operation_name, opening.api_path) == ("chat", "/chat/completions")


async def test_the_names_of_headers_are_settings(tmp_path: Path) -> None:
    """However they are written; what is named is read, and goes no further."""
    request = (
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\nhelicone-user-id: ada\r\n"
        b'HELICONE-PROPERTY-School: s1\r\nX-Feature: quiz\r\nX-Facts: {"class": "5b"}\r\n\r\n'
    )
    async with (
        Upstream() as upstream,
        running_worker(
            tmp_path,
            upstream.url,
            user_headers=("Helicone-User-Id",),
            endpoint_headers=("x-feature",),
            metadata_headers=("X-FACTS",),
            metadata_prefixes=("Helicone-Property-",),
        ) as worker,
    ):
        await roundtrip(worker.port, request)
        opening = (await worker.closing()).opening
    assert (opening.user_id, opening.endpoint) == ("ada", "quiz")
    assert opening.metadata == {"school": "s1", "class": "5b"}
    assert [line.partition(b":")[0].lower() for line in upstream.calls[0].lines] == [b"host"]


async def test_a_snapshot_tells_what_the_worker_has_done(tmp_path: Path) -> None:
    """Calls by how they ended, what was refused, and whether there will be more."""
    call = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        for _ in range(2):
            await wire.send(call)
            await wire.answer()
        await wire.close()
        await roundtrip(worker.port, b"GET / HTTP/1.1\nHost: x\n\n")
        await worker.wait_for_closings(2)
        snapshot = worker.worker.parts.snapshot()
        assert (snapshot.worker, snapshot.calls) == ("w", {"ok": 2})
        assert (snapshot.refused, snapshot.in_flight, snapshot.journal_records) == (1, 0, 4)
        assert not snapshot.draining
    assert worker.worker.parts.snapshot().draining

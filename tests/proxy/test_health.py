"""Three paths are the proxy's own; everything else belongs to the upstream."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from proxy.core.model import EPOCH
from proxy.heartbeat import State, publish
from tests.fakes.relay import Wire, roundtrip, running_worker
from tests.fakes.upstream import Upstream


def get(path: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    """Return a request."""
    return b"%b %b HTTP/%b\r\nHost: x\r\n\r\n" % (method, path, version)


async def test_a_worker_lives_and_is_ready(tmp_path: Path) -> None:
    """Several questions on one connection; the upstream hears of none, and no row is written."""
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        await wire.send(get(b"/_meter/healthz?x") + get(b"/_meter/readyz"))
        assert json.loads((await wire.answer())[1]) == {"status": "ok"}
        ready = json.loads((await wire.answer())[1])
        assert (ready["status"], ready["problems"]) == ("ready", [])
        await wire.send(get(b"/_meter/healthz", b"HEAD"))
        assert b"Content-Length: 16\r\n" in await wire.head()
        await wire.close()
        assert upstream.calls == []
        assert worker.records() == []


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        (get(b"/_meter/x"), b"404", b"not_found"),
        (get(b"/_meter/"), b"404", b"not_found"),
        (get(b"/_meter/healthz", b"DELETE"), b"405", b"method_not_allowed"),
    ],
)
async def test_other_questions_are_errors(
    tmp_path: Path, request_: bytes, status: bytes, error: bytes
) -> None:
    """In the shape of all errors of the proxy's own."""
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        await wire.send(request_)
        head, body = await wire.answer()
        await wire.close()
        assert head.startswith(b"HTTP/1.1 " + status)
        assert b'"type":"%b"' % error in body


async def test_a_body_is_read_and_dropped(tmp_path: Path) -> None:
    """The connection goes on behind it."""
    body = b"POST /_meter/healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        await wire.send(body)
        await asyncio.sleep(0.01)
        await wire.send(b"12345" + get(b"/_meter/healthz"))
        assert (await wire.answer())[0].startswith(b"HTTP/1.1 405 ")
        assert (await wire.answer())[0].startswith(b"HTTP/1.1 200 ")
        await wire.close()


async def test_a_client_of_http_1_0_is_answered_and_closed(tmp_path: Path) -> None:
    """It may wait for that."""
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        answer = await roundtrip(worker.port, get(b"/_meter/healthz", version=b"1.0"))
        assert answer.endswith(b'{"status":"ok"}\n')


async def test_metrics_count_the_calls_of_all_workers(tmp_path: Path) -> None:
    """Of this one from memory, of the others from what they left in the data directory."""
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        await wire.send(get(b"/v1/models"))
        await wire.answer()
        await wire.send(get(b"/_meter/metrics"))
        head, body = await wire.answer()
        await wire.close()
        assert b"\r\nContent-Type: text/plain; version=0.0.4" in head
        assert b'openai_meter_calls_total{outcome="ok",worker="w"} 1.0\n' in body
        assert b'openai_meter_calls_total{outcome="interrupted",worker="w"} 0.0\n' in body
        assert b'openai_meter_calls_in_flight{worker="w"} 0.0\n' in body
        assert b'openai_meter_estimates_waiting{worker="w"} 0.0\n' in body
        assert b'openai_meter_estimates_given_up_total{worker="w"} 0.0\n' in body


async def test_metrics_tell_what_the_recorder_says(tmp_path: Path) -> None:
    """Numbers as they are; a problem is 1 while there is one, its text is for the log."""
    state = State(time=EPOCH, rows=3, database_reachable=True, prices_problem="line 3: no number")
    await asyncio.to_thread(publish, state, tmp_path)
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        await wire.send(get(b"/_meter/metrics"))
        lines = (await wire.answer())[1].splitlines()
        await wire.close()
    assert b"openai_meter_recorder_rows 3.0" in lines
    assert b"openai_meter_recorder_database_reachable 1.0" in lines
    assert b"openai_meter_recorder_prices_problem 1.0" in lines
    assert b'openai_meter_recorder_insert_failures{kind="refused"} 0.0' in lines
    assert b'openai_meter_recorder_insert_failures{kind="unreachable"} 0.0' in lines
    assert b"openai_meter_recorder_journal_problem 0.0" in lines
    assert b"openai_meter_recorder_database_problem 0.0" in lines
    assert b"# HELP openai_meter_recorder_database_reachable 1 while Postgres answers." in lines


async def test_every_number_of_the_recorder_has_a_meaning(tmp_path: Path) -> None:
    """A new one in its state cannot take the metrics away; texts and times are none of them."""
    ones = {int: 1, float: 1.0, bool | None: True}
    kinds = msgspec.structs.fields(State)
    values = {kind.name: ones[kind.type] for kind in kinds if kind.type in ones}
    state = State(time=EPOCH, **values)  # type: ignore[arg-type]  # chosen by their types
    await asyncio.to_thread(publish, state, tmp_path)
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        await wire.send(get(b"/_meter/metrics"))
        text = (await wire.answer())[1].decode()
        await wire.close()
    assert [name for name in values if f"openai_meter_recorder_{name} 1.0" not in text] == []

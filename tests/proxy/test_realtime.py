"""What is billed in a WebSocket is noted before the client can know of it, and bytes stay bytes."""

import asyncio
import ssl
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy import framing
from proxy.accounting import Account
from proxy.books import Books, Counts
from proxy.client import ClientLink
from proxy.core.attribution import AttributionFields, Attributions
from proxy.core.headers import request_pattern
from proxy.core.metering import FAULT
from proxy.core.model import Closing, Opening, Outcome, Record
from proxy.core.passage import Destination
from proxy.core.plans import RequestPlans
from proxy.realtime import ENDED_FIRST, MAX_OPEN, Session
from proxy.upstream import UpstreamLink
from tests.fakes.relay import Running, Wire, running_worker
from tests.fakes.upstream import Call, Script, Upstream
from tests.fakes.websocket import (
    DEFLATE,
    PING,
    Deflater,
    close,
    event,
    fragments,
    frame,
    switched,
    upgrade,
)

USAGE = {"total_tokens": 3, "input_tokens": 1, "output_tokens": 2}
RAW = b'{"total_tokens": 3, "input_tokens": 1, "output_tokens": 2}'
HELLO = event(type="session.created", session={"id": "sess_1", "model": "gpt-realtime-2"})
BEGUN = event(type="response.created", response={"id": "resp_1"})
DONE = event(type="response.done", response={"id": "resp_1", "status": "completed", "usage": USAGE})
HEARD = event(
    type="conversation.item.input_audio_transcription.completed",
    item_id="item_1",
    usage={"type": "duration", "seconds": 3},
)
AUDIO = event(type="response.output_audio.delta", delta="A" * 500)
KEY = b"openai-insecure-api-key.sk-proj-0123456789abcdef"
FIELDS = b"X-Meter-User: ada\r\nX-Meter-Endpoint: tutor\r\nX-Meter-Metadata-Course: x12\r\n"


def saying(*parts: bytes, fields: bytes = b"", then: asyncio.Event | None = None) -> Script:
    """Return a script that switches and says something; what follows waits for an event."""

    async def script(call: Call) -> None:
        await call.send(switched(fields))
        for part in parts:
            await call.send(part)
        if then is not None:
            await then.wait()
            call.close()
        else:
            await call.gone()

    return script


def by_name(closings: list[Closing]) -> dict[str, Closing]:
    """Return closings by what they are of."""
    return {closing.opening.operation_name: closing for closing in closings}


async def test_each_response_and_each_transcription_is_a_row(tmp_path: Path) -> None:
    """With ids of their own, for whom the session is; and so is the session."""
    fields = b"x-request-id: req_1\r\n"
    parts = (HELLO, BEGUN, HEARD, DONE, close())
    async with (
        Upstream(saying(*parts, fields=fields)) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(upgrade(fields=FIELDS))
        assert await wire.head() == switched(fields)
        assert await wire.exactly(len(b"".join(parts))) == b"".join(parts)
        await wire.close()
        found = by_name(await worker.wait_for_closings(3))
    session, response, heard = (
        found[name] for name in ("realtime.connect", "realtime.response", "realtime.transcription")
    )
    assert len({closing.opening.event_id for closing in found.values()}) == 3
    for closing in found.values():
        opening = closing.opening
        assert (opening.user_id, opening.endpoint) == ("ada", "tutor")
        assert (opening.metadata, opening.request_model) == ({"course": "x12"}, "gpt-realtime")
        assert (opening.api_path, opening.worker) == ("/v1/realtime", "w")
        assert (closing.status, closing.outcome) == (101, "ok")
        assert closing.upstream_request_id == "req_1"
    assert (session.response_model, session.response_id) == ("gpt-realtime-2", "sess_1")
    assert (session.usage, session.usage_problem) == (None, None)
    assert session.response_body_bytes == len(b"".join(parts))
    assert (response.response_model, response.response_id) == ("gpt-realtime-2", "resp_1")
    assert (response.usage, response.response_status) == (RAW, "completed")
    assert response.latency_us is not None
    assert (heard.response_model, heard.response_id) == (None, "item_1")
    assert heard.usage == b'{"type": "duration", "seconds": 3}'
    assert [line["operation_name"] for line in worker.lines] == [
        "realtime.transcription",
        "realtime.response",
        "realtime.connect",
    ]


async def test_what_is_billed_is_noted_before_its_last_byte_goes_out(tmp_path: Path) -> None:
    """And not before it has come."""
    last = asyncio.Event()

    async def script(call: Call) -> None:
        await call.send(switched() + HELLO + BEGUN + DONE[:-1])
        await last.wait()
        await call.send(DONE[-1:])
        await call.gone()

    async with Upstream(script) as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        await wire.send(upgrade())
        await wire.head()
        await wire.exactly(len(HELLO + BEGUN + DONE) - 1)
        records = await asyncio.to_thread(worker.records)
        names = [r.operation_name for r in records if isinstance(r, Opening)]
        assert names == ["realtime.connect", "realtime.response"]
        assert len(records) == 2
        last.set()
        assert await wire.exactly(1) == DONE[-1:]
        (response,) = await asyncio.to_thread(worker.closings)
        assert (response.opening, response.usage) == (records[1], RAW)
        await wire.close()


async def test_a_response_that_is_not_finished_is_a_row_without_usage(tmp_path: Path) -> None:
    """The one that was, keeps what was billed; so does everything when the upstream is lost."""

    async def script(call: Call) -> None:
        await call.send(switched() + HELLO + BEGUN + DONE)
        await call.send(event(type="response.created", response={"id": "resp_2"}))
        await call.reader.read(1)
        call.reset()

    async with Upstream(script) as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        await wire.send(upgrade())
        await wire.head()
        await wire.exactly(len(HELLO + BEGUN + DONE))
        await wire.some()
        await wire.send(b"x")
        with pytest.raises(ConnectionResetError):
            await wire.rest()
        done, lost, session = await worker.wait_for_closings(3)
    assert (done.response_id, done.usage, done.outcome) == ("resp_1", RAW, "ok")
    assert (lost.response_id, lost.usage, lost.outcome) == ("resp_2", None, "upstream_error")
    assert (lost.usage_problem, lost.response_model) == (ENDED_FIRST, "gpt-realtime-2")
    assert session.opening.operation_name == "realtime.connect"
    assert (session.outcome, session.error_type) == ("upstream_error", "upstream_disconnected")


@pytest.mark.parametrize(
    ("way", "outcome"),
    [("client", "client_disconnected"), ("upstream", "upstream_error"), ("stop", "interrupted")],
)
async def test_who_ends_a_session_too_early(tmp_path: Path, way: str, outcome: str) -> None:
    """A clean end of the connection is the session's end, not the response's."""
    then = asyncio.Event()
    async with (
        Upstream(saying(HELLO, BEGUN, then=then)) as upstream,
        running_worker(tmp_path, upstream.url, drain_seconds=0.1, on_disconnect="cancel") as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(upgrade())
        await wire.head()
        await wire.exactly(len(HELLO + BEGUN))
        if way == "client":
            await wire.close()
        elif way == "upstream":
            then.set()
            assert await wire.rest() == b""
        else:
            worker.worker.stop()
        response, session = await worker.wait_for_closings(2)
        then.set()
        await wire.close()
    assert (response.opening.operation_name, response.outcome) == ("realtime.response", outcome)
    assert response.usage_problem == ENDED_FIRST
    expected = "ok" if way == "upstream" else outcome
    assert (session.opening.operation_name, session.outcome) == ("realtime.connect", expected)


async def test_a_response_is_read_to_its_end_for_a_client_that_has_left(tmp_path: Path) -> None:
    """Then the session is over, also for the upstream; there is nobody to make another for."""
    left, ended = asyncio.Event(), asyncio.Event()

    async def script(call: Call) -> None:
        await call.send(switched() + HELLO + BEGUN)
        await left.wait()
        await call.send(AUDIO + DONE[:20])
        await asyncio.sleep(0.05)
        await call.send(DONE[20:])
        await call.gone()
        ended.set()

    async with (
        asyncio.timeout(20),
        Upstream(script) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(upgrade())
        await wire.head()
        await wire.exactly(len(HELLO + BEGUN))
        wire.reset()
        while not len(worker.worker.parts.abandoned):
            await asyncio.sleep(0.01)
        left.set()
        await ended.wait()
        response, session = await worker.wait_for_closings(2)
    assert (response.outcome, response.usage, response.usage_problem) == ("ok", RAW, None)
    assert (session.outcome, session.error_type) == ("client_disconnected", None)
    assert session.opening.operation_name == "realtime.connect"


@pytest.mark.parametrize(
    ("bounds", "error_type"),
    [
        ({"on_disconnect_max_seconds": 1}, "drain_seconds_exceeded"),
        ({"on_disconnect_max_bytes": 1024}, "drain_bytes_exceeded"),
    ],
)
async def test_it_is_not_read_for_nobody_beyond_a_bound(
    tmp_path: Path, bounds: dict[str, Any], error_type: str
) -> None:
    """What was being made is a row without usage then."""

    async def script(call: Call) -> None:
        await call.send(switched() + HELLO + BEGUN)
        while True:
            await call.send(AUDIO)
            await asyncio.sleep(0.05)

    async with (
        asyncio.timeout(20),
        Upstream(script) as upstream,
        running_worker(tmp_path, upstream.url, **bounds) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(upgrade())
        await wire.head()
        await wire.exactly(len(HELLO + BEGUN))
        wire.reset()
        response, session = await worker.wait_for_closings(2)
    assert (response.outcome, response.usage) == ("client_disconnected", None)
    assert response.usage_problem == ENDED_FIRST
    assert (session.outcome, session.error_type) == ("client_disconnected", error_type)


@pytest.mark.parametrize("fields", [b"", DEFLATE], ids=["plain", "compressed"])
async def test_large_messages_in_fragments_with_pings_between_them(
    tmp_path: Path, fields: bytes
) -> None:
    """Megabytes that do not matter, and an end in many frames; bytes pass as they are."""
    end = event(type="response.done", response={"id": "r", "usage": USAGE, "x": "y" * 70_000})
    text = end[10:]
    parts = [b'{"type":"response.output_audio.delta","delta":"', b"A" * (6 << 20), b'"}']
    packer = Deflater()
    if fields:
        parts = [packer.message(b"".join(parts))]
        text = packer.message(text)
    reserved = 0x40 if fields else 0
    frames = [HELLO, *fragments(parts, reserved=reserved), frame(b"?", PING)]
    ending = fragments([text[:9], text[9:10], b"", text[10:]], reserved=reserved)
    frames += [ending[0], frame(b"!", PING), *ending[1:], close()]
    stream = b"".join(frames)
    async with (
        asyncio.timeout(30),
        Upstream(saying(stream, fields=fields)) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(upgrade())
        assert await wire.head() == switched(fields)
        assert await wire.exactly(len(stream)) == stream
        await wire.close()
        found = by_name(await worker.wait_for_closings(2))
    assert found["realtime.response"].usage == RAW
    assert found["realtime.connect"].usage_problem is None


async def test_what_cannot_be_read_passes_and_is_told(tmp_path: Path) -> None:
    """An extension that is not known, agreed on by both sides."""
    fields = b"Sec-WebSocket-Extensions: x-secret\r\n"
    async with (
        Upstream(saying(HELLO, DONE, fields=fields)) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(upgrade())
        assert await wire.head() == switched(fields)
        assert await wire.exactly(len(HELLO + DONE)) == HELLO + DONE
        await wire.close()
        closing = await worker.closing()
    assert closing.usage_problem == "unknown_websocket_extension"


async def test_a_websocket_that_bills_nothing_known_has_one_row(tmp_path: Path) -> None:
    """Whatever is said in it."""
    async with (
        Upstream(saying(HELLO, BEGUN, DONE)) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(upgrade(b"/v1/odd"))
        await wire.head()
        assert await wire.exactly(len(HELLO + BEGUN + DONE)) == HELLO + BEGUN + DONE
        await wire.close()
        closing = await worker.closed_once("ok")
    assert (closing.opening.operation_name, closing.status) == ("unknown", 101)


async def test_a_key_among_the_subprotocols_passes_and_is_not_kept(tmp_path: Path) -> None:
    """Browsers can send it in no other way; nor is one in the query kept."""
    offered = b"Sec-WebSocket-Protocol: realtime, %b, openai-beta.realtime-v1\r\n" % KEY
    chosen = b"Sec-WebSocket-Protocol: realtime\r\n"
    target = b"/openai/realtime?deployment=d&api-key=" + KEY
    async with (
        Upstream(saying(HELLO, DONE, close(), fields=chosen)) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(upgrade(target, offered))
        assert await wire.head() == switched(chosen)
        await wire.exactly(len(HELLO + DONE + close()))
        await wire.close()
        await worker.wait_for_closings(2)
        assert offered.strip() in upstream.calls[0].head
        assert upstream.calls[0].first_line == b"GET %b HTTP/1.1" % target
        told = repr((worker.lines, worker.logged))
    kept = await asyncio.to_thread(_kept, tmp_path)
    assert b"resp_1" in kept
    assert KEY[:20] not in kept
    assert KEY[-16:] not in kept
    assert KEY[-16:].decode() not in told


def _kept(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


CHUNKS = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=300).map(frame),
    st.sampled_from([HELLO, BEGUN, DONE, HEARD, close(), close(4000), frame(b"", PING)]),
    st.binary(max_size=40).map(lambda data: frame(data, reserved=0x40)),
    st.binary(max_size=40).map(lambda data: frame(b'{"type":"response.done",' + data)),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(CHUNKS, max_size=8),
    st.lists(st.binary(max_size=300), max_size=5),
    st.sampled_from([b"", DEFLATE, b"Sec-WebSocket-Extensions: \xff, ;\r\n"]),
    st.sampled_from([b"/v1/realtime", b"/v1/responses"]),
)
async def test_any_bytes_pass_both_ways_and_leave_a_row(
    said: list[bytes], answered: list[bytes], fields: bytes, target: bytes
) -> None:
    """From a hostile upstream and a hostile client: nothing is changed, nothing raises."""
    up, down = b"".join(answered), b"".join(said)
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def script(call: Call) -> None:
        await call.send(switched(fields))
        for part in said:
            await call.send(part)
            await asyncio.sleep(0)
        heard.set_result(await call.reader.readexactly(len(up)))
        call.close()

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        async with (
            asyncio.timeout(20),
            Upstream(script) as upstream,
            running_worker(Path(name), upstream.url, max_event_bytes=1024) as worker,
        ):
            wire = await Wire.to(worker.port)
            await wire.send(upgrade(target))
            assert await wire.head() == switched(fields)
            for part in answered:
                await wire.send(part)
            assert await wire.rest() == down
            assert await heard == up
            await wire.close()
            await _session_row(worker)


async def _session_row(worker: Running) -> None:
    """Wait for the row of the session, which is the last one."""
    while True:
        closings = await asyncio.to_thread(worker.closings)
        if closings and closings[-1].opening.operation_name.endswith(".connect"):
            break
        await asyncio.sleep(0.005)
    assert len({closing.opening.event_id for closing in closings}) == len(closings)


class Pages:
    """A journal in memory, and what an account of a session needs."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.ids = 0
        self.broken = False

    def append(self, record: Record) -> None:
        """Keep a record."""
        self.records.append(record)

    def append_then(self, record: Record, then: object) -> None:
        """Keep a record; nothing waits for it here."""
        self.records.append(record)
        del then

    def new_id(self) -> bytes:
        """Return the next id, unless there is none left."""
        if self.broken:
            raise RuntimeError
        self.ids += 1
        return self.ids.to_bytes(16)

    def session(self) -> tuple[Account, Session]:
        """Return a session that has begun."""
        names = AttributionFields()
        plans = RequestPlans(
            request_pattern(names.names, names.metadata_prefixes),
            Destination(
                authority=b"api.example",
                base_path=b"",
                own_names=names.names,
                own_prefixes=names.metadata_prefixes,
            ),
        )
        books = Books(
            journal=self,
            fields=names,
            attributions=Attributions(names),
            counts=Counts(by_outcome={}),
            upstream="api.example",
            worker="w",
            event_bytes=10_000,
            new_id=self.new_id,
            now_ns=lambda: 0,
            log_call=None,
        )
        account = Account(books, framing.judged_request(upgrade(fields=FIELDS), plans))
        account.open(lambda: None)
        return account, Session(account, framing.judged_answer(switched(), head_only=True))


def test_a_fault_of_ours_is_the_sessions_problem() -> None:
    """The relay does not hear of it."""
    pages = Pages()
    account, session = pages.session()
    pages.broken = True
    session.look(BEGUN)
    account.close(Outcome.OK)
    closing = pages.records[-1]
    assert isinstance(closing, Closing)
    assert closing.usage_problem == FAULT


def test_responses_that_never_end_are_bounded() -> None:
    """Beyond the bound one is a row only when it ends; begun twice is begun once."""
    pages = Pages()
    account, session = pages.session()
    for number in range(MAX_OPEN + 10):
        session.look(event(type="response.created", response={"id": f"r{number}"}))
    session.look(event(type="response.created", response={"id": "r0"}))
    assert len(pages.records) == 1 + MAX_OPEN
    session.look(event(type="response.done", response={"id": f"r{MAX_OPEN + 5}", "usage": USAGE}))
    account.close(Outcome.OK)
    closings = [record for record in pages.records if isinstance(record, Closing)]
    assert len(closings) == 1 + MAX_OPEN + 1
    assert (closings[0].usage, closings[0].latency_us) == (RAW, None)


def test_a_response_says_itself_whom_it_is_for() -> None:
    """Below what the session's headers say."""
    pages = Pages()
    account, session = pages.session()
    response = {"id": "r", "usage": USAGE, "user": "bob", "metadata": {"course": "y", "turn": "1"}}
    session.look(event(type="response.done", response=response))
    account.close(Outcome.OK)
    _, closing, _ = pages.records
    assert isinstance(closing, Closing)
    assert closing.opening.user_id == "ada"
    assert closing.opening.metadata == {"course": "x12", "turn": "1"}


TINY = frame(b"", PING) + frame(b"{}")
MANY = 8_000  # of them in one read: more than a hundred portions
AROUND = (HELLO + BEGUN, TINY * MANY + DONE + HEARD)
MASKED = frame(b"", PING, mask=b"mask")


async def begun(worker: Running, target: bytes = b"/v1/realtime?model=m") -> Wire:
    """Begin a session, as far as its client has heard of the first response."""
    wire = await Wire.to(worker.port)
    await wire.send(upgrade(target))
    await wire.head()
    await wire.exactly(len(AROUND[0]))
    return wire


async def waiting(worker: Running) -> tuple[ClientLink, UpstreamLink]:
    """Wait until a part of what was read waits for its turn; return both links."""
    async with asyncio.timeout(20):
        while True:
            for link in worker.worker.parts.links:
                up = getattr(link.exchange, "_up", None)
                if up is not None and (link._rest or up._rest):  # noqa: SLF001
                    return link, up
            await asyncio.sleep(0)


async def test_others_have_their_turn_while_a_burst_is_looked_at(tmp_path: Path) -> None:
    """A call that comes behind it is answered first; all its bytes come, and are metered."""
    order: list[str] = []
    told = asyncio.Event()

    async def script(call: Call) -> None:
        if not call.first_line.startswith(b"GET /v1/realtime"):
            await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            return
        await call.send(switched() + AROUND[0])
        await told.wait()
        call.writer.write(AROUND[1] + close())
        await call.gone()

    async with (
        asyncio.timeout(60),
        Upstream(script) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire, other = await begun(worker), await Wire.to(worker.port)

        async def listen() -> bytes:
            burst = await wire.exactly(len(AROUND[1]))
            order.append("burst")
            return burst

        async def call() -> None:
            _, up = await waiting(worker)
            other.writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
            await other.answer()
            order.append("call")
            assert up._rest  # noqa: SLF001 (this read is not over yet)

        told.set()
        burst, _ = await asyncio.gather(listen(), call())
        assert burst == AROUND[1]
        await wire.close()
        await other.close()
        found = by_name(await worker.wait_for_closings(4))
    assert order == ["call", "burst"]
    assert found["realtime.response"].usage == RAW
    assert found["realtime.transcription"].usage == b'{"type": "duration", "seconds": 3}'
    session = found["realtime.connect"]
    assert (session.outcome, session.usage_problem) == ("ok", None)
    assert session.response_body_bytes == sum(map(len, (*AROUND, close())))


@pytest.mark.parametrize("way", ["client", "client's reset", "upstream", "its reset", "stop"])
async def test_a_session_that_ends_amid_a_burst_is_metered_whole(tmp_path: Path, way: str) -> None:
    """What had come is noted however it ends; who still listens gets all of it first."""
    gone = asyncio.Event()

    async def script(call: Call) -> None:
        await call.send(switched() + AROUND[0])
        call.writer.write(AROUND[1])
        if way == "upstream":
            call.close()
        elif way == "its reset":
            await call.reader.readexactly(len(MASKED))
            call.reset()
            gone.set()
        else:
            await call.gone()

    async with (
        asyncio.timeout(60),
        Upstream(script) as upstream,
        running_worker(tmp_path, upstream.url, drain_seconds=0) as worker,
    ):
        wire = await begun(worker)
        link, up = await waiting(worker)
        if way == "client":
            wire.writer.close()
        elif way == "client's reset":
            wire.reset()
        elif way == "upstream":
            assert await wire.rest() == AROUND[1]
        elif way == "its reset":
            await wire.send(MASKED)
            await gone.wait()
            wire.writer.write(MASKED)
        else:
            worker.worker.stop()
        while link.exchange is not None:
            assert up.caller is not None
            await asyncio.sleep(0)
        found = by_name(await worker.wait_for_closings(3))
        await wire.close()
    response, session = found["realtime.response"], found["realtime.connect"]
    assert (response.outcome, response.usage) == ("ok", RAW)
    assert "realtime.transcription" in found
    assert session.response_body_bytes == sum(map(len, AROUND))
    ends = {"its reset": "upstream_error", "stop": "interrupted"}
    assert session.outcome == ends.get(way, "ok")


@pytest.mark.parametrize("way", ["read", "stop", "leave"])
async def test_a_burst_for_nobody_is_metered_whole(tmp_path: Path, way: str) -> None:
    """A client leaves, before it or amid it, and its response is read to its end; or to a stop."""
    left = asyncio.Event()

    async def script(call: Call) -> None:
        await call.send(switched() + AROUND[0])
        if way == "leave":
            await call.send(TINY * MANY)
        await left.wait()
        call.writer.write(AROUND[1])
        await call.gone()

    async with (
        asyncio.timeout(60),
        Upstream(script) as upstream,
        running_worker(tmp_path, upstream.url, drain_seconds=0) as worker,
    ):
        wire = await begun(worker)
        (link,) = worker.worker.parts.links
        up = getattr(link.exchange, "_up")  # noqa: B009 (an exchange over HTTP has one)
        if way == "leave":
            await waiting(worker)
        wire.reset()
        while not len(worker.worker.parts.abandoned):
            await asyncio.sleep(0.01)
        left.set()
        while not up._rest:  # noqa: SLF001
            await asyncio.sleep(0)
        if way == "stop":
            worker.worker.stop()
        found = by_name(await worker.wait_for_closings(3))
    assert found["realtime.response"].usage == RAW
    assert "realtime.transcription" in found
    session = found["realtime.connect"]
    stopped = "proxy_stopped" if way == "stop" else None
    assert (session.outcome, session.error_type) == ("client_disconnected", stopped)


def listening(way: str, got: list[bytes], go: asyncio.Event, done: asyncio.Event) -> Script:
    """Return a script that keeps what it hears; what it does itself waits for an event."""

    async def script(call: Call) -> None:
        await call.send(switched() + AROUND[0])
        if way != "close":
            await go.wait()
        if way == "upstream":
            call.writer.write_eof()
        elif way == "reset":  # of which the worker learns only when it writes
            call.writer.write(TINY)
        with suppress(ConnectionError):
            while data := await call.reader.read(65536):
                got.append(data)
        done.set()

    return script


async def lost(link: ClientLink) -> int:
    """Wait until a client is known to have gone; return how much waited just before."""
    left = 0
    async with asyncio.timeout(20):
        while link.exchange is not None:
            left = len(link._rest)  # noqa: SLF001
            await asyncio.sleep(0)
    return left


@pytest.mark.parametrize("way", ["close", "reset", "upstream"])
async def test_what_a_client_says_in_a_burst_goes_up_whole(tmp_path: Path, way: str) -> None:
    """Also where it hangs up amid it; an upstream that has gone is sent nothing more."""
    burst = MASKED * 5 * MANY + frame(b"\x03\xe8", 8, mask=b"mask")
    got: list[bytes] = []
    done, go = asyncio.Event(), asyncio.Event()
    async with (
        asyncio.timeout(60),
        Upstream(listening(way, got, go, done)) as upstream,
        running_worker(tmp_path, upstream.url, on_disconnect="cancel") as worker,
    ):
        wire = await begun(worker)
        wire.writer.write(burst)
        link, _ = await waiting(worker)
        come = len(link._rest)  # noqa: SLF001
        go.set()
        if way == "close":
            await wire.close()
        elif way == "reset":
            wire.reset()
            assert await lost(link)
        else:
            assert await wire.rest() == b""
        await done.wait()
        found = by_name(await worker.wait_for_closings(2))
        await wire.close()
    up, session = b"".join(got), found["realtime.connect"]
    assert burst.startswith(up)
    assert session.outcome == ("ok" if way == "upstream" else "client_disconnected")
    if way != "upstream":
        assert len(up) >= (len(burst) if way == "close" else come)
        assert session.request_body_bytes == len(up)


async def test_a_burst_over_tls_goes_up_whole(tmp_path: Path) -> None:
    """The end of what a client says comes behind it there as well."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    for part in issued.cert_chain_pems:
        part.write_to_path(str(certificate), append=True)
    issued.private_key_pem.write_to_path(str(key))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    burst, got, done, go = MASKED * 5 * MANY, list[bytes](), asyncio.Event(), asyncio.Event()
    async with (
        asyncio.timeout(60),
        Upstream(listening("close", got, go, done)) as upstream,
        running_worker(
            tmp_path,
            upstream.url,
            on_disconnect="cancel",
            listen_tls_certificate=certificate,
            listen_tls_key=key,
        ) as worker,
    ):
        wire = await Wire.to(worker.port, tls=context)
        await wire.send(upgrade())
        await wire.head()
        await wire.exactly(len(AROUND[0]))
        wire.writer.write(burst)
        await waiting(worker)
        await wire.close()
        await done.wait()
        await worker.wait_for_closings(2)
    assert b"".join(got) == burst

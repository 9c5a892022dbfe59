"""WebSocket sessions from their bytes to the ledger: recorded ones, and the official client's."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from openai import AsyncOpenAI, OpenAI
from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.fakes import sessions
from tests.fakes.relay import Wire
from tests.fakes.running import Metering, ledger_rows, metering, until_rows
from tests.fakes.serving import serving
from tests.fakes.sessions import Recorded, Way
from tests.fakes.upstream import Call, Upstream
from tests.fakes.websocket import close, event, switched, upgrade

COLUMNS = {  # of the usage that a realtime response reports
    "prompt_tokens": ("input_tokens",),
    "completion_tokens": ("output_tokens",),
    "total_tokens": ("total_tokens",),
    "cached_tokens": ("input_token_details", "cached_tokens"),
    "audio_prompt_tokens": ("input_token_details", "audio_tokens"),
    "audio_completion_tokens": ("output_token_details", "audio_tokens"),
}


@pytest.mark.corpus
@pytest.mark.parametrize("way", [Way.FRAGMENTS, Way.COMPRESSED])
async def test_recorded_sessions_pass_and_are_charged(
    way: Way, sessions_path: Path, tmp_path: Path, database: str
) -> None:
    """Both sides see each other's bytes; a row for each that was billed, one for each session."""
    recorded = await asyncio.to_thread(sessions.load, sessions_path)
    count = sum(1 + len(session.billed) for session in recorded)
    async with (
        Upstream(script=sessions.replaying(recorded, way)) as upstream,
        metering(tmp_path, upstream.url, database) as running,
    ):
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for session in recorded:
                tasks.create_task(sessions.speak(session, running.port, way))
        rows = await running.rows(count)
    for session in recorded:
        _compare(session, [row for row in rows if row["user_id"] == session.id])


def _compare(session: Recorded, rows: list[dict[str, Any]]) -> None:
    """Compare the rows of one session with its recording."""
    own, *others = sorted(rows, key=lambda row: row["operation_name"])
    assert (own["operation_name"], own["cost_usd"], own["price_id"]) == (
        "realtime.connect",
        0,
        "free",
    )
    assert (own["status"], own["outcome"], own["usage_problem"]) == (101, "ok", None)
    assert (own["model"], own["request_model"]) == (session.model, session.model)
    assert own["response_id"].startswith("sess_")
    by_id = {row["response_id"]: row for row in others}
    assert len(by_id) == len(others) == len(session.usages)
    for kind, name, usage, cost in session.usages:
        row = by_id[name]
        assert (row["operation_name"], json.loads(row["raw_usage"])) == (kind, usage)
        assert (row["status"], row["outcome"], row["usage_source"]) == (101, "ok", "reported")
        assert (row["request_model"], row["api_path"]) == (session.model, "/v1/realtime")
        if kind == "realtime.response":
            for column, path in COLUMNS.items():
                found: Any = usage
                for member in path:
                    found = found[member]
                assert row[column] == found
        if cost is not None:
            assert float(row["cost_usd"]) == pytest.approx(cost, rel=1e-9)


USAGE = {
    "total_tokens": 1100,
    "input_tokens": 1000,
    "output_tokens": 100,
    "input_token_details": {
        "text_tokens": 300,
        "audio_tokens": 500,
        "image_tokens": 200,
        "cached_tokens": 400,
        "cached_tokens_details": {"text_tokens": 100, "audio_tokens": 250, "image_tokens": 50},
    },
    "output_token_details": {"text_tokens": 40, "audio_tokens": 60},
}
# 200 × 4 + 100 × 0.40 + 250 × 32 + 250 × 0.40 + 150 × 5 + 50 × 0.50 + 40 × 16 + 60 × 64
COST = Decimal("0.014195")
TEXT_USAGE = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
SESSION = {
    "id": "sess_1",
    "object": "realtime.session",
    "type": "realtime",
    "model": "gpt-realtime",
    "audio": {"input": {"transcription": {"model": "whisper-1"}}},
}


class Platform:
    """An upstream that speaks WebSocket with a library, as the official client does."""

    def __init__(self) -> None:
        self.port = 0
        self.heads: list[dict[str, str]] = []
        self.heard: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    @classmethod
    @asynccontextmanager
    async def running(cls, **options: Any) -> AsyncIterator["Platform"]:
        """Run one until the block ends."""
        platform = cls()
        async with serve(platform._serve, "127.0.0.1", 0, max_size=None, **options) as server:
            platform.port = int(next(iter(server.sockets)).getsockname()[1])
            yield platform

    async def _serve(self, link: ServerConnection) -> None:
        assert link.request is not None
        self.heads.append(dict(link.request.headers.raw_items()))
        if link.request.path.startswith("/v1/realtime"):
            await link.send(json.dumps({"type": "session.created", "session": SESSION}))
        async for message in link:
            heard = json.loads(message)
            self.heard.append(heard)
            if heard["type"] == "response.create":
                if link.request.path.startswith("/v1/realtime"):
                    await self._speak(link, heard)
                else:
                    await self._respond(link, heard)

    async def _speak(self, link: ServerConnection, heard: dict[str, Any]) -> None:
        """Answer as a realtime session does."""
        name = f"resp_{len(self.heard)}"
        response = {"id": name, "object": "realtime.response", "status": "in_progress"}
        await link.send(json.dumps({"type": "response.created", "response": response}))
        delta = {"type": "response.output_audio.delta", "delta": "A" * (2 << 20)}
        await link.send(json.dumps(delta))
        seconds = {"type": "duration", "seconds": 3}
        await link.send(
            json.dumps(
                {
                    "type": "conversation.item.input_audio_transcription.completed",
                    "item_id": f"item_{len(self.heard)}",
                    "content_index": 0,
                    "transcript": "Hello.",
                    "usage": seconds,
                }
            )
        )
        done = response | {
            "status": "completed",
            "usage": USAGE,
            "metadata": heard.get("response", {}).get("metadata"),
        }
        await link.send(json.dumps({"type": "response.done", "response": done}))

    async def _respond(self, link: ServerConnection, heard: dict[str, Any]) -> None:
        """Answer as Responses does."""
        response: dict[str, Any] = {
            "id": f"resp_{len(self.heard)}",
            "object": "response",
            "status": "in_progress",
            "model": "gpt-5.4-mini-2026-03-17",
            "service_tier": "auto",
            "output": [],
            "tools": [],
            "safety_identifier": heard.get("safety_identifier"),
            "metadata": heard.get("metadata") or {},
        }
        await link.send(
            json.dumps({"type": "response.created", "sequence_number": 0, "response": response})
        )
        done = response | {"status": "completed", "service_tier": "default", "usage": TEXT_USAGE}
        await link.send(
            json.dumps({"type": "response.completed", "sequence_number": 1, "response": done})
        )


@asynccontextmanager
async def through(
    directory: Path, dsn: str, **options: Any
) -> AsyncIterator[tuple[Platform, Metering]]:
    """Run a platform and everything in front of it."""
    async with (
        Platform.running(**options) as platform,
        metering(directory, platform.url, dsn, upstreams={"azure": platform.url}) as running,
    ):
        yield platform, running


HEADERS = {"X-Meter-User": "ada", "X-Meter-Endpoint": "tutor"}


@pytest.mark.parametrize(("compression", "below"), [(None, ""), ("deflate", ""), (None, "/azure")])
async def test_the_official_client_speaks_in_a_realtime_session(
    tmp_path: Path, database: str, compression: str | None, below: str
) -> None:
    """Text, audio, images and what was cached of each; every event arrives, large ones too."""
    kinds = []
    async with (
        asyncio.timeout(60),
        through(tmp_path, database, compression="deflate") as (platform, running),
    ):
        client = AsyncOpenAI(api_key="sk-none", base_url=f"{running.url}{below}/v1")
        async with client.realtime.connect(
            model="gpt-realtime",
            extra_headers=HEADERS,
            websocket_connection_options={"compression": compression, "max_size": 1 << 26},
        ) as link:
            assert (await link.recv()).type == "session.created"
            await link.session.update(session={"type": "realtime", "instructions": "Be brief."})
            for topic in ("hats", "cats"):
                await link.response.create(response={"metadata": {"topic": topic}})
                for _ in range(4):
                    kinds.append((await link.recv()).type)  # noqa: PERF401 - one after the other
        await client.close()
        rows = await running.rows(5)
    assert kinds == 2 * [
        "response.created",
        "response.output_audio.delta",
        "conversation.item.input_audio_transcription.completed",
        "response.done",
    ]
    offered = platform.heads[0].get("Sec-WebSocket-Extensions")
    assert (offered is not None) is (compression is not None)
    assert not any(name.lower().startswith("x-meter") for name in platform.heads[0])
    assert {(row["user_id"], row["endpoint"], row["outcome"]) for row in rows} == {
        ("ada", "tutor", "ok")
    }
    assert {row["upstream_name"] for row in rows} == {below.strip("/") or None}
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_kind.setdefault(row["operation_name"], []).append(row)
    (own,) = by_kind["realtime.connect"]
    assert (own["cost_usd"], own["usage_problem"], own["response_id"]) == (0, None, "sess_1")
    assert own["response_bytes"] > 1000
    for row in by_kind["realtime.response"]:
        assert (row["model"], row["cost_usd"], row["cached_tokens"]) == ("gpt-realtime", COST, 400)
        assert json.loads(row["raw_usage"]) == USAGE
    topics = [json.loads(row["metadata"])["topic"] for row in by_kind["realtime.response"]]
    assert sorted(topics) == ["cats", "hats"]
    for row in by_kind["realtime.transcription"]:
        assert (row["model"], row["cost_usd"]) == ("whisper-1", Decimal("0.0003"))


async def test_the_official_client_makes_responses_over_a_websocket(
    tmp_path: Path, database: str
) -> None:
    """For whom each of them is, is in its request where the headers are silent."""
    async with asyncio.timeout(60), through(tmp_path, database) as (_, running):
        client = AsyncOpenAI(api_key="sk-none", base_url=f"{running.url}/v1")
        async with client.responses.connect(extra_headers={"X-Meter-Endpoint": "tutor"}) as link:
            for name in ("ada", "bob"):
                await link.response.create(
                    model="gpt-5.4-mini", input="Hello", safety_identifier=name
                )
                assert (await link.recv()).type == "response.created"
                assert (await link.recv()).type == "response.completed"
        await client.close()
        rows = await running.rows(3)
    own = next(row for row in rows if row["operation_name"] == "responses.connect")
    assert (own["user_id"], own["cost_usd"], own["status"]) == (None, 0, 101)
    made = [row for row in rows if row["operation_name"] == "responses"]
    assert sorted(row["user_id"] for row in made) == ["ada", "bob"]
    for row in made:
        assert (row["model"], row["service_tier"]) == ("gpt-5.4-mini-2026-03-17", "default")
        assert row["request_model"] == "gpt-5.4-mini"
        # (1000 × 0.75 + 100 × 4.5) / 1,000,000
        assert (row["cost_usd"], row["tool_cost_usd"]) == (Decimal("0.0012"), 0)
        assert (row["endpoint"], row["api_path"]) == ("tutor", "/v1/responses")


async def test_the_synchronous_client_and_a_subprotocol_with_a_key(
    tmp_path: Path, database: str
) -> None:
    """The platform chooses the subprotocol, and sees the key; nobody else does."""
    key = "openai-insecure-api-key.sk-proj-0123456789abcdef"

    def call(port: int) -> str | None:
        client = OpenAI(api_key="sk-none", base_url=f"http://127.0.0.1:{port}/v1")
        names = [Subprotocol("realtime"), Subprotocol(key)]
        options: Any = {"subprotocols": names}
        with client.realtime.connect(
            model="gpt-realtime", websocket_connection_options=options
        ) as link:
            assert link.recv().type == "session.created"
            link.response.create()
            while link.recv().type != "response.done":
                pass
            return link._connection.subprotocol  # noqa: SLF001 - the SDK has no other word for it

    async with (
        asyncio.timeout(60),
        through(tmp_path, database, subprotocols=["realtime"]) as (platform, running),
    ):
        assert await asyncio.to_thread(call, running.port) == "realtime"
        assert platform.heads[0]["Sec-WebSocket-Protocol"] == f"realtime, {key}"
        rows = await running.rows(3)
        journal = await asyncio.to_thread(_journal, tmp_path)
    assert b"resp_1" in journal
    assert b"0123456789abcdef" not in journal
    assert "0123456789abcdef" not in repr(rows)


def _journal(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in (directory / "journal").iterdir())


async def test_sessions_that_are_billed_by_time(tmp_path: Path, database: str) -> None:
    """A live one by the seconds that it reports, beside what it delegates; others as they last."""
    response = {"id": "resp_1", "model": "gpt-5.4-mini", "usage": TEXT_USAGE}
    live = (
        event(type="session.started", session={"id": "sess_1", "model": "gpt-live-1"}),
        event(type="session.usage.updated", usage={"seconds": 30}),
        event(type="response.event", event={"type": "response.completed", "response": response}),
        event(type="session.closed", usage={"seconds": 90}),
    )
    translated = event(
        type="session.created", session={"id": "sess_2", "model": "gpt-realtime-translate"}
    )

    async def script(call: Call) -> None:
        is_live = b"/live/" in call.first_line
        await call.send(switched() + (b"".join(live) if is_live else translated) + close())
        call.close()

    async with (
        asyncio.timeout(60),
        Upstream(script) as upstream,
        metering(tmp_path, upstream.url, database) as running,
    ):
        for target in (b"/v1/live/sessions", b"/v1/realtime/translations?model=x"):
            wire = await Wire.to(running.port)
            await wire.send(upgrade(target))
            await wire.rest()
            await wire.close()
        rows = {row["operation_name"]: row for row in await running.rows(3)}
    spoken, delegated = rows["live.connect"], rows["responses"]
    assert (spoken["usage_source"], spoken["cost_usd"]) == ("reported", Decimal("0.075"))
    assert (delegated["cost_usd"], delegated["tool_cost_usd"]) == (Decimal("0.0012"), 0)
    other = rows["realtime.translations.connect"]
    assert (other["model"], other["usage_source"]) == ("gpt-realtime-translate", "estimated")
    assert other["cost_usd"] > 0


ATTENDED = event(type="response.done", response={"id": "resp_1", "usage": USAGE})


async def attended(call: Call) -> None:
    """Tell every socket that attends a call of the same end of a response."""
    await call.send(switched())
    await call.send(event(type="session.created", session=SESSION) + ATTENDED)
    await call.gone()


async def attend(proxy: Metering) -> None:
    """Attend the call until that end."""
    wire = await Wire.to(proxy.port)
    await wire.send(upgrade(b"/v1/realtime?call_id=rtc_1"))
    await wire.until(ATTENDED)
    await wire.close()


async def test_sockets_that_attend_one_call_count_its_responses_once(
    tmp_path: Path, database: str
) -> None:
    """Each of them is told of the end; the one that was told first has the row."""
    async with (
        asyncio.timeout(60),
        Upstream(attended) as upstream,
        metering(tmp_path, upstream.url, database) as running,
    ):
        for _ in range(3):
            await attend(running)
        rows = await running.rows(4)
    assert [row["cost_usd"] for row in rows if row["response_id"] == "resp_1"] == [COST]


async def test_hosts_that_attend_one_call_count_its_responses_once(
    tmp_path: Path, database: str
) -> None:
    """Each with a journal and a recorder of its own, and one of them after a restart."""
    async with asyncio.timeout(120), Upstream(attended) as upstream:
        async with (
            metering(tmp_path / "a", upstream.url, database) as here,
            metering(tmp_path / "b", upstream.url, database) as there,
        ):
            await asyncio.gather(attend(here), attend(there), attend(there))
            await until_rows(database, 4)
        async with metering(tmp_path / "b", upstream.url, database) as again:
            await attend(again)
            rows = await again.rows(5)
    assert [row["cost_usd"] for row in rows if row["response_id"] == "resp_1"] == [COST]
    assert sum(row["operation_name"] == "realtime.connect" for row in rows) == 4


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_a_library_sees_through_the_proxy_what_it_sees_without(
    tmp_path: Path, database: str, compression: str | None
) -> None:
    """Text and binary, sixteen megabytes, fragments, pings both ways; close codes with reasons."""
    large = "x" * (16 << 20)
    closed: list[tuple[int | None, str | None]] = []

    async def platform(link: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            async for message in link:
                if message == "leave":
                    await link.close(4001, "no more")
                await link.send(message)
                await (await link.ping())
        closed.append((link.close_code, link.close_reason))

    async with (
        asyncio.timeout(60),
        serve(
            platform, "127.0.0.1", 0, max_size=None, compression=cast("Any", compression)
        ) as server,
        metering(tmp_path, _url(server), database) as running,
    ):
        url = f"ws://127.0.0.1:{running.port}/v1/realtime?model=gpt-realtime"
        async with connect(url, max_size=None, compression=cast("Any", compression)) as link:
            for said in ("", "ä", b"", b"\x00\xff", large):
                await link.send(said)
                assert await link.recv() == said
            await link.send(["a", "", "bc"])
            assert await link.recv() == "abc"
            await (await link.ping())
            await link.close(3000, "enough")
        async with connect(url, compression=cast("Any", compression)) as link:
            await link.send("leave")
            with pytest.raises(ConnectionClosed):
                await link.recv()
            assert (link.close_code, link.close_reason) == (4001, "no more")
        rows = await running.rows(2)
    assert closed == [(3000, "enough"), (4001, "no more")]
    found = {(row["operation_name"], row["outcome"], row["error_type"]) for row in rows}
    assert found == {
        ("realtime.connect", "ok", None),
        ("realtime.connect", "upstream_error", "websocket_close_4001"),
    }


def _url(server: Server) -> str:
    return f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def test_a_killed_worker_keeps_what_was_billed(open_directory: Path, database: str) -> None:
    """Once, also when the recorder is killed; what was under way is known to be unknown."""

    async def script(call: Call) -> None:
        await call.send(switched())
        await call.send(event(type="session.created", session=SESSION))
        for number in (1, 2):
            response = {"id": f"resp_{number}", "status": "completed", "usage": USAGE}
            await call.send(event(type="response.created", response=response))
            await call.send(event(type="response.done", response=response))
        await call.send(event(type="response.created", response={"id": "resp_3"}))
        await call.gone()

    flags = ("--database-url", database)
    async with (
        asyncio.timeout(60),
        Upstream(script) as upstream,
        serving(open_directory, upstream.url, *flags) as running,
    ):
        await running.until(lambda: "worker-0" in running.members())
        wire = await Wire.to(int(running.proxy_url.rpartition(":")[2]))
        await wire.send(upgrade(fields=b"X-Meter-User: ada\r\n"))
        await wire.until(b"resp_3")
        os.kill(running.members()["worker-0"], signal.SIGKILL)
        with suppress(ConnectionError):
            await wire.rest()
        await wire.close()
        await until_rows(database, 4)
        os.kill(running.members()["recorder"], signal.SIGKILL)
        assert await running.call() == 502  # nobody asked for that session
        await until_rows(database, 5)
    await until_rows(database, 5)
    rows = [row for row in await ledger_rows(database) if row["user_id"] == "ada"]
    done = {row["response_id"]: row["cost_usd"] for row in rows if row["outcome"] == "ok"}
    assert done == {"resp_1": COST, "resp_2": COST}
    lost = {row["operation_name"]: row for row in rows if row["outcome"] == "interrupted"}
    assert sorted(lost) == ["realtime.connect", "realtime.response"]
    for row in lost.values():
        assert (row["usage_source"], row["cost_usd"], row["prompt_tokens"]) == (
            "unavailable",
            None,
            None,
        )
    assert lost["realtime.connect"]["usage_problem"] == "session_lost"

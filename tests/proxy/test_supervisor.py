import asyncio
import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Iterable
from pathlib import Path

import aiohttp
import pytest

from proxy.binaries import account_for, find_binaries, usable
from tests.fakes.serving import (
    PATIENCE_SECONDS,
    TOKEN,
    Serving,
    commands_under,
    processes_of,
    serving,
    start,
)
from tests.fakes.upstream import Call, Upstream, answering
from tests.proxy.test_priority import turn_of, turns_are_known

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [],
        "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29},
    }
).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
    ANSWER
)
CHAT = "/v1/chat/completions"


async def _chat(running: Serving) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            running.proxy_url + CHAT,
            json={"model": "gpt-4o-mini", "messages": []},
            headers={"X-Meter-User": "ada"},
        ) as answer,
    ):
        assert await answer.read() == ANSWER
        return answer.status


async def test_one_command_serves_records_and_shows(open_directory: Path) -> None:
    """A call is answered, has its row, is shown; everything ends on SIGTERM and starts again."""
    data = open_directory / "data dir"
    async with Upstream(script=answering(HEAD + ANSWER)) as upstream:
        async with serving(data, upstream.url) as running:
            assert await _chat(running) == 200
            stats = await running.until_calls_are(1)
            assert (stats["total_tokens"], stats["active_users"]) == (29, 1)
            assert float(stats["cost_usd"]) == pytest.approx(0.00000885)
            password = re.search(r"password (\S+)", running.banner)
            assert password is not None
            assert await running.stop() == 0
        assert not processes_of(data)
        assert password[1] not in "".join(running.lines)

        async with serving(data, upstream.url) as running:
            assert await _chat(running) == 200
            await running.until_calls_are(2)
            assert "shown only now" not in running.banner
            assert "password as set or as shown at the first start" in running.banner
            assert await running.stop(signal.SIGINT) == 0
        assert not processes_of(data)


async def test_whatever_is_killed_comes_back(open_directory: Path) -> None:
    """Worker, recorder, dashboard, Postgres, one after another; no call is lost."""
    async with (
        Upstream(script=answering(HEAD + ANSWER)) as upstream,
        serving(open_directory, upstream.url) as running,
    ):
        await running.until(lambda: len(running.members()) == 4)
        names = ("worker-0", "recorder", "dashboard", "postgres")
        for calls, name in enumerate(names, start=1):
            before = running.members()[name]
            os.kill(before, signal.SIGKILL)
            assert await _chat(running) == 200
            await running.until(lambda: running.members().get(name, before) != before)  # noqa: B023
            await running.until_calls_are(calls)
    ended = [line for line in running.lines if "started again" in line]
    assert len(ended) == 4


async def test_workers_do_not_wait_for_a_postgres_that_starts(open_directory: Path) -> None:
    """Recovery may take minutes: who dies meanwhile comes back at once, and takes calls."""
    binaries, slow = open_directory / "bin", open_directory / "slow"
    await asyncio.to_thread(_delay_postgres, binaries, slow)
    async with (
        Upstream(script=answering(HEAD + ANSWER)) as upstream,
        serving(open_directory / "data", upstream.url, f"--postgres-bin={binaries}") as running,
    ):
        await running.until(lambda: len(running.members()) == 4)
        before = running.members()
        await asyncio.to_thread(slow.touch)
        os.kill(before["postgres"], signal.SIGKILL)
        await running.until(lambda: any("postgres ended" in line for line in running.lines))
        os.kill(before["worker-0"], signal.SIGKILL)
        worker = before["worker-0"]
        await running.until(lambda: running.members().get("worker-0", worker) != worker)
        assert await _chat(running) == 200
        await asyncio.to_thread(slow.unlink)
        await running.until_calls_are(1)


def _delay_postgres(binaries: Path, slow: Path) -> None:
    """Make a directory of Postgres' programs in which it does not start while `slow` is there."""
    account = account_for(binaries.with_name("data"))
    programs = usable(find_binaries(None), binaries.parent, account)
    binaries.mkdir(mode=0o755)
    (binaries / "initdb").symlink_to(programs / "initdb")
    postgres = binaries / "postgres"
    wait = f"while [ $1 = -D -a -e '{slow}' ]; do sleep 0.1; done"
    postgres.write_text(f"""#!/bin/sh\n{wait}\nexec '{programs / "postgres"}' "$@"\n""")
    postgres.chmod(0o755)


async def test_workers_come_before_everything_else(open_directory: Path) -> None:
    """Recorder, dashboard and every process of Postgres get what calls leave of the processors."""
    own = os.getpriority(os.PRIO_PROCESS, os.getpid())

    def behind(pids: Iterable[int]) -> bool:
        return all(os.getpriority(os.PRIO_PROCESS, pid) == max(own, 19) for pid in pids)

    async with Upstream() as upstream, serving(open_directory, upstream.url) as running:
        await running.until(lambda: len(running.members()) == 4)
        members = running.members()
        worker = members.pop("worker-0")
        await running.until(lambda: behind(members.values()))
        assert behind(commands_under(members["postgres"]))
        assert os.getpriority(os.PRIO_PROCESS, worker) == own
        assert turn_of(worker) == (100_000 if turns_are_known() else 0)


async def test_a_connection_waits_for_the_next_worker(open_directory: Path) -> None:
    """The socket outlives its worker: who connects in between is answered late, not refused."""
    async with Upstream() as upstream, serving(open_directory, upstream.url) as running:
        await running.until(lambda: "worker-0" in running.members())
        assert await running.call() == 200
        os.kill(running.members()["worker-0"], signal.SIGKILL)
        assert await asyncio.gather(*(running.call() for _ in range(20))) == [200] * 20


async def test_nothing_outlives_a_killed_supervisor(open_directory: Path) -> None:
    """Children and Postgres end by themselves; the next start finds all that was recorded."""
    async with Upstream(script=answering(HEAD + ANSWER)) as upstream:
        async with serving(open_directory, upstream.url) as running:
            assert await _chat(running) == 200
            await running.until_calls_are(1)
            await running.stop(signal.SIGKILL)
            async with serving(open_directory, upstream.url) as next_one:
                await next_one.until_calls_are(1)
                assert len(next_one.members()) == 4
        assert not processes_of(open_directory)


async def test_stopping_waits_for_calls_in_flight(open_directory: Path) -> None:
    """SIGTERM: the call that is under way gets its whole answer, and its row."""
    begun = asyncio.Event()

    async def slowly(call: Call) -> None:
        await call.send(HEAD + ANSWER[:10])
        begun.set()
        await asyncio.sleep(1)
        await call.send(ANSWER[10:])

    async with Upstream(script=slowly) as upstream:
        async with serving(open_directory, upstream.url) as running:
            call = asyncio.get_running_loop().create_task(_chat(running))
            await begun.wait()
            assert await running.stop() == 0
            assert await call == 200
        async with serving(open_directory, upstream.url) as running:
            await running.until_calls_are(1)


async def test_a_second_signal_is_for_those_in_a_hurry(open_directory: Path) -> None:
    """The call that never ends is broken off long before the drain time is over."""
    begun, never = asyncio.Event(), asyncio.Event()

    async def hang(call: Call) -> None:
        await call.send(HEAD + ANSWER[:10])
        begun.set()
        await never.wait()

    async with Upstream(script=hang) as upstream:
        flags = ("--drain-seconds", "600")
        async with serving(open_directory, upstream.url, *flags) as running:
            call = asyncio.get_running_loop().create_task(_chat(running))
            await begun.wait()
            running.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            assert running.process.returncode is None
            (said,) = [line for line in running.lines if "stopping" in line]
            assert "a second signal does not wait" in said
            assert json.loads(said)["drain_seconds"] == 600
            assert await running.stop() == 0
            with pytest.raises(aiohttp.ClientError):
                await call
    assert not processes_of(open_directory)


async def test_without_its_database_calls_go_on(open_directory: Path, database: str) -> None:
    """The journal keeps them; the dashboard and the log say so."""
    assert database
    dead = f"postgresql://nobody@/nowhere?host={open_directory}"
    async with Upstream(script=answering(HEAD + ANSWER)) as upstream:
        flags = ("--database-url", dead)
        async with serving(open_directory, upstream.url, *flags) as running:
            assert await _chat(running) == 200
            assert "(embedded)" not in running.banner
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{running.dashboard_url}/healthz") as answer,
            ):
                assert answer.status == 503
            assert await running.stop() == 0
        assert any("database unreachable" in line for line in running.lines)
        async with serving(open_directory, upstream.url, "--database-url", database) as running:
            await running.until_calls_are(1)


async def _refused(directory: Path, *flags: str) -> str:
    """Return the one line with which a start is refused."""
    process = await start(directory, "http://127.0.0.1:9", *flags)
    async with asyncio.timeout(PATIENCE_SECONDS):
        _, errors = await process.communicate()
    assert process.returncode == 2
    [line] = errors.decode().splitlines()
    assert line.startswith("openai-meter: ")
    return line


@pytest.mark.parametrize("flag", ["--listen", "--dashboard-listen"])
async def test_a_port_in_use_is_named_before_anything_starts(
    open_directory: Path, flag: str
) -> None:
    """With the setting that chooses it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = await _refused(open_directory, flag, address)
    assert address in line
    assert "METER_" + flag[2:].replace("-", "_").upper() in line
    assert not (open_directory / "postgres").exists()


async def test_a_directory_in_use_names_its_owner(open_directory: Path) -> None:
    """A second instance harms nothing."""
    async with Upstream() as upstream, serving(open_directory, upstream.url) as running:
        line = await _refused(open_directory)
        assert f"process {running.process.pid} uses it" in line
        assert await running.call() == 200


async def test_secrets_reach_only_those_who_need_them(open_directory: Path) -> None:
    """A worker knows neither the database nor the dashboard's tokens."""
    async with Upstream() as upstream, serving(open_directory, upstream.url) as running:
        await running.until(lambda: len(running.members()) == 4)
        members = running.members()
        known = {
            name: await asyncio.to_thread(Path(f"/proc/{pid}/environ").read_text, "utf-8")
            for name, pid in members.items()
        }
        assert TOKEN not in known["worker-0"] + known["recorder"] + known["postgres"]
        assert TOKEN in known["dashboard"]
        assert "METER_DATABASE_URL" not in known["worker-0"]
        assert "METER_DATABASE_URL" in known["recorder"]


async def test_who_connects_while_a_worker_stops_does_not_keep_it(open_directory: Path) -> None:
    """It has accepted them, but knows them as links only a moment after it was told to stop."""
    script = answering(HEAD + ANSWER)
    flags = ("--drain-seconds=30",)
    async with (
        Upstream(script=script) as upstream,
        serving(open_directory, upstream.url, *flags) as running,
    ):
        await running.until(lambda: "worker-0" in running.members())
        assert await _chat(running) == 200
        worker = running.members()["worker-0"]
        host, port = running.proxy_url.removeprefix("http://").split(":")
        os.kill(worker, signal.SIGSTOP)
        pairs = [await asyncio.open_connection(host, int(port)) for _ in range(30)]
        os.kill(worker, signal.SIGTERM)
        os.kill(worker, signal.SIGCONT)
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
            calling = [tasks.create_task(_call_on(*pair)) for pair in pairs]
            begun = asyncio.get_running_loop().time()
            await running.until(lambda: running.members().get("worker-0", worker) != worker)
            assert asyncio.get_running_loop().time() - begun < 20
            for task in calling:  # who was not accepted yet is served by the next worker
                task.cancel()


async def _call_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Make calls on a connection until the other side ends it."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(len(ANSWER))
            await asyncio.sleep(0.01)
    writer.close()

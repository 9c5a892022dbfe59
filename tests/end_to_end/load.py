"""Clients that call without a pause, each on a connection of its own; who was answered, who not."""

import asyncio
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.end_to_end.imitation import CALL, Imitation
from tests.fakes.replay import Received, receive
from tests.fakes.running import fetch

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Why?"}]}
KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", CHAT | {"stream": True}),
    ("/v1/responses", {"model": "gpt-4o-mini", "input": "Why?", "stream": True}),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "Why?"}),
)
# What a call of each kind is to have in the ledger: prompt and completion tokens, cost.
CHARGED = (
    *((19, 8, Decimal("0.00000735")),) * 3,  # 15 × 0.15 + 4 × 0.075 + 8 × 0.60 a million
    (19, None, Decimal("0.00000038")),  # 19 × 0.02
)
ROLLUPS = ("usage_by_quarter_hour", "usage_by_user_day", "usage_by_month")
PATIENCE_SECONDS = 60


@dataclass(slots=True)
class Load:
    """Calls with numbers: `answered` got what the upstream says, `failed` did not.

    `failed` tells the local port of the connection that was lost, None: there was none.
    """

    port: int
    expected: list[bytes] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    failed: dict[str, int | None] = field(default_factory=dict)
    _waiting: list[int] = field(default_factory=list)

    async def learn(self, imitation: Imitation) -> None:
        """Ask the upstream itself for each kind of answer."""
        port = int(imitation.url.rpartition(":")[2])
        for number in range(len(KINDS)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_request(number))
            self.expected.append((await receive(reader)).body)
            writer.close()
        imitation.asked.clear()
        imitation.answered.clear()

    async def run(self, calls: int, *, clients: int = 16, first: int = 0) -> None:
        """Make the calls; a client that loses its connection goes on with another one."""
        self._waiting = list(reversed(range(first, first + calls)))
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
            for _ in range(clients):
                tasks.create_task(self._work())

    async def progress(self, count: int) -> None:
        """Wait until so many calls were answered."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.answered) < count:
                await asyncio.sleep(0.01)

    def stop(self) -> None:
        """Begin no further call."""
        self._waiting.clear()

    async def _work(self) -> None:
        while self._waiting:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                if self._waiting:
                    self.failed[str(self._waiting.pop())] = None
                continue
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._call_on(reader, writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _call_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own_port = writer.get_extra_info("sockname")[1]
        while self._waiting:
            number = self._waiting.pop()
            self.failed[str(number)] = own_port
            writer.write(_request(number))
            got = await receive(reader)
            assert got.body == self.expected[number % len(KINDS)], got
            self.answered.add(str(number))
            del self.failed[str(number)]
            if _is_last(got):
                return


async def halt(pid: int) -> set[int]:
    """Have a process stand still; return the ports of those who are connected to it.

    From then on it takes no connection and ends none: those that wait for it are nobody's yet, and
    outlive it in the socket that the supervisor holds.
    """
    os.kill(pid, signal.SIGSTOP)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while state_of(pid) not in "TtZX":
            await asyncio.sleep(0.01)
    return await asyncio.to_thread(ports_of, pid)


def state_of(pid: int) -> str:
    """Return the state of a process in a letter (proc_pid_stat(5)); X: it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def ports_of(pid: int) -> set[int]:
    """Return the ports of those who are connected to a process over TCP."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            sockets.add(str(descriptor.readlink()))
    twice = [*_peers(), *_peers()]  # a table that changes while it is read may lack a line
    return {port for inode, port in twice if f"socket:[{inode}]" in sockets}


async def check_ledger(dsn: str, asked: list[str], load: Load) -> dict[str, str]:
    """Check that each call has one row, and sums are those of the rows; return the outcomes.

    Whoever got an answer is charged exactly what it says. What the upstream has not seen was
    `interrupted` before it was sent.
    """
    rows = await fetch(
        dsn,
        "SELECT metadata ->> 'call' AS call, outcome, usage_source, user_id, prompt_tokens,"
        " completion_tokens, cost_usd FROM user_api_usage",
    )
    outcomes = {row["call"]: row["outcome"] for row in rows}
    assert len(outcomes) == len(rows), "a call has two rows"
    assert len(set(asked)) == len(asked), "a call was sent twice"
    assert not set(asked) - outcomes.keys(), "a call that the upstream saw has no row"
    unseen = outcomes.keys() - set(asked)
    assert all(outcomes[call] == "interrupted" for call in unseen)
    assert outcomes.keys() >= load.answered
    for row in rows:
        if row["call"] in load.answered:
            number = int(row["call"])
            assert row["outcome"] == "ok", row
            assert row["usage_source"] == "reported", row
            assert row["user_id"] == f"user-{number % 7}", row
            charged = (row["prompt_tokens"], row["completion_tokens"], row["cost_usd"])
            assert charged == CHARGED[number % len(KINDS)], row
    await _check_sums(dsn)
    return outcomes


async def until_recorded(dsn: str, asked: list[str]) -> None:
    """Wait until each call that the upstream saw has a row, and nothing is left to be recorded."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            with suppress(OSError, *_refusals()):
                rows = await fetch(dsn, "SELECT metadata ->> 'call' AS call FROM user_api_usage")
                if set(asked) <= {row["call"] for row in rows}:
                    return
            await asyncio.sleep(0.2)


async def _check_sums(dsn: str) -> None:
    """Check that the rollups hold exactly what the rows do."""
    sums = "sum(total_tokens) AS total_tokens, sum(cost_usd) AS cost_usd"
    (raw,) = await fetch(dsn, f"SELECT count(*) AS calls, {sums} FROM user_api_usage")  # noqa: S608
    assert raw["total_tokens"] > 0
    assert raw["cost_usd"] > 0
    for table in ROLLUPS:
        (rolled,) = await fetch(dsn, f"SELECT sum(calls) AS calls, {sums} FROM {table}")  # noqa: S608
        assert rolled == raw, table


def _request(number: int) -> bytes:
    path, asked = KINDS[number % len(KINDS)]
    body = json.dumps(asked).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: api.openai.com",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"{CALL}: {number}",
        f"X-Meter-User: user-{number % 7}",
        f"X-Meter-Metadata-Call: {number}",
        "\r\n",
    ]
    return "\r\n".join(lines).encode() + body


def _is_last(got: Received) -> bool:
    return re.search(rb"(?im)^connection: *close", got.head) is not None


def _peers() -> Iterator[tuple[str, int]]:
    """Yield inode and remote port of every IPv4 connection."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        yield words[9], int(words[2].rpartition(":")[2], 16)


def _refusals() -> tuple[type[Exception], ...]:
    import asyncpg  # noqa: PLC0415

    return (asyncpg.PostgresError, asyncpg.InterfaceError)

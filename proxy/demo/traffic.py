"""Make the calls of the homework helper: what a backend sends, through any proxy."""

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Self

import aiohttp

from proxy.demo.homework import Call
from proxy.demo.upstream import FIELD

ANSWER_SECONDS = 60.0


class Backend:
    """A client that uses one base URL (without /v1) for all its calls."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        """Open the connections' pool; it is as large as the calls that are made at once."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            headers={"Authorization": "Bearer demo"},
        )
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Close all connections."""
        await self._session.close()

    async def send(self, call: Call) -> None:
        """Make a call and read its answer, or hang up in the middle of it."""
        headers = {
            "X-Meter-Endpoint": call.endpoint,
            "X-Meter-Metadata": json.dumps(dict(call.metadata)),
            FIELD: json.dumps(dict(call.answer)),
        }
        if call.user is not None:
            headers["X-Meter-User"] = call.user
        async with self._session.post(
            self._url + call.path, json=dict(call.body), headers=headers
        ) as answer:
            if call.hangs_up:
                await answer.content.readany()
                answer.close()
                return
            await answer.read()

    async def send_all(
        self, calls: Iterable[Call], *, at_once: int, sent: Callable[[int], None]
    ) -> None:
        """Make many calls, so many at once and in their order; `sent` hears how many are done."""
        waiting, done = iter(calls), 0

        async def work() -> None:
            nonlocal done
            for call in waiting:
                await self.send(call)
                done += 1
                sent(done)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(work())

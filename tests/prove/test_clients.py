"""Whose fault it is that a connection ended: decided when it ends, not when it is missed."""

import asyncio
import socket

from prove.clients import Clients
from prove.upstream import Upstream


async def _reset_while_waiting(*, closing: bool) -> list[str]:
    """Have a client connect to a socket that nobody serves, and close it; return the troubles."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])
    clients = Clients(port, Upstream(1), 1, 0.001)  # a call in a quarter of an hour
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        load = tasks.create_task(clients.run(1))
        while clients.connections < 1:
            await asyncio.sleep(0.01)
        clients.closing = closing
        listener.close()
        while clients.connections:
            await asyncio.sleep(0.01)
        clients.closing = False
        load.cancel()
    return [trouble for trouble in clients.troubles if trouble.startswith("idle connection")]


async def test_a_reset_is_judged_when_it_comes() -> None:
    """A proxy that stops resets whom nobody has accepted yet; at any other time that is wrong."""
    assert await _reset_while_waiting(closing=True) == []
    (trouble,) = await _reset_while_waiting(closing=False)
    assert "Connection reset by peer" in trouble

"""The relay's tests run on the event loop that the workers run on."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

_RELAY = ("app", "client", "forwarding", "health", "realtime", "transparency", "upstream")


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return which event loops a test runs on."""
    room = item.path.stem.removeprefix("test_").partition("_")[0]
    if room in _RELAY:
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}

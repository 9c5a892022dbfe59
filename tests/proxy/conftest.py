"""The relay's tests run on the event loop that the workers run on.

Those of the recorder have a journal, and prices of their own.
"""

import asyncio
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop

from proxy.journal import JournalWriter
from proxy.pricefile import PriceFile
from proxy.resources import resource

_RELAY = (
    "app",
    "assembly",
    "client",
    "forwarding",
    "health",
    "reading",
    "realtime",
    "transparency",
    "upstream",
)


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return which event loops a test runs on."""
    room = item.path.stem.removeprefix("test_").partition("_")[0]
    if room in _RELAY:
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[JournalWriter]:
    """Return the journal of a worker that lives."""
    writer = JournalWriter(tmp_path / "journal", name="w1", segment_bytes=20_000)
    yield writer
    writer.close()


@pytest.fixture
def prices(tmp_path: Path) -> PriceFile:
    """Return a pricing file of the test's own."""
    return PriceFile(Path(shutil.copy(resource("pricing.yaml"), tmp_path / "pricing.yaml")))

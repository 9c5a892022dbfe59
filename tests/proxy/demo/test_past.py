import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import aiohttp
import pytest

from proxy.core.model import Opening
from proxy.core.records import scan
from proxy.demo.past import clock, working
from proxy.settings import Settings
from proxy.values import Address
from tests.fakes.answers import answer
from tests.fakes.upstream import Upstream

MOMENTS = [datetime(2026, 10, 1, 12, tzinfo=UTC) + timedelta(days=n) for n in range(3)]
USAGE = b'{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}'


@pytest.fixture(autouse=True)
def _zone() -> None:
    """Read the time zone of the worker's settings before the loop runs; it is kept from then on."""
    ZoneInfo("UTC")


def test_the_clock_shows_each_moment_once() -> None:
    """And the last one for whatever else asks."""
    read = clock(MOMENTS)
    shown = [datetime.fromtimestamp(read() / 1e9, UTC) for _ in range(4)]
    assert shown == [*MOMENTS, MOMENTS[-1]]


async def test_calls_bear_the_moments_that_were_planned(tmp_path: Path) -> None:
    """One after the other; a journal like any other holds them."""
    body = {"model": "gpt-5.4-mini", "messages": []}
    async with Upstream(script=answer(USAGE)) as upstream:
        settings = await asyncio.to_thread(
            Settings,
            data_dir=tmp_path,
            upstream_url=upstream.url,
            listen=Address("127.0.0.1", 0),
            drain_seconds=1,
        )
        async with working(settings, MOMENTS) as url, aiohttp.ClientSession(url) as session:
            for _ in MOMENTS:
                async with session.post("/v1/chat/completions", json=body) as given:
                    assert given.status == 200
    files = await asyncio.to_thread(
        lambda: [path.read_bytes() for path in (tmp_path / "journal").glob("*.journal")]
    )
    records = [r for data in files for r in scan(data, limit=10_000, final=True).records]
    openings = [record for record in records if isinstance(record, Opening)]
    stamps = [int.from_bytes(opening.event_id[:6]) / 1000 for opening in openings]
    assert [datetime.fromtimestamp(stamp, UTC) for stamp in stamps] == MOMENTS

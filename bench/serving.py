"""The dashboard as dashboard.py measures it: every answer tells how long it took to make."""

import asyncio
import sys
import time
from datetime import timedelta
from pathlib import Path

import uvloop
from aiohttp import web
from aiohttp.typedefs import Handler

from dashboard.app import create_app, spare_the_collector
from dashboard.queries import Ledger
from dashboard.settings import Settings

TIME = "X-Milliseconds"


@web.middleware
async def timed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say in a header field how long an answer took to make."""
    begun = time.perf_counter()
    answer = await handler(request)
    if not answer.prepared:
        answer.headers[TIME] = f"{(time.perf_counter() - begun) * 1000:.3f}"
    return answer


async def serve(dsn: str, directory: str, port: str, token: str) -> None:
    """Be the dashboard, at the moment of the newest call."""
    reader = Ledger(dsn)
    newest = (await reader.health()).newest_call
    await reader.close()
    if newest is None:
        raise SystemExit("The ledger is empty.")
    settings = Settings(
        data_dir=Path(directory), database_url=dsn, admin_password=token, api_tokens=(token,)
    )
    at = newest + timedelta(minutes=1)
    app = await asyncio.to_thread(create_app, settings, clock=lambda: at)
    app.middlewares.insert(0, timed)
    spare_the_collector()
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(port)).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:]))

from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from dashboard import statics

MakeClient = Callable[[web.Application], Awaitable[TestClient[web.Request, web.Application]]]


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("dashboard.css", "text/css"),
        ("dashboard.js", "text/javascript"),
        ("uPlot.iife.min.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    ],
)
async def test_files_are_kept_for_ever_under_their_digest(
    aiohttp_client: MakeClient, name: str, content_type: str
) -> None:
    """A new version has a new address; the bare name is asked for anew."""
    app = web.Application()
    app.add_routes(statics.routes)
    client = await aiohttp_client(app)
    answer = await client.get(statics.asset(name))
    assert (answer.status, answer.content_type) == (200, content_type)
    assert "immutable" in answer.headers["Cache-Control"]
    bare = await client.get(f"{statics.PREFIX}{name}")
    assert bare.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("name", ["nothing.css", "..%2fpages.py", "uPlot.LICENSE", "%2e%2e"])
async def test_nothing_else_is_served(aiohttp_client: MakeClient, name: str) -> None:
    """Names are looked up, paths are not walked."""
    app = web.Application()
    app.add_routes(statics.routes)
    answer = await (await aiohttp_client(app)).get(f"{statics.PREFIX}{name}")
    assert answer.status == 404


def test_a_file_that_is_not_there_has_no_address() -> None:
    """A template that names one fails when it is made."""
    with pytest.raises(KeyError):
        statics.asset("nothing.css")

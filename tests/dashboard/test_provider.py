import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from dashboard.errors import SignOnError
from dashboard.provider import Provider, Registration, is_safe, told

Handler = Callable[[web.Request], Awaitable[web.Response]]
MakeServer = Callable[..., Awaitable[TestServer]]


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        ("https://id.example/token", True),
        ("http://127.0.0.1:8080/token", True),
        ("http://[::1]/token", True),
        ("http://localhost/token", True),
        ("http://id.example/token", False),
        ("http://localhost.evil.example/", False),
        ("https://", False),
        ("http://[::1/", False),
        ("file:///etc/passwd", False),
        ("None", False),
    ],
)
def test_only_https_is_safe_but_on_this_machine(address: str, safe: bool) -> None:  # noqa: FBT001
    """Whoever stands between could sign tokens of their own otherwise."""
    assert is_safe(address) == safe


@pytest.mark.parametrize(
    ("error", "shown"),
    [("access_denied", "access_denied"), ("<b>", ""), ("x" * 65, ""), (None, ""), (7, "")],
)
def test_only_codes_of_oauth_are_repeated(error: object, shown: str) -> None:
    """What a provider, or whoever poses as one, writes for people is not shown."""
    assert told(error) == shown


async def _slow(_request: web.Request) -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


async def _page(_request: web.Request) -> web.Response:
    return web.Response(text="<h1>It works!</h1>", content_type="text/html")


@pytest.mark.parametrize(
    ("handler", "says"),
    [(_slow, "does not answer"), (_page, "has answered 200 without JSON")],
    ids=["slow", "nonsense"],
)
async def test_a_provider_that_is_slow_or_talks_nonsense_holds_up_nobody(
    aiohttp_server: MakeServer, handler: Handler, says: str
) -> None:
    """Whoever waits behind the first one is told at once, instead of waiting as long again."""
    asked = []

    async def counted(request: web.Request) -> web.Response:
        asked.append(request.path)
        return await handler(request)

    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", counted)
    server = await aiohttp_server(app, shutdown_timeout=0)
    registration = Registration(
        issuer=str(server.make_url("")),
        client_id="meter",
        client_secret=None,
        scopes=("openid",),
        redirect_uri="http://127.0.0.1/admin/oidc/callback",
    )
    provider = Provider(registration, clock=time.monotonic, timeout_seconds=1)
    try:
        async with asyncio.timeout(20):
            told = await asyncio.gather(
                *(provider.address(state="s", nonce="n", verifier="v") for _ in range(20)),
                return_exceptions=True,
            )
    finally:
        await provider.close()
    assert {type(one) for one in told} == {SignOnError}
    assert says in str(told[0])
    assert len(asked) == 1

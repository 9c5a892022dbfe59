import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import ClientSession, CookieJar, web
from aiohttp.test_utils import TestClient

from dashboard.access import MOST_FAILURES
from dashboard.app import create_app
from dashboard.guarding import ACCESS, SESSION_COOKIE
from dashboard.provider import MOST_BYTES
from dashboard.register import Register
from dashboard.settings import Settings
from dashboard.signon import MOST_USED, SIGN_ON, SIGN_ON_COOKIE, SIGN_ON_SECONDS
from tests.fakes.provider import CLIENT_ID, CLIENT_SECRET, Key, Provider

Client = TestClient[web.Request, web.Application]
MakeClient = Callable[..., Awaitable[Client]]
Make = Callable[..., Awaitable[Client]]


class Clock:
    """The time of day, which a test can move."""

    def __init__(self) -> None:
        self.moment = datetime.now(UTC)  # noqa: TID251 - cookies live by the browser's clock

    def __call__(self) -> datetime:
        """Return the time of day."""
        return self.moment


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still."""
    return Clock()


@pytest.fixture
async def provider(clock: Clock) -> AsyncIterator[Provider]:
    """Return a provider that listens."""
    async with Provider(now=clock().timestamp()) as running:
        yield running


@pytest.fixture
def make(tmp_path: Path, provider: Provider, clock: Clock, aiohttp_client: MakeClient) -> Make:
    """Return what starts a dashboard and a browser without JavaScript."""

    async def made(**changes: Any) -> Client:
        known: dict[str, Any] = {
            "data_dir": tmp_path,
            "database_url": f"postgresql://u@/d?host={tmp_path}",
            "admin_password": "correct horse",
            "dashboard_url": "http://meter.example",
            "oidc_issuer": provider.url,
            "oidc_client_id": CLIENT_ID,
            "oidc_client_secret": CLIENT_SECRET,
        }
        settings = Settings(**known | changes)
        app = await asyncio.to_thread(create_app, settings, clock=clock)
        return await aiohttp_client(app, cookie_jar=CookieJar(unsafe=True))

    return made


async def _go(client: Client, following: str = "") -> str:
    """Log in at the provider and return the address with which it sends the browser back."""
    begun = await client.get("/admin/oidc", params={"next": following}, allow_redirects=False)
    assert begun.status == 303, await begun.text()
    async with (
        ClientSession() as browser,
        browser.get(begun.headers["Location"], allow_redirects=False) as sent,
    ):
        location = urlsplit(sent.headers["Location"])
    assert f"{location.scheme}://{location.netloc}" == "http://meter.example"
    return f"{location.path}?{location.query}"


async def _log_in(client: Client, following: str = "") -> tuple[int, str]:
    """Return the status of coming back, and where it leads or what the page says."""
    answer = await client.get(await _go(client, following), allow_redirects=False)
    return answer.status, answer.headers.get("Location") or await answer.text()


async def _viewer(client: Client) -> tuple[str, str] | None:
    found = client.session.cookie_jar.filter_cookies(client.make_url("/admin"))
    cookie = found[SESSION_COOKIE].value if SESSION_COOKIE in found else ""
    viewer = await client.app[ACCESS].viewer("", cookie, address="")
    return None if viewer is None else (viewer.name, viewer.role)


async def test_whoever_the_provider_knows_is_led_to_the_page_that_was_asked_for(
    make: Make, tmp_path: Path
) -> None:
    """By the button, with the same session as by password, and a line in the audit log."""
    client = await make()
    page = await (await client.get("/admin/login?next=/admin/users")).text()
    assert 'href="/admin/oidc?next=%2Fadmin%2Fusers"' in page
    assert await _log_in(client, "/admin/users?range=7d") == (303, "/admin/users?range=7d")
    assert await _viewer(client) == ("oidc:ada@example.org", "finance")
    noted = await asyncio.to_thread(Register(tmp_path).audited, limit=10)
    assert [(entry.who, entry.what) for entry in noted] == [("oidc:ada@example.org", "login")]


async def test_without_a_provider_there_is_no_button(make: Make) -> None:
    """And no such page."""
    client = await make(oidc_issuer=None, oidc_client_id=None)
    assert "/admin/oidc" not in await (await client.get("/admin/login")).text()
    for path in ("/admin/oidc", "/admin/oidc/callback?code=c&state=s"):
        assert (await client.get(path, allow_redirects=False)).status == 404


@pytest.mark.parametrize("method", ["client_secret_post", "client_secret_basic", "public"])
async def test_the_provider_is_told_who_we_are_as_it_wishes(
    make: Make, provider: Provider, method: str
) -> None:
    """By header, in the form, or not at all."""
    if method == "public":
        provider.client_secret = None
    else:
        provider.document = {"token_endpoint_auth_methods_supported": [method]}
    client = await make(oidc_client_secret=provider.client_secret)
    assert await _log_in(client) == (303, "/admin")


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"nonce": "of another log-in"}, "another log-in"),
        ({"nonce": None}, "another log-in"),
        ({"aud": "another-client"}, "not accepted"),
        ({"aud": [CLIENT_ID, "another-client"]}, "another client"),
        ({"azp": "another-client"}, "another client"),
        ({"iss": "https://evil.example"}, "not accepted"),
        ({"exp": 1_000_000_000}, "expired"),
        ({"exp": "tomorrow"}, "none"),
        ({"exp": None}, "not accepted"),
        ({"exp": float("nan")}, "none"),
        ({"exp": float("inf")}, "none"),
        ({"exp": 10**400}, "none"),
        ({"exp": True}, "none"),
        ({"iat": float("nan")}, "none"),
        ({"aud": []}, "not accepted"),
        ({"aud": {CLIENT_ID: True}}, "not accepted"),
        ({"nonce": ["of another log-in"]}, "another log-in"),
        ({"nonce": "\ud800"}, "another log-in"),
        ({"iat": 9_000_000_000}, "future"),
        ({"nbf": 9_000_000_000}, "future"),
        ({"sub": None}, "not accepted"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_token_that_is_not_for_this_log_in_opens_nothing(
    make: Make, provider: Provider, tmp_path: Path, claims: dict[str, Any], says: str
) -> None:
    """The page says why, and so does the audit log."""
    client = await make()
    provider.claims = claims
    status, page = await _log_in(client)
    assert status == 401
    assert says in page
    assert await _viewer(client) is None
    [entry] = await asyncio.to_thread(Register(tmp_path).audited, limit=10)
    assert entry.what == "login failed"
    assert says in entry.detail


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
async def test_a_token_that_no_private_key_has_signed_opens_nothing(
    make: Make, provider: Provider, algorithm: str
) -> None:
    """Neither unsigned nor with the public key as a secret."""
    client = await make()
    provider.algorithm = algorithm
    status, page = await _log_in(client)
    assert (status, "public key" in page) == (401, True)


async def test_a_token_signed_by_somebody_else_opens_nothing(
    make: Make, provider: Provider
) -> None:
    """Under the name of a key that is known, and under one that is not."""
    client = await make()
    provider.key = Key("key-1")
    assert (await _log_in(client))[0] == 401
    provider.key = Key("key-2")
    assert "does not show" in (await _log_in(client))[1]


async def test_keys_are_fetched_again_when_they_have_changed(
    make: Make, provider: Provider
) -> None:
    """Once in a while; otherwise the provider is not asked for them again."""
    moments = [0.0]
    client = await make()
    client.app[SIGN_ON].provider._clock = lambda: moments[0]  # noqa: SLF001 - a clock passed in
    assert (await _log_in(client))[0] == 303
    assert (await _log_in(client))[0] == 303
    assert provider.asked.count("/keys") == 1
    provider.key = Key("key-2")
    provider.shown.append(provider.key)
    moments[0] += 10
    assert (await _log_in(client))[0] == 303
    assert provider.asked.count("/keys") == 2
    assert provider.asked.count("/.well-known/openid-configuration") == 1


async def test_an_answer_belongs_to_the_browser_that_asked(make: Make) -> None:
    """Neither another state nor another browser is served: nobody is logged in by a link."""
    client = await make()
    back = await _go(client)
    state = parse_qs(urlsplit(back).query)["state"][0]
    wrong = await client.get(back.replace(state, "x" * len(state)), allow_redirects=False)
    assert (wrong.status, "this browser" in await wrong.text()) == (401, True)
    back = await _go(client)
    client.session.cookie_jar.clear(lambda cookie: cookie.key == SIGN_ON_COOKIE)
    stolen = await client.get(back, allow_redirects=False)
    assert (stolen.status, "another browser" in await stolen.text()) == (401, True)
    assert await _viewer(client) is None


async def test_a_code_is_good_once(make: Make) -> None:
    """Even in the same browser with the same cookie."""
    client = await make()
    back = await _go(client)
    cookies = client.session.cookie_jar.filter_cookies(client.make_url("/admin/oidc"))
    cookie = {"Cookie": f"{SIGN_ON_COOKIE}={cookies[SIGN_ON_COOKIE].value}"}
    assert (await client.get(back, allow_redirects=False)).status == 303
    again = await client.get(back, headers=cookie, allow_redirects=False)
    assert (again.status, "used already" in await again.text()) == (401, True)


async def test_a_code_that_the_provider_has_seen_is_refused(make: Make) -> None:
    """Its own reason is told, if it is a code of OAuth."""
    client = await make()
    back = await _go(client)
    query = parse_qs(urlsplit(back).query)
    answer = await client.get(f"/admin/oidc/callback?code=made-up&state={query['state'][0]}")
    assert (answer.status, "400 invalid_grant" in await answer.text()) == (401, True)


async def test_an_answer_of_another_provider_is_refused(make: Make) -> None:
    """It says so itself, by RFC 9207."""
    client = await make()
    back = await _go(client)
    answer = await client.get(back.partition("&iss=")[0] + "&iss=https://evil.example")
    assert (answer.status, "another provider" in await answer.text()) == (401, True)


@pytest.mark.parametrize("error", ["access_denied", "<script>alert(1)</script>"])
async def test_a_provider_that_refuses_is_told_of(make: Make, error: str) -> None:
    """As far as it is a code of OAuth; nothing of theirs is markup."""
    client = await make()
    state = parse_qs(urlsplit(await _go(client)).query)["state"][0]
    answer = await client.get("/admin/oidc/callback", params={"error": error, "state": state})
    page = await answer.text()
    assert (answer.status, "has refused it" in page) == (401, True)
    assert ("access_denied" in page, "<script>alert" in page) == (error == "access_denied", False)


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "/admin@evil"]
)
async def test_open_redirect_a_log_in_leads_to_our_own_pages_alone(
    make: Make, elsewhere: str
) -> None:
    """Anything else leads to the first one."""
    assert await _log_in(await make(), elsewhere) == (303, "/admin")


async def test_a_log_in_that_takes_too_long_is_begun_again(make: Make, clock: Clock) -> None:
    """The cookie says until when it is good."""
    client = await make()
    back = await _go(client)
    clock.moment += timedelta(seconds=SIGN_ON_SECONDS)
    answer = await client.get(back, allow_redirects=False)
    assert (answer.status, "too long" in await answer.text()) == (401, True)


@pytest.mark.parametrize(
    ("changes", "claims", "role"),
    [
        ({"oidc_roles": ("finance=viewer", "staff=admin")}, {}, "admin"),
        ({"oidc_roles": ("*=viewer",)}, {"groups": None}, "viewer"),
        ({}, {"groups": ["staff"]}, None),
        ({}, {"groups": "finance"}, "finance"),
        ({}, {"groups": {"finance": True}}, None),
        ({"oidc_role_claim": "a.b"}, {"a": {"b": ["viewer"]}}, "viewer"),
        ({"oidc_role_claim": "https://x.y/roles"}, {"https://x.y/roles": ["admin"]}, "admin"),
        (
            {"oidc_role_claim": "email", "oidc_roles": ("ada@example.org=admin",)},
            {"email_verified": True},
            "admin",
        ),
        (
            {"oidc_role_claim": "email", "oidc_roles": ("ada@example.org=admin",)},
            {"email_verified": "true"},
            None,
        ),
        ({"oidc_roles": ("admin=admin", "*=viewer")}, {"groups": ["*"]}, "viewer"),
    ],
    ids=range(10),
)
async def test_a_claim_gives_the_role(
    make: Make,
    provider: Provider,
    changes: dict[str, Any],
    claims: dict[str, Any],
    role: str | None,
) -> None:
    """The highest of those that it names; who has none is refused."""
    client = await make(**changes)
    provider.claims = claims
    status, page = await _log_in(client)
    assert status == (403 if role is None else 303)
    viewer = await _viewer(client)
    assert viewer == (None if role is None else ("oidc:ada@example.org", role))
    assert role is not None or "no role" in page


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"issuer": "https://evil.example"}, "another one"),
        ({"token_endpoint": "http://evil.example/token"}, "token_endpoint"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint"),
        ({"jwks_uri": None}, "jwks_uri"),
        ({"padding": "x" * MOST_BYTES}, "too large"),
    ],
    ids=["issuer", "plain", "script", "missing", "size"],
)
async def test_a_provider_that_cannot_be_trusted_is_not_gone_to(
    make: Make, provider: Provider, document: dict[str, Any], says: str
) -> None:
    """The page says what is wrong with it."""
    client = await make()
    provider.document = document
    answer = await client.get("/admin/oidc", allow_redirects=False)
    assert (answer.status, says in await answer.text()) == (502, True)


async def test_a_provider_that_is_down_is_not_asked_by_everybody(
    make: Make, provider: Provider
) -> None:
    """One request in a few seconds; the password still opens."""
    client = await make()
    provider.broken = True
    for _ in range(3):
        answer = await client.get("/admin/oidc", allow_redirects=False)
        assert answer.status == 502
    assert len(provider.asked) == 1
    assert (await client.get("/admin/login")).status == 200


async def test_brute_force_waits(make: Make, provider: Provider, tmp_path: Path) -> None:
    """By the throttle of the log-in by password."""
    client = await make()
    for _ in range(MOST_FAILURES):
        back = await _go(client)
        assert (await client.get(back.replace("code=code-", "code=guess-"))).status == 401
    asked = provider.asked.count("/token")
    for _ in range(3):
        answer = await client.get(await _go(client), allow_redirects=False)
        assert (answer.status, answer.headers["Retry-After"]) == (429, "60")
    assert provider.asked.count("/token") == asked == MOST_FAILURES
    noted = await asyncio.to_thread(Register(tmp_path).audited, limit=100)
    assert [entry.what for entry in noted] == ["login refused", *["login failed"] * MOST_FAILURES]


async def test_csrf_another_site_costs_nobody_a_try(make: Make, tmp_path: Path) -> None:
    """Whoever is led to the address without a log-in of theirs can go on with the one begun."""
    client = await make()
    back = await _go(client)
    for _ in range(MOST_FAILURES + 1):
        for query in ("code=c&state=s", "error=access_denied", ""):
            answer = await client.get(f"/admin/oidc/callback?{query}")
            assert (answer.status, "this browser" in await answer.text()) == (401, True)
    assert (await client.get(back, allow_redirects=False)).status == 303
    noted = await asyncio.to_thread(Register(tmp_path).audited, limit=100)
    assert [entry.what for entry in noted] == ["login"]


async def test_session_fixation_a_log_in_by_a_provider_is_a_new_session(make: Make) -> None:
    """Whatever cookie was there before."""
    client = await make()
    client.session.cookie_jar.update_cookies({SESSION_COOKIE: "chosen-by-an-attacker"})
    sessions = set()
    for _ in range(2):
        answer = await client.get(await _go(client), allow_redirects=False)
        sessions.add(answer.cookies[SESSION_COOKIE].value)
    assert len(sessions - {"chosen-by-an-attacker"}) == 2


async def test_a_code_of_somebody_else_is_worth_nothing(make: Make, provider: Provider) -> None:
    """Injected into a log-in of our own it fails by PKCE, and never makes a session."""
    victim, attacker = await make(), await make()
    stolen = parse_qs(urlsplit(await _go(victim)).query)["code"][0]
    own = await _go(attacker)
    code = parse_qs(urlsplit(own).query)["code"][0]
    answer = await attacker.get(own.replace(code, stolen), allow_redirects=False)
    assert (answer.status, "invalid_grant" in await answer.text()) == (401, True)
    assert await _viewer(attacker) is None
    assert provider.asked.count("/token") == 1


async def test_an_answer_that_says_something_twice_is_refused(make: Make) -> None:
    """As RFC 6749, section 3.1, has it: whoever else reads it may take the other one."""
    client = await make()
    answer = await client.get(f"{await _go(client)}&code=another", allow_redirects=False)
    assert (answer.status, "twice" in await answer.text()) == (401, True)


@pytest.mark.parametrize("tells", [True, False])
async def test_a_provider_that_names_itself_in_answers_has_to(
    make: Make, provider: Provider, *, tells: bool
) -> None:
    """RFC 9207, section 2.4: an answer without it may be one of another provider."""
    provider.document = {"authorization_response_iss_parameter_supported": tells}
    provider.names_itself = False
    assert (await _log_in(await make()))[0] == (401 if tells else 303)


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": True},
        {"jwk": Key("key-1").public()},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/certificate"},
    ],
    ids=min,
)
async def test_a_header_brings_no_key_and_no_rule_of_its_own(
    make: Make, provider: Provider, header: dict[str, Any]
) -> None:
    """Keys are those that the provider shows; an extension that is not known is refused."""
    client = await make()
    provider.header = header
    if "crit" not in header:
        provider.key = Key("key-1")
    assert (await _log_in(client))[0] == 401
    assert await _viewer(client) is None


async def test_a_key_of_another_kind_under_the_same_name_is_passed_over(
    make: Make, provider: Provider
) -> None:
    """The kind of a key follows from the algorithm; a secret is never one."""
    client = await make()
    provider.also = [
        {"kid": "key-1", "kty": "oct", "k": "c2VjcmV0"},
        {"kid": "key-1", "kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kid": "key-1", "kty": "EC", "use": "enc"},
    ]
    assert (await _log_in(client))[0] == 303


@pytest.mark.parametrize("keys", [7, {"key-1": {}}, [7, None], None, "key-1"])
async def test_keys_that_are_none_are_refused(make: Make, provider: Provider, keys: object) -> None:
    """Whatever stands in their place."""
    client = await make()
    provider.replaced = keys
    status, page = await _log_in(client)
    assert (status, "does not show" in page) == (401, True)


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"email_verified": None}, "oidc:u-1 (says ada@example.org)"),
        ({"email_verified": False, "email": "boss\n\u202e@x"}, "oidc:u-1 (says boss@x)"),
        ({"email": None, "preferred_username": "admin"}, "oidc:u-1 (says admin)"),
        ({"email": None}, "oidc:u-1"),
    ],
    ids=range(4),
)
async def test_nobody_is_named_by_what_they_say_themselves(
    make: Make, provider: Provider, claims: dict[str, Any], name: str
) -> None:
    """An address that the provider has not verified may be somebody else's."""
    client = await make()
    provider.claims = claims
    assert (await _log_in(client))[0] == 303
    assert await _viewer(client) == (name, "finance")


async def test_what_is_remembered_of_log_ins_is_bounded(make: Make) -> None:
    """The oldest are forgotten; their cookies have expired by then."""
    sign_on = (await make()).app[SIGN_ON]
    for number in range(MOST_USED + 10):
        sign_on.use(f"{number}")
    assert len(sign_on.used) == MOST_USED

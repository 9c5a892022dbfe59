"""Log in by the provider of an organisation: out to it, and back with a code.

What belongs to a log-in (state, nonce, the verifier of PKCE, the page that was asked for) stays in
a signed cookie of the browser that began it, so that a code is worth nothing in another one; and it
is good once. Sessions, the throttle and the audit log are those of the log-in by password.
"""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from dashboard import rendering, signing
from dashboard.claims import name_of, role_of
from dashboard.errors import NotFoundError, SignOnError, TooManyAttemptsError
from dashboard.guarding import ACCESS, SECURE, note
from dashboard.login import SINGLE_SIGN_ON, enter, ours
from dashboard.provider import Provider, Registration, told
from dashboard.settings import Settings
from dashboard.views import CLOCK

SIGN_ON_COOKIE = "meter_oidc"
SIGN_ON_SECONDS = 600.0
MOST_USED = 4096
CALLBACK = "/admin/oidc/callback"

routes = web.RouteTableDef()


@dataclass(slots=True, kw_only=True)
class SignOn:
    """A provider, and what is made of its claims."""

    provider: Provider
    claim: str
    roles: dict[str, str]
    used: "OrderedDict[str, None]" = field(default_factory=OrderedDict)

    def use(self, state: str) -> None:
        """Take a log-in as done; raise SignOnError if it has been before."""
        if state in self.used:
            raise SignOnError("This log-in has been used already.")
        self.used[state] = None
        if len(self.used) > MOST_USED:
            self.used.popitem(last=False)


SIGN_ON = web.AppKey("sign_on", SignOn)


def add_sign_on(app: web.Application, settings: Settings, clock: Callable[[], float]) -> None:
    """Let people log in by a provider, if the settings name one."""
    app[SINGLE_SIGN_ON] = bool(settings.oidc_issuer and settings.oidc_client_id)
    if settings.oidc_issuer is None or settings.oidc_client_id is None:
        return
    registration = Registration(
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        client_secret=settings.oidc_client_secret,
        scopes=settings.oidc_scopes,
        redirect_uri=f"{settings.base_url}{CALLBACK}",
    )
    pairs = (pair.rpartition("=") for pair in settings.oidc_roles)
    app[SIGN_ON] = SignOn(
        provider=Provider(registration, clock=clock),
        claim=settings.oidc_role_claim,
        roles={value: role for value, _, role in pairs},
    )
    app.on_cleanup.append(_close)


@routes.get("/admin/oidc")
async def begin(request: web.Request) -> web.Response:
    """Send the browser to the provider."""
    sign_on = _sign_on(request)
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    try:
        location = await sign_on.provider.address(state=state, nonce=nonce, verifier=verifier)
    except SignOnError as exc:
        return _refused(str(exc), 502)
    following = ours(request.query.get("next", ""))
    cookie = signing.signed(
        request.app[ACCESS].key,
        "oidc",
        *(state, nonce, verifier, following),
        expires_at=_now(request) + SIGN_ON_SECONDS,
    )
    answer = web.Response(status=303, headers={"Location": location})
    answer.set_cookie(
        SIGN_ON_COOKIE,
        cookie,
        max_age=int(SIGN_ON_SECONDS),
        path="/admin/oidc",
        secure=request.app[SECURE] or request.secure,
        httponly=True,
        samesite="Lax",
    )
    return answer


@routes.get(CALLBACK)
async def come_back(request: web.Request) -> web.Response:
    """Begin a session for whoever the provider says has come."""
    sign_on = _sign_on(request)
    access, address = request.app[ACCESS], request.remote or ""
    try:
        begun = _begun(request)
    except SignOnError as exc:  # any site can lead here: it costs nobody a try nor their log-in
        return _refused(str(exc), 401)
    try:
        access.demand_patience(address)
        answer = await _enter(request, sign_on, begun)
    except TooManyAttemptsError as exc:
        if exc.is_first:
            await note(request, "oidc", "login refused", "too many attempts")
        answer = _refused(str(exc), 429)
        answer.headers["Retry-After"] = "60"
    except SignOnError as exc:
        access.failed(address)
        await note(request, "oidc", "login failed", str(exc))
        answer = _refused(str(exc), 401)
    answer.del_cookie(SIGN_ON_COOKIE, path="/admin/oidc")
    return answer


async def _enter(
    request: web.Request, sign_on: SignOn, begun: tuple[str, str, str, str]
) -> web.Response:
    asked, (state, nonce, verifier, following) = request.query, begun
    sign_on.use(state)
    if len(asked) != len(set(asked)):
        raise SignOnError("The answer says something twice.")
    if "error" in asked:
        raise SignOnError(f"The provider has refused it: {told(asked['error'])}.")
    claims = await sign_on.provider.claims(
        asked.get("code", ""),
        nonce=nonce,
        verifier=verifier,
        issuer=asked.get("iss"),
        now=_now(request),
    )
    name = name_of(claims)
    role = role_of(claims, sign_on.claim, sign_on.roles)
    if role is None:
        await note(request, name, "login refused", f"no role by {sign_on.claim}")
        return _refused("You have no role here; ask whoever runs the meter for one.", 403)
    session = await request.app[ACCESS].begin(name, role)
    await note(request, name, "login", f"{role}, by single sign-on")
    return enter(request, session, following)


def _begun(request: web.Request) -> tuple[str, str, str, str]:
    """Return state, nonce, verifier and page of the log-in that this browser began.

    Raise SignOnError unless the answer is to that one.
    """
    cookie = request.cookies.get(SIGN_ON_COOKIE, "")
    opened = signing.opened(request.app[ACCESS].key, "oidc", cookie, now=_now(request))
    if opened is None:
        raise SignOnError("The log-in took too long, or was begun in another browser.")
    state, nonce, verifier, following = opened
    sent = request.query.get("state", "").encode(errors="replace")
    if not hmac.compare_digest(state.encode(), sent):
        raise SignOnError("The answer does not belong to a log-in of this browser.")
    return state, nonce, verifier, following


def _now(request: web.Request) -> float:
    return request.app[CLOCK]().timestamp()


def _sign_on(request: web.Request) -> SignOn:
    if not request.app[SINGLE_SIGN_ON]:
        raise NotFoundError
    return request.app[SIGN_ON]


def _refused(message: str, status: int) -> web.Response:
    text = rendering.message_page(f"{message} You can log in again at /admin/login.")
    return web.Response(status=status, text=text, content_type="text/html")


async def _close(app: web.Application) -> None:
    await app[SIGN_ON].provider.close()

"""What every request passes: who is it, may it do that, and what every answer carries.

Nothing is served to anyone who is not known but health, the form to log in with, and links that
carry a signature. What changes something has to come from our own pages, or from a program that
sends its credentials by itself. Passwords that are wrong are in the audit log, whichever way they
came.
"""

import asyncio
import time
from urllib.parse import urlencode, urlsplit

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from dashboard import rendering
from dashboard.access import Access, claimed
from dashboard.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    ForbiddenError,
    MigrationError,
    NotFoundError,
    ParameterError,
    TooBusyError,
    TooManyAttemptsError,
    TooManyListenersError,
    TooSlowError,
)
from dashboard.register import Entry, Register
from dashboard.roles import Viewer

ACCESS = web.AppKey("access", Access)
REGISTER = web.AppKey("register", Register)
SECURE = web.AppKey("secure", bool)  # whether browsers come by HTTPS
VIEWER = web.RequestKey("viewer", Viewer)
SESSION_COOKIE = "meter_session"
CSRF_HEADER = "X-CSRF-Token"
SAFE_METHODS = frozenset({"GET", "HEAD"})
OPEN_PATHS = frozenset({"/healthz", "/admin/login", "/admin/oidc", "/admin/oidc/callback"})
OPEN_FOLDERS = ("/admin/static/", "/usage/")  # /usage/ looks at its link itself

DESCRIPTION = "/api/openapi.json"
FILES = frozenset(
    {
        *("/api/usage/export", "/api/usage/export/summary", "/api/usage/summary.csv"),
        *("/admin/calls.csv", "/admin/users.csv"),
    }
)

_WHAT_TO_SEND = (
    "send Authorization: Bearer with a token (METER_API_TOKENS, or one made by `openai-meter "
    "token`), or HTTP Basic with user and password; people log in at /admin/login"
)
_log = structlog.get_logger()


@web.middleware
async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Put the security headers on every answer; one that has been begun has them already."""
    try:
        answer = await handler(request)
    except web.HTTPException as exc:
        answer = error(request, exc.status, exc.reason, error_type="not_found")
        answer.headers.update({"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else {})
    if not answer.prepared:
        for name, value in rendering.SECURITY_HEADERS.items():
            answer.headers.setdefault(name, value)
        if "frame-ancestors *" in answer.headers["Content-Security-Policy"]:
            del answer.headers["X-Frame-Options"]
    return answer


@web.middleware
async def explained(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn our own errors into answers that say what to do."""
    try:
        return await handler(request)
    except DatabaseUnavailableError as exc:
        _log.warning("database unavailable", problem=str(exc), cause=exc.cause)
        is_busy = isinstance(exc, TooBusyError)
        error_type = "too_busy" if is_busy else "database_unavailable"
        answer = error(request, 503, str(exc), error_type=error_type)
        answer.headers["Retry-After"] = "2"
    except ConfigurationError as exc:
        _log.error("not usable", problem=str(exc))
        answer = error(request, 503, "The data directory cannot be used.", error_type="unusable")
    except MigrationError as exc:
        answer = error(request, 502, str(exc), error_type="migration_failed")
    except TooSlowError as exc:
        answer = error(request, 503, str(exc), error_type="too_slow")
    except NotFoundError as exc:
        answer = error(request, 404, str(exc), error_type="not_found")
    except ForbiddenError as exc:
        answer = error(request, 403, str(exc), error_type="forbidden")
    except ParameterError as exc:
        answer = error(request, 400, str(exc), error_type="invalid_parameter", param=exc.parameter)
    except TooManyListenersError as exc:
        answer = error(request, 503, str(exc), error_type="too_many_listeners")
    except TooManyAttemptsError as exc:
        answer = error(request, 429, str(exc), error_type="too_many_attempts")
        answer.headers["Retry-After"] = "60"
    return answer


@web.middleware
async def protected(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let nobody read who has not said who they are, and nobody else speak for them."""
    if request.method not in SAFE_METHODS and not _is_from_here(request):
        raise ForbiddenError("This was sent by a page of another site.")
    if request.path in OPEN_PATHS or request.path.startswith(OPEN_FOLDERS):
        return await handler(request)
    viewer = await _viewer(request)
    if viewer is None:
        return _who_are_you(request)
    request[VIEWER] = viewer
    _demand_scope(request, viewer)
    if viewer.via == "session" and request.method not in SAFE_METHODS:
        await _demand_form(request)
    return await handler(request)


def error(
    request: web.Request, status: int, message: str, *, error_type: str, param: str | None = None
) -> web.Response:
    """Return an error: a page where a page was asked for, else JSON."""
    if is_page(request):
        return web.Response(
            status=status, text=rendering.message_page(message), content_type="text/html"
        )
    text = rendering.error_json(message, error_type=error_type, param=param)
    return web.Response(status=status, text=text, content_type="application/json")


def is_page(request: web.Request) -> bool:
    """Whether a person looks at the answer."""
    path = request.path
    return path == "/" or (
        path.startswith("/admin") and not path.endswith((".json", ".csv", "/live"))
    )


def demand_admin(request: web.Request) -> Viewer:
    """Return who is asking if that is an admin; raise ForbiddenError otherwise."""
    viewer = request[VIEWER]
    if not viewer.is_admin:
        raise ForbiddenError
    return viewer


def demand_no_parameters(request: web.Request) -> None:
    """Raise ParameterError where something is asked for that this route knows nothing of."""
    for name in request.query:
        raise ParameterError(name, "no such parameter; expected none")


def wall_clock() -> float:
    """Return the time of day in seconds since 1970."""
    return time.time()


async def note(request: web.Request, who: str, what: str, detail: str = "") -> None:
    """Add a line to the audit log, and to the process's."""
    address = request.remote or ""
    _log.info("audit", who=who, address=address, what=what, detail=detail)
    entry = Entry(at=wall_clock(), who=who, address=address, what=what, detail=detail)
    await asyncio.to_thread(request.app[REGISTER].note, entry)


async def _viewer(request: web.Request) -> Viewer | None:
    """Return who is asking; None: nobody we know, and a wrong password has been noted."""
    authorization = request.headers.get("Authorization", "")
    who = claimed(authorization)
    session = request.cookies.get(SESSION_COOKIE, "")
    try:
        viewer = await request.app[ACCESS].viewer(
            authorization, session, address=request.remote or ""
        )
    except TooManyAttemptsError as exc:
        if who and exc.is_first:  # or whoever guesses would fill the log
            await note(request, who, "login refused", "too many attempts")
        raise
    if who and viewer is None:
        await note(request, who, "login failed", "HTTP Basic")
    return viewer


def _demand_scope(request: web.Request, viewer: Viewer) -> None:
    """Raise ForbiddenError unless a token is for what is asked; what is not named is refused."""
    path = request.path
    user = request.match_info.get("user_id")
    if (
        viewer.may_read  # what hands out files asks for the scope of its own
        or (viewer.may_export and path in FILES)
        or (user is not None and viewer.owns(user))
        or path == DESCRIPTION
    ):
        return
    scopes = ", ".join(sorted(viewer.scopes or ()))
    raise ForbiddenError(f"This token is not for that; its scopes are: {scopes}.")


def _who_are_you(request: web.Request) -> web.Response:
    if is_page(request) and request.method in SAFE_METHODS:
        query = urlencode({"next": request.path_qs}) if request.path != "/" else ""
        location = f"/admin/login?{query}" if query else "/admin/login"
        return web.Response(status=303, headers={"Location": location})
    answer = error(request, 401, _WHAT_TO_SEND, error_type="unauthorized")
    answer.headers["WWW-Authenticate"] = 'Basic realm="openai-meter", charset="UTF-8"'
    return answer


def _is_from_here(request: web.Request) -> bool:
    """Whether no browser says that another site made it send this."""
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        return False
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host


async def _demand_form(request: web.Request) -> None:
    """Raise ForbiddenError unless what only our own pages know has been sent along."""
    sent = request.headers.get(CSRF_HEADER, "")
    if not sent and request.content_type == "application/x-www-form-urlencoded":
        sent = str((await request.post()).get("csrf", ""))
    cookie = request.cookies.get(SESSION_COOKIE, "")
    if not request.app[ACCESS].is_form(cookie, sent):
        raise ForbiddenError("The form is too old: go back, reload the page and send it again.")

"""Log in and out: the form and its cookie."""

import re

from aiohttp import web

from dashboard import rendering
from dashboard.access import LOGIN_SECONDS, SESSION_SECONDS
from dashboard.errors import TooManyAttemptsError
from dashboard.guarding import ACCESS, SECURE, SESSION_COOKIE, VIEWER, note

SINGLE_SIGN_ON = web.AppKey("single_sign_on", bool)
LOGIN_COOKIE = "meter_login"
MOST_CHARACTERS = 1024  # of a name or password; argon2 need not chew on more

# A path of our own pages and its query: nothing that a browser takes for another host.
_OURS = re.compile(r"/admin(/[a-z_]+)*(\.json|\.csv)?(\?[!-~]*)?")
_OLD_FORM = "The form is too old, please try again."

routes = web.RouteTableDef()


@routes.get("/admin/login")
async def form(request: web.Request) -> web.Response:
    """Show the form."""
    return _form(request, following=request.query.get("next", ""))


@routes.post("/admin/login")
async def log_in(request: web.Request) -> web.Response:
    """Begin a session, always a new one, and lead to the page that was asked for."""
    sent = await request.post()
    name, password = (str(sent.get(field, ""))[:MOST_CHARACTERS] for field in ("user", "password"))
    following = str(sent.get("next", ""))
    access = request.app[ACCESS]
    if not access.is_invited(request.cookies.get(LOGIN_COOKIE, ""), str(sent.get("csrf", ""))):
        return _form(request, following=following, problem=_OLD_FORM, status=400)
    try:
        session = await access.log_in(name, password, address=request.remote or "")
    except TooManyAttemptsError as exc:
        if exc.is_first:  # or whoever guesses would fill the log
            await note(request, name, "login refused", "too many attempts")
        answer = _form(request, following=following, problem=str(exc), status=429)
        answer.headers["Retry-After"] = "60"
        return answer
    if session is None:
        await note(request, name, "login failed")
        problem = "User or password are wrong."
        return _form(request, following=following, problem=problem, status=401)
    await note(request, name, "login")
    return enter(request, session, following)


@routes.post("/admin/logout")
async def log_out(request: web.Request) -> web.Response:
    """End the session."""
    await request.app[ACCESS].log_out(request.cookies.get(SESSION_COOKIE, ""))
    await note(request, request[VIEWER].name, "logout")
    answer = web.Response(status=303, headers={"Location": "/admin/login"})
    answer.del_cookie(SESSION_COOKIE, path="/")
    return answer


def enter(request: web.Request, session: str, following: str) -> web.Response:
    """Hand out the cookie of a session, and lead on."""
    answer = web.Response(status=303, headers={"Location": ours(following)})
    _set_cookie(request, answer, SESSION_COOKIE, session, SESSION_SECONDS)
    answer.del_cookie(LOGIN_COOKIE, path="/admin/login")
    return answer


def ours(following: str) -> str:
    """Return a path of our own pages; anything else leads to the first one."""
    return following if _OURS.fullmatch(following) else "/admin"


def _form(
    request: web.Request, *, following: str, problem: str = "", status: int = 200
) -> web.Response:
    cookie, csrf = request.app[ACCESS].invitation()
    text = rendering.login_page(
        csrf=csrf,
        following=ours(following),
        problem=problem,
        single_sign_on=request.app[SINGLE_SIGN_ON],
    )
    answer = web.Response(status=status, text=text, content_type="text/html")
    _set_cookie(request, answer, LOGIN_COOKIE, cookie, LOGIN_SECONDS, path="/admin/login")
    return answer


def _set_cookie(
    request: web.Request,
    answer: web.Response,
    name: str,
    value: str,
    seconds: float,
    path: str = "/",
) -> None:
    answer.set_cookie(
        name,
        value,
        max_age=int(seconds),
        path=path,
        secure=request.app[SECURE] or request.secure,
        httponly=True,
        samesite="Lax",
    )

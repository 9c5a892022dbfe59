"""What an admin does by API: tokens, links for users, the audit log, the schema."""

import asyncio
import json
import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime

from aiohttp import web

from dashboard.errors import MigrationError, ParameterError
from dashboard.guarding import (
    ACCESS,
    REGISTER,
    demand_admin,
    demand_no_parameters,
    note,
    wall_clock,
)
from dashboard.links import DAYS, demand_scopes, paths_of, span
from dashboard.register import Entry, Token, identity_of
from dashboard.roles import ROLES, Role

MIGRATE_SECONDS = 3600.0
MOST_ENTRIES = 1000
MOST_BYTES = 65_536
NAME_CHARACTERS = 100
DAY_SECONDS = 86_400.0

OWNER_DSN = web.AppKey("owner_dsn", str)
PUBLIC_URL = web.AppKey("public_url", str)  # where browsers are told to come; empty: as they came

routes = web.RouteTableDef()


@routes.get("/api/admin/tokens")
async def tokens(request: web.Request) -> web.Response:
    """Return all tokens, without themselves."""
    demand_admin(request)
    demand_no_parameters(request)
    found = await asyncio.to_thread(request.app[REGISTER].tokens)
    return web.json_response({"tokens": [_told(token) for token in found]})


@routes.post("/api/admin/tokens")
async def make_token(request: web.Request) -> web.Response:
    """Make a token: name, role, scopes and for how many days; it is shown this once."""
    viewer = demand_admin(request)
    asked = await _body(request, "name", "role", "scopes", "days")
    name, role = _name(asked.get("name")), _role(asked.get("role", "finance"))
    now = wall_clock()
    days = asked.get("days")
    expires_at = None if days is None else now + span(days) * DAY_SECONDS
    scopes = demand_scopes(asked.get("scopes", []), role)
    register = request.app[REGISTER]
    token = await asyncio.to_thread(
        register.add_token, name, role, now=now, expires_at=expires_at, scopes=scopes
    )
    await note(request, viewer.name, "token made", " ".join((name, f"({role})", *scopes)))
    shown = {"token": token, "id": identity_of(token), "name": name, "role": role}
    until = {"scopes": scopes, "expires_at": _moment(expires_at)}
    return web.json_response(shown | until, status=201)


@routes.delete("/api/admin/tokens/{id}")
async def revoke_token(request: web.Request) -> web.Response:
    """Let a token open nothing any more."""
    viewer = demand_admin(request)
    identity = request.match_info["id"]
    await asyncio.to_thread(request.app[REGISTER].revoke_token, identity, now=wall_clock())
    await note(request, viewer.name, "token revoked", identity)
    return web.Response(status=204)


@routes.post("/api/admin/links")
async def make_link(request: web.Request) -> web.Response:
    """Sign a link that opens one user's numbers: user, and for how many days."""
    viewer = demand_admin(request)
    asked = await _body(request, "user", "days")
    user = asked.get("user")
    if not isinstance(user, str) or not user:
        raise ParameterError("user", "expected the id of a user")
    days = span(asked.get("days", DAYS))
    key, expires_at = request.app[ACCESS].key, wall_clock() + days * DAY_SECONDS
    await note(request, viewer.name, "link made", f"{user!r} for {days} days")
    base = request.app[PUBLIC_URL] or str(request.url.origin())
    links = {name: f"{base}{path}" for name, path in paths_of(key, user, expires_at)}
    return web.json_response(links | {"expires_at": _moment(expires_at)}, status=201)


@routes.get("/api/admin/audit")
async def audit(request: web.Request) -> web.Response:
    """Return the newest lines of the audit log."""
    demand_admin(request)
    demand_no_parameters(request)
    found = await asyncio.to_thread(request.app[REGISTER].audited, limit=MOST_ENTRIES)
    return web.json_response({"entries": [_told(entry) for entry in found]})


@routes.post("/api/admin/migrate-usage-tracking")
async def migrate(request: web.Request) -> web.Response:
    """Bring the schema up to date; where it is, nothing happens.

    The dashboard itself may only read, so this is done by a process of its own with the owner's
    rights, the one that `openai-meter migrate` is.
    """
    viewer = demand_admin(request)
    await note(request, viewer.name, "migrate")
    command = (sys.executable, "-P", "-m", "proxy", "migrate")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        env=_environment(request),
    )
    try:
        async with asyncio.timeout(MIGRATE_SECONDS):
            said, complained = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        lines = complained.decode(errors="replace").strip().splitlines()
        raise MigrationError(lines[-1] if lines else None)
    return web.json_response({"applied": b"applied" in said, "message": said.decode().strip()})


def _environment(request: web.Request) -> dict[str, str]:
    return dict(os.environ) | {"METER_DATABASE_URL": request.app[OWNER_DSN]}


def _told(kept: Token | Entry) -> dict[str, object]:
    """Return what is kept as it is told: times as everywhere in the usage API."""
    members: dict[str, object] = asdict(kept)
    return {
        name: _moment(value) if isinstance(value, float) else value
        for name, value in members.items()
    }


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


async def _body(request: web.Request, *known: str) -> dict[str, object]:
    """Return the JSON object that was sent; it may have these members, and no others.

    A member that was misspelt would else be left out, and a token be good for more than was meant.
    """
    if (request.content_length or 0) > MOST_BYTES:
        raise ParameterError("body", "expected a small JSON object")
    try:
        found = json.loads(await request.text())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ParameterError("body", "expected a JSON object")
    for name in found:
        if name not in known:
            raise ParameterError(name, f"no such member; expected {', '.join(known)}")
    return found


def _name(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= NAME_CHARACTERS:
        raise ParameterError("name", f"expected 1 to {NAME_CHARACTERS} characters")
    return value


def _role(value: object) -> Role:
    for role in ROLES:
        if value == role:
            return role
    raise ParameterError("role", f"expected one of {', '.join(ROLES)}")

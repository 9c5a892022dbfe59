"""Style, scripts and icon: served from memory, under addresses that change when they do."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from aiohttp import web

PREFIX = "/admin/static/"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOR_EVER = "public, max-age=31536000, immutable"

routes = web.RouteTableDef()


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    content_type: str
    digest: str


def _read() -> dict[str, _File]:
    found = {}
    for path in (files("dashboard") / "static").iterdir():
        content_type = _TYPES.get(f".{path.name.rpartition('.')[2]}")
        if content_type is not None:
            body = path.read_bytes()
            found[path.name] = _File(body, content_type, hashlib.sha256(body).hexdigest()[:16])
    return found


_files = _read()


def asset(name: str) -> str:
    """Return the address of a file as it is now; KeyError: there is none of that name."""
    return f"{PREFIX}{name}?v={_files[name].digest}"


@routes.get(PREFIX + "{name}")
async def static(request: web.Request) -> web.Response:
    """Return a file; for ever, if it was asked for by its digest."""
    file = _files.get(request.match_info["name"])
    if file is None:
        raise web.HTTPNotFound
    current = request.query.get("v") == file.digest
    return web.Response(
        body=file.body,
        content_type=file.content_type,
        charset="utf-8",
        headers={"Cache-Control": _FOR_EVER if current else "no-cache"},
    )

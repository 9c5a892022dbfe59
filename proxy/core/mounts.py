"""Upstreams beside the one at `/`: each has a name, and its calls come under `/name/…`.

A mount is found by comparing bytes: the first segment of a target is a name as it stands in the
settings, or it is none. Nothing is decoded, folded or collapsed, so `/%61zure/`, `//azure/` and
`/azurex/` are paths of the upstream at `/`, as they would be if nothing were mounted. A name cannot
be one that the API's own paths begin with.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from typing_extensions import override

from proxy.core.registry import FAMILIES, REGISTRY

EXAMPLE = '{"azure": {"url": "https://my-resource.openai.azure.com"}}'
MAX_FIELDS = 32
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_VERSION = re.compile(r"v[0-9]+")
_RESOURCES = {path[0] for ways in REGISTRY.values() for path in ways}
_OF_THE_API = {"openai", "backend-api", *FAMILIES, *_RESOURCES}
_FIRST_SEGMENT = re.compile(rb"/([a-z][a-z0-9-]*)(?=[/?]|\Z)")
_MEMBERS = (
    "url",
    "headers",
    "ask_usage",
    "ca_file",
    "connect_timeout_seconds",
    "idle_timeout_seconds",
)
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110 section 5.1
_FIELD_VALUE = re.compile(r"[!-~](?:[ -~]{0,8190}[!-~])?")
_OF_THE_MESSAGE = frozenset(  # these frame a message, or the relay needs them for itself
    (
        *("accept-encoding", "content-encoding", "content-length", "content-type", "host"),
        *("connection", "expect", "keep-alive", "proxy-authorization", "proxy-connection"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    )
)
_FAMILIES = ("sec-websocket-", "x-meter-")

Check = Callable[[str], str]  # returns a checked URL, raises ValueError


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One upstream and what is said of it; None: as for the one at `/`."""

    name: str
    url: str
    headers: Mapping[str, str | None] = field(default_factory=dict, repr=False)  # None: taken out
    ask_usage: bool = True  # whether streams are asked for their usage
    ca_file: str | None = None
    connect_timeout_seconds: float | None = None
    idle_timeout_seconds: float | None = None

    @property
    def left_out(self) -> tuple[bytes, ...]:
        """The fields of a request that do not go to this upstream, in lower case."""
        return tuple(name.lower().encode() for name in self.headers)

    @property
    def added(self) -> bytes:
        """The lines that a request to this upstream gets."""
        fields = self.headers.items()
        return b"".join(f"{name}: {value}\r\n".encode() for name, value in fields if value)


@dataclass(frozen=True, slots=True)
class Mounts:
    """All of them."""

    upstreams: tuple[Mount, ...] = ()

    @classmethod
    def parse(cls, value: object, check_url: Check) -> "Mounts":
        """Read a JSON object by name, or take one that has been read; no message tells a header."""
        if isinstance(value, cls):
            return value
        try:
            members = (
                json.loads(value, object_pairs_hook=_once) if isinstance(value, str) else value
            )
        except (json.JSONDecodeError, RecursionError):
            raise ValueError(f"expected a JSON object such as {EXAMPLE}") from None
        if not isinstance(members, dict):
            raise ValueError(f"expected a JSON object such as {EXAMPLE}")  # noqa: TRY004 - for pydantic
        return cls(tuple(_mount(name, entry, check_url) for name, entry in members.items()))

    @override
    def __str__(self) -> str:
        """Return the notation that `parse` reads, secrets included."""
        return json.dumps({mount.name: _members(mount) for mount in self.upstreams})


class Place(NamedTuple):
    """Where a target leads: the mount's name, and the target as its upstream sees it."""

    name: bytes
    target: bytes


def place_of(target: bytes) -> Place | None:
    """Return what may be a mount and the rest; None where the target begins with no such name."""
    match = _FIRST_SEGMENT.match(target)
    if match is None:
        return None
    rest = target[match.end() :]
    return Place(match[1], rest if rest.startswith(b"/") else b"/" + rest)


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"expected each name once, {name!r} stands there twice")
        members[name] = value
    return members


def _mount(name: str, entry: object, check_url: Check) -> Mount:
    _check_name(name)
    members = {"url": entry} if isinstance(entry, str) else entry
    if not isinstance(members, dict) or not isinstance(members.get("url"), str):
        raise ValueError(  # noqa: TRY004 - as above
            f"{name}: expected a URL, or an object with a url, as in {EXAMPLE}"
        )
    for member in members:
        if member not in _MEMBERS:
            raise ValueError(f"{name}: {member!r} is unknown, expected {', '.join(_MEMBERS)}")
    try:
        url = check_url(members["url"])
    except ValueError as exc:
        raise ValueError(f"{name}: url: {exc}") from None
    return Mount(
        name=name,
        url=url,
        headers=_fields(name, members.get("headers", {})),
        ask_usage=_flag(name, members.get("ask_usage", True)),
        ca_file=_path(name, members.get("ca_file")),
        connect_timeout_seconds=_seconds(name, members, "connect_timeout_seconds"),
        idle_timeout_seconds=_seconds(name, members, "idle_timeout_seconds"),
    )


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be mounted: expected a name of lower-case letters, digits and "
            "hyphens, at most 32, that begins with a letter"
        )
    if _VERSION.fullmatch(name) or name in _OF_THE_API:
        raise ValueError(f"{name!r} cannot be mounted: paths of the API itself begin with /{name}")


def _fields(name: str, fields: object) -> dict[str, str | None]:
    if not isinstance(fields, dict) or len(fields) > MAX_FIELDS:
        raise ValueError(f"{name}: headers: expected an object with at most {MAX_FIELDS} fields")
    seen: set[str] = set()
    for key, value in fields.items():
        lower = key.lower()
        if not _FIELD_NAME.fullmatch(key) or lower in seen:
            raise ValueError(f"{name}: headers: {key!r} is no header name, or stands there twice")
        if lower in _OF_THE_MESSAGE or lower.startswith(_FAMILIES):
            raise ValueError(f"{name}: headers: {key} belongs to the call, expected another one")
        if value is not None and not (isinstance(value, str) and _FIELD_VALUE.fullmatch(value)):
            raise ValueError(
                f"{name}: headers: {key} has a value that is not shown: expected visible ASCII "
                "characters and blanks between them, or null to take the field out"
            )
        seen.add(lower)
    return fields


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name}: ask_usage: expected true or false")  # noqa: TRY004 - as above
    return value


def _path(name: str, value: object) -> str | None:
    if value is not None and not (isinstance(value, str) and value.startswith("/")):
        raise ValueError(f"{name}: ca_file: expected the absolute path of a PEM file")
    return value


def _seconds(name: str, members: Mapping[str, Any], member: str) -> float | None:
    value = members.get(member)
    if value is None:
        return None
    if type(value) not in {int, float} or not 0 < value < float("inf"):
        raise ValueError(f"{name}: {member}: expected a number of seconds above 0")
    return float(value)


def _members(mount: Mount) -> dict[str, object]:
    pairs = ((member, getattr(mount, member)) for member in _MEMBERS)
    return {member: value for member, value in pairs if value not in (None, {})}

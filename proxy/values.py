"""What the value of a setting may be: how it is written, and what is said of another one.

Each function takes what was given and returns what is meant, or raises ValueError with what was
expected; no message shows a secret.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

from typing_extensions import override  # typing has it from Python 3.12 on

FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.1
NEEDED = (  # attribution is taken off a call; without these it would be another one
    *("Authorization", "Proxy-Authorization", "Api-Key", "Cookie", "Host", "User-Agent"),
    *("Connection", "Transfer-Encoding", "TE", "Trailer", "Upgrade", "Expect", "Idempotency-Key"),
)
NEEDED_FAMILIES = ("Accept", "Content-", "OpenAI-", "X-Stainless-")


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port to listen on; an empty host means every interface, port 0 any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, value: object) -> "Address":
        """Read `HOST:PORT`, `[IPv6]:PORT` or `:PORT`."""
        if isinstance(value, cls):
            return value
        host, colon, port = str(value).strip().rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or (":" in host and not bracketed):
            raise ValueError("expected HOST:PORT, for example 127.0.0.1:8080, [::]:8080 or :8080")
        if int(port) > 65535:  # noqa: PLR2004 - the largest TCP port
            raise ValueError("expected a port from 0 to 65535")
        return cls(host.strip("[]"), int(port))

    @override
    def __str__(self) -> str:
        """Return the notation that `parse` reads."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def base_url(value: str) -> str:
    """Accept an http(s) URL with an optional base path; return it without a trailing slash."""
    expected = "expected a URL such as https://api.openai.com or http://10.0.0.7:9000/base"
    if re.search(r"[^!-~]", value):
        raise ValueError(f"{expected}, in visible ASCII characters")
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(expected) from None
    if not usable or _surplus(parts):
        raise ValueError(f"{expected}, without user, query or fragment")
    return value.rstrip("/")


def _surplus(parts: SplitResult) -> bool:
    return bool(parts.query or parts.fragment or "@" in parts.netloc)


def listed(value: object) -> object:
    """Split a comma-separated text; leave a sequence as it is."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


def field_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Accept names of headers (RFC 9110 section 5.1) that no call needs for itself."""
    for name in names:
        if not FIELD_NAME.fullmatch(name):
            raise ValueError(f"expected header names separated by commas, {name!r} is none")
        for needed in (*NEEDED, *NEEDED_FAMILIES):
            family = needed in NEEDED_FAMILIES
            if name.lower() == needed.lower() or (family and _begins(name, needed)):
                raise ValueError(f"expected headers of your own, a call needs {name} for itself")
    return names


def field_prefixes(prefixes: tuple[str, ...]) -> tuple[str, ...]:
    """Accept what no header begins with that a call needs for itself."""
    for prefix in field_names(prefixes):
        for needed in (*NEEDED, *NEEDED_FAMILIES):
            if _begins(needed, prefix):
                shown = f"{needed}*" if needed in NEEDED_FAMILIES else needed
                raise ValueError(
                    f"expected prefixes of headers of your own, {prefix} is the beginning of "
                    f"{shown}, which a call needs for itself"
                )
    return prefixes


def _begins(name: str, prefix: str) -> bool:
    return name.lower().startswith(prefix.lower())


def time_zone(name: str) -> str:
    """Accept a name that the time zone database of this machine has."""
    try:
        ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise ValueError("expected an IANA time zone such as UTC or Europe/Berlin") from None
    return name


def issuer(value: str) -> str:
    """Accept the address of a provider; nobody on the way there may change what it says."""
    parts = urlsplit(base_url(value))
    if parts.scheme != "https" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise ValueError("expected https://…, or http:// on this machine")
    return value


def role_choices(pairs: tuple[str, ...]) -> tuple[str, ...]:
    """Accept `VALUE=ROLE`, with any `=` in the value but not in the role."""
    for pair in pairs:
        value, _, role = pair.rpartition("=")
        if not value or role not in {"admin", "finance", "viewer"}:
            raise ValueError(
                f"expected VALUE=ROLE with admin, finance or viewer, separated by commas, "
                f"{pair!r} is none"
            )
    return pairs


def scopes(names: tuple[str, ...]) -> tuple[str, ...]:
    """Accept what makes an OpenID Connect request (OpenID Connect Core 3.1.2.1)."""
    if "openid" not in names:
        raise ValueError("expected openid among the scopes")
    return names


def existing_file(path: Path) -> Path:
    """Accept a file that this process may read; return its absolute path."""
    if not (path.is_file() and os.access(path, os.R_OK)):
        raise ValueError("expected the path of a readable file")
    return path.absolute()


def user_name(name: str) -> str:
    """Accept what can stand before the colon of HTTP Basic (RFC 7617 section 2)."""
    if not name or re.search(r"[:\s]", name):
        raise ValueError("expected a name without colons and blanks")
    return name


def database_url(url: str) -> str:
    """Accept a connection URI of Postgres by its scheme; the driver reads the rest."""
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    return url

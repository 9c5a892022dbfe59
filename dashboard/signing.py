"""Sign what comes back to us, and hide what must not be read on the way. Pure.

A signature covers what it is for, so that a link cannot pass for a cookie. Times are in seconds
since 1970, as everywhere on a wire.
"""

import base64
import binascii
import hashlib
import hmac
import json
from typing import Literal

Purpose = Literal["session", "login", "form", "link", "oidc"]

PSEUDONYM_CHARACTERS = 12


def signed(key: bytes, purpose: Purpose, *fields: str, expires_at: float) -> str:
    """Return fields with their expiry as one text that only we can have made."""
    body = _text(json.dumps([int(expires_at), *fields], separators=(",", ":")).encode())
    return f"{body}.{_text(_mac(key, purpose, body))}"


def opened(key: bytes, purpose: Purpose, text: str, *, now: float) -> tuple[str, ...] | None:
    """Return the fields; None: we have not made it, not for this purpose, or it is too old."""
    body, _, mac = text.partition(".")
    try:
        genuine = hmac.compare_digest(_bytes(mac), _mac(key, purpose, body))
        expires_at, *fields = json.loads(_bytes(body)) if genuine else (0,)
    except (binascii.Error, ValueError):
        return None
    return tuple(fields) if genuine and now < expires_at else None


def form_token(key: bytes, session: str) -> str:
    """Return what a form has to send with a session's cookie; another site cannot know it."""
    return _text(_mac(key, "form", session))


def pseudonym(key: bytes, user_id: str) -> str:
    """Return a name for a user that stays the same and does not tell who it is."""
    digest = hmac.digest(key, f"pseudonym {user_id}".encode("utf-8", "surrogatepass"), "sha256")
    return f"user-{base64.b32encode(digest).decode().lower()[:PSEUDONYM_CHARACTERS]}"


def _mac(key: bytes, purpose: Purpose, body: str) -> bytes:
    return hmac.digest(key, f"{purpose} {body}".encode("utf-8", "surrogatepass"), hashlib.sha256)


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))

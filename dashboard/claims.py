"""What a provider of log-ins says of somebody: its ID token checked, and the role that follows.

Signatures are judged by PyJWT, by public keys alone: a token that is not signed, or signed with a
secret, is none. Times are compared with the clock that is given. Refuses whatever was not made by
this issuer, for this client, in answer to this browser.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from dashboard.errors import SignOnError
from dashboard.roles import ROLES, Role

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
LEEWAY_SECONDS = 60.0
MOST_NAME_CHARACTERS = 200
EVERYONE = "*"

_KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}  # of a key, by algorithm
_LAST = 10**11  # seconds; a year in which nobody logs in
_NEEDED = ["iss", "aud", "sub", "exp", "iat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a token has to say."""

    issuer: str
    client_id: str
    nonce: str


def key_of(token: str, keys: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the public key that a token names; None: the provider has not shown it to us yet."""
    header = _header(token)
    fitting = [key for key in keys if _fits(key, str(header.get("alg")))]
    if "kid" not in header:
        return fitting[0] if len(fitting) == 1 else None
    return next((key for key in fitting if key.get("kid") == header["kid"]), None)


def checked(
    token: str, key: Mapping[str, Any], expected: Expected, *, now: float
) -> dict[str, Any]:
    """Return what a token claims, if all of it is as expected; raise SignOnError otherwise."""
    algorithm = str(_header(token)["alg"])
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            jwt.PyJWK(dict(key), algorithm=algorithm),
            algorithms=[algorithm],
            audience=expected.client_id,
            issuer=expected.issuer,
            options={
                "require": _NEEDED,
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except (jwt.PyJWTError, ValueError, TypeError) as exc:
        raise SignOnError(f"The provider's token is not accepted: {exc}.") from exc
    _demand_times(claims, now)
    _demand_party(claims, expected)
    return claims


def name_of(claims: Mapping[str, Any]) -> str:
    """Return a name for the audit log, which no account of ours can have.

    Only what the provider vouches for is one (OpenID Connect Core 5.7); beside it may stand what
    somebody calls themselves.
    """
    email, subject = _text(claims.get("email")), _text(claims.get("sub"))
    if email and claims.get("email_verified") is True:
        return f"oidc:{email}"
    if not subject:
        raise SignOnError("The provider's token names nobody.")
    says = email or _text(claims.get("preferred_username"))
    return f"oidc:{subject} (says {says})" if says else f"oidc:{subject}"


def role_of(claims: Mapping[str, Any], claim: str, roles: Mapping[str, str]) -> Role | None:
    """Return the highest role that a claim's values give; None: they give none."""
    given = {roles[value] for value in (*_values(claims, claim), EVERYONE) if value in roles}
    return next((role for role in ROLES if role in given), None)


def _header(token: str) -> dict[str, Any]:
    """Return a token's header; raise SignOnError unless its signature is one of a public key."""
    try:
        header: dict[str, Any] = jwt.get_unverified_header(token)
    except jwt.PyJWTError as exc:
        raise SignOnError("The provider's token cannot be read.") from exc
    if header.get("alg") not in ALGORITHMS or "crit" in header:  # we know no extension
        raise SignOnError("The provider's token is not signed with a public key.")
    return header


def _fits(key: Mapping[str, Any], algorithm: str) -> bool:
    kind = key.get("kty") == _KINDS.get(algorithm[:2]) and key.get("use", "sig") == "sig"
    return kind and key.get("alg", algorithm) == algorithm


def _demand_times(claims: Mapping[str, Any], now: float) -> None:
    times = [claims["exp"], claims["iat"], claims.get("nbf", claims["iat"])]
    if not all(map(_is_time, times)):
        raise SignOnError("The provider's token has times that are none.")
    expires, *begins = times
    if now >= expires + LEEWAY_SECONDS:
        raise SignOnError("The provider's token has expired.")
    if max(begins) > now + LEEWAY_SECONDS:
        raise SignOnError("The provider's token is of the future; are the clocks right?")


def _is_time(value: object) -> bool:
    """Whether it is a moment; JSON also has numbers that are none or too large to compare."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < _LAST


def _demand_party(claims: Mapping[str, Any], expected: Expected) -> None:
    """Refuse a token made for another client, or in answer to another browser."""
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    party = claims.get("azp", None if several else expected.client_id)
    if party != expected.client_id:
        raise SignOnError("The provider's token was made for another client.")
    nonce = str(claims.get("nonce", "")).encode(errors="replace")
    if not hmac.compare_digest(nonce, expected.nonce.encode()):
        raise SignOnError("The provider's token was made for another log-in.")


def _text(value: object) -> str:
    """Return a text as far as a log may hold it; what is none is empty."""
    cut = value[:MOST_NAME_CHARACTERS] if isinstance(value, str) else ""
    return "".join(each for each in cut if each.isprintable())


def _values(claims: Mapping[str, Any], claim: str) -> list[str]:
    """Return a claim's texts; its name may be a path of names, as in `realm_access.roles`."""
    if claim == "email" and claims.get("email_verified") is not True:
        return []  # anybody may have written it there
    found: Any = claims.get(claim)
    if found is None:
        found = claims
        for step in claim.split("."):
            found = found.get(step) if isinstance(found, dict) else None
    listed = found if isinstance(found, list) else [found]
    return [value for value in listed if isinstance(value, str) and value != EVERYONE]

"""A provider of log-ins, asked by OpenID Connect: where it is, which keys it has, who has come.

Everything that is fetched has a time limit and a size limit, is never redirected, and comes by
HTTPS unless the provider runs on this machine. What it says of itself is kept for an hour; its keys
are fetched again when a token names one that is not known, but not more often than every few
seconds.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout

from dashboard import claims
from dashboard.errors import SignOnError

TIMEOUT_SECONDS = 10.0
KEPT_SECONDS = 3600.0
AGAIN_SECONDS = 5.0
MOST_BYTES = 262_144

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_JSON = {"Accept": "application/json"}
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """How the provider knows us; without a secret we are a public client, with PKCE alone."""

    issuer: str
    client_id: str
    client_secret: str | None
    scopes: tuple[str, ...]
    redirect_uri: str


class Provider:
    """Asks a provider; `clock` only moves forward."""

    def __init__(
        self,
        registration: Registration,
        *,
        clock: Callable[[], float],
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._registration = registration
        self._clock = clock
        self._timeout = ClientTimeout(total=timeout_seconds)
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}
        self._failed: dict[str, float] = {}
        self._asking = asyncio.Lock()
        self._session: ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def address(self, *, state: str, nonce: str, verifier: str) -> str:
        """Return where a browser is sent to log in."""
        endpoint = str((await self._configuration())["authorization_endpoint"])
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._registration.client_id,
            "redirect_uri": self._registration.redirect_uri,
            "scope": " ".join(self._registration.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def claims(
        self, code: str, *, nonce: str, verifier: str, issuer: str | None, now: float
    ) -> dict[str, Any]:
        """Trade a code for what is claimed of somebody; raise SignOnError for whatever is wrong.

        `issuer` is what the answer said of its own origin (RFC 9207), None if nothing.
        """
        configuration = await self._configuration()
        tells = configuration.get("authorization_response_iss_parameter_supported") is True
        if issuer != configuration["issuer"] and (tells or issuer is not None):
            raise SignOnError("The answer is one of another provider.")
        token = await self._token(configuration, code, verifier)
        expected = claims.Expected(
            issuer=str(configuration["issuer"]),
            client_id=self._registration.client_id,
            nonce=nonce,
        )
        return claims.checked(token, await self._key(configuration, token), expected, now=now)

    async def _configuration(self) -> dict[str, Any]:
        """Return what the provider says of itself (OpenID Connect Discovery 1.0)."""
        issuer = self._registration.issuer.rstrip("/")
        found = await self._get(f"{issuer}/.well-known/openid-configuration")
        if str(found.get("issuer", "")).rstrip("/") != issuer:
            raise SignOnError("METER_OIDC_ISSUER: the provider says that it is another one.")
        for name in _ENDPOINTS:
            if not is_safe(str(found.get(name, ""))):
                raise SignOnError(f"The provider has no {name} that is reached by HTTPS.")
        return found

    async def _key(self, configuration: Mapping[str, Any], token: str) -> Mapping[str, Any]:
        address = str(configuration["jwks_uri"])
        for at_most in (KEPT_SECONDS, AGAIN_SECONDS):
            listed = (await self._get(address, at_most=at_most)).get("keys")
            found = listed if isinstance(listed, list) else []
            keys = [key for key in found if isinstance(key, dict)]
            if (key := claims.key_of(token, keys)) is not None:
                return key
        raise SignOnError("The provider's token is signed with a key that it does not show.")

    async def _token(self, configuration: Mapping[str, Any], code: str, verifier: str) -> str:
        known = self._registration
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": known.redirect_uri,
            "code_verifier": verifier,
        }
        methods = configuration.get("token_endpoint_auth_methods_supported")
        by_header = not isinstance(methods, list) or "client_secret_basic" in methods
        headers = dict(_JSON)
        if known.client_secret is not None and by_header:  # RFC 6749 section 2.3.1
            pair = f"{quote_plus(known.client_id)}:{quote_plus(known.client_secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form["client_id"] = known.client_id
            form |= {} if known.client_secret is None else {"client_secret": known.client_secret}
        answer = await self._ask(str(configuration["token_endpoint"]), form=form, headers=headers)
        if not isinstance(token := answer.get("id_token"), str):
            raise SignOnError("The provider has sent no ID token.")
        return token

    async def _get(self, address: str, *, at_most: float = KEPT_SECONDS) -> dict[str, Any]:
        """Return a document that is at most so old; one request at a time, and none in a row."""
        async with self._asking:
            now = self._clock()
            if address in self._kept and now - self._kept[address][0] < at_most:
                return self._kept[address][1]
            if now - self._failed.get(address, -AGAIN_SECONDS) < AGAIN_SECONDS:
                raise SignOnError("The provider does not answer; try again in a few seconds.")
            try:
                found = await self._ask(address)
            except SignOnError:
                self._failed = {address: self._clock()}  # whoever waited is told at once
                raise
            self._kept[address] = (now, found)
            return found

    async def _ask(
        self,
        address: str,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] = _JSON,
    ) -> dict[str, Any]:
        if self._session is None:
            self._session = ClientSession(timeout=self._timeout)
        body = bytearray()
        try:
            async with self._session.request(
                "GET" if form is None else "POST",
                address,
                data=form,
                allow_redirects=False,
                headers=headers,
            ) as answer:
                async for chunk in answer.content.iter_chunked(65_536):
                    body += chunk
                    if len(body) > MOST_BYTES:
                        raise SignOnError("The provider's answer is too large.")
        except (ClientError, OSError, TimeoutError, ValueError) as exc:
            raise SignOnError("The provider does not answer; try again in a few seconds.") from exc
        return _read(answer.status, bytes(body))


def is_safe(address: str) -> bool:
    """Whether nobody on the way can read or change what is asked there."""
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        return False
    return bool(host) and (
        parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    )


def _read(status: int, body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise SignOnError(f"The provider has answered {status} without JSON.") from exc
    if status != 200 or not isinstance(found, dict):  # noqa: PLR2004 - OK
        error = found.get("error") if isinstance(found, dict) else None
        raise SignOnError(f"The provider has refused it: {status} {told(error)}".rstrip() + ".")
    return found


def told(error: object) -> str:
    """Return an error code of OAuth, if it is one: not a text of theirs."""
    short = isinstance(error, str) and len(error) <= 64  # noqa: PLR2004 - codes are short
    return str(error) if short and str(error).replace("_", "").isalnum() else ""

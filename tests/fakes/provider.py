"""A provider of log-ins by OpenID Connect, over real sockets, that can be told to misbehave."""

import base64
import hashlib
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote_plus, urlencode

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

CLIENT_ID = "openai-meter"
CLIENT_SECRET = "s3cret:with/signs"  # noqa: S105 - no real one


class Key:
    """A key pair with a name."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self.private = generate_private_key(SECP256R1())

    def public(self) -> dict[str, Any]:
        """Return what the provider shows of it."""
        shown = jwt.algorithms.ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**shown, "kid": self.kid, "use": "sig", "alg": "ES256"}


@dataclass
class Provider:
    """Knows one person and one client; what is in `claims` and `document` replaces the truth."""

    now: float
    client_secret: str | None = CLIENT_SECRET
    claims: dict[str, Any] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)
    algorithm: str = "ES256"
    header: dict[str, Any] = field(default_factory=dict)  # of tokens, beside the name of the key
    names_itself: bool = True  # in its answers, by RFC 9207
    padding: int = 0  # bytes beside the keys
    broken: bool = False  # answers 503 to everything
    asked: list[str] = field(default_factory=list)
    url: str = ""
    key: Key = field(default_factory=lambda: Key("key-1"))
    shown: list[Key] = field(default_factory=list)
    also: list[Any] = field(default_factory=list)  # shown before those
    replaced: Any = field(default_factory=list)  # shown instead of them, if it is not empty
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        """Listen."""
        self.shown = [self.key]
        app = web.Application(middlewares=[self._counted])
        app.router.add_get("/.well-known/openid-configuration", self._discover)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        app.router.add_get("/keys", self._keys)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        await self._runner.cleanup()

    @web.middleware
    async def _counted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path)
        if self.broken:
            return web.Response(status=503, text="<h1>down</h1>")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _discover(self, _request: web.Request) -> web.Response:
        document = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
        }
        return web.json_response(document | self.document)

    async def _authorize(self, request: web.Request) -> web.Response:
        """Log the person in without asking, as if there were a session already."""
        asked = dict(request.query)
        assert asked["client_id"] == CLIENT_ID
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        code = f"code-{len(self._codes)}"
        self._codes[code] = asked
        query = urlencode(
            {"code": code, "state": asked["state"]}
            | ({"iss": self.url} if self.names_itself else {})
        )
        location = f"{asked['redirect_uri']}?{query}"
        return web.Response(status=302, headers={"Location": location})

    async def _token(self, request: web.Request) -> web.Response:
        form = dict(parse_qsl(await request.text()))
        asked = self._codes.pop(form["code"], None)  # good once
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            asked is None
            or asked["code_challenge"] != challenge
            or asked["redirect_uri"] != form["redirect_uri"]
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        if not self._is_client(request, form):
            return web.json_response({"error": "invalid_client"}, status=401)
        return web.json_response({"id_token": self._id_token(asked["nonce"]), "access_token": "a"})

    def _is_client(self, request: web.Request, form: dict[str, str]) -> bool:
        if self.client_secret is None:
            return form.get("client_id") == CLIENT_ID
        if "Authorization" not in request.headers:
            given = (form.get("client_id"), form.get("client_secret"))
        else:
            encoded = request.headers["Authorization"].removeprefix("Basic ")
            name, _, secret = base64.b64decode(encoded).decode().partition(":")
            given = (unquote_plus(name), unquote_plus(secret))
        return given == (CLIENT_ID, self.client_secret)

    def _id_token(self, nonce: str) -> str:
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "sub": "u-1",
            "email": "ada@example.org",
            "email_verified": True,
            "groups": ["staff", "finance"],
            "nonce": nonce,
            "iat": int(self.now),
            "exp": int(self.now) + 300,
        }
        told = {name: value for name, value in (claims | self.claims).items() if value is not None}
        secret: Any = {"none": None, "HS256": self.key.public()["x"]}.get(
            self.algorithm, self.key.private
        )
        headers = {"kid": self.key.kid} | self.header
        return jwt.encode(told, secret, algorithm=self.algorithm, headers=headers)

    async def _keys(self, _request: web.Request) -> web.Response:
        keys = [*self.also, *(key.public() for key in self.shown)]
        if self.replaced != []:
            keys = self.replaced
        return web.json_response({"keys": keys, "padding": "x" * self.padding})

"""The settings that the dashboard uses, under the names that all of openai-meter gives them.

`openai-meter` has checked them before it starts this process; what is checked here is only that
they are there.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dashboard.errors import ConfigurationError

LISTEN = "127.0.0.1:8081"
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - read, not listened on


def _listed(value: object) -> object:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


class Settings(BaseSettings):
    """What the dashboard is told; immutable."""

    model_config = SettingsConfigDict(
        env_prefix="METER_", env_ignore_empty=True, frozen=True, hide_input_in_errors=True
    )

    dashboard_listen: str = LISTEN
    database_url: str = Field(repr=False)
    dashboard_database_url: str | None = Field(default=None, repr=False)
    dashboard_url: str | None = None
    data_dir: Path
    admin_user: str = "admin"
    admin_password: str | None = Field(default=None, repr=False)
    api_tokens: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(), repr=False
    )
    oidc_issuer: str | None = None
    oidc_client_id: str | None = None
    oidc_client_secret: str | None = Field(default=None, repr=False)
    oidc_scopes: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = (
        *("openid", "email", "profile"),
    )
    oidc_role_claim: str = "groups"
    oidc_roles: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = (
        *("admin=admin", "finance=finance", "viewer=viewer"),
    )
    log_format: Literal["auto", "json", "console"] = "auto"

    @property
    def base_url(self) -> str:
        """Return the address at which browsers reach the dashboard."""
        host, port = self.address
        if host is None or host in _EVERYWHERE:
            host = "127.0.0.1"  # listens there as well
        named = f"[{host}]" if ":" in host else host
        return (self.dashboard_url or f"http://{named}:{port}").rstrip("/")

    @property
    def address(self) -> tuple[str | None, int]:
        """Return host and port to listen on; no host is every interface."""
        host, _, port = self.dashboard_listen.rpartition(":")
        return host.strip("[]") or None, int(port)


def read_settings() -> Settings:
    """Read the environment; raise ConfigurationError naming what is missing or wrong."""
    try:
        return Settings()  # type: ignore[call-arg]  # the environment holds the rest
    except ValidationError as exc:
        names = ", ".join(f"METER_{str(error['loc'][0]).upper()}" for error in exc.errors())
        raise ConfigurationError(f"{names}: expected a value, see openai-meter --help") from None

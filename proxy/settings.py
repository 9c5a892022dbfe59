"""Every setting: its name, its default, what it accepts, and what it says when it is refused.

The setting `listen` is the variable `METER_LISTEN` and the flag `--listen`. Nothing else in the
package reads the environment, and only `__main__` calls `read_settings`. No message and no `repr`
made here shows a secret.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from proxy import values
from proxy.core.leaving import ByEndpoint
from proxy.core.mounts import Mounts
from proxy.errors import ConfigurationError
from proxy.values import Address

PREFIX = "METER_"
SECRETS = frozenset(
    {
        *("admin_password", "api_tokens", "dashboard_database_url", "database_url"),
        *("oidc_client_secret", "upstreams"),
    }
)


def _state_directory() -> Path:
    """Return where data lives by default: the system's place for root, else the user's."""
    if os.geteuid() == 0:
        return Path("/var/lib/openai-meter")
    base = os.environ.get("XDG_STATE_HOME", "")
    root = Path(base) if base.startswith("/") else Path("~/.local/state").expanduser()
    return (root / "openai-meter").absolute()


def _cores() -> int:
    return len(os.sched_getaffinity(0))


Listen = Annotated[Address, NoDecode, BeforeValidator(Address.parse, json_schema_input_type=str)]
EndpointChoices = Annotated[
    ByEndpoint, NoDecode, BeforeValidator(ByEndpoint.parse, json_schema_input_type=str)
]
NamedUpstreams = Annotated[
    Mounts,
    NoDecode,
    BeforeValidator(lambda value: Mounts.parse(value, values.base_url), json_schema_input_type=str),
]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(values.listed)]
FieldNames = Annotated[Names, AfterValidator(values.field_names)]
FieldPrefixes = Annotated[Names, AfterValidator(values.field_prefixes)]
ReadableFile = Annotated[Path, AfterValidator(values.existing_file)]
Directory = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SecondsOrNone = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1024)]


class Settings(BaseSettings):
    """What an operator can choose; immutable once read."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, hide_input_in_errors=True
    )

    upstream_url: Annotated[str, AfterValidator(values.base_url)] = Field(
        default="https://api.openai.com",
        description="where calls are forwarded to; a base path is put in front of every target",
    )
    upstream_ca_file: ReadableFile | None = Field(
        default=None, description="PEM file of authorities to trust instead of the system's"
    )
    upstream_connect_timeout_seconds: Seconds = Field(
        default=10.0, description="how long a connection to the upstream may take, TLS included"
    )
    upstream_idle_timeout_seconds: Seconds = Field(
        default=900.0, description="how long the upstream may stay silent within a call"
    )
    client_head_timeout_seconds: Seconds = Field(
        default=60.0, description="how long a client may take to send the head of a request"
    )
    client_idle_timeout_seconds: Seconds = Field(
        default=300.0, description="how long a client's connection may stay idle between calls"
    )
    upstreams: NamedUpstreams = Field(
        default=Mounts(),
        repr=False,
        description="other upstreams by name, as a JSON object; their calls come under /NAME/",
    )
    listen: Listen = Field(
        default=Address("127.0.0.1", 8080), description="HOST:PORT where clients call the proxy"
    )
    listen_tls_certificate: ReadableFile | None = Field(
        default=None, description="PEM file with the certificate chain, to listen with HTTPS"
    )
    listen_tls_key: ReadableFile | None = Field(
        default=None, description="PEM file with the key of that certificate"
    )
    dashboard_listen: Listen = Field(
        default=Address("127.0.0.1", 8081), description="HOST:PORT of dashboard and usage API"
    )
    dashboard_url: Annotated[str, AfterValidator(values.base_url)] | None = Field(
        default=None,
        description="address at which browsers reach the dashboard, where that is another one",
    )
    dashboard_database_url: Annotated[str, AfterValidator(values.database_url)] | None = Field(
        default=None,
        repr=False,
        description="postgresql://… with which the dashboard reads, if not by METER_DATABASE_URL",
    )
    database_url: Annotated[str, AfterValidator(values.database_url)] | None = Field(
        default=None,
        repr=False,
        description="postgresql://… of your Postgres; unset: one is run in the data directory",
    )
    postgres_bin: Directory | None = Field(
        default=None, description="directory of the Postgres programs to run when none is given"
    )
    data_dir: Directory = Field(
        default_factory=_state_directory,
        description="directory of journal, embedded Postgres and admin password "
        "(root: /var/lib/openai-meter, else ~/.local/state/openai-meter)",
    )
    pricing_file: ReadableFile | None = Field(
        default=None, description="pricing YAML to use instead of the one that is shipped"
    )
    workers: int = Field(
        default_factory=_cores, ge=1, le=1024, description="worker processes (default: cores)"
    )
    on_disconnect: Literal["drain", "cancel"] = Field(
        default="drain", description="what becomes of a call whose client has hung up"
    )
    on_disconnect_endpoints: EndpointChoices = Field(
        default=ByEndpoint(), description="the same for single endpoints, as a JSON object"
    )
    on_disconnect_max_seconds: Seconds = Field(
        default=600.0, description="how long a call is read on for nobody; then it is cancelled"
    )
    on_disconnect_max_bytes: Bytes = Field(
        default=67_108_864, description="how much of its answer is read; then it is cancelled"
    )
    on_disconnect_max_calls: int = Field(
        default=256, ge=0, description="how many a worker reads at once; others are cancelled"
    )
    report_timezone: Annotated[str, AfterValidator(values.time_zone)] = Field(
        default="UTC", description="time zone in which days and months of reports begin"
    )
    admin_user: Annotated[str, AfterValidator(values.user_name)] = Field(
        default="admin", description="name that logs in to the dashboard"
    )
    admin_password: str | None = Field(
        default=None,
        repr=False,
        min_length=8,
        description="its password; unset: made at first start, shown once, stored hashed",
    )
    api_tokens: Names = Field(
        default=(), repr=False, description="bearer tokens that may read the usage API, with commas"
    )
    oidc_issuer: Annotated[str, AfterValidator(values.issuer)] | None = Field(
        default=None, description="OpenID Connect provider that people may log in by, https://…"
    )
    oidc_client_id: str | None = Field(
        default=None, description="name under which the dashboard is registered there"
    )
    oidc_client_secret: str | None = Field(
        default=None, repr=False, description="its secret; unset: a public client, by PKCE alone"
    )
    oidc_scopes: Annotated[Names, AfterValidator(values.scopes)] = Field(
        default=("openid", "email", "profile"), description="what is asked for, with commas"
    )
    oidc_role_claim: str = Field(
        default="groups",
        min_length=1,
        description="claim of the ID token that gives roles; dots lead into objects",
    )
    oidc_roles: Annotated[Names, AfterValidator(values.role_choices)] = Field(
        default=("admin=admin", "finance=finance", "viewer=viewer"),
        description="role by value of that claim, VALUE=ROLE with commas; `*` is everyone",
    )
    user_headers: FieldNames = Field(
        default=("X-Meter-User",), description="headers that name the user; the first present wins"
    )
    endpoint_headers: FieldNames = Field(
        default=("X-Meter-Endpoint",), description="headers that name the calling feature"
    )
    metadata_headers: FieldNames = Field(
        default=("X-Meter-Metadata",), description="headers that hold a JSON object of metadata"
    )
    metadata_prefixes: FieldPrefixes = Field(
        default=("X-Meter-Metadata-",), description="prefixes of headers that hold one value each"
    )
    require_user: bool = Field(
        default=False, description="answer 400 to a call whose user cannot be told"
    )
    max_held_bytes: Bytes = Field(
        default=33_554_432, description="largest streamed chat request held to ask for its usage"
    )
    max_event_bytes: Bytes = Field(
        default=16_777_216, description="largest event of a stream that is looked at for usage"
    )
    max_head_bytes: Bytes = Field(
        default=65_536, description="largest head of a request or an answer"
    )
    journal_sync_seconds: SecondsOrNone = Field(
        default=1.0, description="how often the journal is forced to disk; 0: every record"
    )
    log_calls: bool = Field(default=True, description="log one line for every call")
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: JSON unless the output is a terminal"
    )
    drain_seconds: SecondsOrNone = Field(
        default=30.0, description="how long a stopping worker waits for calls in flight"
    )
    retire_seconds: SecondsOrNone = Field(
        default=600.0,
        description="how long a replaced worker goes on with the links it has (SIGHUP)",
    )

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Self:
        if (self.listen_tls_certificate is None) != (self.listen_tls_key is None):
            raise ValueError(
                "METER_LISTEN_TLS_CERTIFICATE and METER_LISTEN_TLS_KEY belong together: "
                "expected both or neither"
            )
        return self

    @model_validator(mode="after")
    def _provider_knows_us(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_client_id is None):
            raise ValueError(
                "METER_OIDC_ISSUER and METER_OIDC_CLIENT_ID belong together: "
                "expected both or neither"
            )
        return self

    def environment(self) -> dict[str, str]:
        """Return the variables from which a child process reads the same settings."""
        pairs = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {variable(name): _as_text(value) for name, value in pairs if value is not None}


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """Return the command line flag of a setting."""
    return "--" + name.replace("_", "-")


def read_settings(flags: Mapping[str, str]) -> Settings:
    """Read flags, then environment; raise ConfigurationError naming every setting that is wrong."""
    given: dict[str, Any] = dict(flags)
    try:
        return Settings(**given)
    except ValidationError as exc:
        problems = "; ".join(_problem(dict(error), flags) for error in exc.errors())
        raise ConfigurationError(problems) from None
    except RuntimeError:  # Path.home of a user without one
        raise ConfigurationError(
            "METER_DATA_DIR is not set, and there is no home directory"
        ) from None


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that look like settings and are none: most often misspelt ones."""
    known = {variable(name) for name in Settings.model_fields}
    return sorted(
        name
        for name in environ
        if name.startswith(PREFIX) and not name.startswith("METER_TEST_") and name not in known
    )


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _problem(error: dict[str, Any], flags: Mapping[str, str]) -> str:
    """Say which setting is wrong, what it is and what was expected."""
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"{flag(name)} is no setting"
    given = flags.get(name, os.environ.get(variable(name), ""))
    hidden = name in SECRETS or "@" in given  # a URL may carry a password
    shown = "has a value that is not shown" if hidden else f"is {given!r}"
    expectation = re.sub(r"^(Input should be|String should have)", "expected", message)
    expectation = expectation.partition(", unable to")[0]
    return f"{variable(name)} ({flag(name)}) {shown}: {expectation}"

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ConfigurationError
from proxy.settings import Settings, flag, read_settings, unknown_variables, variable
from proxy.values import NEEDED, Address


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the developer's own environment sets out of the tests."""
    for name in [name for name in os.environ if name.startswith("METER_")]:
        monkeypatch.delenv(name)


def test_the_defaults_are_the_documented_ones() -> None:
    """Others rely on these."""
    settings = read_settings({})
    assert settings.upstream_url == "https://api.openai.com"
    assert settings.listen == Address("127.0.0.1", 8080)
    assert settings.dashboard_listen == Address("127.0.0.1", 8081)
    assert settings.database_url is None
    assert settings.workers == len(os.sched_getaffinity(0))
    assert settings.user_headers == ("X-Meter-User",)
    assert settings.metadata_prefixes == ("X-Meter-Metadata-",)


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """And an empty variable is an unset one."""
    monkeypatch.setenv("METER_WORKERS", "3")
    monkeypatch.setenv("METER_LISTEN", ":9000")
    monkeypatch.setenv("METER_DATABASE_URL", "")
    settings = read_settings({"workers": "5"})
    assert settings.workers == 5
    assert settings.listen == Address("", 9000)
    assert settings.database_url is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("listen", "8080", "HOST:PORT"),
        ("listen", "::1:8080", "HOST:PORT"),
        ("listen", "localhost:70000", "0 to 65535"),
        ("upstream_url", "api.openai.com", "https://api.openai.com"),
        ("upstream_url", "ftp://api.openai.com", "https://api.openai.com"),
        ("upstream_url", "https://api.openai.com/v1?x=1", "without user, query or fragment"),
        ("upstream_url", "https://api.openai.com:99999", "https://api.openai.com"),
        ("upstream_url", "https://api.openai.com/a b", "visible ASCII"),
        ("workers", "0", "greater than or equal to 1"),
        ("workers", "many", "expected a valid integer"),
        ("on_disconnect", "wait", "'drain' or 'cancel'"),
        ("on_disconnect_endpoints", '{"hint":"wait"}', "'hint' has 'wait'"),
        ("on_disconnect_max_calls", "-1", "greater than or equal to 0"),
        ("report_timezone", "Mars/Olympus", "IANA time zone"),
        ("report_timezone", "../../etc/passwd", "IANA time zone"),
        ("pricing_file", "/nowhere/pricing.yaml", "readable file"),
        ("user_headers", "X-User, not a name", "'not a name' is none"),
        ("user_headers", "X-User,authorization", "a call needs authorization for itself"),
        ("endpoint_headers", "HOST", "a call needs HOST for itself"),
        ("metadata_headers", "OpenAI-Project", "a call needs OpenAI-Project for itself"),
        ("user_headers", "Accept-Encoding", "a call needs Accept-Encoding for itself"),
        ("metadata_prefixes", "X-Stainless-Lang", "a call needs X-Stainless-Lang for itself"),
        ("metadata_prefixes", "A", "A is the beginning of Authorization, which a call needs"),
        ("metadata_prefixes", "content-", "a call needs content- for itself"),
        ("metadata_prefixes", "X-", "X- is the beginning of X-Stainless-*, which a call needs"),
        ("metadata_prefixes", "t", "t is the beginning of Transfer-Encoding, which a call needs"),
        ("admin_user", "a:b", "without colons"),
        ("drain_seconds", "nan", "finite"),
        ("log_calls", "perhaps", "boolean"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(
    name: str, value: str, expected: str
) -> None:
    """The message says which setting, which value, and what to write instead."""
    with pytest.raises(ConfigurationError) as caught:
        read_settings({name: value})
    message = str(caught.value)
    assert variable(name) in message
    assert flag(name) in message
    assert repr(value) in message
    assert expected in message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("s3cret", "expected a JSON object such as"),
        ('{"_meter": "http://s3cret"}', "'_meter' cannot be mounted"),
        ('{"azure": "https://a.example?key=s3cret"}', "azure: url: expected a URL"),
        ('{"azure": {"url": "https://a.example", "headers": {"a": "s3cret\\n"}}}', "a has a value"),
    ],
)
def test_a_wrong_upstream_is_named_without_its_secrets(value: str, expected: str) -> None:
    """Its fields may hold keys."""
    with pytest.raises(ConfigurationError) as caught:
        read_settings({"upstreams": value})
    assert "METER_UPSTREAMS (--upstreams) has a value that is not shown" in str(caught.value)
    assert expected in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_upstreams_and_choices_reach_a_child_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its environment; a repr shows no field of theirs."""
    monkeypatch.setenv("METER_UPSTREAMS", '{"a": {"url": "http://x/", "headers": {"k": "s3cret"}}}')
    monkeypatch.setenv("METER_ON_DISCONNECT_ENDPOINTS", '{"hint": "cancel"}')
    settings = read_settings({})
    assert "s3cret" not in repr(settings)
    for name in ("METER_UPSTREAMS", "METER_ON_DISCONNECT_ENDPOINTS"):
        monkeypatch.setenv(name, settings.environment()[name])
    again = read_settings({})
    assert again.upstreams == settings.upstreams
    assert again.upstreams.upstreams[0].headers == {"k": "s3cret"}
    assert again.on_disconnect_endpoints.choices == {"hint": "cancel"}


@pytest.mark.parametrize("name", NEEDED)
def test_no_header_that_a_call_needs_is_taken_off(name: str) -> None:
    """Neither by its name, in any case, nor by a prefix; names that only resemble it are fine."""
    for value in (name, name.lower()):
        with pytest.raises(ConfigurationError, match=f"a call needs {value} for itself"):
            read_settings({"user_headers": value})
    with pytest.raises(ConfigurationError, match=f"a call needs {name} for itself"):
        read_settings({"metadata_prefixes": name})
    with pytest.raises(ConfigurationError, match="for itself"):
        read_settings({"metadata_prefixes": name[:-1]})
    assert read_settings({"user_headers": f"X-{name}"}).user_headers == (f"X-{name}",)


def test_the_headers_of_other_gateways_are_taken() -> None:
    """They are what the settings are for."""
    settings = read_settings(
        {"user_headers": "Helicone-User-Id,X-User", "metadata_prefixes": "Helicone-Property-"}
    )
    assert settings.user_headers == ("Helicone-User-Id", "X-User")
    assert settings.metadata_prefixes == ("Helicone-Property-",)


def test_every_wrong_setting_is_named_at_once() -> None:
    """Nobody wants to find them one by one."""
    with pytest.raises(ConfigurationError, match=r"METER_LISTEN .*; METER_WORKERS "):
        read_settings({"listen": "x", "workers": "x"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("admin_password", "hunter2"),
        ("database_url", "mysql://u:hunter2@h/d"),
        ("upstream_url", "https://user:hunter2@host"),
        ("oidc_issuer", "https://user:hunter2@host"),
    ],
)
def test_no_message_shows_a_secret(name: str, value: str) -> None:
    """Not even one that is refused."""
    with pytest.raises(ConfigurationError) as caught:
        read_settings({name: value})
    assert variable(name) in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_printed_settings_object_shows_no_secret() -> None:
    """Whoever logs it by accident does no harm."""
    shown = repr(
        read_settings(
            {
                "admin_password": "correct horse",
                "api_tokens": "tok-1,tok-2",
                "database_url": "postgresql://u:battery@h/d",
            }
        )
    )
    assert not any(word in shown for word in ("horse", "tok-1", "battery"))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("oidc_issuer", "http://id.example", "expected https://"),
        ("oidc_issuer", "ldap://id.example", "expected a URL"),
        ("oidc_roles", "staff=root", "'staff=root' is none"),
        ("oidc_roles", "admin", "'admin' is none"),
        ("oidc_scopes", "email", "expected openid among the scopes"),
        ("oidc_client_id", "meter", "METER_OIDC_ISSUER and METER_OIDC_CLIENT_ID belong together"),
    ],
)
def test_a_provider_that_cannot_be_used_is_named(name: str, value: str, expected: str) -> None:
    """Before anybody tries to log in by it."""
    with pytest.raises(ConfigurationError, match=expected):
        read_settings({name: value})


def test_a_provider_is_handed_on_to_the_dashboard() -> None:
    """With its slash at the end, which is a part of its name."""
    given = {
        "oidc_issuer": "https://id.example/",
        "oidc_client_id": "m",
        "oidc_roles": "a=b=admin,*=viewer",
    }
    variables = read_settings(given).environment()
    assert variables["METER_OIDC_ISSUER"] == "https://id.example/"
    assert variables["METER_OIDC_ROLES"] == "a=b=admin,*=viewer"


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    """One without the other is a mistake, not plain HTTP."""
    file = tmp_path / "certificate.pem"
    file.touch()
    with pytest.raises(ConfigurationError, match="both or neither"):
        read_settings({"listen_tls_certificate": str(file)})


def test_an_unknown_name_is_refused() -> None:
    """Misspelt flags do not pass in silence."""
    with pytest.raises(ConfigurationError, match="--workerz is no setting"):
        read_settings({"workerz": "1"})


def test_misspelt_variables_are_found() -> None:
    """Ours, that is; those of the tests are none."""
    environ = {"METER_WORKERZ": "1", "METER_WORKERS": "1", "METER_TEST_CORPUS": "x", "PATH": "/"}
    assert unknown_variables(environ) == ["METER_WORKERZ"]


def test_a_url_keeps_its_base_path_and_loses_the_slash_at_its_end() -> None:
    """A base path is put in front of targets, which begin with a slash themselves."""
    settings = read_settings({"upstream_url": "http://10.0.0.7:9000/gateway/"})
    assert settings.upstream_url == "http://10.0.0.7:9000/gateway"


def test_the_data_directory_follows_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root has the system's place, others their own."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/srv/state")
    assert read_settings({}).data_dir == Path("/srv/state/openai-meter")
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", "/home/ada")
    assert read_settings({}).data_dir == Path("/home/ada/.local/state/openai-meter")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert read_settings({}).data_dir == Path("/var/lib/openai-meter")


def test_a_relative_directory_is_made_absolute() -> None:
    """Children may run elsewhere."""
    assert read_settings({"data_dir": "state"}).data_dir == Path.cwd() / "state"


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "workers": st.integers(1, 1024).map(str),
            "listen": st.sampled_from([":1", "[::1]:2", "h:3"]),
            "require_user": st.booleans().map(str),
            "drain_seconds": st.floats(0, 1e6).map(str),
            "api_tokens": st.sampled_from(["a", "a,b", "a, b ,c"]),
            "user_headers": st.sampled_from(["X-A", "X-A,X-B"]),
            "database_url": st.just("postgresql://u:p%20w@h/d?host=/run/pg"),
            "admin_password": st.just("correct, horse"),
        },
    )
)
def test_a_child_reads_the_same_settings(flags: dict[str, str]) -> None:
    """What `environment` gives, read again, is equal."""
    settings = read_settings(flags)
    variables = settings.environment()
    again = {
        name: variables[variable(name)]
        for name in Settings.model_fields
        if variable(name) in variables
    }
    assert read_settings(again) == settings

import os
from pathlib import Path

import pytest

from dashboard.errors import ConfigurationError
from dashboard.settings import read_settings


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with nothing but what cannot be missing."""
    for name in [name for name in os.environ if name.startswith("METER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("METER_DATABASE_URL", "postgresql://u:battery@h/d")
    monkeypatch.setenv("METER_DATA_DIR", "/srv/meter")


def test_what_the_proxy_hands_on_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are separated by commas, an address is taken apart."""
    monkeypatch.setenv("METER_API_TOKENS", "a, b")
    monkeypatch.setenv("METER_DASHBOARD_LISTEN", "[::1]:9000")
    settings = read_settings()
    assert settings.api_tokens == ("a", "b")
    assert settings.address == ("::1", 9000)
    assert settings.data_dir == Path("/srv/meter")
    assert "battery" not in repr(settings)


def test_every_interface_is_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """`:8081` listens everywhere."""
    monkeypatch.setenv("METER_DASHBOARD_LISTEN", ":8081")
    assert read_settings().address == (None, 8081)
    for everywhere in (":8081", "0.0.0.0:8081", "[::]:8081"):
        monkeypatch.setenv("METER_DASHBOARD_LISTEN", everywhere)
        assert read_settings().base_url == "http://127.0.0.1:8081"
    monkeypatch.setenv("METER_DASHBOARD_LISTEN", "[fd00::1]:9000")
    assert read_settings().base_url == "http://[fd00::1]:9000"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dashboard needs a database."""
    monkeypatch.delenv("METER_DATABASE_URL")
    with pytest.raises(ConfigurationError, match="METER_DATABASE_URL"):
        read_settings()

import sys
from pathlib import Path

import pytest

from proxy.errors import ConfigurationError
from proxy.parts import Parts, environment
from proxy.settings import read_settings

DSN = "postgresql://u:battery@h/d"


def test_children_read_flags_and_environment_in_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What a flag said wins over a variable, and unknown METER_ variables are not handed on."""
    monkeypatch.setenv("METER_WORKERS", "1")
    monkeypatch.setenv("METER_WORKERZ", "1")
    monkeypatch.setenv("LANG", "C.UTF-8")
    variables = environment(read_settings({"workers": "4", "data_dir": str(tmp_path)}), dsn=DSN)
    assert variables["METER_WORKERS"] == "4"
    assert variables["METER_DATABASE_URL"] == DSN
    assert variables["LANG"] == "C.UTF-8"
    assert "METER_WORKERZ" not in variables


def test_each_part_has_its_command_and_its_descriptors(tmp_path: Path) -> None:
    """Workers and the dashboard get a socket; all keep the lock of the data directory open."""
    parts = Parts(read_settings({"data_dir": str(tmp_path)}), dsn=DSN, held=7)
    worker, recorder = parts.worker(1, listener=9), parts.recorder()
    dashboard = parts.dashboard(listener=10)
    python = (sys.executable, "-P", "-m")
    assert worker.command == (
        *(*python, "proxy", "proxy", "--name", "worker-1"),
        *("--supervised", "--listen-fd", "9"),
    )
    assert recorder.command == (*python, "proxy", "recorder", "--supervised")
    assert dashboard.command == (*python, "dashboard", "--supervised", "--listen-fd", "10")
    assert [part.descriptors for part in (worker, recorder, dashboard)] == [(7, 9), (7,), (7, 10)]


def test_keys_of_upstreams_are_for_workers_alone(tmp_path: Path) -> None:
    """Recorder and dashboard call no upstream."""
    upstreams = '{"azure": {"url": "https://a.example", "headers": {"api-key": "s3cret"}}}'
    settings = read_settings({"data_dir": str(tmp_path), "upstreams": upstreams})
    parts = Parts(settings, dsn=DSN, held=7)
    assert "s3cret" in parts.worker(1, listener=9).environment["METER_UPSTREAMS"]
    for part in (parts.recorder(), parts.dashboard(listener=10)):
        assert "s3cret" not in str(part.environment)


def test_a_password_is_made_once(tmp_path: Path) -> None:
    """By the dashboard, in its own process."""
    parts = Parts(read_settings({"data_dir": str(tmp_path)}), dsn=DSN, held=0)
    assert parts.make_password()
    assert parts.make_password() is None


def test_why_no_password_can_be_made_is_said(tmp_path: Path) -> None:
    """In the dashboard's own words."""
    parts = Parts(read_settings({"data_dir": str(tmp_path / "gone")}), dsn=DSN, held=0)
    with pytest.raises(ConfigurationError, match="gone/admin-password cannot be written"):
        parts.make_password()

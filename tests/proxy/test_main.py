import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.__main__ import last_day
from proxy.settings import Settings, flag, variable
from tests.fakes.command import clean, run


def test_help_names_every_setting() -> None:
    """As a flag and as a variable, with what it is for."""
    text = run("serve", "--help", COLUMNS="200").stdout
    for name, field in Settings.model_fields.items():
        assert f"{flag(name)} " in text
        assert f"[{variable(name)}]" in text
        assert field.description


@pytest.mark.parametrize("command", ["serve", "proxy", "recorder", "dashboard"])
def test_a_wrong_setting_is_one_line(command: str) -> None:
    """Exit status 2, no traceback."""
    done = run(command, "--listen", "nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("openai-meter: METER_LISTEN (--listen) is 'nowhere': expected")
    assert len(done.stderr.splitlines()) == 1


def test_the_version_is_printed() -> None:
    """For bug reports, by the command and by the flag that most programs have."""
    said = run("version").stdout
    assert said.startswith("openai-meter ")
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_an_interruption_while_settings_are_read_is_no_fault(tmp_path: Path) -> None:
    """Ctrl-C in the first moments ends the command without a traceback."""
    waiting = tmp_path / "pricing.yaml"
    os.mkfifo(waiting)
    command = [sys.executable, "-m", "proxy", "pricing", "check", str(waiting)]
    process = subprocess.Popen(command, env=clean(), stderr=subprocess.PIPE)  # noqa: S603 - ours
    with process, waiting.open("wb"):  # opens when the command reads
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == b""


def test_a_day_that_is_none_is_named() -> None:
    """In words of ours."""
    done = run("verify", "--from", "yesterday")
    assert done.returncode == 2
    assert done.stderr.endswith("argument --from: invalid day value: 'yesterday'\n")


@pytest.mark.parametrize("command", ["verify", "reprice", "retain", "close"])
def test_help_of_a_small_command_is_short(command: str) -> None:
    """What finds the ledger, and no settings of a proxy; these are taken all the same."""
    text = run(command, "--help", COLUMNS="80").stdout
    assert "[METER_DATA_DIR]" in text
    assert "METER_WORKERS" not in text
    assert "openai-meter serve --help" in " ".join(text.split())
    assert "docs/" in text
    assert len(text.splitlines()) < 40
    refused = run(command, "--workers", "none")
    assert "unrecognized" not in refused.stderr


@pytest.mark.parametrize("command", ["verify", "reprice", "export"])
def test_the_last_day_is_included_and_help_says_so(command: str) -> None:
    """Everywhere the same, as in the usage API."""
    assert "last day, included" in run(command, "--help", COLUMNS="200").stdout


@pytest.mark.parametrize(
    ("text", "last"),
    [("2026-10-30", "2026-10-30"), ("2026-10", "2026-10-31"), ("2028-02", "2028-02-29")],
)
def test_a_month_ends_with_its_last_day(text: str, last: str) -> None:
    """December too, in the last year that there is."""
    assert last_day(text).isoformat() == last
    assert last_day("2026-12").isoformat() == "2026-12-31"

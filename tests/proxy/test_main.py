import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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

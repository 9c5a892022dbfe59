import json
import subprocess
import sys

import pytest

PROGRAM = """
import structlog; from dashboard import logs
logs.configure({!r})
structlog.get_logger().warning("database unavailable", problem="x")
"""


@pytest.mark.parametrize("log_format", ["auto", "json"])
def test_lines_are_json_when_the_output_is_no_terminal(log_format: str) -> None:
    """With time, level and the name of the process."""
    line = json.loads(_output(log_format))
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "event": "database unavailable",
        "level": "warning",
        "process": "dashboard",
        "problem": "x",
    }


def test_lines_are_for_people_when_asked_for() -> None:
    """As on a terminal."""
    assert "problem=x" in _output("console")


def _output(log_format: str) -> str:
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM.format(log_format)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout

"""The command line as a process of its own, run to its end."""

import os
import subprocess
import sys


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run openai-meter to its end, with these settings and none from outside."""
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "proxy", *arguments],
        env=clean() | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def clean() -> dict[str, str]:
    """Return the environment without the settings of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if name[:6] != "METER_"}

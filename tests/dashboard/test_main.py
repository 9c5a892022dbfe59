import os
import re
import socket
import subprocess
import sys
from pathlib import Path


def _run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name[:6] != "METER_"}
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "dashboard", *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_password_is_printed_when_it_is_made_and_never_again(tmp_path: Path) -> None:
    """The supervisor asks for it before it starts the process."""
    place = {"METER_DATA_DIR": str(tmp_path), "METER_DATABASE_URL": "postgresql:///unused"}
    assert re.fullmatch(r"[\w-]{16}", _run("--make-password", **place).stdout)
    assert _run("--make-password", **place).stdout == ""


def test_what_is_missing_is_said_in_one_line() -> None:
    """With exit status 2, without a traceback."""
    done = _run()
    assert done.returncode == 2
    assert re.fullmatch(r"openai-meter: METER_DATABASE_URL, METER_DATA_DIR: .*\n", done.stderr)


def test_an_address_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    """Where the dashboard runs alone nobody else has looked."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = _run(
            METER_DATA_DIR=str(tmp_path),
            METER_DATABASE_URL="postgresql:///unused",
            METER_ADMIN_PASSWORD="chosen by hand",  # noqa: S106 - of this test
            METER_DASHBOARD_LISTEN=address,
        )
    assert done.returncode == 2
    said = f"openai-meter: METER_DASHBOARD_LISTEN: cannot listen on {address}: Address already in"
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1

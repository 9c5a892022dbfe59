import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from proxy.ledger import Ledger
from tests.fakes.command import clean, run
from tests.fakes.rows import ledger_row


@pytest.mark.parametrize("command", ["recorder", "dashboard"])
def test_a_part_alone_needs_a_database(command: str, tmp_path: Path) -> None:
    """Only `serve` brings one."""
    done = run(command, "--data-dir", str(tmp_path))
    assert done.returncode == 2
    assert "METER_DATABASE_URL (--database-url) is not set" in done.stderr


def test_a_misspelt_variable_is_pointed_out(tmp_path: Path) -> None:
    """It would be ignored in silence otherwise."""
    (tmp_path / "file").touch()
    done = run("serve", "--data-dir", str(tmp_path / "file"), METER_WORKERZ="3")
    assert "METER_WORKERZ is no setting" in done.stderr
    assert "METER_DATA_DIR is" in done.stderr


def test_prices_that_are_shipped_are_well() -> None:
    """`pricing check` without a file looks at them."""
    done = run("pricing", "check")
    assert done.returncode == 0
    assert "all well" in done.stdout


def test_prices_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    """With the loader's words."""
    wrong = tmp_path / "pricing.yaml"
    wrong.write_text("models: [")
    done = run("pricing", "check", str(wrong))
    assert done.returncode == 2
    assert "pricing.yaml" in done.stderr


def test_a_price_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Without a traceback."""
    done = run("pricing", "check", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("proxy", "--name", "../odd"), "--name is '../odd': expected letters"),
        (("proxy", "--upstream-ca-file", "/dev/null"), "METER_UPSTREAM_CA_FILE"),
        (("proxy", "--data-dir", "/dev/null/x"), "cannot write to /dev/null/x/journal"),
        (("recorder", "--data-dir", "/dev/null/x"), "METER_DATA_DIR is '/dev/null/x'"),
    ],
    ids=["name", "authorities", "a worker's directory", "the recorder's directory"],
)
def test_a_part_alone_says_in_one_line_what_it_cannot_use(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    """As `serve` does, which looks at all of it before it starts a part."""
    where = {"METER_DATA_DIR": str(tmp_path), "METER_DATABASE_URL": "postgresql://u@127.0.0.1:1/x"}
    done = run(*arguments, METER_LISTEN="127.0.0.1:0", **where)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("how", ["signal", "end of input", "end of a pipe that does not block"])
def test_a_worker_alone_serves_and_ends(tmp_path: Path, how: str) -> None:
    """It takes over a socket; SIGTERM ends it, and so does the end of its supervisor's pipe.

    The pipe is everybody's: whoever makes it non-blocking does so for all.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, "block" not in how)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        command = [sys.executable, "-m", "proxy", "proxy", "--supervised", "--listen-fd", str(fd)]
        process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            pass_fds=[fd],
            env=clean() | {"METER_DATA_DIR": str(tmp_path)},
            stdin=reader,
            stdout=subprocess.PIPE,
        )
        os.close(reader)
    with process, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /_meter/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        with contextlib.ExitStack() as left:
            left.callback(process.kill)
            if how == "signal":
                left.callback(os.close, writer)
                process.send_signal(signal.SIGTERM)
            else:
                os.close(writer)
            assert process.wait(30) == 0


@pytest.mark.parametrize("command", ["verify", "reprice"])
@pytest.mark.parametrize("last", ["2026-11-21", "2026-10"])
def test_a_range_without_a_day_is_refused(command: str, last: str) -> None:
    """All is well with no rows at all, which is not what was asked."""
    url = "postgresql://u@127.0.0.1:1/x"
    done = run(command, "--from", "2026-11-22", "--to", last, METER_DATABASE_URL=url)
    assert done.returncode == 2
    assert "--from 2026-11-22 --to 2026-1" in done.stderr
    assert "is no day at all" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_verify_needs_a_database(tmp_path: Path) -> None:
    """Of the settings, or the embedded one while it runs."""
    done = run("verify", "--data-dir", str(tmp_path))
    assert done.returncode == 2
    assert "no Postgres runs in" in done.stderr


async def test_verify_tells_by_its_exit_status(database: str) -> None:
    """So that a script can rely on it."""
    done = await asyncio.to_thread(run, "verify", "--database-url", database)
    assert (done.returncode, done.stderr) == (0, "")
    ledger = Ledger(database, report_timezone="UTC")
    await ledger.insert([ledger_row(1)])
    await ledger.close()
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE usage_by_day SET calls = 2")
    await connection.close()
    done = await asyncio.to_thread(
        run, "verify", "--from", "2026-11-22", METER_DATABASE_URL=database
    )
    assert done.returncode == 2
    assert "calls is 2 and should be 1" in done.stdout
    assert "1 found that is not as it should be" in done.stderr
    for days in ("--from=2026-11-22", "--to=2026-11-22"), ():
        done = await asyncio.to_thread(
            run, "verify", "--rebuild", *days, METER_DATABASE_URL=database
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("sums: made anew from the rows\nsums: all well")

"""Tests of proxy.embedded: a real Postgres that is started, killed and started again."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest

import proxy
from proxy.embedded import EmbeddedPostgres
from proxy.errors import ConfigurationError, DatabaseError, DirectoryInUseError

# Starts Postgres, says where and as which process, and waits to be killed.
OWNER = """
import sys, time
from pathlib import Path
from proxy.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
print(server.start(), flush=True)
print(server.pid, flush=True)
time.sleep(120)
"""
QUICK = {"fsync": "off"}


@pytest.fixture
def server(open_directory: Path) -> Iterator[EmbeddedPostgres]:
    """Return a Postgres that was not started yet."""
    server = EmbeddedPostgres(open_directory / "pg", settings=QUICK)
    yield server
    server.stop()


@contextlib.contextmanager
def owner(directory: Path, *prefix: str, python: str = sys.executable) -> Iterator[list[str]]:
    """Run another process that owns a Postgres; give its DSN, the postmaster's pid and its own."""
    source = str(Path(proxy.__file__).parents[1])
    libraries = str(Path(asyncpg.__file__).parents[1])
    with subprocess.Popen(  # noqa: S603 (our own text)
        [*prefix, python, "-c", OWNER, directory],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": f"{source}:{libraries}", "PATH": os.defpath},
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            said = [process.stdout.readline().strip(), process.stdout.readline().strip()]
            assert said[1], process.stderr.read()
            yield [*said, str(process.pid)]
        finally:
            process.kill()


def ask(dsn: str, query: str) -> object:
    """Return the one value that a query finds."""

    async def fetch() -> object:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def is_gone(pid: int, *, seconds: float = 10) -> bool:
    """Wait until a process has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/stat")
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return True  # ended; whoever has inherited it has not looked yet
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_data_outlives_a_stop(server: EmbeddedPostgres) -> None:
    """The second start finds what the first one left, and the directory is free in between."""
    dsn = server.start()
    assert server.start() == dsn  # it runs: nothing to do
    ask(dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
    pid = server.pid
    server.stop()
    assert pid is not None
    assert is_gone(pid)
    assert server.poll() is None
    assert ask(server.start(), "SELECT answer FROM kept") == 42


def test_it_listens_on_a_private_socket_only(server: EmbeddedPostgres) -> None:
    """There is no password, so nobody else may reach it."""
    dsn = server.start()
    assert ask(dsn, "SHOW listen_addresses") == ""
    socket = Path(str(ask(dsn, "SHOW unix_socket_directories")))
    assert socket.stat().st_mode & 0o777 == 0o700
    assert ask(dsn, "SHOW synchronous_commit") == "on"


def test_nothing_of_our_environment_reaches_it(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our environment holds secrets."""
    monkeypatch.setenv("METER_ADMIN_PASSWORD", "hunter2")
    server.start()
    assert b"hunter2" not in Path(f"/proc/{server.pid}/environ").read_bytes()


def test_a_killed_postgres_is_seen_and_started_again(server: EmbeddedPostgres) -> None:
    """With connections open, whose processes need a moment to end; nothing committed is lost."""
    dsn = server.start()
    ask(dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert server.poll() is None
    assert server.pid is not None

    async def kill_under_load(pid: int) -> None:
        busy = [await asyncpg.connect(dsn) for _ in range(5)]
        os.kill(pid, signal.SIGKILL)
        for connection in busy:
            connection.terminate()

    asyncio.run(kill_under_load(server.pid))
    assert is_gone(server.pid)
    assert server.poll() == -signal.SIGKILL
    assert ask(server.start(), "SELECT answer FROM kept") == 42


def test_a_killed_owner_takes_postgres_along(open_directory: Path) -> None:
    """Nothing is left behind, and the next owner may come at once."""
    directory = open_directory / "pg"
    with owner(directory) as (dsn, postmaster, pid):
        ask(dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(int(pid), signal.SIGKILL)
        assert is_gone(int(pid))
        successor = EmbeddedPostgres(directory, settings=QUICK)
        try:
            assert ask(successor.start(), "SELECT answer FROM kept") == 42
            assert is_gone(int(postmaster))
        finally:
            successor.stop()


def test_both_may_be_killed(open_directory: Path) -> None:
    """A machine that loses power leaves a pid file and no process."""
    directory = open_directory / "pg"
    with owner(directory) as (dsn, postmaster, pid):
        ask(dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(int(postmaster), signal.SIGKILL)
        os.kill(int(pid), signal.SIGKILL)
        assert is_gone(int(pid))
        successor = EmbeddedPostgres(directory, settings=QUICK)
        try:
            assert ask(successor.start(), "SELECT answer FROM kept") == 42
        finally:
            successor.stop()


def test_a_pid_file_that_names_a_stranger_is_disregarded(server: EmbeddedPostgres) -> None:
    """In a container that is started again, the old number soon belongs to somebody else."""
    server.start()
    pid_file = server.data / "postmaster.pid"
    content = pid_file.read_text()
    server.stop()
    owner_id = server.data.stat().st_uid
    account = None if os.geteuid() else owner_id
    with subprocess.Popen(["/bin/sleep", "60"], user=account) as stranger:
        try:
            _, _, rest = content.partition("\n")
            pid_file.write_text(f"{stranger.pid}\n{rest}")
            os.chown(pid_file, owner_id, -1)
            assert ask(server.start(), "SELECT 1") == 1
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_second_owner_is_refused(server: EmbeddedPostgres, open_directory: Path) -> None:
    """Two servers on one directory would destroy it; the first one goes on."""
    with owner(open_directory / "pg") as (dsn, _, _):
        with pytest.raises(DirectoryInUseError, match="belongs to another running process"):
            server.start()
        assert ask(dsn, "SELECT 1") == 1


def test_a_long_path_gets_a_short_socket(open_directory: Path) -> None:
    """The kernel allows 107 bytes for the name of a socket; a comma would part two hosts."""
    for directory in (open_directory / ("x" * 120), open_directory / "a,b c+d%20"):
        server = EmbeddedPostgres(directory, settings=QUICK)
        try:
            dsn = server.start()
            assert ask(dsn, "SELECT 1") == 1
            socket = Path(str(ask(dsn, "SHOW unix_socket_directories")))
            assert socket.parent == Path("/tmp")  # noqa: S108 (the very thing)
            assert socket.stat().st_mode & 0o777 == 0o700
        finally:
            server.stop()
        shutil.rmtree(socket)


def test_a_socket_directory_of_somebody_else_is_refused(open_directory: Path) -> None:
    """Everybody may write to /tmp: what lies there under our name is not ours for that."""
    directory = open_directory / ("y" * 120)
    server = EmbeddedPostgres(directory, settings=QUICK)
    dsn = server.start()
    socket = Path(str(ask(dsn, "SHOW unix_socket_directories")))
    server.stop()
    socket.chmod(0o777)
    with pytest.raises(ConfigurationError, match="is not a private directory"):
        server.start()
    shutil.rmtree(socket)


def test_data_of_another_version_is_refused(server: EmbeddedPostgres) -> None:
    """The message names both versions, and the setting that helps."""
    server.start()
    server.stop()
    (server.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(DatabaseError, match=r"made by Postgres 12, but .* METER_POSTGRES_BIN"):
        server.start()


def test_a_directory_with_other_things_in_it_is_left_alone(server: EmbeddedPostgres) -> None:
    """Somebody has set METER_DATA_DIR to the wrong place."""
    server.data.mkdir(parents=True)
    (server.data / "thesis.tex").write_text("years of work")
    with pytest.raises(DatabaseError, match="neither empty nor made by Postgres"):
        server.start()
    assert (server.data / "thesis.tex").read_text() == "years of work"


def test_a_server_that_cannot_start_says_why(open_directory: Path) -> None:
    """The message holds the reason that Postgres gives, and the directory is free again."""
    server = EmbeddedPostgres(open_directory / "pg", settings={"shared_buffers": "lots"})
    with pytest.raises(DatabaseError, match=r"does not start, see .*: .*shared_buffers"):
        server.start()
    again = EmbeddedPostgres(open_directory / "pg", settings=QUICK)
    assert ask(again.start(), "SELECT 1") == 1
    again.stop()


def test_a_thread_may_not_start_it(server: EmbeddedPostgres) -> None:
    """The kernel would stop Postgres when that thread ends."""
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(DatabaseError, match="main thread"),
    ):
        pool.submit(server.start).result()


def test_the_log_is_bounded(server: EmbeddedPostgres) -> None:
    """A log that has grown is put aside at the next start; one older log is kept."""
    server.directory.mkdir()
    server.log.write_bytes(b"x" * 10_000_001)
    server.start()
    assert server.log.stat().st_size < 10_000
    assert server.log.with_suffix(".log.1").stat().st_size == 10_000_001


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_may_own_it(open_directory: Path) -> None:
    """Whoever is not root runs Postgres as himself."""
    python = next(
        (
            path
            for path in (sys.executable, "/usr/bin/python3")
            if _nobody("-c", "import sys; sys.exit(sys.version_info < (3, 11))", python=path)
        ),
        None,
    )
    if python is None:
        pytest.skip("no Python >= 3.11 that everybody may run")
    directory = open_directory / "pg"
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    setpriv = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    with owner(directory, *setpriv, python=python) as (dsn, postmaster, pid):
        assert ask(dsn, "SELECT 1") == 1
        assert Path(f"/proc/{postmaster}").stat().st_uid == 65534
        os.kill(int(pid), signal.SIGKILL)
        assert is_gone(int(postmaster))


def _nobody(*arguments: str, python: str) -> bool:
    try:
        result = subprocess.run(  # noqa: S603 (our own text)
            [python, *arguments], user=65534, group=65534, check=False
        )
    except OSError:
        return False
    return result.returncode == 0

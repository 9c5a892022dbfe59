"""A Postgres of our own: started, watched and stopped as a direct child of this process.

Three things can go wrong with a database server as a child, and each has its rule here:

- *We die without a goodbye.* The kernel then sends the child SIGINT, Postgres' "fast shutdown"
  (PR_SET_PDEATHSIG; it goes by the thread that forked, so only the main thread may start one).
- *Two of us want one directory.* A lock on it is held as long as this process lives.
- *It dies without a goodbye.* It leaves a pid file behind whose number may belong to a stranger by
  now, and its own children, which may not notice for long. Starting again ends the latter and
  tells Postgres to disregard the former.

Nothing outside of the directory is changed: no permission of a parent directory, no file of an
installation. Connections come through a Unix socket that only the same user (and root) can reach;
there is no TCP port and no password.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO
from urllib.parse import quote

from proxy.binaries import ENVIRONMENT, Account, account_for, find_binaries, initialise, usable
from proxy.errors import ConfigurationError, DatabaseError, DirectoryInUseError
from proxy.orphans import ending, works_in

_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        "max_connections": "60",
        "shared_buffers": "64MB",
        "max_wal_size": "512MB",
        "synchronous_commit": "on",
        "jit": "off",  # costs more than it saves in statements this short
        "log_error_verbosity": "terse",  # no DETAIL: it would hold the values of a refused row
        "log_timezone": "UTC",
        "timezone": "UTC",
    }
)
_START_SECONDS = 120.0  # crash recovery included
_ORPHAN_SECONDS = 30.0
_STOP_SECONDS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
_POLL_SECONDS = 0.01
_LOG_BYTES = 10_000_000
_SOCKET_PATH_BYTES = 107  # sockaddr_un.sun_path, less its NUL
_SOCKETS_LINE = 4  # of postmaster.pid, where the sockets are
_READY_LINE = 7  # of postmaster.pid, which says `ready` or `starting` there
_PR_SET_PDEATHSIG = 1
_PASSING = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')


class EmbeddedPostgres:
    """One Postgres in one directory; `binaries` overrides the search for its programs."""

    def __init__(
        self,
        directory: Path,
        *,
        binaries: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory.resolve()
        self.data = self.directory / "data"
        self.log = self.directory / "postgres.log"
        self._wanted_binaries = binaries
        self._settings = {**_SETTINGS, **(settings or {})}
        self._lock: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._dsn = ""

    @property
    def pid(self) -> int | None:
        """The postmaster's process id; None: it was never started, or was stopped."""
        return None if self._process is None else self._process.pid

    def start(self) -> str:
        """Start Postgres, or start it again after it died; return its DSN when it is ready."""
        for _ in self.starting():
            time.sleep(_POLL_SECONDS)
        return self._dsn

    def starting(self) -> Iterator[None]:
        """Start it likewise, in short steps, for who has something else to do in between."""
        if threading.current_thread() is not threading.main_thread():
            raise DatabaseError("Postgres has to be started by the main thread: it ends with it")
        if self._process is None or self._process.poll() is not None:
            self._claim()
            try:
                yield from self._launch()
            except BaseException:
                self.stop()
                raise

    def poll(self) -> int | None:
        """Return None while Postgres runs, else the exit status of its last start."""
        return None if self._process is None else self._process.poll()

    def stop(self) -> None:
        """Stop Postgres, in 30 seconds at most, and give the directory back."""
        for number, seconds in _STOP_SECONDS:
            if self._process is None or self._process.poll() is not None:
                break
            self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _claim(self) -> None:
        """Lock the directory for as long as this process lives."""
        if self._lock is not None:
            return
        if not self.directory.is_dir():
            self.directory.mkdir(parents=True)
            self.directory.chmod(0o755)  # the user that Postgres runs as has to pass through it
        lock = (self.directory / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            lock.close()
            raise DirectoryInUseError(
                f"{self.directory} belongs to another running process: "
                "stop that one, or choose another METER_DATA_DIR"
            ) from exc
        self._lock = lock

    def _launch(self) -> Iterator[None]:
        """Start the postmaster; once more as long as what is in its way is passing away."""
        account = account_for(self.data)
        binaries = usable(find_binaries(self._wanted_binaries), self.directory, account)
        sync = self._settings.get("fsync") != "off"
        initialise(self.data, binaries, account, sync=sync)
        sockets = _socket_directory(self.directory, account)
        self._dsn = _dsn(sockets)
        self._rotate_log()
        deadline = time.monotonic() + _START_SECONDS
        while True:
            pid_file = yield from self._disregard_pid_file()
            self._spawn(binaries, sockets, account, pid_file)
            if (yield from self._is_up(deadline)):
                return
            if not any(reason in self._complaint() for reason in _PASSING):
                raise DatabaseError(f"Postgres does not start, see {self.log}: {self._complaint()}")
            yield

    def _spawn(
        self, binaries: Path, sockets: Path, account: Account, environment: Mapping[str, str]
    ) -> None:
        """Start the postmaster as a child that ends with us."""
        program: list[str | Path] = [binaries / "postgres", "-D", self.data, "-k", sockets]
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 (no shell, and the command is ours)
                [*program, *settings],
                cwd="/",
                env={**ENVIRONMENT, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C at the terminal is for us, not for Postgres
                preexec_fn=_ending_with(os.getpid()),  # noqa: PLW1509 (two system calls)
                user=account.uid,
                group=account.gid,
                extra_groups=account.extra_groups,
            )

    def _is_up(self, deadline: float) -> Generator[None, None, bool]:
        """Wait for the postmaster; False: it ended at once."""
        while self.poll() is None:
            if _pid_file(self.data, _READY_LINE) == "ready" and self._owns_pid_file():
                return True
            if time.monotonic() > deadline:
                raise DatabaseError(f"Postgres is not ready after {_START_SECONDS:.0f} s")
            yield
        return False

    def _owns_pid_file(self) -> bool:
        """Return whether the pid file is of the postmaster that was started last."""
        return _pid_file(self.data, 0) == str(self.pid)

    def _disregard_pid_file(self) -> Generator[None, None, dict[str, str]]:
        """Wait for an orphaned postmaster to end; make the next one ignore a stranger's pid.

        The orphan was told to end when its parent died; what is left of one that was killed is
        ended here. Postgres takes the number that it is given for its grandparent's and so does
        not believe the file. (Removing the file instead would race with another starter.)
        """
        if not (pid := _pid_file(self.data, 0)).isdecimal():
            return {}
        deadline = time.monotonic() + _ORPHAN_SECONDS
        while works_in(int(pid), self.data):
            if time.monotonic() > deadline:
                raise DatabaseError(f"another Postgres, process {pid}, does not leave {self.data}")
            yield
        yield from ending(self.data)
        return {"PG_GRANDPARENT_PID": pid}

    def _complaint(self) -> str:
        """Return what Postgres has said since its last start, the end of it."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read()[-2000:].decode(errors="replace").strip()

    def _rotate_log(self) -> None:
        """Keep one older log at most."""
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))


def running_dsn(directory: Path) -> str | None:
    """Return the DSN of the Postgres that somebody runs in a directory; None: nobody does."""
    data = directory.resolve() / "data"
    if _pid_file(data, _READY_LINE) != "ready" or not works_in(int(_pid_file(data, 0)), data):
        return None
    return _dsn(_pid_file(data, _SOCKETS_LINE))


def _dsn(sockets: Path | str) -> str:
    return f"postgresql://meter@/postgres?host={quote(str(sockets))}"


def _ending_with(parent: int) -> Callable[[], None]:
    """Return what a child does before it becomes Postgres: ask to be stopped when we die."""
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # we died before the child had asked
            os._exit(1)

    return ask


def _pid_file(data: Path, line: int) -> str:
    """Return one line of postmaster.pid; empty: there is none (yet)."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return ""
    return lines[line].strip() if line < len(lines) else ""


def _socket_directory(directory: Path, account: Account) -> Path:
    """Make the directory of the socket: ours, or one in /tmp where its name would be too long."""
    sockets = directory / "sock"
    name_bytes = len(os.fsencode(sockets / ".s.PGSQL.5432"))
    if name_bytes > _SOCKET_PATH_BYTES or "," in str(sockets):  # a comma separates hosts in a DSN
        name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
        sockets = Path("/tmp") / f"openai-meter-{name}"  # noqa: S108 (checked below)
    account.own(sockets)
    found = sockets.lstat()
    owner = os.geteuid() if account.uid is None else account.uid
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
        raise ConfigurationError(f"{sockets} is not a private directory of user {account.name}")
    return sockets

"""`openai-meter serve`: start everything, keep it running, stop it in order.

First everything that can be wrong is looked at, so that a mistake ends the start and nothing else.
Then come Postgres (unless there is one already), its schema, the recorder, the dashboard and the
workers; each is started again when it dies, after a pause that grows. Stopping goes the other way:
workers finish their calls, the recorder records them, and Postgres is the last to go. SIGHUP
replaces everything but Postgres and the sockets by what is installed now. The code is
plain and synchronous: one thread, one `poll`, because a process that forks should have no threads
and because only the main thread may start a Postgres that is to die with us.
"""

import asyncio
import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType

import structlog

from proxy import database, preflight
from proxy.banner import banner
from proxy.children import Backoff, Child
from proxy.embedded import EmbeddedPostgres
from proxy.errors import DatabaseUnreachableError, MeterError
from proxy.listening import bound_port, open_sockets
from proxy.parts import Parts
from proxy.priority import step_back, take_short_turns
from proxy.settings import Settings, variable
from proxy.succession import Succession
from proxy.values import Address

WORKER_MARGIN_SECONDS = 5.0  # beyond their own drain
RECORDER_SECONDS = 20.0
DASHBOARD_SECONDS = 5.0
HURRY_SECONDS = 2.0  # what is left after a second signal
LOOK_SECONDS = 5.0  # how often to look without being woken
STEP_SECONDS = 0.1  # and while workers are being replaced, or Postgres starts again

_log = structlog.get_logger()


class StoppedError(SystemExit):
    """A signal came while something was being started."""


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; raise ConfigurationError if that cannot even begin."""
    for remark in preflight.check(settings):
        _log.warning("odd settings", remark=remark)
    supervisor = Supervisor(settings)
    with supervisor.signals():
        try:
            supervisor.start()
            supervisor.watch()
        except StoppedError:
            _log.info("stopped while starting")
        finally:
            supervisor.stop()


class Supervisor:
    """Owns the sockets, the data directory's lock, Postgres and every child process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._postgres: EmbeddedPostgres | None = None
        self._postgres_backoff = Backoff()
        self._postgres_start: Iterator[None] | None = None  # one that is under way
        self._workers: list[Child] = []
        self._succession: Succession | None = None
        self._recorder: Child | None = None
        self._dashboard: Child | None = None
        self._sockets: list[socket.socket] = []
        self._received: list[int] = []
        self._hung_up = False
        self._interruptible = False
        self._waker, self._wake = _pipe()
        self._lifeline, self._life = _pipe()
        self._lock: int | None = None

    @property
    def _children(self) -> list[Child]:
        few = [child for child in (self._recorder, self._dashboard) if child is not None]
        return few + self._workers

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Take SIGTERM, SIGINT, SIGHUP and SIGCHLD for ourselves."""
        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        before = [signal.signal(number, self._on_signal) for number in wanted]
        woken = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(woken)
            for number, handler in zip(wanted, before, strict=True):
                signal.signal(number, handler)

    def start(self) -> None:
        """Start everything, in the order in which one thing needs another."""
        settings = self._settings
        patience = settings.drain_seconds + WORKER_MARGIN_SECONDS
        with self._stoppable():
            self._lock = preflight.claim(settings.data_dir, patience_seconds=patience)
            listeners = self._listen("listen", settings.listen, settings.workers)
            page = self._listen("dashboard_listen", settings.dashboard_listen, 1)[0]
            dsn = settings.database_url or self._start_postgres()
            self._prepare(dsn)
            parts = Parts(settings, dsn=dsn, held=self._lock)
            password = parts.make_password()
        self._recorder = parts.recorder()
        self._dashboard = parts.dashboard(listener=page.fileno())

        def worker(number: int, generation: int) -> Child:
            return parts.worker(number, generation, listener=listeners[number].fileno())

        self._workers = [worker(number, 1) for number in range(len(listeners))]
        self._succession = Succession(
            self._workers,
            worker,
            lifeline=self._lifeline,
            status_directory=settings.data_dir / "workers",
            patience_seconds=settings.retire_seconds + patience,
        )
        self._revive(time.monotonic())
        sys.stderr.write(
            banner(
                settings,
                listen=Address(settings.listen.host, bound_port(listeners[0])),
                dashboard=Address(settings.dashboard_listen.host, bound_port(page)),
                database=f"{dsn} (embedded)" if self._postgres else database.redacted(dsn),
                password=password,
            )
        )
        sys.stderr.flush()

    def watch(self) -> None:
        """Start again whatever dies, until a signal asks us to stop."""
        while not self._received:
            now = time.monotonic()
            self._revive(now)
            self._replace()
            self._put_calls_first()
            waiting = [child.backoff.due - now for child in self._children if not child.running]
            if self._postgres_start is not None:
                waiting.append(STEP_SECONDS)
            elif self._postgres_down():
                waiting.append(self._postgres_backoff.due - now)
            if self._succession is not None and self._succession.under_way:
                waiting.append(STEP_SECONDS)
            self._sleep(min([LOOK_SECONDS, *waiting]))

    def stop(self) -> None:
        """End everything: workers, then the recorder and the dashboard, then Postgres."""
        if self._received and self._workers:
            _log.info(
                "stopping, calls in flight are waited for; a second signal does not wait",
                drain_seconds=self._settings.drain_seconds,
            )
        for listener in self._sockets:
            listener.close()
        retired = self._succession.retired if self._succession is not None else []
        workers = [*self._workers, *(one.child for one in retired)]
        self._end(workers, self._settings.drain_seconds + WORKER_MARGIN_SECONDS)
        self._end([child for child in (self._recorder,) if child], RECORDER_SECONDS)
        self._end([child for child in (self._dashboard,) if child], DASHBOARD_SECONDS)
        if self._postgres is not None:
            self._postgres.stop()
        for descriptor in (self._life, self._lifeline, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        if self._received:
            _log.info("stopped")

    # Starting

    def _listen(self, name: str, address: Address, count: int) -> list[socket.socket]:
        listeners = open_sockets(address, count, setting=variable(name))
        self._sockets += listeners
        return listeners

    def _start_postgres(self) -> str:
        self._postgres = EmbeddedPostgres(
            self._settings.data_dir / "postgres", binaries=self._settings.postgres_bin
        )
        self._postgres_backoff.started = time.monotonic()
        return self._postgres.start()

    def _prepare(self, dsn: str) -> None:
        """Bring the schema in; a database that does not answer yet is left to the recorder."""
        try:
            asyncio.run(database.prepare(dsn))
        except DatabaseUnreachableError as exc:
            _log.warning("database unreachable, calls are kept in the journal", problem=str(exc))

    # Watching

    def _revive(self, now: float) -> None:
        self._revive_postgres(now)
        for child in self._children:
            status = child.poll()
            if status is not None and child.is_replaced:
                child.is_replaced = False
                _log.info("process replaced", name=child.name)
            elif status is not None:
                child.backoff.ended(now)
                _log.error(
                    "process ended, it is started again",
                    name=child.name,
                    status=status,
                    delay_seconds=round(child.backoff.due - now, 1),
                )
            if child.process is None and now >= child.backoff.due:
                problem = child.start(now, lifeline=self._lifeline)
                if problem is not None:
                    _log.error("process does not start", name=child.name, problem=problem)
        self._reap_strangers()

    def _replace(self) -> None:
        """Replace what SIGHUP asks for: workers one by one, then recorder and dashboard."""
        succession = self._succession
        if succession is None:
            return
        if self._hung_up and not succession.under_way:
            self._hung_up = False
            succession.begin()
            for child in (self._recorder, self._dashboard):
                if child is not None:
                    child.is_replaced = True
                    child.signal(signal.SIGTERM)
        succession.go_on()

    def _reap_strangers(self) -> None:
        """As the first process of a container, bury the orphans that fall to us."""
        if os.getpid() != 1:
            return
        known = {child.process.pid for child in self._children if child.process is not None}
        known.add(0 if self._postgres is None else self._postgres.pid or 0)
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if ended.si_pid in known:
                    return
                os.waitpid(ended.si_pid, os.WNOHANG)

    def _put_calls_first(self) -> None:
        """Let everything but the workers step back, and those come soon; also what is new."""
        for part in (self._postgres, self._recorder, self._dashboard):
            if part is not None and part.pid is not None:
                step_back(part.pid)
        for worker in self._workers:
            if worker.pid is not None:
                take_short_turns(worker.pid)

    def _postgres_down(self) -> bool:
        postgres = self._postgres
        return postgres is not None and (postgres.pid is None or postgres.poll() is not None)

    def _revive_postgres(self, now: float) -> None:
        """Start Postgres again when it is down, step by step: who calls does not wait for it."""
        postgres, backoff = self._postgres, self._postgres_backoff
        if postgres is None:
            return
        if self._postgres_start is None:
            if not self._postgres_down():
                return
            if backoff.started:
                backoff.ended(now)
                backoff.started = 0.0
                _log.error("postgres ended, it is started again", status=postgres.poll())
            if now < backoff.due:
                return
            backoff.started = now
            self._postgres_start = postgres.starting()
        try:
            if next(self._postgres_start, self) is self:
                self._postgres_start = None
        except (MeterError, OSError) as exc:  # workers go on without it
            self._postgres_start = None
            _log.error("postgres does not start", problem=str(exc))

    def _sleep(self, seconds: float) -> None:
        poller = select.poll()
        poller.register(self._waker, select.POLLIN)
        if poller.poll(max(0.0, seconds) * 1000):
            os.read(self._waker, 4096)

    # Stopping

    def _end(self, children: Sequence[Child], seconds: float) -> None:
        """Send SIGTERM and wait, less long after a second signal; SIGKILL for the slow."""
        deadline, hurried = time.monotonic() + seconds, False
        for child in children:
            child.signal(signal.SIGTERM)
        while any(child.running for child in children):
            now = time.monotonic()
            if len(self._received) > 1 and not hurried:
                deadline, hurried = min(deadline, now + HURRY_SECONDS), True
                for child in children:
                    child.signal(signal.SIGTERM)
            if now >= deadline:
                break
            self._sleep(min(deadline - now, LOOK_SECONDS))
        for child in children:
            if child.running:
                _log.error("process killed, it took too long to stop", name=child.name)
                child.signal(signal.SIGKILL)
                child.wait(HURRY_SECONDS)

    # Signals

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGCHLD:
            return
        if number == signal.SIGHUP and not sys.stdin.isatty():
            self._hung_up = True
            return  # on a terminal it says that this one has gone
        self._received.append(number)
        if self._interruptible:
            self._interruptible = False
            raise StoppedError

    @contextlib.contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Let a signal break off what is inside."""
        self._interruptible = True
        try:
            if self._received:
                raise StoppedError
            yield
        finally:
            self._interruptible = False


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writer, False)
    return reader, writer

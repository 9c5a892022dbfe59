"""One worker as it lives: it listens, keeps its house, drains, and leaves.

No database is on its path. Its tasks live in one TaskGroup; timeouts are kept by one sweep over all
links instead of a timer for each call.
"""

import asyncio
import contextlib
import gc
import signal
import socket
import time
from collections.abc import Callable, Coroutine

import msgspec
import structlog
import uvloop

from proxy.assembly import Assembly, IdSource, LogCall, report_fault
from proxy.durability import replace_file
from proxy.forwarding import Exchange
from proxy.health import Snapshot
from proxy.journal import JournalWriter
from proxy.listening import BACKLOG, open_sockets, raise_file_limit
from proxy.memory import Tide, keep, trim
from proxy.settings import Settings
from proxy.tls import listening_context
from proxy.upstreams import Contexts

SWEEP_SECONDS = 0.5
ESTIMATES_SECONDS = 2.0  # that a stopping worker waits for estimates under way
SAME_STOP_SECONDS = 0.3  # two requests to stop so close to each other have one cause


def run_worker(
    settings: Settings,
    *,
    listen_fd: int | None,
    name: str,
    log_call: LogCall | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return."""
    journal = JournalWriter(
        settings.data_dir / "journal",
        name=name,
        sync_seconds=settings.journal_sync_seconds,
        on_problem=lambda text: structlog.get_logger().error("journal problem", problem=text),
    )
    try:
        keep()
        _, remark = raise_file_limit()
        if remark is not None:
            structlog.get_logger().warning("few connections", remark=remark)
        if listen_fd is None:
            listener = open_sockets(settings.listen, 1, setting="METER_LISTEN")[0]
        else:
            listener = socket.socket(fileno=listen_fd)
        worker = Worker(settings, journal=journal, name=name, log_call=log_call)
        uvloop.run(worker.run(listener))
    finally:
        journal.close()


class Worker:
    """The relay in one process."""

    parts: Assembly  # once it runs

    def __init__(
        self,
        settings: Settings,
        *,
        journal: JournalWriter,
        name: str,
        log_call: LogCall | None,
        clock_ns: Callable[[], int] = time.time_ns,  # the moment of each call, which is its price's
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._name = name
        self._listening_tls = listening_context(settings)
        self._contexts = Contexts.of(settings)
        self._new_id = IdSource(clock_ns)
        self._log_call = log_call
        self._spawned: set[asyncio.Task[None]] = set()
        self._tide = Tide()
        self._ending = asyncio.Event()
        self._stop = asyncio.Event()
        self._stopped_at = 0.0
        self._hurry = asyncio.Event()
        self._tasks: asyncio.TaskGroup

    async def run(self, listener: socket.socket) -> None:
        """Serve on the socket until told to stop, then drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGUSR1, self.retire)
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            parts = self.parts = self._assembled()
            server = await loop.create_server(
                parts.new_link, sock=listener, ssl=self._listening_tls, backlog=BACKLOG
            )
            chores = [tasks.create_task(self._sweep()), tasks.create_task(self._housekeeping())]
            _spare_the_collector()
            structlog.get_logger().info(
                "worker listens", worker=self._name, address=str(self._settings.listen)
            )
            await self._ending.wait()
            server.close()
            await asyncio.sleep(0)  # who has been accepted becomes a link now
            if not self._stop.is_set():
                await self._wind_up()
            await self._drain()
            await self._finish_estimates()
            for chore in (*chores, *self._spawned):
                chore.cancel()
        parts.grouped.flush()
        parts.upstreams.close()
        await asyncio.to_thread(self._leave)

    def stop(self) -> None:
        """Begin to drain; asked again after a moment, end what is still under way.

        When the supervisor dies, the kernel asks and so does the end of the pipe: that is once.
        """
        now = time.monotonic()
        if not self._stop.is_set():
            self._stopped_at = now
            self._stop.set()
            self._ending.set()
        elif now - self._stopped_at > SAME_STOP_SECONDS:
            self._hurry.set()

    def retire(self) -> None:
        """Go on with the links that are there and no others: a successor listens already."""
        self._ending.set()

    def _assembled(self) -> Assembly:
        return Assembly(
            self._settings,
            self._contexts,
            journal=self._journal,
            name=self._name,
            log_call=self._log_call,
            new_id=self._new_id,
            spawn=self._spawn,
        )

    def _spawn(self, work: Coroutine[None, None, None]) -> object:
        task = self._tasks.create_task(_faults_reported(work))
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)
        return task

    async def _sweep(self) -> None:
        """Look at every link, and at the pools, about twice a second."""
        loop, parts = asyncio.get_running_loop(), self.parts
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = loop.time()
            for link in tuple(parts.links):
                try:
                    link.check(now)
                except Exception as exc:  # noqa: BLE001 (a fault ends one link)
                    report_fault(exc)
                    link.transport.abort()
            try:
                parts.abandoned.check(now)
            except Exception as exc:  # noqa: BLE001 (one call less, which its reader has left)
                report_fault(exc)
            parts.upstreams.sweep(now)

    async def _housekeeping(self) -> None:
        """Bring the journal to the disk, and leave a snapshot for whoever asks for metrics."""
        interval, parts = self._settings.journal_sync_seconds or 1.0, self.parts
        while True:
            await asyncio.to_thread(self._keep_house, parts.snapshot())
            if self._tide.is_out(parts.connections):
                await asyncio.to_thread(trim)
            await asyncio.sleep(interval)

    def _keep_house(self, snapshot: Snapshot) -> None:
        if self._journal.dirty:
            self._journal.sync()
        directory = self.parts.status_directory
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            replace_file(
                directory / f"{self._name}.json", msgspec.json.encode(snapshot), lasting=False
            )
        except OSError as exc:  # a full disk: the journal says it louder
            structlog.get_logger().warning("snapshot not written", problem=exc.strerror)

    async def _wind_up(self) -> None:
        """Let each link end with its answer, for a while or until told to stop."""
        parts = self.parts
        parts.draining = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.retire_seconds
        while parts.is_busy and loop.time() < deadline:
            for link in tuple(parts.links):  # each time: some were accepted, but no links yet
                link.retire()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 0.05)
                break

    async def _drain(self) -> None:
        """Let calls in flight end, for a while; then break them off."""
        parts = self.parts
        parts.draining = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.drain_seconds
        while parts.is_busy and loop.time() < deadline:
            for link in tuple(parts.links):
                if not link.closing:
                    link.stop()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), 0.05)
                break
        for link in tuple(parts.links):
            exchange = link.exchange
            if isinstance(exchange, Exchange):
                exchange.interrupt()
            else:
                link.drop()
        parts.abandoned.stop()
        await asyncio.sleep(0)

    async def _finish_estimates(self) -> None:
        """Wait a moment for what is being counted of calls that are over."""
        inquiries = self.parts.inquiries
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(inquiries.answered.wait(), ESTIMATES_SECONDS)
        inquiries.stop()

    def _leave(self) -> None:
        self.parts.inquiries.join()
        (self.parts.status_directory / f"{self._name}.json").unlink(missing_ok=True)


async def _faults_reported(work: Coroutine[None, None, None]) -> None:
    """Let a fault end this piece of work, not the worker."""
    try:
        await work
    except Exception as exc:  # noqa: BLE001 (the worker's last line)
        report_fault(exc)


def _spare_the_collector() -> None:
    """Leave what lives for ever out of collections, and collect less often.

    A call leaves no cycles behind: reference counts free what it used.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)

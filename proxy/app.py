"""One worker put together: listener, clock, identities, lifetimes, drain.

No database is on its path. Its tasks live in one TaskGroup; timeouts are kept by one sweep over all
links instead of a timer for each call.
"""

import asyncio
import contextlib
import gc
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

import msgspec
import structlog
import uvloop

from proxy.abandoned import Abandoned, Bounds
from proxy.books import Books, Counts
from proxy.client import ClientLink
from proxy.client import Exchange as LinkExchange
from proxy.client import Limits as LinkLimits
from proxy.core.attribution import AttributionFields, Attributions
from proxy.core.identity import uuid7
from proxy.core.leaving import Policy
from proxy.durability import replace_file
from proxy.errors import MeterError
from proxy.forwarding import Exchange
from proxy.framing import Request
from proxy.grouping import GroupedJournal
from proxy.health import PREFIX, Health, Snapshot
from proxy.inquiring import Inquiries
from proxy.journal import JournalWriter
from proxy.listening import BACKLOG, open_sockets, raise_file_limit
from proxy.memory import Tide, keep, trim
from proxy.settings import Settings
from proxy.tls import listening_context
from proxy.upstreams import Contexts, Shared, Upstreams, request_plans

SWEEP_SECONDS = 0.5
ESTIMATES_SECONDS = 2.0  # that a stopping worker waits for estimates under way
SAME_STOP_SECONDS = 0.3  # two requests to stop so close to each other have one cause

LogCall = Callable[[Mapping[str, object]], None]


class IdSource:
    """Mints UUIDv7 event ids; they need to be unique, not hard to guess."""

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._random_bits = random.Random(os.urandom(32)).getrandbits  # noqa: S311 (as above)

    def __call__(self) -> bytes:
        """Return a new id of 16 bytes."""
        return uuid7(self._clock_ns(), self._random_bits(62))


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
        self._log_call = log_call if settings.log_calls else None
        self._links: set[ClientLink] = set()
        self._spawned: set[asyncio.Task[None]] = set()
        self._counts = Counts(by_outcome={})
        self._draining = False
        self._tide = Tide()
        self._ending = asyncio.Event()
        self._stop = asyncio.Event()
        self._stopped_at = 0.0
        self._hurry = asyncio.Event()
        self._tasks: asyncio.TaskGroup
        self._abandoned: Abandoned
        self._grouped: GroupedJournal
        self._inquiries: Inquiries
        self._upstreams: Upstreams
        self._health: Health

    async def run(self, listener: socket.socket) -> None:
        """Serve on the socket until told to stop, then drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGUSR1, self.retire)
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._put_together()
            server = await loop.create_server(
                self._new_link, sock=listener, ssl=self._listening_tls, backlog=BACKLOG
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
        self._grouped.flush()
        self._upstreams.close()
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

    def _put_together(self) -> None:
        settings = self._settings
        fields = AttributionFields(
            user=_lower(settings.user_headers),
            endpoint=_lower(settings.endpoint_headers),
            metadata=_lower(settings.metadata_headers),
            metadata_prefixes=_lower(settings.metadata_prefixes),
        )
        self._grouped = GroupedJournal(
            self._journal,
            call_soon=asyncio.get_running_loop().call_soon,
            report_fault=_report_fault,
        )
        loop = asyncio.get_running_loop()
        self._inquiries = Inquiries(
            call_later=loop.call_later, call_from_thread=loop.call_soon_threadsafe
        )
        self._plans = request_plans(settings, fields)
        self._link_limits = LinkLimits(
            max_head_bytes=settings.max_head_bytes,
            head_timeout_seconds=settings.client_head_timeout_seconds,
            idle_timeout_seconds=settings.client_idle_timeout_seconds,
        )
        self._abandoned = self._put_abandoned()
        self._upstreams = Upstreams(
            settings,
            self._contexts,
            Shared(
                books=self._books(fields),
                abandoned=self._abandoned,
                spawn=self._spawn,
                report_fault=_report_fault,
            ),
        )
        self._health = Health(
            snapshot=self._snapshot, status_directory=self._status_directory, spawn=self._spawn
        )

    def _put_abandoned(self) -> Abandoned:
        settings = self._settings
        return Abandoned(
            Policy(settings.on_disconnect, settings.on_disconnect_endpoints.choices),
            Bounds(
                seconds=settings.on_disconnect_max_seconds,
                size=settings.on_disconnect_max_bytes,
                calls=settings.on_disconnect_max_calls,
            ),
            asyncio.get_running_loop().time,
        )

    def _books(self, fields: AttributionFields) -> Books:
        return Books(
            journal=self._grouped,
            fields=fields,
            attributions=Attributions(fields),
            counts=self._counts,
            upstream="",
            worker=self._name,
            event_bytes=self._settings.max_event_bytes,
            new_id=self._new_id,
            now_ns=time.perf_counter_ns,
            log_call=self._log_call,
            estimator=self._inquiries,
        )

    @property
    def _status_directory(self) -> Path:
        return self._settings.data_dir / "workers"

    def _spawn(self, work: Coroutine[None, None, None]) -> object:
        task = self._tasks.create_task(_faults_reported(work))
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)
        return task

    def _new_link(self) -> ClientLink:
        return ClientLink(
            begin=self._begin,
            plans=self._plans,
            limits=self._link_limits,
            links=self._links,
            refused=self._refused,
            report_fault=_report_fault,
        )

    def _begin(self, link: ClientLink, request: Request) -> LinkExchange:
        plan = request.plan
        if not plan.mount and plan.line.target.startswith(PREFIX):
            return self._health.exchange(link, request)
        return Exchange(self._upstreams.chosen(request), link, request)

    def _refused(self, error: MeterError) -> None:
        self._counts.refused += 1
        structlog.get_logger().warning("request refused", reason=str(error))

    async def _sweep(self) -> None:
        """Look at every link, and at the pools, about twice a second."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = loop.time()
            for link in tuple(self._links):
                try:
                    link.check(now)
                except Exception as exc:  # noqa: BLE001 (a fault ends one link)
                    _report_fault(exc)
                    link.transport.abort()
            try:
                self._abandoned.check(now)
            except Exception as exc:  # noqa: BLE001 (one call less, which its reader has left)
                _report_fault(exc)
            self._upstreams.sweep(now)

    async def _housekeeping(self) -> None:
        """Bring the journal to the disk, and leave a snapshot for whoever asks for metrics."""
        interval = self._settings.journal_sync_seconds or 1.0
        while True:
            await asyncio.to_thread(self._keep_house, self._snapshot())
            if self._tide.is_out(len(self._links) + self._upstreams.kept):
                await asyncio.to_thread(trim)
            await asyncio.sleep(interval)

    def _keep_house(self, snapshot: Snapshot) -> None:
        if self._journal.dirty:
            self._journal.sync()
        try:
            self._status_directory.mkdir(mode=0o700, exist_ok=True)
            replace_file(
                self._status_directory / f"{self._name}.json",
                msgspec.json.encode(snapshot),
                lasting=False,
            )
        except OSError as exc:  # a full disk: the journal says it louder
            structlog.get_logger().warning("snapshot not written", problem=exc.strerror)

    def _snapshot(self) -> Snapshot:
        counts, journal = self._counts, self._journal
        return Snapshot(
            worker=self._name,
            pid=os.getpid(),
            draining=self._draining,
            in_flight=counts.in_flight,
            calls=dict(counts.by_outcome),
            refused=counts.refused,
            request_bytes=counts.request_bytes,
            answer_bytes=counts.answer_bytes,
            latency_seconds=counts.latency_us / 1_000_000,
            abandoned=len(self._abandoned),
            abandoned_completed=self._abandoned.completed,
            abandoned_cut=self._abandoned.cut,
            estimates_waiting=self._inquiries.waiting,
            estimates=self._inquiries.counts.made,
            estimates_given_up=self._inquiries.counts.given_up,
            estimate_seconds=self._inquiries.counts.seconds,
            journal_records=journal.written,
            journal_failures=journal.failures,
            journal_lost=journal.lost,
            journal_waiting=journal.held,
            journal_problem=journal.problem,
        )

    async def _wind_up(self) -> None:
        """Let each link end with its answer, for a while or until told to stop."""
        self._draining = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.retire_seconds
        while (self._links or len(self._abandoned)) and loop.time() < deadline:
            for link in tuple(self._links):  # each time: some were accepted, but no links yet
                link.retire()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 0.05)
                break

    async def _drain(self) -> None:
        """Let calls in flight end, for a while; then break them off."""
        self._draining = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.drain_seconds
        while (self._links or len(self._abandoned)) and loop.time() < deadline:
            for link in tuple(self._links):
                if not link.closing:
                    link.stop()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), 0.05)
                break
        for link in tuple(self._links):
            exchange = link.exchange
            if isinstance(exchange, Exchange):
                exchange.interrupt()
            else:
                link.drop()
        self._abandoned.stop()
        await asyncio.sleep(0)

    async def _finish_estimates(self) -> None:
        """Wait a moment for what is being counted of calls that are over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._inquiries.answered.wait(), ESTIMATES_SECONDS)
        self._inquiries.stop()

    def _leave(self) -> None:
        self._inquiries.join()
        (self._status_directory / f"{self._name}.json").unlink(missing_ok=True)


async def _faults_reported(work: Coroutine[None, None, None]) -> None:
    """Let a fault end this piece of work, not the worker."""
    try:
        await work
    except Exception as exc:  # noqa: BLE001 (the worker's last line)
        _report_fault(exc)


def _spare_the_collector() -> None:
    """Leave what lives for ever out of collections, and collect less often.

    A call leaves no cycles behind: reference counts free what it used.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _report_fault(exc: BaseException) -> None:
    structlog.get_logger().error("fault in the relay", exc_info=exc)


def _lower(names: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(name.lower().encode("ascii") for name in names)

"""What a worker consists of, put together from its settings: ids, books, bounds, upstreams.

What has to be read from files is read before; from here on nothing waits. How long a worker lives,
and what it does meanwhile, is `proxy.app`'s business.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable, Coroutine, Mapping

import structlog

from proxy.abandoned import Abandoned, Bounds
from proxy.books import Books, Counts
from proxy.client import ClientLink
from proxy.client import Exchange as LinkExchange
from proxy.client import Limits as LinkLimits
from proxy.core.attribution import AttributionFields, Attributions
from proxy.core.identity import uuid7
from proxy.core.leaving import Policy
from proxy.errors import MeterError
from proxy.forwarding import Exchange
from proxy.framing import Request
from proxy.grouping import GroupedJournal
from proxy.health import PREFIX, Health, Snapshot
from proxy.inquiring import Inquiries
from proxy.journal import JournalWriter
from proxy.settings import Settings
from proxy.upstreams import Contexts, Shared, Upstreams, request_plans

LogCall = Callable[[Mapping[str, object]], None]


class IdSource:
    """Mints UUIDv7 event ids; they need to be unique, not hard to guess."""

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._random_bits = random.Random(os.urandom(32)).getrandbits  # noqa: S311 (as above)

    def __call__(self) -> bytes:
        """Return a new id of 16 bytes."""
        return uuid7(self._clock_ns(), self._random_bits(62))


class Assembly:
    """The parts of one worker, and the links that they serve."""

    def __init__(
        self,
        settings: Settings,
        contexts: Contexts,
        *,
        journal: JournalWriter,
        name: str,
        log_call: LogCall | None,
        new_id: Callable[[], bytes],
        spawn: Callable[[Coroutine[None, None, None]], object],
    ) -> None:
        """Put it together within the loop that it will run in."""
        loop = asyncio.get_running_loop()
        fields = _attribution_fields(settings)
        self.draining = False  # no new calls are taken
        self.links: set[ClientLink] = set()
        self.status_directory = settings.data_dir / "workers"
        self._name = name
        self._journal = journal
        self._counts = Counts(by_outcome={})
        self._plans = request_plans(settings, fields)
        self._limits = _limits(settings)
        self.grouped = GroupedJournal(journal, call_soon=loop.call_soon, report_fault=report_fault)
        self.inquiries = Inquiries(
            call_later=loop.call_later, call_from_thread=loop.call_soon_threadsafe
        )
        self.abandoned = _abandoned(settings, loop.time)
        books = Books(
            journal=self.grouped,
            fields=fields,
            attributions=Attributions(fields),
            counts=self._counts,
            upstream="",
            worker=name,
            event_bytes=settings.max_event_bytes,
            new_id=new_id,
            now_ns=time.perf_counter_ns,
            log_call=log_call if settings.log_calls else None,
            estimator=self.inquiries,
        )
        self.upstreams = Upstreams(
            settings,
            contexts,
            Shared(books=books, abandoned=self.abandoned, spawn=spawn, report_fault=report_fault),
        )
        self._health = Health(
            snapshot=self.snapshot, status_directory=self.status_directory, spawn=spawn
        )

    @property
    def connections(self) -> int:
        """How many clients are connected, and how many connections are kept for their calls."""
        return len(self.links) + self.upstreams.kept

    @property
    def is_busy(self) -> bool:
        """Whether somebody is connected, or a call is still being read."""
        return bool(self.links or len(self.abandoned))

    def new_link(self) -> ClientLink:
        """Return what serves a client that has connected."""
        return ClientLink(
            begin=self._begin,
            plans=self._plans,
            limits=self._limits,
            links=self.links,
            refused=self._refused,
            report_fault=report_fault,
        )

    def snapshot(self) -> Snapshot:
        """Return what the worker says of itself."""
        counts, journal = self._counts, self._journal
        return Snapshot(
            worker=self._name,
            pid=os.getpid(),
            draining=self.draining,
            in_flight=counts.in_flight,
            calls=dict(counts.by_outcome),
            refused=counts.refused,
            request_bytes=counts.request_bytes,
            answer_bytes=counts.answer_bytes,
            latency_seconds=counts.latency_us / 1_000_000,
            abandoned=len(self.abandoned),
            abandoned_completed=self.abandoned.completed,
            abandoned_cut=self.abandoned.cut,
            estimates_waiting=self.inquiries.waiting,
            estimates=self.inquiries.counts.made,
            estimates_given_up=self.inquiries.counts.given_up,
            estimate_seconds=self.inquiries.counts.seconds,
            journal_records=journal.written,
            journal_failures=journal.failures,
            journal_lost=journal.lost,
            journal_waiting=journal.held,
            journal_problem=journal.problem,
        )

    def _begin(self, link: ClientLink, request: Request) -> LinkExchange:
        plan = request.plan
        if not plan.mount and plan.line.target.startswith(PREFIX):
            return self._health.exchange(link, request)
        return Exchange(self.upstreams.chosen(request), link, request)

    def _refused(self, error: MeterError) -> None:
        self._counts.refused += 1
        structlog.get_logger().warning("request refused", reason=str(error))


def report_fault(exc: BaseException) -> None:
    """Log a fault of ours, which has ended a link or a call, and nothing else."""
    structlog.get_logger().error("fault in the relay", exc_info=exc)


def _attribution_fields(settings: Settings) -> AttributionFields:
    return AttributionFields(
        user=_lower(settings.user_headers),
        endpoint=_lower(settings.endpoint_headers),
        metadata=_lower(settings.metadata_headers),
        metadata_prefixes=_lower(settings.metadata_prefixes),
    )


def _lower(names: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(name.lower().encode("ascii") for name in names)


def _limits(settings: Settings) -> LinkLimits:
    return LinkLimits(
        max_head_bytes=settings.max_head_bytes,
        head_timeout_seconds=settings.client_head_timeout_seconds,
        idle_timeout_seconds=settings.client_idle_timeout_seconds,
    )


def _abandoned(settings: Settings, now: Callable[[], float]) -> Abandoned:
    return Abandoned(
        Policy(settings.on_disconnect, settings.on_disconnect_endpoints.choices),
        Bounds(
            seconds=settings.on_disconnect_max_seconds,
            size=settings.on_disconnect_max_bytes,
            calls=settings.on_disconnect_max_calls,
        ),
        now,
    )

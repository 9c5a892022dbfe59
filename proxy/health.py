"""The proxy's own paths under `/_meter/`: is it alive, can it take calls, what has it counted.

Everything else belongs to the upstream. Metrics tell of every worker of the data directory, not of
the one that happened to be asked: each worker leaves a snapshot there about once a second.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry
from typing_extensions import override

from proxy.client import ClientLink
from proxy.core.model import Outcome
from proxy.errors import FramingError
from proxy.framing import Request, Trailers
from proxy.heartbeat import FAILURES, FILE_NAME, State
from proxy.replies import error_answer, plain_answer

PREFIX = b"/_meter/"
_PATIENCE_SECONDS = 30.0
_JSON = b"application/json"
_METRICS = b"text/plain; version=0.0.4; charset=utf-8"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker says of itself."""

    worker: str
    pid: int
    draining: bool
    in_flight: int
    calls: dict[str, int]  # by outcome
    refused: int
    request_bytes: int
    answer_bytes: int
    latency_seconds: float
    journal_records: int
    journal_failures: int
    journal_lost: int
    journal_waiting: int
    journal_problem: str | None = None
    abandoned: int = 0
    abandoned_completed: int = 0
    abandoned_cut: int = 0
    estimates_waiting: int = 0
    estimates: int = 0
    estimates_given_up: int = 0
    estimate_seconds: float = 0.0


class Health:
    """Answers for the paths of the proxy's own."""

    def __init__(
        self,
        *,
        snapshot: Callable[[], Snapshot],
        status_directory: Path,
        spawn: Callable[[Coroutine[None, None, None]], object],
    ) -> None:
        self._snapshot = snapshot
        self._directory = status_directory
        self.spawn = spawn

    def exchange(self, link: ClientLink, request: Request) -> "OwnExchange":
        """Return the exchange for a request to a path of the proxy's own."""
        return OwnExchange(self, link, request)

    async def answer(self, path: bytes) -> tuple[int, bytes, bytes]:
        """Return status, content type and body."""
        if path == b"healthz":
            return 200, _JSON, b'{"status":"ok"}\n'
        if path == b"readyz":
            return self._readiness()
        if path == b"metrics":
            return 200, _METRICS, await asyncio.to_thread(self._metrics)
        return 404, _JSON, b""

    def _readiness(self) -> tuple[int, bytes, bytes]:
        """Ready: calls are taken, and metered durably."""
        own = self._snapshot()
        problems = []
        if own.draining:
            problems.append("draining: this worker is about to stop and takes no new calls")
        if own.journal_problem:
            problems.append(f"journal: {own.journal_problem}")
        body = {
            "status": "unready" if problems else "ready",
            "problems": problems,
            "abandoned_calls": own.abandoned,
            "journal": {"records": own.journal_records, "lost": own.journal_lost},
        }
        return 503 if problems else 200, _JSON, msgspec.json.encode(body) + b"\n"

    def _metrics(self) -> bytes:
        registry = CollectorRegistry()
        registry.register(_Collected(list(self._snapshots()), self._recorder()))
        return generate_latest(registry)

    def _snapshots(self) -> Iterator[Snapshot]:
        own = self._snapshot()
        yield own
        for path in sorted(self._directory.glob("*.json")):
            try:
                snapshot = msgspec.json.decode(path.read_bytes(), type=Snapshot)
            except (OSError, msgspec.DecodeError):
                continue  # being replaced, or not ours
            if snapshot.worker != own.worker:
                yield snapshot

    def _recorder(self) -> State | None:
        try:
            text = (self._directory.parent / FILE_NAME).read_bytes()
            return msgspec.json.decode(text, type=State)
        except (OSError, msgspec.DecodeError):
            return None


class _Collected(Collector):
    def __init__(self, snapshots: list[Snapshot], recorder: State | None) -> None:
        self._snapshots = snapshots
        self._recorder = recorder

    @override
    def collect(self) -> Iterable[Metric]:
        calls = CounterMetricFamily(
            "openai_meter_calls", "Calls ended, by outcome.", labels=["worker", "outcome"]
        )
        for one in self._snapshots:
            for outcome, count in _counted(Outcome, one.calls):
                calls.add_metric([one.worker, outcome], count)
        yield calls
        for name, description, value in _COUNTERS:
            counter = CounterMetricFamily(f"openai_meter_{name}", description, labels=["worker"])
            for one in self._snapshots:
                counter.add_metric([one.worker], value(one))
            yield counter
        for name, description, value in _GAUGES:
            gauge = GaugeMetricFamily(f"openai_meter_{name}", description, labels=["worker"])
            for one in self._snapshots:
                gauge.add_metric([one.worker], value(one))
            yield gauge
        if self._recorder is not None:
            yield from _told_by(self._recorder)


def _told_by(recorder: State) -> Iterator[Metric]:
    """Return what the recorder says of itself; a heartbeat that stands still is a dead one."""
    yield _of_recorder("heartbeat_timestamp_seconds", recorder.time.timestamp())
    for name, value in sorted(msgspec.structs.asdict(recorder).items()):
        if name.endswith("_problem"):
            yield _of_recorder(name, value is not None)
        elif isinstance(value, int | float):
            yield _of_recorder(name, value)
    failures = GaugeMetricFamily(
        "openai_meter_recorder_insert_failures", "Inserts that failed, by kind.", labels=["kind"]
    )
    for kind, count in _counted(FAILURES, recorder.insert_failures):
        failures.add_metric([kind], count)
    yield failures


def _counted(names: Iterable[str], counts: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    """Return counts by name: 0 of what has not happened yet, so that the first time is a rise."""
    return sorted({**dict.fromkeys(map(str, names), 0), **counts}.items())


def _of_recorder(name: str, value: float) -> Metric:
    return GaugeMetricFamily(f"openai_meter_recorder_{name}", _RECORDER[name], value=value)


_RECORDER = {
    "backlog_seconds": "Age of the oldest call on its way to the ledger.",
    "estimated": "Rows whose usage is estimated, since the recorder's start.",
    "journal_bytes": "Bytes of journal on disk.",
    "rows_per_second": "Rows inserted per second, of late.",
    "sums_problem": "1 while a sum of the last days is not that of its rows.",
    "unpriced": "Rows without their cost, or not all of it, since the recorder's start.",
    "heartbeat_timestamp_seconds": "When the recorder last said anything.",
    "database_problem": "1 while the database cannot be written to.",
    "database_reachable": "1 while Postgres answers.",
    "faults": "Rows without usage and cost because of a fault of ours.",
    "interrupted": "Calls recorded of workers that died.",
    "journal_problem": "1 while the journal cannot be read, or its checkpoint not written.",
    "lag_bytes": "Bytes of journal not yet in the ledger.",
    "lag_seconds": "Seconds since everything was in the ledger.",
    "open_calls": "Calls that have begun and not ended.",
    "open_objects": "Objects made here that nobody has seen done: their cost is not known yet.",
    "prices_problem": "1 while the pricing file cannot be used; the last prices are kept.",
    "refused": "Rows that Postgres refused.",
    "rows": "Rows inserted since the recorder's start.",
    "skipped_bytes": "Bytes of journal that could not be read.",
    "unmetered_calls": "Calls of the last 400 days whose end could not be written down.",
}


_Reading = tuple[str, str, Callable[[Snapshot], float]]
_COUNTERS: tuple[_Reading, ...] = (
    ("refused_requests", "Requests refused for their framing.", lambda s: s.refused),
    ("request_bytes", "Bytes of request bodies.", lambda s: s.request_bytes),
    ("answer_bytes", "Bytes of answer bodies.", lambda s: s.answer_bytes),
    ("call_seconds", "Time that calls took, summed.", lambda s: s.latency_seconds),
    (
        "abandoned_calls_completed",
        "Calls read to their end after their client hung up.",
        lambda s: s.abandoned_completed,
    ),
    (
        "abandoned_calls_cut",
        "Calls whose client hung up and that a bound, the upstream or a stop ended.",
        lambda s: s.abandoned_cut,
    ),
    ("estimates", "Calls without usage that were counted.", lambda s: s.estimates),
    (
        "estimates_given_up",
        "Calls without usage that could not be counted, or not in time.",
        lambda s: s.estimates_given_up,
    ),
    ("estimate_seconds", "Time that estimates took, summed.", lambda s: s.estimate_seconds),
    ("journal_records", "Records written to the journal.", lambda s: s.journal_records),
    ("journal_failures", "Journal writes that failed.", lambda s: s.journal_failures),
    ("journal_lost_records", "Records that were given up.", lambda s: s.journal_lost),
)
_GAUGES: tuple[_Reading, ...] = (
    ("calls_in_flight", "Calls under way.", lambda s: s.in_flight),
    ("abandoned_calls", "Calls that are read on for nobody.", lambda s: s.abandoned),
    (
        "estimates_waiting",
        "Calls without usage that wait to be counted.",
        lambda s: s.estimates_waiting,
    ),
    (
        "journal_waiting_writes",
        "Journal writes that wait for the disk.",
        lambda s: s.journal_waiting,
    ),
    ("draining", "1 while a worker takes no new calls.", lambda s: s.draining),
)


class OwnExchange:
    """An exchange that ends here: the request's body is read and dropped."""

    __slots__ = ("_health", "_link", "_request", "answering")

    def __init__(self, health: Health, link: ClientLink, request: Request) -> None:
        self._health = health
        self._link = link
        self._request = request
        self.answering = False

    def start(self, body: bytes, *, complete: bool, trailers: Trailers) -> None:  # noqa: ARG002
        """Begin: the head is known, and what came of the body with it."""
        if complete:
            self.request_end(trailers)

    def request_body(self, data: bytes) -> None:
        """Drop the body."""

    def request_end(self, trailers: Trailers) -> None:  # noqa: ARG002
        """Answer."""
        self._health.spawn(self._answer())

    async def _answer(self) -> None:
        line = self._request.plan.line
        path = line.target.partition(b"?")[0][len(PREFIX) :]
        close = not self._request.plan.keeps_alive or line.minor_version == 0
        head_only = line.method == b"HEAD"
        status, content_type, body = await self._health.answer(path)
        if self._link.exchange is not self:
            return
        if status == 404:  # noqa: PLR2004
            data = error_answer(
                404,
                "unknown path; there are /_meter/healthz, /_meter/readyz and /_meter/metrics",
                "not_found",
                close=close,
                head_only=head_only,
            )
        elif line.method not in (b"GET", b"HEAD"):
            data = error_answer(405, "use GET", "method_not_allowed", close=close)
        else:
            data = plain_answer(
                status, body, content_type=content_type, close=close, head_only=head_only
            )
        self._link.write(data)
        self._link.finished(close=close)

    def request_broken(self, error: FramingError) -> None:
        """Nothing has been done with it."""

    def client_gone(self) -> None:
        """Nothing is under way that would need to be stopped."""

    def client_paused(self) -> None:
        """Nothing is streamed."""

    def client_resumed(self) -> None:
        """Nothing is streamed."""

    def tunnelled_up(self, data: bytes) -> bytes:  # noqa: ARG002 - there is none
        """There is no tunnel."""
        return b""

    def check(self, now: float) -> None:
        """Let nobody stay who sends a request and does not end it."""
        if self._link.request_incomplete and self._link.idle_seconds(now) > _PATIENCE_SECONDS:
            self._link.drop()

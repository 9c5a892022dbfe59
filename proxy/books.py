"""What all accounts of a worker share: where they write, whom they ask, what they add up to.

Who keeps an account needs a journal, a clock, ids and somebody to ask; what these are is decided
where a worker is put together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from proxy.core import attribution, noting
from proxy.core.estimates import Question
from proxy.core.metering import Observation
from proxy.core.model import Closing, Estimate, Outcome, Record


class Journal(Protocol):
    """Where records go; nothing here raises."""

    def append(self, record: Record) -> object:
        """Write a record now."""

    def append_then(self, record: Record, then: Callable[[], None]) -> None:
        """Write a record soon, and do then what waits for it."""


class Estimator(Protocol):
    """Who is asked where an answer tells no usage; nothing here raises."""

    def ask(self, question: Question, done: Callable[[Estimate], None], *, seconds: float) -> None:
        """Have `done` called with an estimate, within so many seconds."""


@dataclass(slots=True, kw_only=True)
class Counts:
    """What a worker has done since it started."""

    calls: int = 0
    in_flight: int = 0
    refused: int = 0
    by_outcome: dict[str, int]
    request_bytes: int = 0
    answer_bytes: int = 0
    latency_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What all accounts of a worker share."""

    journal: Journal
    fields: attribution.AttributionFields
    attributions: attribution.Attributions
    counts: Counts
    upstream: str
    worker: str
    mount: str | None = None  # the upstream's name, where it is not the one at `/`
    metered_body_bytes: int = 1_048_576
    event_bytes: int
    new_id: Callable[[], bytes]
    now_ns: Callable[[], int]  # a monotonic clock
    log_call: Callable[[Mapping[str, object]], None] | None
    estimator: Estimator | None = None  # None: nothing is estimated


class Session(Protocol):
    """What is noted within a call whose answer is a WebSocket; nothing here raises."""

    @property
    def is_busy(self) -> bool:
        """Whether something is being made in it."""

    def look(self, data: bytes) -> bytes:
        """Note what is billed in these bytes of the upstream's; return those for the next turn."""

    def look_at_all(self, data: bytes) -> None:
        """Note what is billed in these bytes, all of them at once: the session ends."""

    def hear(self, data: bytes) -> bytes:
        """Look at what the client says; return what is for the next turn."""

    def end(self, outcome: Outcome) -> Observation:
        """Note what is left to note, and tell what is known of the session itself."""


def tell(books: Books, closing: Closing) -> None:
    """Count what is over, and write its line to the log."""
    counts = books.counts
    counts.calls += 1
    counts.by_outcome[closing.outcome] = counts.by_outcome.get(closing.outcome, 0) + 1
    counts.request_bytes += closing.request_body_bytes or 0
    counts.answer_bytes += closing.response_body_bytes or 0
    counts.latency_us += closing.latency_us or 0
    if books.log_call is not None:
        books.log_call(noting.log_line(closing))

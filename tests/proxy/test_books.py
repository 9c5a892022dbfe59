"""What calls add up to, and what is said of each."""

from collections.abc import Callable, Mapping

import msgspec
import pytest

from proxy.books import Books, Counts, tell
from proxy.core.attribution import AttributionFields, Attributions
from proxy.core.model import Closing, Opening, Record

CLOSING = Closing(
    opening=Opening(
        event_id=bytes(16),
        operation_name="chat",
        method="POST",
        api_path="/v1/chat/completions",
        upstream="api.example",
    ),
    outcome="ok",
    latency_us=7,
    request_body_bytes=5,
    response_body_bytes=11,
)


class Shredder:
    """A journal that keeps nothing."""

    def append(self, record: Record) -> None:
        """Forget a record."""

    def append_then(self, record: Record, then: Callable[[], None]) -> None:
        """Forget a record, and go on."""


def books(log_call: Callable[[Mapping[str, object]], None] | None) -> Books:
    """Return the books of a worker that has done nothing yet."""
    names = AttributionFields()
    return Books(
        journal=Shredder(),
        fields=names,
        attributions=Attributions(names),
        counts=Counts(by_outcome={}),
        upstream="api.example",
        worker="w",
        event_bytes=1000,
        new_id=lambda: bytes(16),
        now_ns=lambda: 0,
        log_call=log_call,
    )


def test_what_is_over_is_counted_and_gets_a_line_in_the_log() -> None:
    """What is not known of a call counts nothing."""
    lines: list[Mapping[str, object]] = []
    kept = books(lines.append)
    tell(kept, CLOSING)
    tell(kept, CLOSING)
    unknown = msgspec.structs.replace(
        CLOSING, outcome="timeout", latency_us=None, response_body_bytes=None
    )
    tell(kept, unknown)
    counts = kept.counts
    assert (counts.calls, counts.by_outcome) == (3, {"ok": 2, "timeout": 1})
    assert (counts.request_bytes, counts.answer_bytes, counts.latency_us) == (15, 22, 14)
    assert [line["outcome"] for line in lines] == ["ok", "ok", "timeout"]


@pytest.mark.parametrize("fact", ["in_flight", "refused"])
def test_a_call_that_is_over_says_nothing_of_those_that_are_not(fact: str) -> None:
    """Nor has anything to be logged."""
    kept = books(None)
    tell(kept, CLOSING)
    assert getattr(kept.counts, fact) == 0

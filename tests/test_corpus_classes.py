"""No class of tokens that any recorded usage object carries is left out of its sum in silence."""

import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.core.charging import charge
from proxy.core.model import Closing, LedgerRow, PriceLine, created_at
from proxy.core.operations import operation_of
from proxy.core.usage import itemised, read_usage
from proxy.errors import UnpricedError
from tests.fakes import sessions
from tests.fakes.records import opening
from tests.test_corpus_charges import BOOK, EVENT_ID, recordings

pytestmark = pytest.mark.corpus

TOTALS = {"prompt_tokens", "input_tokens", "completion_tokens", "output_tokens"}
# Parts of a total that have no price of their own: they are in the price of what they are part of.
INSIDE = {
    "total_tokens",
    "output.text_tokens",
    "input.text_tokens",
    "input.cached_tokens_details.text_tokens",
    "output.reasoning_tokens",
}


def _objects(path: Path, sessions_path: Path) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    """Yield operation, model and each usage object that was recorded, whatever it belonged to."""
    for exchange in recordings(path):
        operation = operation_of(exchange["method"], exchange["path"])
        model = exchange["model"] or exchange["request_model"]
        every = [usage for _, usage in exchange["usage_all"] or []]
        for usage in (exchange["usage"], *every):
            if isinstance(usage, dict):
                yield operation.name if operation.reads_usage else "responses", model, usage
    for session in sessions.load(sessions_path):
        for kind, _, usage, _ in session.usages:
            is_heard = kind == "realtime.transcription"
            yield kind, "gpt-realtime-whisper" if is_heard else session.model, usage


def _classes(usage: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, int | float]]:
    """Yield each count that is not 0, spelt without what differs between the APIs."""
    for name, value in usage.items():
        if isinstance(value, dict):
            side = {"prompt": "input", "completion": "output"}.get(name.partition("_")[0])
            inner = f"{side or name.partition('_')[0]}." if not prefix else f"{prefix}{name}."
            yield from _classes(value, inner)
        elif type(value) in {int, float} and value:
            yield prefix + name, value


def _charged(operation_name: str, model: str | None, usage: dict[str, Any]) -> LedgerRow:
    call = msgspec.structs.replace(
        opening(), event_id=EVENT_ID, operation_name=operation_name, request_model=model
    )
    raw = json.dumps(usage).encode()
    return charge(Closing(opening=call, outcome="ok", status=200, usage=raw), BOOK)


def _lines(operation_name: str, model: str | None, usage: dict[str, Any]) -> tuple[PriceLine, ...]:
    read = itemised(read_usage(json.dumps(usage).encode()), operation_name)
    return BOOK.cost(
        read,
        response_model=model,
        request_model=None,
        deployment=None,
        service_tier=None,
        operation_name=operation_name,
        upstream="api.openai.com",
        at=created_at(EVENT_ID),
    ).lines


# What of a call each class is billed as: a line with exactly so much of it.
BILLED_AS = {
    "input.cached_tokens": {"cached_input", "cached_audio_input", "cached_image_input"},
    "input.cached_tokens_details.audio_tokens": {"cached_audio_input"},
    "input.cached_tokens_details.image_tokens": {"cached_image_input"},
    "input.cache_write_tokens": {"cache_write", "cache_write_12h"},
    "input.audio_tokens": {"audio_input", "cached_audio_input"},
    "input.image_tokens": {"image_input", "cached_image_input"},
    "output.audio_tokens": {"audio_output"},
    "output.image_tokens": {"image_output"},
}
INPUT = {
    "input",
    "audio_input",
    "image_input",
    "cached_input",
    "cached_audio_input",
    "cached_image_input",
    "cache_write",
    "cache_write_12h",
}
OUTPUT = {"output", "audio_output", "image_output"}


def _unapplied(
    classes: dict[str, int | float], lines: tuple[PriceLine, ...]
) -> Iterator[tuple[str, Decimal]]:
    """Yield each class whose number is not what the lines bill of it."""
    billed: Counter[str] = Counter()
    for line in lines:
        billed[line.component] += line.quantity  # type: ignore[assignment]  # whole, or seconds
    for name, value in classes.items():
        if name in TOTALS:
            kinds = INPUT if name in {"prompt_tokens", "input_tokens"} else OUTPUT
        elif name == "seconds":
            kinds = {"audio_second"}
        else:
            kinds = BILLED_AS.get(name, set())
        found = sum((Decimal(billed[kind]) for kind in kinds), Decimal(0))
        if name not in INSIDE and found != Decimal(str(value)):
            yield name, found


def test_every_class_of_every_usage_object_is_applied_or_flagged(
    corpus_path: Path, sessions_path: Path
) -> None:
    """Each number is billed to the last token as what it is, or the row says what is missing."""
    met: set[str] = set()
    silent, unpriced = set(), set()
    for operation_name, model, usage in _objects(corpus_path, sessions_path):
        classes = dict(_classes(usage))
        met.update(classes)
        row = _charged(operation_name, model, usage)
        if row.unpriced_reason is not None:
            unpriced.add((model, row.unpriced_reason))
            continue
        try:
            lines = _lines(operation_name, model, usage)
        except UnpricedError as exc:
            silent.add((operation_name, model, str(exc)))
            continue
        for name, found in _unapplied(classes, lines):
            if name.rpartition(".")[2] not in (row.usage_problem or ""):
                silent.add((operation_name, model, f"{name}: {classes[name]}, billed {found}"))
    assert not silent
    assert {reason for _, reason in unpriced} == {"unknown_model"}
    assert met >= BILLED_AS.keys() - {"input.cached_tokens_details.image_tokens"}
    assert met <= BILLED_AS.keys() | INSIDE | TOTALS | {"seconds"}

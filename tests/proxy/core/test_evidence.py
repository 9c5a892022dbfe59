"""What is kept is bounded, and a question is asked only where tokens have probably been billed."""

from typing import Any

import msgspec
import pytest

from proxy.core.estimates import Question
from proxy.core.evidence import answer_room, keepable, question
from proxy.core.findings import Kept
from proxy.core.metering import Observation
from proxy.core.model import AnswerUnits, Closing, Opening, RequestUnits
from proxy.core.operations import operation_of

OPENING = Opening(
    event_id=bytes(16),
    operation_name="chat",
    method="POST",
    api_path="/v1/chat/completions",
    upstream="api.openai.com",
    request_model="gpt-4o",
)
CUT = Closing(opening=OPENING, outcome="upstream_error", status=200, time_to_first_byte_us=1)
SILENT = Closing(opening=OPENING, outcome="client_disconnected")
SEEN = Observation(kept=Kept("stream", b"data: {", 70))
NOTHING = Observation()


def asked(
    closing: Closing, seen: Observation = SEEN, path: str = "/v1/chat/completions"
) -> Question | None:
    """Return the question about a call."""
    return question(closing, operation_of("POST", path), seen, b"{}")


def changed(closing: Closing, **changes: Any) -> Closing:
    """Return a closing with some facts changed."""
    return msgspec.structs.replace(closing, **changes)


def test_many_calls_keep_less_each() -> None:
    """Whatever their number, a worker's memory has a bound."""
    assert keepable(b"x" * 2000, 1) == b"x" * 2000
    assert keepable(b"x" * 2000, 40_000) is None
    assert keepable(b"x" * (1 << 20) + b"x", 0) is None
    assert keepable(None, 1) is None
    assert [answer_room(calls) for calls in (0, 256, 1024)] == [1 << 18, 1 << 18, 1 << 16]


def test_a_call_is_described() -> None:
    """By its operation, its model and what was kept of it."""
    assert asked(CUT) == Question(
        operation_name="chat",
        model="gpt-4o",
        request=b"{}",
        answer=b"data: {",
        answer_kind="stream",
        answer_bytes=70,
    )


def test_a_call_without_an_answer_is_described_by_its_request() -> None:
    """The model may have been at work on it."""
    assert asked(SILENT, NOTHING) == Question(operation_name="chat", model="gpt-4o", request=b"{}")


@pytest.mark.parametrize("outcome", ["timeout", "client_disconnected", "interrupted"])
def test_a_request_that_was_left_alone_is_asked_about(outcome: str) -> None:
    """Whatever the status is that the proxy itself has answered."""
    assert asked(changed(SILENT, outcome=outcome, status=504), NOTHING) is not None


@pytest.mark.parametrize(
    ("closing", "seen"),
    [
        (changed(SILENT, outcome="upstream_error"), NOTHING),
        (changed(CUT, status=429), SEEN),
        (changed(CUT, usage_problem="usage_deferred"), SEEN),
        (CUT, Observation(failed=True, response_id="c", kept=Kept("json", b"{}", 2))),
        (CUT, Observation(failed=True, response_id="c")),
        (CUT, Observation(failed=True, kept=SEEN.kept)),
    ],
    ids=["no-answer", "refused", "deferred", "error", "condensed", "never-begun"],
)
def test_nothing_is_asked_where_nothing_is_billed(closing: Closing, seen: Observation) -> None:
    """Or where that is not known at all."""
    assert asked(closing, seen) is None


def test_a_stream_that_failed_after_it_had_begun_is_asked_about() -> None:
    """Its prompt was read, and what it said was made."""
    assert asked(CUT, Observation(failed=True, response_id="resp_1", kept=SEEN.kept)) is not None


def test_nothing_is_asked_about_what_nobody_can_estimate() -> None:
    """A list of models has no tokens."""
    assert asked(CUT, path="/v1/moderations") is None


@pytest.mark.parametrize(
    ("model", "is_asked"), [("gpt-4o-transcribe", True), ("whisper-1", False), (None, False)]
)
def test_of_the_models_of_audio_some_bill_no_tokens(model: str | None, *, is_asked: bool) -> None:
    """These are priced by seconds or characters."""
    opening = msgspec.structs.replace(OPENING, request_model=model)
    closing = changed(CUT, opening=opening, request_units=RequestUnits(audio_seconds=2.0))
    found = asked(closing, path="/v1/audio/transcriptions")
    assert (found is not None) is is_asked
    assert found is None or found.request_seconds == 2.0


def test_the_length_that_an_answer_tells_counts_more() -> None:
    """It has heard the file."""
    opening = msgspec.structs.replace(OPENING, request_model="gpt-4o-mini-tts")
    closing = changed(CUT, opening=opening, answer_units=AnswerUnits(audio_seconds=3.0))
    found = asked(closing, NOTHING, path="/v1/audio/speech")
    assert found is not None
    assert (found.request_seconds, found.answer_seconds) == (3.0, 3.0)


@pytest.mark.parametrize(
    ("model", "changes", "images"),
    [
        ("gpt-image-1", {"answer_units": AnswerUnits(images=3)}, 3),
        ("gpt-image-1", {"answer_units": AnswerUnits(), "request_units": None}, 1),
        ("gpt-image-1", {"answer_units": AnswerUnits()}, 2),
        ("gpt-image-1", {"answer_units": None}, None),
        ("gpt-image-2", {"answer_units": AnswerUnits(images=3)}, None),
        ("dall-e-3", {"answer_units": AnswerUnits(images=3)}, None),
    ],
)
def test_images_are_asked_about_where_their_tokens_are_published(
    model: str, changes: dict[str, Any], images: int | None
) -> None:
    """And where they came: of an answer that broke off nobody knows what was made."""
    opening = msgspec.structs.replace(OPENING, request_model=model)
    closing = changed(CUT, opening=opening, request_units=RequestUnits(images=2), outcome="ok")
    found = asked(changed(closing, **changes), NOTHING, "/v1/images/generations")
    assert (found and found.answer_images) == images

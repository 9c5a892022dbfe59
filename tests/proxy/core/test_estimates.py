"""An estimate has both sides of a call, and says what it could not count; a word is a token."""

import json
from typing import Any

import pytest

from proxy.core.estimates import Question, estimate
from proxy.core.model import Estimate

CHAT = json.dumps({"messages": [{"role": "user", "content": "hello there"}]}).encode()
ANSWER = b'{"choices":[{"index":0,"message":{"content":"a b c"}}]}'


def estimated(operation_name: str = "chat", **changes: Any) -> Estimate:
    """Return the estimate of a call."""
    question = Question(operation_name=operation_name, **changes)
    return estimate(question, lambda _, text: len(text.split()))


def test_both_sides_are_counted() -> None:
    """The prompt from the request, the completion from what came."""
    found = estimated(request=CHAT, answer=ANSWER, answer_bytes=len(ANSWER))
    assert found == Estimate(input_tokens=9, output_tokens=3)
    assert found.is_known


def test_each_model_has_its_vocabulary() -> None:
    """The older ones another."""
    used: list[str] = []

    def count(vocabulary: str, text: str) -> int:
        used.append(vocabulary)
        return len(text)

    estimate(Question(operation_name="chat", model="gpt-4-0613", request=CHAT), count)
    assert set(used) == {"cl100k_base"}


def test_what_was_not_kept_of_an_answer_is_extrapolated() -> None:
    """A quarter of it was kept, so it has four times as many tokens."""
    found = estimated(request=CHAT, answer=ANSWER, answer_bytes=4 * len(ANSWER))
    assert found == Estimate(input_tokens=9, output_tokens=12, note="answer_extrapolated")


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"request": CHAT}, "answer_not_seen"),
        ({"answer": ANSWER}, "request_too_large_to_be_kept"),
        ({"request": b"[]", "answer": ANSWER}, "request_not_read"),
        ({"request": CHAT, "answer": b'{"id":"a"}', "answer_kind": "json"}, "answer_not_read"),
        ({"request": CHAT, "answer": b"no JSON", "answer_kind": "json"}, "answer_not_read"),
    ],
)
def test_a_side_that_is_not_known_has_no_count(changes: dict[str, Any], note: str) -> None:
    """None, not 0."""
    found = estimated(**changes)
    known = (found.input_tokens is not None, found.output_tokens is not None)
    answered = changes.get("answer") == ANSWER
    assert (known, found.note) == ((not answered, answered), note)


def test_of_nothing_nothing_is_known() -> None:
    """It says why."""
    found = estimated()
    assert not found.is_known
    assert found.note == "request_too_large_to_be_kept,answer_not_seen"


def test_a_background_response_is_not_estimated() -> None:
    """It runs on, and tells its usage to whoever asks for it later."""
    request = b'{"input":"hello","background":true}'
    assert estimated("responses", request=request) == Estimate(note="usage_deferred")


def test_an_embedding_has_no_completion() -> None:
    """It has no output tokens, and misses none."""
    found = estimated("embeddings", request=b'{"input":"a b"}', answer=b"{}")
    assert found == Estimate(input_tokens=2)


@pytest.mark.parametrize(
    ("seconds", "found"),
    [
        (2.196, Estimate(input_tokens=21, output_tokens=3, audio_input_tokens=21)),
        (None, Estimate(output_tokens=3, note="audio_length_not_known")),
    ],
)
def test_a_transcription_is_counted_by_the_length_of_its_audio(
    seconds: float | None, found: Estimate
) -> None:
    """Ten tokens a second, as recorded traffic has it."""
    answer = b'{"text":"Hello friend."}'
    assert estimated("audio.transcriptions", answer=answer, request_seconds=seconds) == found


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (
            {"answer_seconds": 3.6},
            Estimate(input_tokens=2, output_tokens=93, audio_output_tokens=93),
        ),
        (
            {"answer_seconds": 3.0},
            Estimate(input_tokens=2, output_tokens=81, audio_output_tokens=81),
        ),
        ({}, Estimate(input_tokens=2, note="audio_length_not_known")),
        (
            {"answer_kind": "sound"},
            Estimate(
                input_tokens=2,
                output_tokens=36,
                audio_output_tokens=36,
                note="audio_length_assumed",
            ),
        ),
    ],
)
def test_speech_is_counted_by_how_long_it_plays(changes: dict[str, Any], found: Estimate) -> None:
    """Twenty tokens a second and some around them, as recorded traffic has it."""
    assert estimated("audio.speech", request=b'{"input":"hello there"}', **changes) == found


@pytest.mark.parametrize(
    ("asked", "tokens", "note"),
    [
        ({"size": "1024x1024", "quality": "high"}, 8320, None),
        ({"size": "1024x1024"}, None, "image_size_not_known"),
        ({"size": "auto", "quality": "low"}, None, "image_size_not_known"),
    ],
)
def test_images_are_counted_by_what_was_asked_for(
    asked: dict[str, str], tokens: int | None, note: str | None
) -> None:
    """Of what is left to the model nobody knows how many tokens it makes."""
    found = estimated(
        operation_name="images.generations",
        request=json.dumps({"prompt": "a sign", **asked}).encode(),
        answer_images=2,
    )
    assert found == Estimate(input_tokens=2 + 17, output_tokens=tokens, note=note)

"""Where an answer counts no tokens, the call itself tells what is billed."""

import pytest

from proxy.core.model import AnswerUnits, RequestUnits
from proxy.core.units import estimated_units, image_tokens, tokens_by_size


@pytest.mark.parametrize(
    ("operation_name", "asked", "told", "units"),
    [
        ("images.generations", RequestUnits(), None, {"image/standard/1024x1024": 1}),
        ("images.generations", None, AnswerUnits(images=1), None),
        (
            "images.edits",
            RequestUnits(images=3, size="512x512", quality="hd"),
            None,
            {"image/hd/512x512": 3},
        ),
        (
            "images.variations",
            RequestUnits(images=3, size="auto", quality="auto"),
            AnswerUnits(images=2),
            {"image/standard/1024x1024": 2},
        ),
        ("audio.speech", RequestUnits(characters=12), None, {"character": 12}),
        ("audio.speech", RequestUnits(), None, None),
        ("audio.transcriptions", RequestUnits(audio_seconds=1.2), None, {"audio_second": 2}),
        (
            "audio.translations",
            RequestUnits(audio_seconds=9.0),
            AnswerUnits(audio_seconds=5.49),
            {"audio_second": 6},
        ),
        ("audio.translations", None, AnswerUnits(audio_seconds=-1.0), None),
        ("audio.translations", None, None, None),
        ("chat", RequestUnits(characters=1), AnswerUnits(images=1), None),
    ],
)
def test_units_are_those_of_answer_and_request(
    operation_name: str,
    asked: RequestUnits | None,
    told: AnswerUnits | None,
    units: dict[str, int] | None,
) -> None:
    """The answer knows better; what a request leaves out is what the API takes."""
    assert estimated_units(operation_name, asked, told) == units


@pytest.mark.parametrize(
    ("operation_name", "request_bytes", "tokens"),
    [
        ("chat", 900, 150),
        ("chat", 1 << 17, None),
        ("responses", None, None),
        ("audio.speech", 900, None),
    ],
)
def test_the_size_of_a_request_tells_its_prompt_roughly(
    operation_name: str, request_bytes: int | None, tokens: int | None
) -> None:
    """Where it is text, and not too large to be something else."""
    assert tokens_by_size(operation_name, request_bytes) == tokens


def test_size_and_quality_tell_the_tokens_of_an_image() -> None:
    """Where both were asked for."""
    assert image_tokens("1024x1536", "high", 2) == 12480
    assert image_tokens("1536x1024", "low", 1) == 400
    assert image_tokens("auto", "high", 1) is None
    assert image_tokens("1024x1024", "", 1) is None

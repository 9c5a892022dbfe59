"""Estimate what a call used whose answer does not say: from its request and what came of an answer.

Pure: how a text is cut into tokens is given. What is estimated is what the API would have counted,
less what nobody outside can see: tokens read from cache count as fresh ones, thoughts not at all.
Where a side of the call is not known its count is None, and a note says why.
"""

from collections.abc import Callable
from math import ceil

import msgspec

from proxy.core import loose
from proxy.core.completions import count_answer
from proxy.core.families import family_of
from proxy.core.model import Estimate
from proxy.core.prompts import PROMPTS, forces_call
from proxy.core.tally import AUDIO_INPUT_TOKENS_PER_SECOND, Tally
from proxy.core.units import image_tokens

SPEECH = "audio.speech"
CHARACTERS_PER_SECOND = 15  # of a voice
SPEECH_TOKENS_PER_SECOND, SPEECH_TOKENS = 20, 21
HEARERS = frozenset(("audio.transcriptions", "audio.translations"))
ESTIMABLE = frozenset((*PROMPTS, *HEARERS))  # operations
WITHOUT_OUTPUT = frozenset(("embeddings",))

DEFERRED = "usage_deferred"  # it runs on, and tells its usage to whoever asks for it
REQUEST_NOT_KEPT = "request_too_large_to_be_kept"
REQUEST_NOT_READ = "request_not_read"
ANSWER_NOT_SEEN = "answer_not_seen"
ANSWER_NOT_READ = "answer_not_read"
ANSWER_PARTLY_KEPT = "answer_extrapolated"
IMAGE_NOT_KNOWN = "image_size_not_known"
LENGTH_ASSUMED = "audio_length_assumed"
LENGTH_NOT_KNOWN = "audio_length_not_known"
Counter = Callable[[str, str], int]


class Question(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What is known of a call without usage. It holds content: it is never written anywhere."""

    operation_name: str
    model: str = ""
    request: bytes | None = None  # None: it was too large to be kept
    answer: bytes | None = None  # decoded, from its beginning; None: none has been seen
    answer_kind: str = "json"  # or stream, text, sound
    answer_bytes: int = 0  # of all that came
    request_seconds: float | None = None  # of the audio that was uploaded
    answer_seconds: float | None = None  # of the audio that came
    answer_images: int | None = None  # that came


def estimate(question: Question, count: Counter) -> Estimate:
    """Return the estimate; `count` is given the name of a vocabulary and a text."""
    request = loose.decoded(question.request or b"")
    vocabulary = family_of(question.model).vocabulary

    def tokens(text: str) -> int:
        return count(vocabulary, text)

    if loose.at(request, "background") is True:
        return Estimate(note=DEFERRED)
    prompt, answer = Tally(tokens), Tally(tokens)
    has_prompt = _prompt(question, request, prompt)
    has_answer = _answer(question, request, answer)
    notes = dict.fromkeys((*prompt.notes, *answer.notes))
    return Estimate(
        input_tokens=prompt.tokens if has_prompt else None,
        output_tokens=answer.tokens if has_answer else None,
        audio_input_tokens=prompt.audio_tokens or None,
        audio_output_tokens=answer.audio_tokens or None,
        note=",".join(notes) or None,
    )


def _prompt(question: Question, request: object, tally: Tally) -> bool:
    """Count the prompt; tell whether that was possible."""
    if question.operation_name in HEARERS:
        return _heard(question.request_seconds, tally)
    if question.request is None:
        tally.note(REQUEST_NOT_KEPT)
        return False
    if not isinstance(request, dict):
        tally.note(REQUEST_NOT_READ)
        return False
    PROMPTS[question.operation_name](request, question.model, tally)
    return True


def _heard(seconds: float | None, tally: Tally) -> bool:
    if seconds is None:
        tally.note(LENGTH_NOT_KNOWN)
        return False
    tally.audio(int(seconds * AUDIO_INPUT_TOKENS_PER_SECOND))
    return True


def _answer(question: Question, request: object, tally: Tally) -> bool:
    """Count the answer; tell whether that was possible."""
    if question.operation_name in WITHOUT_OUTPUT:
        return False
    if question.operation_name == SPEECH:
        return _spoken(question, loose.text(request, "input"), tally)
    if question.answer_images is not None:
        return _painted(question.answer_images, request, tally)
    kept = question.answer
    if not kept:
        tally.note(ANSWER_NOT_SEEN)
        return False
    is_told = count_answer(
        question.operation_name,
        question.model,
        question.answer_kind,
        kept,
        tally,
        is_forced=forces_call(question.operation_name, request),
    )
    if not is_told:
        tally.note(ANSWER_NOT_READ)
        return False
    if question.answer_bytes > len(kept):
        tally.tokens = round(tally.tokens * question.answer_bytes / len(kept))
        tally.note(ANSWER_PARTLY_KEPT)
    return True


def _painted(count: int, request: object, tally: Tally) -> bool:
    """Count images by what was asked for; what is left to the model has no number."""
    size, quality = loose.text(request, "size"), loose.text(request, "quality")
    tokens = image_tokens(size, quality, count)
    if tokens is None:
        tally.note(IMAGE_NOT_KNOWN)
        return False
    tally.image(tokens)
    return True


def _spoken(question: Question, text: str, tally: Tally) -> bool:
    """Count speech by its length, or by that of its text where the sound does not tell it."""
    seconds = question.answer_seconds
    if seconds is None:
        if question.answer_kind != "sound" or not text:
            tally.note(LENGTH_NOT_KNOWN)
            return False
        tally.note(LENGTH_ASSUMED)
        seconds = len(text) / CHARACTERS_PER_SECOND
    tally.audio(ceil(seconds * SPEECH_TOKENS_PER_SECOND) + SPEECH_TOKENS)
    return True

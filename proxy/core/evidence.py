"""What is kept of a call in case its answer tells no usage, and the question that is asked then.

A call that tells its usage needs none of this, so what is kept must cost nothing on the way: a
request that was in memory anyway stays there by reference, a stream's first pieces are kept as they
came. A worker's calls share an allowance, so that many calls keep less each, and none keeps much.
"""

from proxy.core.estimates import ESTIMABLE, Question
from proxy.core.metering import CHARGED_STATUS, DEFERRED, Observation
from proxy.core.model import Closing, Outcome
from proxy.core.registry import Operation
from proxy.core.units import IMAGE_MAKERS, IMAGE_MODELS

REQUEST_BYTES = 1 << 20  # of one call
SMALL_BYTES = 1 << 14  # of one call; so much is always kept
ANSWER_BYTES = 1 << 18  # likewise; of a longer stream the rest is extrapolated
SHARED_BYTES = 1 << 26  # of all requests together, and once more of all answers
UNANSWERED = {Outcome.TIMEOUT, Outcome.CLIENT_DISCONNECTED, Outcome.INTERRUPTED}
BILLED_BY_TOKENS = "gpt-"  # among the models of audio; others are billed by other units


def keepable(body: bytes | None, calls: int) -> bytes | None:
    """Return a request's body if it may be kept while there are so many calls."""
    if body is None or len(body) > min(REQUEST_BYTES, SHARED_BYTES // max(calls, 1)):
        return None
    return body


def answer_room(calls: int) -> int:
    """Return how much of a stream may be kept while there are so many calls."""
    return min(ANSWER_BYTES, SHARED_BYTES // max(calls, 1))


def question(
    closing: Closing, operation: Operation, seen: Observation, body: bytes | None
) -> Question | None:
    """Return what is to be asked about a call without usage; None: there is nothing to ask."""
    if operation.name not in ESTIMABLE or not _is_charged(closing, seen):
        return None
    opening, asked, told = closing.opening, closing.request_units, closing.answer_units
    model = closing.response_model or opening.request_model or opening.deployment or ""
    if operation.api_type == "audio" and not model.startswith(BILLED_BY_TOKENS):
        return None
    images = None
    if operation.name in IMAGE_MAKERS:
        if model not in IMAGE_MODELS or told is None:
            return None
        images = told.images or (asked.images if asked else None) or 1
    heard = told.audio_seconds if told else None
    uploaded = asked.audio_seconds if asked else None
    return Question(
        operation_name=operation.name,
        model=model,
        request=body,
        answer=seen.kept.data if seen.kept else None,
        answer_kind=seen.kept.kind if seen.kept else "json",
        answer_bytes=seen.kept.size if seen.kept else 0,
        request_seconds=uploaded if heard is None else heard,
        answer_seconds=heard,
        answer_images=images,
    )


def _is_charged(closing: Closing, seen: Observation) -> bool:
    """Tell whether the upstream has probably counted tokens for this call."""
    if closing.usage_problem == DEFERRED:
        return False
    if seen.failed and not (seen.response_id and seen.kept and seen.kept.kind == "stream"):
        return False  # an error; a stream with an id had begun to be made before it failed
    if closing.time_to_first_byte_us is None:  # no answer has begun
        return closing.outcome in UNANSWERED
    return closing.status in CHARGED_STATUS

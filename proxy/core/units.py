"""What a call is billed by where its answer counts no tokens: images, characters, seconds.

The numbers come from the request and from the answer, so they are an estimate of what the provider
has counted. Whatever a request does not say is what the API takes then; of a request that nobody
could read nothing is assumed.
"""

from math import ceil

from proxy.core.model import AnswerUnits, RequestUnits

IMAGE_MAKERS = frozenset(("images.generations", "images.edits", "images.variations"))
HEARERS = frozenset(("audio.transcriptions", "audio.translations"))
SPEAKER = "audio.speech"
DEFAULT_SIZE = "1024x1024"
DEFAULT_QUALITY = "standard"
ASKED_NOTHING = RequestUnits()
TOLD_NOTHING = AnswerUnits()


def estimated_units(
    operation_name: str, asked: RequestUnits | None, told: AnswerUnits | None
) -> dict[str, int] | None:
    """Return the number of each component; None: it cannot be told."""
    told = told or TOLD_NOTHING
    if operation_name in IMAGE_MAKERS and asked is not None:
        size = DEFAULT_SIZE if asked.size in {None, "auto"} else asked.size
        quality = DEFAULT_QUALITY if asked.quality in {None, "auto"} else asked.quality
        count = next((n for n in (told.images, asked.images) if n is not None), 1)
        return {f"image/{quality}/{size}": count}
    asked = asked or ASKED_NOTHING
    if operation_name == SPEAKER and asked.characters is not None:
        return {"character": asked.characters}
    seconds = told.audio_seconds if told.audio_seconds is not None else asked.audio_seconds
    if operation_name in HEARERS and seconds is not None and 0 <= seconds < float("inf"):
        return {"audio_second": ceil(seconds)}  # whisper's own usage is rounded up
    return None

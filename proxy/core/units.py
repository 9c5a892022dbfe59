"""What a call is billed by where its answer counts no tokens: images, characters, seconds.

Of a call whose worker was killed nothing is left but its opening: the size of its request is then
the only thing that tells of its prompt, roughly.

The numbers come from the request and from the answer, so they are an estimate of what the provider
has counted. Whatever a request does not say is what the API takes then; of a request that nobody
could read nothing is assumed.
"""

from math import ceil

from proxy.core.model import AnswerUnits, RequestUnits

IMAGE_MAKERS = frozenset(("images.generations", "images.edits", "images.variations"))
HEARERS = frozenset(("audio.transcriptions", "audio.translations"))
OF_TEXT = frozenset(("chat", "text_completion", "responses", "responses.compact", "embeddings"))
BYTES_PER_TOKEN = 6  # of requests in JSON; docs/estimates.md says how rough that is
MOST_BYTES = 1 << 16  # a larger request may be an image, and its size says nothing
SPEAKER = "audio.speech"
IMAGE_TOKENS = {  # as OpenAI publishes them for these models, and as they have reported them
    ("low", "1024x1024"): 272,
    ("low", "1024x1536"): 408,
    ("low", "1536x1024"): 400,
    ("medium", "1024x1024"): 1056,
    ("medium", "1024x1536"): 1584,
    ("medium", "1536x1024"): 1568,
    ("high", "1024x1024"): 4160,
    ("high", "1024x1536"): 6240,
    ("high", "1536x1024"): 6208,
}
IMAGE_MODELS = ("gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5")
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


def image_tokens(size: str, quality: str, count: int) -> int | None:
    """Return the tokens of images; None: nobody can tell, for it was left to the model."""
    each = IMAGE_TOKENS.get((quality, size))
    return None if each is None else each * count


def tokens_by_size(operation_name: str, request_bytes: int | None) -> int | None:
    """Return how many tokens the prompt of a request may have; None: its size does not tell."""
    if operation_name not in OF_TEXT or request_bytes is None or request_bytes > MOST_BYTES:
        return None
    return request_bytes // BYTES_PER_TOKEN

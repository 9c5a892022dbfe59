"""What usage consists of: components that share no token, as price lists have them.

A provider's counts include their parts (cached tokens are among the input tokens, audio among
both), while each unit price is for what is left when the parts that have a price of their own are
taken off.
"""

from collections.abc import Mapping
from decimal import Decimal

from proxy.core.model import Usage
from proxy.errors import NoTokenCountError, UsageError

Quantities = Mapping[str, int | Decimal]

_LARGEST_COUNT = 10**12  # tokens; products stay within the 28 digits of decimal arithmetic


def decompose(usage: Usage) -> Quantities:
    """Split usage into components that share no token; those without tokens are left out."""
    if usage.input_tokens is None and usage.audio_seconds is not None:
        return _whole({"audio_second": usage.audio_seconds})
    if usage.input_tokens is None:
        raise NoTokenCountError
    cached = usage.cache_read_input_tokens or 0
    if (
        not usage.cache_write_input_tokens
        and not usage.audio_input_tokens
        and not usage.audio_output_tokens
        and not usage.image_input_tokens
        and not usage.image_output_tokens
        and not usage.cache_write_12h_input_tokens
        and not usage.cache_read_audio_input_tokens
        and not usage.cache_read_image_input_tokens
    ):
        return _of_text(usage.input_tokens, cached, usage.output_tokens or 0)
    written = usage.cache_write_input_tokens or 0
    written_12h = usage.cache_write_12h_input_tokens or 0
    cached_audio = usage.cache_read_audio_input_tokens or 0
    cached_image = usage.cache_read_image_input_tokens or 0
    audio = _rest("audio_input_tokens", usage.audio_input_tokens or 0, cached_audio)
    image = _rest("image_input_tokens", usage.image_input_tokens or 0, cached_image)
    audio_output = usage.audio_output_tokens or 0
    image_output = usage.image_output_tokens or 0
    output = usage.output_tokens or 0  # an embedding has none
    counts = {
        "input": _rest("input_tokens", usage.input_tokens, cached + written + audio + image),
        "cached_input": _rest("cache_read_input_tokens", cached, cached_audio + cached_image),
        "cache_write": _rest("cache_write_input_tokens", written, written_12h),
        "cache_write_12h": written_12h,
        "audio_input": audio,
        "cached_audio_input": cached_audio,
        "image_input": image,
        "cached_image_input": cached_image,
        "output": _rest("output_tokens", output, audio_output + image_output),
        "audio_output": audio_output,
        "image_output": image_output,
    }
    return {component: count for component, count in counts.items() if count}


def _of_text(read: int, cached: int, made: int) -> Quantities:
    """Split what nearly all calls are made of."""
    fresh = _rest("input_tokens", read, cached)
    _rest("output_tokens", made, 0)
    quantities = {}
    if fresh:
        quantities["input"] = fresh
    if cached:
        quantities["cached_input"] = cached
    if made:
        quantities["output"] = made
    return quantities


def _whole(quantities: Mapping[str, Decimal]) -> Quantities:
    """Return whole numbers where they are; nothing is left out."""
    return {c: int(n) if n == n.to_integral_value() else n for c, n in quantities.items() if n}


def _rest(name: str, whole: int, parts: int) -> int:
    if parts > whole:
        raise UsageError(f"{name} is {whole}, but its parts make {parts}")
    if whole > _LARGEST_COUNT:
        raise UsageError(f"{name} is {whole}; expected at most {_LARGEST_COUNT}")
    return whole - parts

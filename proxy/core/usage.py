"""Read a provider's usage object into one vocabulary, and refuse what is none.

Chat and completions say prompt and completion, Responses and images say input and output,
assistants and transcriptions spell `prompt_token_details` and `input_token_details` without an s: a
table knows all spellings. Whisper counts seconds. Members that no rule covers are tolerated (Azure
adds `latency_checkpoint`); those that count tokens are named in `unknown_members`, so that no sum
is made without them in silence.
"""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any

import msgspec

from proxy.core.model import Usage
from proxy.errors import UsageError

COUNT_LIMIT = 2**53  # what every JSON reader can hold exactly
SECONDS_LIMIT = 10**9

_UNKNOWN = ""
INSIDE = None  # a part of its total that has no price of its own
Rules = Mapping[str, "str | Rules | None"]  # the field that a member fills, or rules for its parts

TOTALS: Rules = {
    "prompt_tokens": "input_tokens",
    "input_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "output_tokens": "output_tokens",
    "total_tokens": "total_tokens",
}
INPUT_DETAILS: Rules = {
    "cached_tokens": "cache_read_input_tokens",
    "cache_write_tokens": "cache_write_input_tokens",
    "cache_write_tokens_details": {
        "ttl_12h_tokens": "cache_write_12h_input_tokens",
        "ttl_30m_tokens": INSIDE,
    },
    "audio_tokens": "audio_input_tokens",
    "image_tokens": "image_input_tokens",
    "text_tokens": INSIDE,
    "cached_tokens_details": {
        "audio_tokens": "cache_read_audio_input_tokens",
        "image_tokens": "cache_read_image_input_tokens",
        "text_tokens": INSIDE,
    },
}
OUTPUT_DETAILS: Rules = {
    "reasoning_tokens": "reasoning_output_tokens",
    "audio_tokens": "audio_output_tokens",
    "image_tokens": "image_output_tokens",
    "text_tokens": INSIDE,
    "accepted_prediction_tokens": INSIDE,
    "rejected_prediction_tokens": INSIDE,
}
MEMBERS: Rules = {
    **TOTALS,
    "cached_tokens": "cache_read_input_tokens",  # so `tool_usage.image_gen` has it
    "cached_tokens_details": {
        "cached_image_tokens": "cache_read_image_input_tokens",
        "cached_text_tokens": INSIDE,
    },
    "prompt_tokens_details": INPUT_DETAILS,
    "prompt_token_details": INPUT_DETAILS,
    "input_tokens_details": INPUT_DETAILS,
    "input_token_details": INPUT_DETAILS,
    "completion_tokens_details": OUTPUT_DETAILS,
    "completion_token_details": OUTPUT_DETAILS,
    "output_tokens_details": OUTPUT_DETAILS,
    "output_token_details": OUTPUT_DETAILS,
}

_Tokens = Annotated[int, msgspec.Meta(ge=0, lt=COUNT_LIMIT)] | None


class _Details(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    audio_tokens: _Tokens = None
    image_tokens: _Tokens = None
    text_tokens: _Tokens = None


class _Input(_Details, forbid_unknown_fields=True, gc=False):
    cached_tokens: _Tokens = None
    cache_write_tokens: _Tokens = None


class _Output(_Details, forbid_unknown_fields=True, gc=False):
    reasoning_tokens: _Tokens = None
    accepted_prediction_tokens: _Tokens = None
    rejected_prediction_tokens: _Tokens = None


class _Chat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What nearly all chats and completions say, read in one go; the rules say the same."""

    prompt_tokens: _Tokens = None
    completion_tokens: _Tokens = None
    total_tokens: _Tokens = None
    prompt_tokens_details: _Input | None = None
    completion_tokens_details: _Output | None = None


class _Response(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Likewise of responses, under the names that they have there."""

    prompt_tokens: _Tokens = msgspec.field(default=None, name="input_tokens")
    completion_tokens: _Tokens = msgspec.field(default=None, name="output_tokens")
    total_tokens: _Tokens = None
    prompt_tokens_details: _Input | None = msgspec.field(default=None, name="input_tokens_details")
    completion_tokens_details: _Output | None = msgspec.field(
        default=None, name="output_tokens_details"
    )


_NO_INPUT, _NO_OUTPUT = _Input(), _Output()
_read_chat = msgspec.json.Decoder(_Chat).decode
_read_response = msgspec.json.Decoder(_Response).decode


def read_usage(raw: bytes) -> Usage:
    """Return the token counts of a usage object as it came; UsageError where it is none."""
    return _ordinary(raw) or _by_rules(raw)


def _ordinary(raw: bytes) -> Usage | None:
    """Return what an object of one of the two usual shapes says; None: it is another one."""
    try:
        found = _read_chat(raw) if b'"prompt_tokens"' in raw else _read_response(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    prompt, completion, total = found.prompt_tokens, found.completion_tokens, found.total_tokens
    if prompt is None and completion is None and total is None:
        return None
    read = found.prompt_tokens_details or _NO_INPUT
    made = found.completion_tokens_details or _NO_OUTPUT
    return Usage(
        input_tokens=prompt,
        output_tokens=completion,
        total_tokens=total,
        cache_read_input_tokens=read.cached_tokens,
        cache_write_input_tokens=read.cache_write_tokens,
        audio_input_tokens=read.audio_tokens,
        image_input_tokens=read.image_tokens,
        reasoning_output_tokens=made.reasoning_tokens,
        audio_output_tokens=made.audio_tokens,
        image_output_tokens=made.image_tokens,
    )


def _by_rules(raw: bytes) -> Usage:
    try:
        members = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise UsageError(f"The usage is not JSON: {exc}") from exc
    if not isinstance(members, dict):
        raise UsageError(f"The usage is a {type(members).__name__}, expected an object.")
    counts: dict[str, int] = {}
    unknown: list[str] = []
    seconds = _seconds(members)
    _read(members, MEMBERS, "", counts, unknown)
    if seconds is None and counts.keys().isdisjoint(TOTALS.values()):
        raise UsageError(f"The usage counts no tokens; its members are {sorted(members)}.")
    return Usage(**counts, audio_seconds=seconds, unknown_members=tuple(unknown))


def itemised(usage: Usage, operation_name: str) -> Usage:
    """Return the usage with its output as what this operation makes, where it does not say."""
    if operation_name.startswith("images.") and usage.image_output_tokens is None:
        return replace(usage, image_output_tokens=usage.output_tokens)
    if operation_name == "audio.speech" and usage.audio_output_tokens is None:
        return replace(usage, audio_output_tokens=usage.output_tokens)
    return usage


def _read(
    members: Mapping[str, Any], rules: Rules, path: str, counts: dict[str, int], unknown: list[str]
) -> None:
    for name, value in members.items():
        rule = rules.get(name, _UNKNOWN)
        if rule is _UNKNOWN:
            _note_unknown(path + name, value, unknown)
        elif value is None:
            continue
        elif isinstance(rule, dict):  # quicker than to ask for a Mapping
            _read(_object(path + name, value), rule, f"{path}{name}.", counts, unknown)
        else:
            count = _count(path, name, value)
            if isinstance(rule, str) and counts.setdefault(rule, count) != count:
                raise UsageError(f"{path}{name} is {count}, but {rule} was already {counts[rule]}.")


def _seconds(members: Mapping[str, Any]) -> Decimal | None:
    """Return the length of the audio in a usage that counts no tokens: {"type": "duration", …}.

    A live session says nothing but its seconds.
    """
    if members.get("type") != "duration" and members.keys() != {"seconds"}:
        return None
    seconds: Any = members.get("seconds")
    if type(seconds) not in {int, float} or not 0 <= seconds < SECONDS_LIMIT:
        raise UsageError(f"seconds is {seconds!r:.40}, expected a number of seconds.")
    return Decimal(str(seconds)).normalize()


def _object(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where} is a {type(value).__name__}, expected an object.")
    return value


def _count(path: str, name: str, value: object) -> int:
    if type(value) is not int or not 0 <= value < COUNT_LIMIT:
        raise UsageError(f"{path}{name} is {value!r:.40}, expected a count of tokens.")
    return value


def _note_unknown(where: str, value: object, unknown: list[str]) -> None:
    """Name the token counts in a member that no rule covers, however deep they lie."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _note_unknown(f"{where}.{name}", inner, unknown)
    elif where.endswith("_tokens") and type(value) in {int, float} and value:
        unknown.append(where)

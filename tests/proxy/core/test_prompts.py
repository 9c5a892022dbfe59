"""A prompt is its texts and what the API puts around them; here a word is a token."""

import base64
import struct
from typing import Any

import pytest

from proxy.core.prompts import PROMPTS, forces_call
from proxy.core.tally import Tally

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 100, 100)).decode()
WAV = base64.b64encode(
    b"RIFF\x24\xf0\x00\x00WAVEfmt \x10\0\0\0\x01\0\x01\0"
    + struct.pack("<IIHH", 8000, 16000, 2, 16)
    + b"data"
    + struct.pack("<I", 32000)
    + bytes(32000)
).decode()
TOOL = {"name": "now"}
DECLARED = 17  # words of the declarations of that function
FREE = {"name": "a", "description": "b c"}
RULED = {"name": "a", "format": {"type": "grammar", "grammar": {"definition": "b c"}}}
SCHEMA = {"schema": {"type": "object", "required": [], "additionalProperties": False}}
USER = {"role": "user", "content": "hello there"}


def counted(operation_name: str, request: object, model: str = "gpt-4o") -> Tally:
    """Return what a request adds up to."""
    tally = Tally(lambda text: len(text.split()))
    PROMPTS[operation_name](request, model, tally)
    return tally


@pytest.mark.parametrize(
    ("request_", "model", "tokens"),
    [
        ({"messages": [USER]}, "gpt-4o", 3 + 1 + 2 + 3),
        ({"messages": [USER]}, "gpt-5", 3 + 1 + 2 + 2),
        ({"messages": [{**USER, "name": "ada"}]}, "gpt-4o", 9 + 2),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a b"}]}]}, "", 9),
        ({"messages": [{"role": "user", "content": [{"type": "refusal", "refusal": "a"}]}]}, "", 8),
        ({"messages": [None]}, "gpt-4o", 3 + 3),
        ({"messages": "none"}, "gpt-4o", 3),
        ({"messages": [USER], "tools": [{"function": TOOL}]}, "gpt-4o", 9 + DECLARED + 3),
        ({"messages": [USER], "functions": [TOOL]}, "gpt-4o", 9 + DECLARED + 3),
        ({"messages": [USER], "tools": [{"function": TOOL}]}, "gpt-5", 8 + DECLARED + 85),
        (
            {
                "messages": [{"role": "system"}],
                "tools": [{"function": TOOL}],
                "tool_choice": {"a": 1},
            },
            "gpt-4o",
            3 + 1 + 3 + DECLARED - 1 + 9,
        ),
        (
            {
                "messages": [USER],
                "response_format": {"json_schema": {"schema": {"type": "object"}}},
            },
            "gpt-4o",
            9 + 1 + 13,
        ),
        (
            {
                "messages": [USER],
                "response_format": {"json_schema": {"name": "a", "description": "b c", **SCHEMA}},
            },
            "gpt-5",
            8 + 1 + 1 + 2 + 16,
        ),
        ({"messages": [USER], "tools": [{"custom": FREE}]}, "gpt-4o", 9 + 3 + 38 + 3),
        ({"messages": [USER], "tools": [{"custom": FREE}]}, "gpt-5", 8 + 3 + 38 + 85),
        ({"messages": [USER], "tools": [{"custom": RULED}]}, "gpt-4o", 9 + 1 + 2 + 72 + 3),
        (
            {"messages": [USER], "tools": [{"function": TOOL}, {"custom": FREE}]},
            "gpt-4o",
            9 + DECLARED + 3 + 3 + 38,
        ),
    ],
)
def test_a_chat_is_counted(request_: object, model: str, tokens: int) -> None:
    """Three tokens around each message, and some more around the whole."""
    assert counted("chat", request_, model).tokens == tokens


def test_calls_of_functions_are_part_of_a_chat() -> None:
    """One has seven tokens around it, two together have more."""
    call = {"function": {"name": "now", "arguments": "{ }"}}
    one = {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]}
    two = {"messages": [{"role": "assistant", "tool_calls": [call, call]}]}
    old = {"messages": [{"role": "assistant", "function_call": call["function"]}]}
    free = {"custom": {"name": "now", "input": "a b"}}
    custom = {"messages": [{"role": "assistant", "tool_calls": [free]}]}
    tokens = [counted("chat", request).tokens for request in (one, two, old, custom)]
    assert tokens == [4 + 3 + 3 + 7, 4 + 6 + 3 + 28, 4 + 3 + 3 + 7, 4 + 3 + 3 + 7]


def test_images_are_counted_by_their_size_or_by_an_assumption() -> None:
    """What is behind a URL is not fetched."""
    parts: list[Any] = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]
    near = counted("chat", {"messages": [{"role": "user", "content": parts}]})
    parts = [{"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"}]
    far = counted("responses", {"input": [{"role": "user", "content": parts}]})
    assert (near.image_tokens, near.tokens, near.notes) == (255, 255 + 7, [])
    assert (far.image_tokens, far.tokens, far.notes) == (85, 85 + 7, [])
    parts[0]["detail"] = "auto"
    far = counted("responses", {"input": [{"role": "user", "content": parts}]})
    assert (far.image_tokens, far.tokens, far.notes) == (765, 765 + 7, ["image_size_assumed"])


@pytest.mark.parametrize(
    ("data", "tokens", "notes"),
    [
        (WAV, 20, []),
        ("AAAA", 0, ["audio_not_counted"]),
        ("A", 0, ["audio_not_counted"]),
        ("é", 0, ["audio_not_counted"]),
    ],
)
def test_audio_is_counted_by_its_length(data: str, tokens: int, notes: list[str]) -> None:
    """Two seconds are twenty tokens, where the file tells its length."""
    parts = [{"type": "input_audio", "input_audio": {"data": data}}]
    tally = counted("chat", {"messages": [{"role": "user", "content": parts}]})
    assert (tally.audio_tokens, tally.tokens, tally.notes) == (tokens, tokens + 7, notes)


@pytest.mark.parametrize(
    ("request_", "model", "tokens"),
    [
        ({"input": "hello there"}, "gpt-4o", 3 + 2 + 1 + 3),
        ({"input": "hello there", "instructions": "be kind"}, "gpt-4o", 9 + 3 + 1 + 2),
        ({"input": [USER]}, "gpt-5", 8),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{ }"}]}, "", 3 + 7 + 3),
        ({"input": [{"type": "function_call_output", "output": "a b"}]}, "gpt-4o", 3 + 1 + 2 + 3),
        ({"input": "a", "tools": [{"type": "function", **TOOL}]}, "gpt-4o", 8 + DECLARED + 1),
        ({"input": "a", "tools": [{"type": "function", **TOOL}]}, "gpt-5", 7 + DECLARED + 2),
        (
            {"input": [{"role": "developer"}], "tools": [{"type": "function", **TOOL}]},
            "gpt-4o",
            3 + 1 + 3 + DECLARED - 3,
        ),
        ({"input": "a", "text": {"format": {"schema": {"type": "object"}}}}, "gpt-4o", 8 + 1 + 7),
        ({"input": "a", "text": {"format": {"name": "a", **SCHEMA}}}, "gpt-5", 7 + 1 + 1 + 6),
        ({"input": "a", "tools": [{"type": "custom", **FREE}]}, "gpt-4o", 8 + 3 + 38),
        ({"input": [{"type": "custom_tool_call", "name": "f", "input": "a b"}]}, "", 3 + 7 + 3),
        ({"input": [{"type": "custom_tool_call_output", "output": "a"}]}, "", 3 + 1 + 1 + 3),
    ],
)
def test_a_response_is_counted(request_: object, model: str, tokens: int) -> None:
    """Its input is a text or a list of items."""
    assert counted("responses", request_, model).tokens == tokens


@pytest.mark.parametrize(
    ("operation_name", "request_", "note"),
    [
        ("responses", {"input": "a", "previous_response_id": "resp_1"}, "history_not_seen"),
        ("responses", {"input": "a", "conversation": {"id": "c"}}, "history_not_seen"),
        ("responses", {"input": "a", "tools": [{"type": "web_search"}]}, "hosted_tools_not_seen"),
        ("responses", {"input": [{"type": "reasoning"}]}, "item_not_counted"),
        ("chat", {"messages": [], "web_search_options": {}}, "hosted_tools_not_seen"),
        ("chat", {"messages": [], "tools": [{"custom": {"name": "a"}}]}, "custom_tools_assumed"),
        (
            "chat",
            {"messages": [{"role": "user", "content": [{"type": "file"}]}]},
            "file_not_counted",
        ),
    ],
)
def test_what_cannot_be_seen_is_named(operation_name: str, request_: object, note: str) -> None:
    """The estimate is then too low."""
    assert counted(operation_name, request_).notes == [note]


@pytest.mark.parametrize(
    ("operation_name", "request_", "tokens"),
    [
        ("text_completion", {"prompt": "a b", "suffix": "c"}, 3),
        ("text_completion", {"prompt": ["a b", "c"]}, 3),
        ("text_completion", {"prompt": [1, 2, 3, 4]}, 4),
        ("embeddings", {"input": [[1, 2], [3]]}, 3),
        ("embeddings", {"input": None}, 0),
        ("audio.speech", {"input": "say this", "instructions": "softly"}, 3),
        ("images.generations", {"prompt": "a stop sign"}, 3 + 17),
        ("responses.compact", {"input": "hello there"}, 9 + 93),
    ],
)
def test_the_other_operations_are_counted(
    operation_name: str, request_: object, tokens: int
) -> None:
    """Tokens that are sent as numbers stand for themselves."""
    assert counted(operation_name, request_).tokens == tokens


@pytest.mark.parametrize(
    ("operation_name", "choice", "is_forced"),
    [
        ("chat", {"type": "function", "function": {"name": "now"}}, True),
        ("chat", "required", False),
        ("responses", "required", True),
        ("responses", "auto", False),
    ],
)
def test_a_call_may_be_forced(operation_name: str, choice: object, *, is_forced: bool) -> None:
    """Then the model does not generate the name."""
    assert forces_call(operation_name, {"tool_choice": choice}) is is_forced

"""An answer is counted as far as it has come; here a word is a token."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.completions import count_answer
from proxy.core.tally import Tally

CHAT = {
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "a b c"}},
        {"index": 1, "message": {"role": "assistant", "content": "d", "refusal": "e f"}},
    ]
}
RESPONSE = {
    "output": [
        {"type": "reasoning"},
        {"type": "message", "content": [{"text": "a b"}, {"refusal": "c"}]},
        {"type": "function_call", "name": "now", "arguments": "{ }"},
    ]
}


def counted(
    operation_name: str,
    kind: str,
    answer: bytes,
    model: str = "gpt-4o",
    *,
    is_forced: bool = False,
) -> Tally:
    """Return what an answer adds up to."""
    tally = Tally(lambda text: len(text.split()))
    count_answer(operation_name, model, kind, answer, tally, is_forced=is_forced)
    return tally


def whole(answer: object) -> bytes:
    """Return an answer that is one JSON object."""
    return json.dumps(answer).encode()


def stream(*events: object) -> bytes:
    """Return an answer that is an event stream."""
    return b"".join(b"data: " + whole(event) + b"\n\n" for event in events) + b"data: [DONE]\n\n"


def delta(index: int = 0, **members: object) -> dict[str, object]:
    """Return a chunk of a chat completion."""
    return {"choices": [{"index": index, "delta": members}]}


@pytest.mark.parametrize(
    ("model", "tokens", "notes"),
    [
        ("gpt-4o", 6, []),
        ("gpt-5.2", 6 + 2 * 3, []),
        ("gpt-5", 6 + 2 * 9, ["reasoning_not_seen"]),
        ("o1-mini", 6, ["reasoning_not_seen"]),
    ],
)
def test_a_chat_is_counted(model: str, tokens: int, notes: list[str]) -> None:
    """Newer models have something around each reply."""
    tally = counted("chat", "json", whole(CHAT), model)
    assert (tally.tokens, tally.notes) == (tokens, notes)


def test_pieces_of_a_stream_are_put_together_before_they_are_counted() -> None:
    """Half a word is no token."""
    answer = stream(
        delta(role="assistant", content=""),
        delta(content="wo"),
        delta(1, content="other"),
        delta(content="rd two"),
        delta(reasoning_content="hm"),
    )
    assert counted("chat", "stream", answer).tokens == 2 + 1 + 1


def test_a_stream_that_breaks_off_is_counted_up_to_there() -> None:
    """In the middle of an event, too."""
    answer = stream(delta(content="one two "), delta(content="three four"))
    cut = answer[: answer.index(b"four") + 2]
    assert counted("chat", "stream", cut).tokens == 4
    assert counted("chat", "stream", b"data: {").tokens == 0


def test_calls_of_functions_are_counted_by_name_and_arguments() -> None:
    """They come in pieces, several at once."""
    answer = stream(
        delta(tool_calls=[{"index": 0, "function": {"name": "now", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": "{ "}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": "}"}}]),
        delta(tool_calls=[{"index": 1, "function": {"name": "then", "arguments": "{}"}}]),
    )
    assert counted("chat", "stream", answer).tokens == 1 + 2 + 1 + 1 + 28
    assert counted("chat", "stream", answer, is_forced=True).tokens == 2 + 1
    custom = stream(
        delta(tool_calls=[{"index": 0, "custom": {"name": "now", "input": "a "}}]),
        delta(tool_calls=[{"index": 0, "custom": {"input": "b"}}]),
    )
    assert counted("chat", "stream", custom).tokens == 1 + 2 + 7


def test_the_old_form_of_a_call_is_one() -> None:
    """From before there were tools."""
    call = {"name": "now", "arguments": "{ }"}
    answer = whole({"choices": [{"index": 0, "message": {"function_call": call}}]})
    assert counted("chat", "json", answer).tokens == 3 + 7


def test_completions_are_counted_by_choice() -> None:
    """Without anything around them."""
    answer = stream(
        {"choices": [{"index": 0, "text": "a b"}]},
        {"choices": [{"index": 1, "text": "c"}, {"index": 0, "text": " d"}]},
    )
    assert counted("text_completion", "stream", answer).tokens == 4


@pytest.mark.parametrize(
    ("model", "is_forced", "tokens"),
    [
        ("gpt-4o", False, 3 + 3 + 1 + 7),
        ("gpt-4o", True, 3 + 2 + 1),
        ("gpt-5.2", False, 3 + 3 + 6 + 7),
    ],
)
def test_a_response_is_counted(model: str, tokens: int, *, is_forced: bool) -> None:
    """Thoughts are billed and not in the text, so that much is named."""
    tally = counted("responses", "json", whole(RESPONSE), model, is_forced=is_forced)
    assert (tally.tokens, tally.notes) == (tokens, ["reasoning_not_seen"])


def test_events_of_a_response_are_put_together() -> None:
    """The last event repeats the whole, and is not counted again."""
    answer = stream(
        {"type": "response.created", "response": {"output": []}},
        {"type": "response.output_item.added", "item": {"type": "message"}},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "wo"},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "rd two"},
        {"type": "response.output_item.added", "item": {"type": "function_call", "name": "now"}},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{}"},
        {"type": "response.completed", "response": RESPONSE},
    )
    tally = counted("responses", "stream", answer, "gpt-5.2")
    assert (tally.tokens, tally.notes) == (2 + 1 + 1 + 4 + 7, [])


def test_a_response_without_an_event_is_nothing() -> None:
    """Not even what stands around it."""
    assert counted("responses", "stream", b": ping\n\n").tokens == 0


def test_calls_of_hosted_tools_are_named() -> None:
    """What they found is not in the answer."""
    answer = whole({"output": [{"type": "web_search_call"}]})
    assert counted("responses", "json", answer).notes == ["output_not_counted"]


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("text", b"hello there\n"),
        ("text", b"1\n00:00:00,000 --> 00:00:02,000\nhello there\n\n"),
        ("text", b"WEBVTT\n\n00:00.000 --> 00:02.000\nhello there\n"),
        ("json", whole({"text": "hello there"})),
        (
            "stream",
            stream(
                {"type": "transcript.text.delta", "delta": "hello"},
                {"type": "transcript.text.delta", "delta": " there"},
                {"type": "transcript.text.done", "text": "hello there"},
            ),
        ),
    ],
)
def test_a_transcript_is_counted_without_its_cues(kind: str, answer: bytes) -> None:
    """When something was said is not what was said."""
    assert counted("audio.transcriptions", kind, answer).tokens == 3


def test_an_operation_whose_answers_nobody_knows_counts_nothing() -> None:
    """Rather than something wrong."""
    assert counted("decisions", "json", whole(CHAT)).tokens == 0


@given(st.sampled_from(["stream", "json", "text"]), st.integers(0, 400), st.binary(max_size=20))
def test_nothing_raises(kind: str, end: int, noise: bytes) -> None:
    """Wherever an answer is cut, and whatever stands there."""
    answer = stream(delta(content="a"), delta(tool_calls=[{"function": {"name": "f"}}]))
    for operation_name in ("chat", "responses", "text_completion", "audio.translations"):
        counted(operation_name, kind, answer[:end] + noise)
        counted(operation_name, kind, whole(RESPONSE)[:end])

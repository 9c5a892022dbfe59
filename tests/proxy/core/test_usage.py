"""Usage objects of every API come out in one vocabulary, and nothing is guessed."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.model import Usage
from proxy.core.usage import INPUT_DETAILS, MEMBERS, OUTPUT_DETAILS, itemised, read_usage
from proxy.errors import UsageError

OBJECTS: dict[str, tuple[str, Usage]] = {
    "chat": (
        """{"prompt_tokens":1224,"completion_tokens":345,"total_tokens":1569,
        "prompt_tokens_details":{"cached_tokens":1024,"cache_write_tokens":7,"audio_tokens":0},
        "completion_tokens_details":{"reasoning_tokens":64,"audio_tokens":3,
        "accepted_prediction_tokens":5,"rejected_prediction_tokens":2,"text_tokens":340}}""",
        Usage(
            input_tokens=1224,
            output_tokens=345,
            total_tokens=1569,
            cache_read_input_tokens=1024,
            cache_write_input_tokens=7,
            audio_input_tokens=0,
            reasoning_output_tokens=64,
            audio_output_tokens=3,
        ),
    ),
    "responses": (
        """{"input_tokens":300,"input_tokens_details":{"cached_tokens":100,
        "cache_write_tokens":60,"cache_write_tokens_details":{"ttl_30m_tokens":20,
        "ttl_12h_tokens":40}},"output_tokens":9,
        "output_tokens_details":{"reasoning_tokens":0},"total_tokens":309}""",
        Usage(
            input_tokens=300,
            output_tokens=9,
            total_tokens=309,
            cache_read_input_tokens=100,
            cache_write_input_tokens=60,
            cache_write_12h_input_tokens=40,
            reasoning_output_tokens=0,
        ),
    ),
    "embeddings": (
        '{"prompt_tokens":11,"total_tokens":11}',
        Usage(input_tokens=11, total_tokens=11),
    ),
    "assistants, spelled without an s": (
        '{"prompt_tokens":5,"prompt_token_details":{"cached_tokens":4},"completion_tokens":1}',
        Usage(input_tokens=5, output_tokens=1, cache_read_input_tokens=4),
    ),
    "realtime": (
        """{"total_tokens":60,"input_tokens":50,"output_tokens":10,"input_token_details":
        {"text_tokens":10,"audio_tokens":30,"image_tokens":10,"cached_tokens":20,
        "cached_tokens_details":{"text_tokens":1,"audio_tokens":15,"image_tokens":4}},
        "output_token_details":{"text_tokens":4,"audio_tokens":6}}""",
        Usage(
            input_tokens=50,
            output_tokens=10,
            total_tokens=60,
            cache_read_input_tokens=20,
            audio_input_tokens=30,
            cache_read_audio_input_tokens=15,
            image_input_tokens=10,
            cache_read_image_input_tokens=4,
            audio_output_tokens=6,
        ),
    ),
    "images": (
        """{"input_tokens":9,"input_tokens_details":{"image_tokens":0,"text_tokens":9},
        "output_tokens":272,"output_tokens_details":{"image_tokens":196,"text_tokens":76}}""",
        Usage(input_tokens=9, output_tokens=272, image_input_tokens=0, image_output_tokens=196),
    ),
    "null is unknown": (
        '{"prompt_tokens":5,"completion_tokens":null,"prompt_tokens_details":null}',
        Usage(input_tokens=5),
    ),
    "null is unknown beside what no rule knows": (
        '{"prompt_tokens":5,"completion_tokens":null,"note":"x"}',
        Usage(input_tokens=5),
    ),
    "Azure's timings are tolerated": (
        '{"prompt_tokens":5,"latency_checkpoint":{"engine_ttft_ms":80},"note":"x","x_tokens":0}',
        Usage(input_tokens=5),
    ),
    "unknown counts are named": (
        """{"prompt_tokens":5,"video_tokens":3,"more":{"deep":{"smell_tokens":1.5}},
        "prompt_tokens_details":{"touch_tokens":2,"odd_tokens":"many","true_tokens":true}}""",
        Usage(
            input_tokens=5,
            unknown_members=(
                "video_tokens",
                "more.deep.smell_tokens",
                "prompt_tokens_details.touch_tokens",
            ),
        ),
    ),
    "the same said twice": (
        '{"prompt_tokens":5,"input_tokens":5,"total_tokens":9007199254740991}',
        Usage(input_tokens=5, total_tokens=2**53 - 1),
    ),
}

NOT_USAGE = {
    "not JSON": b"{",
    "not UTF-8": b'{"prompt_tokens":1,"x":"\xff"}',
    "no object": b"[1]",
    "null": b"null",
    "nothing counted": b"{}",
    "no length of audio": b'{"type":"duration"}',
    "a truth for a length": b'{"type":"duration","seconds":true}',
    "a negative length": b'{"type":"duration","seconds":-1}',
    "an absurd length": b'{"type":"duration","seconds":1e300}',
    "only a detail": b'{"prompt_tokens_details":{"cached_tokens":4}}',
    "a negative count": b'{"prompt_tokens":-1}',
    "a fraction": b'{"prompt_tokens":1.5}',
    "a truth": b'{"prompt_tokens":true}',
    "a word": b'{"prompt_tokens":"12"}',
    "too large to be exact": b'{"prompt_tokens":9007199254740992}',
    "an odd part of the total": b'{"prompt_tokens":1,"prompt_tokens_details":{"text_tokens":-2}}',
    "details that are none": b'{"prompt_tokens":1,"prompt_tokens_details":[]}',
    "two contradicting counts": b'{"prompt_tokens":1,"input_tokens":2}',
    "far too deep": b'{"prompt_tokens":1,"x":' + b"[" * 100_000,
}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_usage_object_is_read(name: str) -> None:
    """Totals, and the parts that have prices of their own, under one name each."""
    raw, usage = OBJECTS[name]
    assert read_usage(raw.encode()) == usage


@pytest.mark.parametrize("name", NOT_USAGE)
def test_what_is_no_usage_is_refused(name: str) -> None:
    """A row without a sum is visible; a row with a wrong one is not."""
    with pytest.raises(UsageError):
        read_usage(NOT_USAGE[name])


@pytest.mark.parametrize(
    ("raw", "seconds"), [(b"2", "2"), (b"2.0", "2"), (b"1.70", "1.7"), (b"0", "0")]
)
def test_whisper_counts_seconds(raw: bytes, seconds: str) -> None:
    """They are billed by the minute, and rounded up by whoever bills."""
    usage = read_usage(b'{"type":"duration","seconds":' + raw + b"}")
    assert usage == Usage(audio_seconds=Decimal(seconds))


@pytest.mark.parametrize(
    ("operation_name", "field"),
    [
        ("images.edits", "image_output_tokens"),
        ("audio.speech", "audio_output_tokens"),
        ("chat", None),
    ],
)
def test_output_without_details_is_what_the_operation_makes(
    operation_name: str, field: str | None
) -> None:
    """Usage of images and of speech may come as two totals."""
    made = {field: 9} if field else {}
    usage = Usage(input_tokens=1, output_tokens=9)
    expected = Usage(input_tokens=1, output_tokens=9, **made)  # type: ignore[arg-type]
    assert itemised(usage, operation_name) == expected
    told = Usage(input_tokens=1, output_tokens=9, image_output_tokens=4, audio_output_tokens=5)
    assert itemised(told, operation_name) == told


def test_a_refusal_names_the_value_and_what_was_expected() -> None:
    """Whoever reads it knows which member to look at."""
    with pytest.raises(UsageError, match=r"prompt_tokens is '12', expected a count of tokens"):
        read_usage(b'{"prompt_tokens":"12"}')
    with pytest.raises(UsageError, match=r"input_tokens is 2, but input_tokens was already 1"):
        read_usage(b'{"prompt_tokens":1,"input_tokens":2}')


@given(st.binary(max_size=60))
def test_no_bytes_give_another_error(raw: bytes) -> None:
    """Whatever a provider sends, the recorder has one exception to catch."""
    with pytest.raises(UsageError):
        read_usage(raw)


NUMBERS = st.none() | st.integers(-1, 5) | st.just(2**53) | st.just(1.5) | st.booleans()
DETAILS = st.dictionaries(st.sampled_from([*INPUT_DETAILS, *OUTPUT_DETAILS, "more"]), NUMBERS)
USAGES = st.dictionaries(st.sampled_from([*MEMBERS, "more"]), NUMBERS | DETAILS)


@given(usage=USAGES)
def test_an_ordinary_object_says_what_the_rules_say(usage: dict[str, object]) -> None:
    """A member that no rule knows changes nothing, and sends an object past the short way."""
    try:
        expected = read_usage(json.dumps({"latency_checkpoint": {}, **usage}).encode())
    except UsageError:
        with pytest.raises(UsageError):
            read_usage(json.dumps(usage).encode())
    else:
        assert read_usage(json.dumps(usage).encode()) == expected

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.components import decompose
from proxy.core.model import Usage
from proxy.errors import NoTokenCountError, UsageError

COUNTS = st.integers(0, 10**7)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Draw a usage whose parts fit into their totals."""
    audio, image, fresh = draw(COUNTS), draw(COUNTS), draw(COUNTS)
    cached_audio, cached_image = draw(st.integers(0, audio)), draw(st.integers(0, image))
    cached, written = draw(COUNTS), draw(COUNTS)
    audio_output, image_output, text_output = draw(COUNTS), draw(COUNTS), draw(COUNTS)
    return Usage(
        input_tokens=fresh + cached + written + audio + image,
        cache_read_input_tokens=cached + cached_audio + cached_image,
        cache_write_input_tokens=written,
        cache_write_12h_input_tokens=draw(st.integers(0, written)),
        audio_input_tokens=audio,
        cache_read_audio_input_tokens=cached_audio,
        image_input_tokens=image,
        cache_read_image_input_tokens=cached_image,
        output_tokens=text_output + audio_output + image_output,
        audio_output_tokens=audio_output,
        image_output_tokens=image_output,
    )


def test_components_share_no_token() -> None:
    """Totals include their parts: subtract, never add."""
    usage = Usage(
        input_tokens=1000,
        cache_read_input_tokens=300,
        cache_write_input_tokens=100,
        cache_write_12h_input_tokens=40,
        audio_input_tokens=200,
        cache_read_audio_input_tokens=50,
        image_input_tokens=90,
        cache_read_image_input_tokens=20,
        output_tokens=500,
        reasoning_output_tokens=450,
        audio_output_tokens=30,
        image_output_tokens=7,
    )
    assert decompose(usage) == {
        "input": 380,
        "cached_input": 230,
        "cache_write": 60,
        "cache_write_12h": 40,
        "audio_input": 150,
        "cached_audio_input": 50,
        "image_input": 70,
        "cached_image_input": 20,
        "output": 463,
        "audio_output": 30,
        "image_output": 7,
    }


@pytest.mark.parametrize(
    ("usage", "message"),
    [
        (
            Usage(input_tokens=10, cache_read_input_tokens=11),
            "input_tokens is 10, but its parts make 11",
        ),
        (
            Usage(input_tokens=0, output_tokens=5, audio_output_tokens=6),
            "output_tokens is 5, but its parts make 6",
        ),
        (
            Usage(input_tokens=9, audio_input_tokens=1, cache_read_audio_input_tokens=2),
            "audio_input_tokens is 1, but its parts make 2",
        ),
        (
            Usage(input_tokens=9, image_input_tokens=1, cache_read_image_input_tokens=2),
            "image_input_tokens is 1, but its parts make 2",
        ),
        (
            Usage(input_tokens=9, audio_input_tokens=1, cache_read_audio_input_tokens=1),
            "cache_read_input_tokens is 0, but its parts make 1",
        ),
        (
            Usage(input_tokens=9, cache_write_12h_input_tokens=1),
            "cache_write_input_tokens is 0, but its parts make 1",
        ),
        (
            Usage(input_tokens=10**13),
            "input_tokens is 10000000000000; expected at most 1000000000000",
        ),
    ],
)
def test_usage_that_contradicts_itself_is_refused_with_both_numbers(
    usage: Usage, message: str
) -> None:
    """A negative rest would be a discount that nobody gave."""
    with pytest.raises(UsageError) as caught:
        decompose(usage)
    assert str(caught.value) == message


@given(usages())
def test_components_add_up_to_the_totals(usage: Usage) -> None:
    """No token is lost, none is counted twice, and no component is empty."""
    quantities = decompose(usage)
    assert sum(quantities.values()) == (usage.input_tokens or 0) + (usage.output_tokens or 0)
    assert all(quantities.values())


@given(COUNTS, COUNTS, COUNTS)
def test_text_alone_is_split_like_everything_else(fresh: int, cached: int, made: int) -> None:
    """Most calls take a shorter way; parts that are 0 take the long one."""
    short = Usage(input_tokens=fresh + cached, cache_read_input_tokens=cached, output_tokens=made)
    parts = {"input": fresh, "cached_input": cached, "output": made}
    assert decompose(short) == {name: count for name, count in parts.items() if count}


@pytest.mark.parametrize(
    ("seconds", "parts"),
    [("2.5", {"audio_second": Decimal("2.5")}), ("60", {"audio_second": 60}), ("0", {})],
)
def test_audio_may_be_billed_by_its_length(seconds: str, parts: dict[str, object]) -> None:
    """Then there are no tokens."""
    assert decompose(Usage(audio_seconds=Decimal(seconds))) == parts


def test_usage_without_tokens_and_length_is_no_usage() -> None:
    """What is unknown is not 0."""
    with pytest.raises(NoTokenCountError):
        decompose(Usage(output_tokens=7))

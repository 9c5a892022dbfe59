"""What adds up to an estimate."""

from proxy.core.tally import Tally


def test_everything_is_in_the_sum_and_parts_are_told_apart() -> None:
    """Images and audio have prices of their own."""
    tally = Tally(len)
    tally.text("four")
    tally.text("")
    tally.add(3)
    tally.image(85)
    tally.audio(20)
    assert (tally.tokens, tally.image_tokens, tally.audio_tokens) == (112, 85, 20)


def test_a_gap_is_named_once() -> None:
    """However many images are behind a URL."""
    tally = Tally(len)
    tally.note("gap")
    tally.note("gap")
    assert tally.notes == ["gap"]


def test_calls_have_something_around_them() -> None:
    """Several at once have more than each of them."""
    assert [called(number) for number in range(4)] == [0, 7, 28, 37]


def called(number: int) -> int:
    """Return what stands around so many calls."""
    tally = Tally(len)
    tally.calls(number)
    return tally.tokens

"""Half a character in a text does not make the rest of it unreadable."""

import msgspec
import pytest

from proxy.core.mending import UNREADABLE, read

TEXTS = {
    "nothing odd": (b'"a\\n\\u00e4"', "a\nä"),
    "a whole pair": (b'"\\ud83d\\uDE00"', "\N{GRINNING FACE}"),
    "a first half": (b'"x\\ud83d"', "x\ufffd"),
    "a first half and text": (b'"\\uD83Dabcdef"', "\ufffdabcdef"),
    "a second half": (b'"\\udE00 \\ud83d\\ude00"', "\ufffd \N{GRINNING FACE}"),
    "two first halves": (b'"\\ud83d\\ud83d\\ude00"', "\ufffd\N{GRINNING FACE}"),
    "only a backslash and letters": (b'"\\ud83d \\\\ud83d"', "\ufffd \\ud83d"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_halves_are_read_as_replacements(name: str) -> None:
    """And what is none is read as it is."""
    text, expected = TEXTS[name]
    assert read(msgspec.json.decode, text) == expected


def test_offsets_in_a_mended_text_are_those_of_the_text() -> None:
    """So that bytes can be put into the one by looking at the other."""
    text = b'{"a":"\\ud83d","b":1}'
    assert len(read(bytes_if_json, text)) == len(text)


def bytes_if_json(text: bytes) -> bytes:
    """Return the text that a decoder took."""
    msgspec.json.decode(text)
    return text


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"a":"\\ud83d"', b'{"a":"\0\\ud83d"}', b"[" * 100_000, b'"\xff"']
)
def test_what_cannot_be_mended_is_refused(text: bytes) -> None:
    """With one of the errors that callers expect."""
    with pytest.raises(UNREADABLE):
        read(msgspec.json.decode, text)

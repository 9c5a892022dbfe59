"""JSON of which nothing is promised is read as far as it goes, and nothing in it surprises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import loose


def test_what_is_not_there_is_nothing() -> None:
    """A request may hold anything anywhere."""
    value = {"a": {"b": "text", "c": [1], "d": {"e": 1}}, "n": None}
    assert loose.text(value, "a", "b") == "text"
    assert loose.items(value, "a", "c") == [1]
    assert loose.members(value, "a", "d") == {"e": 1}
    assert (loose.text(value, "a"), loose.text(value, "n", "b")) == ("", "")
    assert (loose.items(value, "a"), loose.members(value, "n"), loose.at([], "a")) == ([], {}, None)


def test_a_text_that_is_no_json_says_nothing() -> None:
    """Unlike an empty object."""
    assert loose.decoded(b"{") is None
    assert loose.decoded(b'\xef\xbb\xbf{"a":"\\ud83d"}') == {"a": "\ufffd"}


@pytest.mark.parametrize(
    ("cut", "found"),
    [
        (b'{"a":"wor', {"a": "wor"}),
        (b'{"a":"w\\u00e', {"a": "w"}),
        (b'{"a":"w\\', {"a": "w"}),
        (b'{"a":"w\\"', {"a": 'w"'}),
        (b'{"a":"\xe2\x82', {"a": ""}),
        (b'{"a":[{"b":1},{"c":"x"', {"a": [{"b": 1}, {"c": "x"}]}),
        (b'{"a":1,"b":', {"a": 1, "b": None}),
        (b'{"a":1,"b"', {"a": 1, "b": None}),
        (b'{"a":1, ', {"a": 1}),
        (b'{"a":1,"b":tr', {"a": 1}),
        (b"tr", None),
        (b"]", None),
    ],
)
def test_an_answer_that_breaks_off_is_closed_where_it_broke(cut: bytes, found: object) -> None:
    """What was generated up to there is billed."""
    assert loose.decoded_as_far(cut) == found


@given(st.binary(max_size=60), st.integers(0, 60))
def test_nothing_raises(noise: bytes, end: int) -> None:
    """Whatever comes, cut anywhere."""
    loose.decoded_as_far(noise)
    whole = b'{"choices":[{"message":{"content":"caf\xc3\xa9 \\n\\u20ac"},"index":0}]}'
    loose.decoded_as_far(whole[:end])

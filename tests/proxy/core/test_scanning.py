"""Top-level members are found where they stand, and large bodies are kept small."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.scanning import MAX_TOKENS, BodyKeeper, members_of

SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.just('}"]\\')
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=6)
STYLES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"separators": (",", ":")}, {"indent": 1}, {"ensure_ascii": False}]
)


def text_of(value: object, style: dict[str, Any]) -> bytes:
    """Write JSON in one of many ways."""
    return json.dumps(value, **style).encode(errors="replace")


def kept(body: bytes, cuts: list[int], *, max_bytes: int, max_value_bytes: int) -> bytes | None:
    """Return what is kept of a body that comes in pieces."""
    keeper = BodyKeeper(max_bytes=max_bytes, max_value_bytes=max_value_bytes)
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in pairwise(edges):
        keeper.feed(body[start:end])
    return keeper.finish()


@given(OBJECTS, STYLES)
def test_members_are_found_at_their_offsets(value: dict[str, Any], style: dict[str, Any]) -> None:
    """Key and value, cut out by their offsets, are what a decoder reads."""
    text = b" " + text_of(value, style) + b"\n"
    found = {
        json.loads(member.key): json.loads(text[member.value_start : member.value_end])
        for member in members_of(text)
    }
    assert found == json.loads(text)


def test_a_nested_object_is_read_from_its_offset() -> None:
    """The members of a member are found in the same text."""
    text = b'\xef\xbb\xbf{"a" : {"b":[{}], "c":-1.5e3} }'
    (outer,) = members_of(text)
    inner = members_of(text, outer.value_start)
    assert [(m.key, text[m.value_start : m.value_end]) for m in inner] == [
        (b'"b"', b"[{}]"),
        (b'"c"', b"-1.5e3"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b'{"a"}',
        b'{"a":',
        b'{"a":[}',
        b'{"a":[1',
        b'{"a":1',
        b'{"a":"b',
        b'{"a":1 "b":2}',
    ],
)
def test_what_is_no_object_is_refused(text: bytes) -> None:
    """Nothing is cut by offsets that were guessed."""
    with pytest.raises(ValueError, match="No JSON object: byte"):
        members_of(text)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_a_small_body_is_kept_as_it_is(body: bytes, cuts: list[int]) -> None:
    """Only what is large is worth looking into."""
    assert kept(body, cuts, max_bytes=200, max_value_bytes=10) == body


@given(OBJECTS, STYLES, st.lists(st.integers(0, 1 << 12)))
def test_a_large_body_keeps_its_small_members(
    value: dict[str, Any], style: dict[str, Any], cuts: list[int]
) -> None:
    """Whatever the chunks, small values stay and large ones become null."""
    value = {key[:20]: inner for key, inner in value.items()} | {"end": 1, "large": ["x" * 4000]}
    text = text_of(value, style)
    condensed = kept(text, cuts, max_bytes=3000, max_value_bytes=300)
    assert condensed is not None
    for key, inner in json.loads(condensed).items():
        assert inner in (json.loads(text)[key], None)
        if len(text_of(json.loads(text)[key], {"indent": 9})) <= 300:
            assert inner == json.loads(text)[key]
    assert json.loads(condensed)["end"] == 1


def test_a_large_string_is_left_out() -> None:
    """A prompt of megabytes is one value, however it is cut, escapes included."""
    body = b'{"input":"' + b'\\"}\\\\' * 5000 + b'","model":"m"}'
    for size in (1, 2, 3, 1000, len(body)):
        keeper = BodyKeeper(max_bytes=1000, max_value_bytes=100)
        for start in range(0, len(body), size):
            keeper.feed(body[start : start + size])
        assert keeper.finish() == b'{"input":null,"model":"m"}'


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_a_large_array_of_numbers_is_left_out(size: int) -> None:
    """An embedding has nothing but digits for many chunks."""
    body = b'{"data":[[' + b"0.125, " * 500 + b'1]],"usage":{"n":[1]}}'
    cuts = list(range(0, len(body), size))
    expected = b'{"data":null,"usage":{"n":[1]}}'
    assert kept(body, cuts, max_bytes=1000, max_value_bytes=100) == expected


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_blanks_between_members_are_no_part_of_a_value(size: int) -> None:
    """However many there are, and wherever a body is cut."""
    blanks = b" \t\r\n" * 500
    parts = (
        b"{",
        b'"a"',
        b":",
        b"12",
        b",",
        b'"b"',
        b":",
        b"[1]",
        b",",
        b'"c"',
        b":",
        b"null",
        b"}",
    )
    body = blanks.join(parts)
    found = kept(body, list(range(0, len(body), size)), max_bytes=1000, max_value_bytes=100)
    assert found is not None
    assert json.loads(found) == {"a": 12, "b": [1], "c": None}


@pytest.mark.parametrize("size", [1, 9, 1 << 20])
def test_blanks_that_are_left_out_make_no_number_of_two(size: int) -> None:
    """What a decoder refuses it must go on to refuse."""
    body = b'{"a":1' + b" " * 300 + b"2}"
    found = kept(body, list(range(0, len(body), size)), max_bytes=200, max_value_bytes=100)
    assert found == b'{"a":1 2}'


def test_too_many_small_members_are_too_much() -> None:
    """The bound holds also where no single value is large."""
    body = b"{" + b",".join(b'"%d":"abc"' % number for number in range(1000)) + b"}"
    assert kept(body, [500, 600, 5000], max_bytes=400, max_value_bytes=100) is None


@pytest.mark.parametrize(("size", "is_condensed"), [(3, False), (300, True)])
def test_a_large_body_may_have_lost_something(size: int, *, is_condensed: bool) -> None:
    """Whoever counts in it is told."""
    keeper = BodyKeeper(max_bytes=200)
    keeper.feed(b'{"a":"' + b"x" * size + b'"}')
    assert keeper.is_condensed is is_condensed


def test_a_value_that_is_nested_without_end_is_left_out() -> None:
    """A decoder would not follow it, and what stands beside it is read."""
    body = b'{"a":' + b"[" * 5000 + b"]" * 5000 + b',"b":1}'
    assert kept(body, [900, 6000], max_bytes=1000, max_value_bytes=100) == b'{"a":null,"b":1}'


@pytest.mark.parametrize("body", [b'"":0,', b'"a":[],', b'"":"",'], ids=["keys", "lists", "texts"])
def test_too_many_members_are_given_up(body: bytes) -> None:
    """Each one takes steps of ours, and no answer of the API has a hundred."""
    text = b"{" + body * MAX_TOKENS + b'"b":1}'
    assert kept(text, [900], max_bytes=1000, max_value_bytes=100) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"x" * 50, b"]"),
        (b"[{}," * 50, b"]"),
        (b'"' + b"x" * 50, b"]"),
        (b" " * 50, b""),
        (b"\xef\xbb\xbf" + b" " * 50 + b'{"a":1}  ', b'{"a":1}'),
        (b'{"a":1}' + b" " * 50 + b"{}", b'{"a":1}{'),
        (b'{"a":1]' + b" " * 50, b'{"a":1]'),
    ],
    ids=["nothing", "list", "text", "blanks", "blanks before", "something behind", "bracket"],
)
def test_what_is_large_and_no_object_is_none_afterwards(body: bytes, expected: bytes) -> None:
    """A decoder has the last word, so it must be given something that it refuses as well."""
    assert kept(body, [3, 30], max_bytes=40, max_value_bytes=20) == expected

"""The end of a nested value is found wherever it is, in steps that the bytes do not choose."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override  # typing has it from Python 3.12 on

from proxy.core.nesting import BLOCK_BYTES, Nesting, fall_of
from tests.fakes.counting import counted

ODD = st.sampled_from(['"]}', "\\", "\\\\", '\\"'])
LEAVES = st.one_of(st.none(), st.integers(), st.text(), ODD)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.lists(LEAVES) | st.dictionaries(st.text(), LEAVES),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=60,
)


def end_of(text: bytes, cuts: list[int]) -> int:
    """Return where the value that a text begins with ends, read in pieces."""
    nesting, used = Nesting(), 1
    edges = [1, *sorted(1 + cut % len(text) for cut in cuts), len(text)]
    for start, end in pairwise(edges):
        used += nesting.feed(text[start:end])
        if not nesting.depth:
            return used
    raise AssertionError("no end was found")


@given(
    value=VALUES,
    ascii_only=st.booleans(),
    cuts=st.lists(st.integers(0, 1 << 16), max_size=6),
    more=st.integers(0, 3),
)
def test_a_value_ends_where_a_decoder_says(
    value: object, *, ascii_only: bool, cuts: list[int], more: int
) -> None:
    """Whatever stands in its strings, however it is cut, whatever follows."""
    text = json.dumps([value] * (more * 20 + 1), ensure_ascii=ascii_only).encode()
    assert end_of(text + b']}["\\x' * more, cuts) == len(text)


@given(st.text("[]", max_size=300))
def test_the_depth_falls_as_far_as_it_is_counted(brackets: str) -> None:
    """Pairs that go together change nothing."""
    depth, lowest = 0, 0
    for bracket in brackets:
        depth += 1 if bracket == "[" else -1
        lowest = min(lowest, depth)
    assert fall_of(brackets.encode()) == -lowest


def test_an_escape_may_be_cut_in_two() -> None:
    """The block after a backslash begins with what it escapes."""
    text = b'["' + b"a" * (BLOCK_BYTES - 3) + b'\\"' + b"]" * 90 + b'"]'
    assert end_of(text, []) == len(text)
    assert end_of(text, [BLOCK_BYTES - 1]) == len(text)


@pytest.mark.parametrize(
    "part",
    [b"[],", b"{}", b'"",', b'{"k":1},', b"[" * 900 + b"]" * 900, b'"\\"]",', b"[" * 9 + b"]" * 9],
    ids=["pairs", "braces", "texts", "objects", "deep", "escapes", "saw"],
)
def test_dense_bytes_are_read_in_few_steps(part: bytes) -> None:
    """A step of ours for each bracket would hold up every other call: lines run are counted."""
    text = part * (8 * BLOCK_BYTES // len(part)) + b"]"
    nesting = Nesting()
    end, steps = counted(nesting.feed, text)
    assert end == len(text)
    assert steps < len(text) / 100


class Weighed(bytes):
    """Bytes that know how many of them were taken out."""

    taken = 0

    @override
    def __getitem__(self, place: Any) -> Any:
        """Return a piece, and count it."""
        piece = super().__getitem__(place)
        self.taken += len(piece)
        return piece


def test_a_short_value_costs_no_more_for_what_stands_behind_it() -> None:
    """Four thousand of them in one body, each of which looks at all the rest, take seconds."""
    text = Weighed(b"]" + b'"x",' * BLOCK_BYTES)
    assert Nesting().feed(text) == 1
    assert text.taken < 100

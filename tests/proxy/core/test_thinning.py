"""Of a request with images everything stays but the bulk of them, however it is cut."""

import base64
import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.thinning import Thinner
from tests.fakes.counting import counted

IMAGE = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 4).decode()
TEXT = 'All "work" and \\ no play. ' * 40
REQUEST = {"messages": [{"content": [{"text": TEXT}, {"url": IMAGE}, {"text": "é\n"}]}], "n": 1}
BODY = json.dumps(REQUEST).encode()
THINNED = {
    "messages": [{"content": [{"text": TEXT}, {"url": IMAGE[:200]}, {"text": "é\n"}]}],
    "n": 1,
}


def thinned(body: bytes, cuts: list[int] | None = None, max_bytes: int = 1 << 16) -> bytes | None:
    """Return what is kept of a body that comes in pieces."""
    thinner = Thinner(max_bytes=max_bytes, max_string_bytes=200)
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts or []), len(body)]
    for start, end in pairwise(edges):
        thinner.feed(body[start:end])
    return thinner.finish()


@given(st.lists(st.integers(0, 1 << 16), max_size=12))
def test_texts_stay_and_images_are_cut(cuts: list[int]) -> None:
    """Wherever the body is divided."""
    found = thinned(BODY, cuts)
    assert found is not None
    assert json.loads(found) == THINNED


def test_base64_may_have_its_slashes_escaped() -> None:
    """Some encoders do that."""
    body = b'{"data":"' + b"\\/9j\\/" * 100 + b'","a":1}'
    found = thinned(body)
    assert found is not None
    assert json.loads(found)["a"] == 1
    assert len(found) < 220


@pytest.mark.parametrize(("size", "is_kept"), [(1000, True), (3000, False)])
def test_long_texts_have_a_bound(size: int, *, is_kept: bool) -> None:
    """They are what is to be counted; where that is too much, nothing is."""
    body = b'{"a":"' + b"text " * (size // 5) + b'"}'
    assert thinned(body, max_bytes=2000) == (body if is_kept else None)


@example(b'["a"]', [3])
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_nothing_raises_and_small_strings_stay(body: bytes, cuts: list[int]) -> None:
    """Whatever it is, if no string in it is long."""
    found = thinned(body[:200], cuts)
    assert found is not None
    assert body[:200].startswith(found)


def test_short_strings_are_passed_over_in_few_steps() -> None:
    """A step of ours for each would hold up other calls."""
    body = b'["' + b'","'.join((b"", b"a\\nb", b"c" * 900) * 2000) + b'"]'
    thinner = Thinner(max_bytes=1 << 22)
    _, steps = counted(thinner.feed, body)
    assert thinner.finish() == body
    assert steps < len(body) / 500

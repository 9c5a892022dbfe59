"""Heads that are alike share a shape; no value that matters is lost in it, and none is kept."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.core import shapes
from proxy.core.shapes import MAX_HEAD_BYTES, MAX_LINES, MAX_SHAPES, MAX_SPELLINGS, Shapes

HEAD = (
    b"POST /v1/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk-secret\r\nUser-Agent: u\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nX-Stainless-Lang: python\r\n\r\n"
)


def count(known: Shapes[int]) -> int:
    """Return how many shapes are remembered."""
    return len(known._known)  # noqa: SLF001 (what is kept is the point)


class Works:
    """Works out a new shape each time."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, raw: bytes) -> int:
        """Return the next number."""
        assert raw
        self.number += 1
        return self.number


def test_values_that_tell_nothing_make_no_new_shape() -> None:
    """A length, a key, a program's name: the shape is the same, the lines are the call's own."""
    known = Shapes(Works())
    first, lines = known.of(HEAD % 5)
    again, others = known.of((HEAD % 77).replace(b"sk-secret", b"sk-other"))
    assert first == again == 1
    assert lines == (HEAD % 5)[:-4].split(b"\r\n")
    assert others[5] == b"Content-Length: 77"


def test_what_tells_makes_another_shape() -> None:
    """The first line, names and their order, and values that the relay goes by."""
    heads = [
        HEAD,
        HEAD.replace(b"/v1/x", b"/v1/y"),
        HEAD.replace(b"/json", b"/jsonl"),
        HEAD.replace(b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n"),
        HEAD.replace(b"User-Agent: u\r\n", b"User-Agent: u\r\nX-Other: u\r\n"),
        HEAD.replace(b"Host:", b"host:"),
        HEAD.replace(b"Host: a\r\nAuth", b"Auth").replace(b"User", b"Host: a\r\nUser"),
    ]
    known = Shapes(Works())
    assert [known.of(head)[0] for head in heads] == [1, 2, 3, 4, 5, 6, 7]
    assert [known.of(head)[0] for head in heads] == [1, 2, 3, 4, 5, 6, 7]


def test_no_secret_is_kept() -> None:
    """Neither in the shapes nor among the lines that are looked up."""
    known = Shapes(Works())
    known.of(HEAD % 5)
    told = known._tell.__self__  # type: ignore[attr-defined]  # noqa: SLF001 (as above)
    assert b"User-Agent: u" in told
    assert b"sk-secret" not in repr((known._known, dict(told))).encode()  # noqa: SLF001 (as above)


def test_queries_and_long_heads_are_worked_out_each_time() -> None:
    """A query may hold a key, and memory is bounded."""
    known = Shapes(Works())
    for head in (HEAD.replace(b"/v1/x", b"/v1/x?key=1"), HEAD + b"X" * MAX_HEAD_BYTES):
        assert known.of(head)[0] != known.of(head)[0]
    assert count(known) == 0


def test_what_is_remembered_is_bounded() -> None:
    """Clients choose lines and names."""
    known = Shapes(Works())
    told = known._tell.__self__  # type: ignore[attr-defined]  # noqa: SLF001 (what is kept is the point)
    for number in range(max(MAX_SHAPES, MAX_LINES, MAX_SPELLINGS) + 3):
        known.of(b"GET / HTTP/1.1\r\nX-%d: 1\r\nUser-Agent: %d\r\n\r\n" % (number, number))
    assert count(known) <= MAX_SHAPES
    assert len(told) <= MAX_LINES
    assert len(told.spellings) <= MAX_SPELLINGS
    known.of(b"GET / HTTP/1.1\r\nX-%s: 1\r\n\r\n" % (b"a" * shapes.MAX_SPELLING_BYTES))
    assert all(len(name) <= shapes.MAX_SPELLING_BYTES for name in told.spellings)
    known.of(b"GET / HTTP/1.1\r\nUser-Agent: %s\r\n\r\n" % (b"a" * shapes.MAX_LINE_BYTES))
    assert all(len(line) <= shapes.MAX_LINE_BYTES for line in told)


LINES = st.lists(
    st.sampled_from([b"Host: a", b"Host: b", b"X-A: 1", b"X-A: 2", b"Connection: x", b"TE: y"]),
    max_size=6,
)


def shape_by_hand(lines: list[bytes]) -> tuple[bytes, ...]:
    """Return what a shape consists of."""
    return tuple(
        line if line.startswith((b"Connection", b"TE")) else line.split(b":")[0] for line in lines
    )


@given(st.lists(LINES, max_size=12))
def test_heads_share_a_shape_if_and_only_if_they_are_alike(heads: list[list[bytes]]) -> None:
    """Whatever came before."""
    known = Shapes(Works())
    seen: dict[tuple[bytes, ...], int] = {}
    for lines in heads:
        number, _ = known.of(b"\r\n".join([b"GET / HTTP/1.1", *lines, b"", b""]))
        assert seen.setdefault(shape_by_hand(lines), number) == number
    assert len(set(seen.values())) == len(seen)

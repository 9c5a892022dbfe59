"""What can be told of a head from its shape, worked out once for all heads that are alike.

The heads of one client, and those of one upstream, differ in a few values: a length, a user, a key,
a request id. Everything else (what is asked, how the body is framed, which lines pass) follows from
the first line, the names of the fields, and the values of those few that tell something. These
together are the head's shape. A shape is a key to what was worked out when it was first met; no
value of any other line is in it, so that no secret is kept and no call is taken for another.

How much is remembered is bounded, because clients choose heads.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Generic, TypeVar

MAX_SHAPES = 1024
MAX_HEAD_BYTES = 4096  # of a head whose shape is remembered
MAX_LINES = 4096
MAX_LINE_BYTES = 128
MAX_SPELLINGS = 1024
MAX_SPELLING_BYTES = 64

# Fields whose values tell something. All of them have few values in practice.
TELLING = frozenset(
    (
        b"accept-encoding",
        b"connection",
        b"content-encoding",
        b"content-type",
        b"expect",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"x-stainless-retry-count",
    )
)
# Fields that tell nothing, hold no secret, and whose lines come again and again.
REPEATED = frozenset(
    (
        b"accept",
        b"accept-language",
        b"access-control-expose-headers",
        b"alt-svc",
        b"cf-cache-status",
        b"host",
        b"openai-beta",
        b"openai-version",
        b"server",
        b"strict-transport-security",
        b"user-agent",
        b"vary",
        b"x-content-type-options",
    )
)
REPEATED_PREFIX = b"x-stainless-"

S = TypeVar("S")
Lines = list[bytes]


class _Told(dict[bytes, bytes]):
    """Maps a field line to its part of the shape: the whole line if it tells, else its name."""

    def __init__(self) -> None:
        super().__init__()
        self.spellings: dict[bytes, tuple[bytes, bool, bool]] = {}

    def __missing__(self, line: bytes) -> bytes:
        spelling = line.partition(b":")[0]
        spelling, tells, repeats = self.spellings.get(spelling) or self._learn(spelling)
        told = line if tells else spelling
        if repeats and len(line) <= MAX_LINE_BYTES:
            if len(self) >= MAX_LINES:
                self.clear()
            self[line] = told
        return told

    def _learn(self, spelling: bytes) -> tuple[bytes, bool, bool]:
        name = spelling.lower()
        tells = name in TELLING
        repeats = tells or name in REPEATED or name.startswith(REPEATED_PREFIX)
        if len(self.spellings) >= MAX_SPELLINGS:
            self.spellings.clear()
        kind = (spelling, tells, repeats)
        if len(spelling) <= MAX_SPELLING_BYTES:
            self.spellings[spelling] = kind
        return kind


class _Guess(Generic[S]):
    """The shape of a head with this first line and so many others; the next has it too, mostly.

    Every line must begin as it did then (with its name, or whole where it tells), and the lines
    that tell must be the same to their ends.
    """

    __slots__ = ("beginnings", "pick_telling", "shape", "telling")

    def __init__(self, shape: S, told: tuple[bytes, ...]) -> None:
        places = [place for place, part in enumerate(told) if b":" in part]
        self.shape = shape
        self.beginnings = [part if b":" in part else part + b":" for part in told]
        self.beginnings[0] = told[0]  # looked up by it
        self.pick_telling = itemgetter(*places) if places else _nothing
        self.telling = self.pick_telling(told)


def _nothing(lines: Sequence[bytes]) -> object:  # noqa: ARG001 - as an itemgetter without places
    return None


class Shapes(Generic[S]):
    """Remembers what was worked out for each shape; `work_out` may refuse a head by raising."""

    __slots__ = ("_guesses", "_known", "_tell", "_work_out")

    def __init__(self, work_out: Callable[[bytes], S]) -> None:
        self._work_out = work_out
        self._known: dict[tuple[bytes, ...], S] = {}
        self._guesses: dict[tuple[bytes, int], _Guess[S]] = {}
        self._tell = _Told().__getitem__

    def of(self, raw: bytes) -> tuple[S, Lines]:
        """Return what is known of a head's shape, and its lines without the empty one at its end.

        No key holds a query, which nobody should keep.
        """
        lines = raw[:-4].split(b"\r\n")
        first_line = lines[0]
        guess = self._guesses.get((first_line, len(lines)))
        if (
            guess is not None
            and all(map(bytes.startswith, lines, guess.beginnings))
            and guess.pick_telling(lines) == guess.telling
        ):
            return guess.shape, lines
        told = (first_line, *map(self._tell, lines[1:]))
        shape = self._known.get(told)
        if shape is None:
            shape = self._work_out(raw)
        if b"?" not in first_line and len(raw) <= MAX_HEAD_BYTES:
            self._remember(told, shape)
        return shape, lines

    def _remember(self, told: tuple[bytes, ...], shape: S) -> None:
        if len(self._known) >= MAX_SHAPES:
            self._known.clear()
            self._guesses.clear()
        self._known[told] = shape
        self._guesses[told[0], len(told)] = _Guess(shape, told)

"""What can be told of a head from its shape, worked out once for all heads that are alike.

The heads of one client, and those of one upstream, differ in a few values: a length, a user, a key,
a request id. Everything else (what is asked, how the body is framed, which lines pass) follows from
the first line, the names of the fields, and the values of those few that tell something. These
together are the head's shape. A shape is a key to what was worked out when it was first met; no
value of any other line is in it, so that no secret is kept and no call is taken for another.

How much is remembered is bounded, because clients choose heads.
"""

from collections.abc import Callable
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


class Shapes(Generic[S]):
    """Remembers what was worked out for each shape; `work_out` may refuse a head by raising."""

    __slots__ = ("_known", "_tell", "_work_out")

    def __init__(self, work_out: Callable[[bytes], S]) -> None:
        self._work_out = work_out
        self._known: dict[tuple[bytes, ...], S] = {}
        self._tell = _Told().__getitem__

    def of(self, raw: bytes) -> tuple[S, Lines]:
        """Return what is known of a head's shape, and the head in its lines.

        The last two lines are empty. No key holds a query, which nobody should keep.
        """
        lines = raw.split(b"\r\n")
        key = (lines[0], *map(self._tell, lines[1:-2]))
        shape = self._known.get(key)
        if shape is None:
            shape = self._work_out(raw)
            if b"?" not in lines[0] and len(raw) <= MAX_HEAD_BYTES:
                if len(self._known) >= MAX_SHAPES:
                    self._known.clear()
                self._known[key] = shape
        return shape, lines

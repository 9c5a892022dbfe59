"""Keep a JSON text that passes by, without the bulk of its long strings in base64.

A request may carry megabytes of images. How many tokens they make follows from their first bytes,
so that is what is kept of them, and every other string is kept whole. What comes out is JSON again,
if it was before. A quotation mark is searched for and nothing else where a string is left out:
there is none in base64. What has no long string is passed over by a pattern, in few steps of ours.
"""

import re

IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
# Text outside of strings, and strings that are short: up to 64 KiB, and less with many escapes. The
# repeats around groups are plain ones: CPython 3.11.2 loses its place in nested possessive groups.
SHORT = rb'"[^"\\]{0,1024}+(?:\\.[^"\\]{0,1024}+){0,60}"'
UP_TO_LONG = re.compile(rb'(?:[^"]++|' + SHORT + rb")*", re.DOTALL)
STEP_BYTES = 1 << 16
# Some encoders write a slash as \/, so that a backslash may stand between the letters.
BASE64 = re.compile(rb'(?:data:[^,"]{0,128};base64,)?[A-Za-z0-9+/=_\\-]{64}')


class Thinner:
    """Keeps one text of any size in bounded memory."""

    __slots__ = (
        "_carry",
        "_dropping",
        "_in_string",
        "_kept",
        "_max_bytes",
        "_max_string_bytes",
        "_start",
        "overflown",
    )

    def __init__(self, *, max_bytes: int, max_string_bytes: int = 1 << 16) -> None:
        self._kept = bytearray()
        self._carry = b""  # half of an escape
        self._in_string = False
        self._dropping = False
        self._start = 0  # of the string that is being read
        self._max_bytes = max_bytes
        self._max_string_bytes = max_string_bytes
        self.overflown = False  # even so it is too large

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        data = self._carry + chunk
        self._carry = b""
        position = 0
        while position < len(data) and not self.overflown:
            if self._dropping:
                position = self._drop(data, position)
            elif self._in_string:
                position = self._read_string(data, position)
            else:
                position = self._read_outside(data, position)
            self.overflown = len(self._kept) > self._max_bytes

    def finish(self) -> bytes | None:
        """Return what is left of the text, None where even that was too large."""
        return None if self.overflown else bytes(self._kept)

    def _read_outside(self, data: bytes, start: int) -> int:
        """Read up to the next string that may be long, or is not whole here, and into it."""
        found = UP_TO_LONG.match(data, start, start + STEP_BYTES)
        end = found.end()  # type: ignore[union-attr]  # matches anything
        if data[end : end + 1] != b'"':
            self._kept += data[start:end]
            return end
        end += 1
        self._kept += data[start:end]
        self._in_string = True
        self._start = len(self._kept)
        return end

    def _read_string(self, data: bytes, start: int) -> int:
        """Read inside a string, up to its end or the end of what is here."""
        end = IN_STRING.match(data, start).end()  # type: ignore[union-attr]  # matches anything
        self._kept += data[start:end]
        if self._is_bulky():
            del self._kept[self._start + self._max_string_bytes :]
            self._dropping = True
            return end
        if data[end : end + 1] == b'"':
            self._kept += b'"'
            self._in_string = False
            return end + 1
        self._carry = data[end:]
        return len(data)

    def _is_bulky(self) -> bool:
        """Tell whether what is kept of the string is long, and nothing that is read."""
        if len(self._kept) - self._start <= self._max_string_bytes:
            return False
        return BASE64.match(self._kept, self._start) is not None

    def _drop(self, data: bytes, start: int) -> int:
        """Leave out the rest of a string."""
        end = data.find(b'"', start)
        if end < 0:
            return len(data)
        self._kept += b'"'
        self._in_string = self._dropping = False
        return end + 1

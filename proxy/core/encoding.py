"""Decode a copy of a content-encoded body step by step: gzip, deflate, br, zstd, and stacks.

What comes out is bounded: a body that unfolds into more than `max_bytes`, one chunk that unfolds
into more than `max_bytes_per_feed`, or a body that unfolds to `max_ratio` times what came (and a
few megabytes) is taken for a decompression bomb and decoded no further: whoever reads what comes
out would hold up every other call. No input makes a decoder raise: from the first fault on it
returns nothing, and `problem` names it.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

import brotli
import zstandard

UNDECODABLE = "undecodable_body"
TOO_LARGE = "decoded_body_too_large"
TRUNCATED = "truncated"
STEP_BYTES = 65_536
ZSTD_SLICE_BYTES = 256  # four bytes can unfold into 128 KiB, and there is no limit to ask for
ZSTD_WINDOW_BYTES = 8 << 20  # RFC 9659: no larger window in HTTP
MAX_CODINGS = 4
FLOOR_BYTES = 1 << 22  # no ratio is asked of so much
GZIP_MAGIC = b"\x1f\x8b"
ZLIB_HEADER_BYTES = 2
ZLIB_METHOD = 8


class _Coding(Protocol):
    """One coding of a stack."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what these bytes decode to, in small steps."""

    def is_whole(self) -> bool:
        """Say whether the coded data has come to its end."""


class Decoder:
    """A stack of codings, undone in the reverse order of their application."""

    __slots__ = (
        "_codings",
        "_max_bytes",
        "_max_bytes_per_feed",
        "_max_ratio",
        "_seen",
        "_total",
        "problem",
    )

    def __init__(
        self,
        codings: list[_Coding],
        *,
        max_bytes: int,
        max_bytes_per_feed: int,
        max_ratio: int | None,
    ) -> None:
        self._codings = codings
        self._max_bytes = max_bytes
        self._max_bytes_per_feed = max_bytes_per_feed
        self._max_ratio = max_ratio
        self._total = 0
        self._seen = 0  # bytes as they came
        self.problem: str | None = None

    def feed(self, chunk: bytes) -> bytes:
        """Return what these bytes decode to; nothing any more after a problem."""
        if self.problem is not None or not chunk:
            return b""
        self._seen += len(chunk)
        if not self._codings:
            return chunk
        steps: list[bytes] = []
        try:
            self._collect(chunk, steps)
        except (zlib.error, brotli.error, zstandard.ZstdError):
            self.problem = UNDECODABLE
        return b"".join(steps)

    def finish(self) -> bytes:
        """Say in `problem` whether the end is missing; nothing is ever held back."""
        if self.problem is None and self._seen and not all(c.is_whole() for c in self._codings):
            self.problem = TRUNCATED
        return b""

    def _collect(self, chunk: bytes, steps: list[bytes]) -> None:
        most = self._max_bytes
        if self._max_ratio is not None:
            most = min(most, FLOOR_BYTES + self._max_ratio * self._seen)
        room = min(self._max_bytes_per_feed, most - self._total)
        for step in _through(self._codings, chunk):
            room -= len(step)
            if room < 0:
                self.problem = TOO_LARGE
                return
            self._total += len(step)
            steps.append(step)


def decoder_for(
    content_encoding: str,
    *,
    max_bytes: int = 1 << 29,
    max_bytes_per_feed: int = 1 << 24,
    max_ratio: int | None = None,
) -> Decoder | None:
    """Return a decoder for the value of a Content-Encoding field; None for an unknown coding."""
    names = [name.strip().lower() for name in content_encoding.split(",")]
    names = [name for name in names if name not in {"", "identity"}]
    if len(names) > MAX_CODINGS or any(name not in CODINGS for name in names):
        return None
    codings = [CODINGS[name]() for name in reversed(names)]
    return Decoder(
        codings,
        max_bytes=max_bytes,
        max_bytes_per_feed=max_bytes_per_feed,
        max_ratio=max_ratio,
    )


def _through(codings: list[_Coding], chunk: bytes) -> Iterator[bytes]:
    """Yield what a chunk becomes behind all codings."""
    for step in codings[0].feed(chunk):
        if len(codings) > 1:
            yield from _through(codings[1:], step)
        else:
            yield step


def _inflate(member: "zlib._Decompress", data: bytes) -> Iterator[bytes]:
    while True:
        step = member.decompress(data, STEP_BYTES)
        yield step
        data = member.unconsumed_tail
        if member.eof or (not data and len(step) < STEP_BYTES):
            return


class _Gzip:
    """RFC 1952: one or more members; what follows and is none, mostly padding, is ignored."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._start = b""  # what may be the beginning of a further member
        self._padding = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        data = chunk
        while data and not self._padding:
            if self._member.eof:
                data = self._next_member(data)
            if not self._member.eof:
                yield from _inflate(self._member, data)
                data = self._member.unused_data

    def is_whole(self) -> bool:
        return self._member.eof

    def _next_member(self, data: bytes) -> bytes:
        """Begin the next member and return its bytes, nothing while it is not certain to be one."""
        data = self._start + data
        self._start = data[:2]
        if not data.startswith(GZIP_MAGIC):
            self._padding = not GZIP_MAGIC.startswith(data)
            return b""
        self._start = b""
        self._member = zlib.decompressobj(wbits=31)
        return data


class _Deflate:
    """RFC 9110 section 8.4.1.2: zlib format, or the raw one that some senders mean by it."""

    def __init__(self) -> None:
        self._start: bytes | None = b""
        self._member = zlib.decompressobj()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        if self._start is not None:
            chunk = self._start + chunk
            if len(chunk) < ZLIB_HEADER_BYTES:
                self._start = chunk
                return
            self._start = None
            if (chunk[0] & 15) != ZLIB_METHOD or int.from_bytes(chunk[:2], "big") % 31:
                self._member = zlib.decompressobj(wbits=-15)
        if not self._member.eof:
            yield from _inflate(self._member, chunk)

    def is_whole(self) -> bool:
        return self._member.eof


class _Brotli:
    """RFC 7932."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        stream = self._stream
        step = stream.process(chunk, output_buffer_limit=STEP_BYTES)
        yield step
        while not stream.is_finished() and (step or not stream.can_accept_more_data()):
            step = stream.process(b"", output_buffer_limit=STEP_BYTES)
            yield step

    def is_whole(self) -> bool:
        return bool(self._stream.is_finished())


class _Zstandard:
    """RFC 8878: one or more frames."""

    def __init__(self) -> None:
        self._frames = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
        self._frame = self._frames.decompressobj()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        for start in range(0, len(chunk), ZSTD_SLICE_BYTES):
            data = chunk[start : start + ZSTD_SLICE_BYTES]
            while data:
                if self._frame.eof:
                    self._frame = self._frames.decompressobj()
                yield self._frame.decompress(data)
                data = self._frame.unused_data

    def is_whole(self) -> bool:
        return self._frame.eof


CODINGS: dict[str, Callable[[], _Coding]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstandard,
}

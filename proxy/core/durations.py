"""Tell how long an audio file plays, from its bytes as they pass by and in bounded memory.

Each format says it somewhere else: WAV and FLAC in their header, MP3 in its first frame (or by its
bit rate and the size of the file), MP4 in a box that may stand at the end, Ogg in its last page. A
format is a generator that asks for a few bytes at a place further on and is sent them, so that it
reads like a format's description; nothing else of the file is kept. What cannot be told is None.
"""

import struct
from collections.abc import Callable, Generator
from typing import NamedTuple

MAX_STEPS = 10_000  # chunks or boxes; hostile files have more
TAIL_BYTES = 1 << 16  # the largest page of an Ogg file has 65,307
MAX_SECONDS = 7 * 24 * 3600.0
UNKNOWN_SIZE = 0xFFFFFFFF


class _Ending(NamedTuple):
    """How the length follows from the size of the file and, where needed, from its last bytes."""

    seconds: Callable[[int, bytes], float | None]
    needs_tail: bool = False


_Asked = tuple[int, int]  # offset, number of bytes
_Format = Generator[_Asked, bytes, _Ending | None]


class AudioProbe:
    """Listens to one file."""

    __slots__ = ("_asked", "_ending", "_format", "_held", "_size", "_tail")

    def __init__(self) -> None:
        self._format: _Format | None = _recognised()
        self._asked = next(self._format)
        self._ending: _Ending | None = None
        self._held = b""  # of what was asked for, as far as it has come
        self._size = 0
        self._tail = b""

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        start = self._size
        self._size += len(chunk)
        while self._format is not None:
            offset, length = self._asked
            begin = max(offset + len(self._held) - start, 0)
            self._held += chunk[begin : max(offset + length - start, 0)]
            if len(self._held) < length:
                break
            self._advance()
        if self._ending is not None and self._ending.needs_tail:
            self._tail = (self._tail + chunk)[-TAIL_BYTES:]

    def finish(self) -> float | None:
        """Return the length in seconds, None where it cannot be told."""
        if self._ending is None:
            return None
        seconds = self._ending.seconds(self._size, self._tail)
        return seconds if seconds is not None and 0 <= seconds <= MAX_SECONDS else None

    def _advance(self) -> None:
        """Send what was asked for, and learn what is asked for next."""
        held, self._held = self._held, b""
        assert self._format is not None  # noqa: S101 (`feed` has looked)
        try:
            self._asked = self._format.send(held)
        except StopIteration as end:
            self._ending, self._format = end.value, None


def _recognised() -> _Format:
    """Read the first bytes, then the format that they belong to."""
    head = yield 0, 12
    if head.startswith(b"RIFF") and head.endswith(b"WAVE"):
        return (yield from _wav())
    if head.startswith(b"fLaC"):
        return (yield from _flac())
    if head.startswith(b"OggS"):
        return (yield from _ogg())
    if head[4:8] == b"ftyp":
        return (yield from _mp4(int.from_bytes(head[:4], "big")))
    if head.startswith(b"ID3"):
        tag = head[6:10]  # seven bits a byte (ID3v2.4 section 6.2)
        size = tag[0] << 21 | tag[1] << 14 | tag[2] << 7 | tag[3]
        return (yield from _mp3(head, 10 + size + (10 if head[5] & 0x10 else 0)))
    return (yield from _mp3(head, 0))


def _wav() -> _Format:
    """Read RIFF chunks: `fmt ` says bytes a second, `data` how many; a stream leaves that open."""
    place, rate = 12, 0
    for _ in range(MAX_STEPS):
        name, size = struct.unpack("<4sI", (yield place, 8))
        if name == b"fmt " and size >= 16:  # noqa: PLR2004 (the plain form's size)
            rate = struct.unpack("<I", (yield place + 16, 4))[0]
        elif name == b"data":
            return _at_rate(place + 8, rate, size if 0 < size < UNKNOWN_SIZE else None)
        place += 8 + size + size % 2
    return None


def _flac() -> _Format:
    """Read STREAMINFO: 20 bits of sample rate, further on 36 bits of samples (RFC 9639 8.2)."""
    bits = int.from_bytes((yield 18, 8), "big")
    rate, samples = bits >> 44, bits & (1 << 36) - 1
    return _after(samples, rate) if samples else None


def _ogg() -> _Format:
    """Read the rate; the last page has the number of samples (RFC 3533 6; RFC 7845 4 for Opus)."""
    segments = (yield 26, 1)[0]
    head = yield 27 + segments, 19
    if head.startswith(b"OpusHead"):
        rate, skipped = 48_000, struct.unpack("<H", head[10:12])[0]
    elif head.startswith(b"\x01vorbis"):
        rate, skipped = struct.unpack("<I", head[12:16])[0], 0
    else:
        return None
    return _Ending(lambda _, tail: _granules(tail, rate, skipped), needs_tail=True)


def _granules(tail: bytes, rate: int, skipped: int) -> float | None:
    place = tail.rfind(b"OggS")
    if place < 0 or len(tail) < place + 14 or not rate:
        return None
    return float(max(struct.unpack("<q", tail[place + 6 : place + 14])[0] - skipped, 0)) / rate


def _mp4(place: int) -> _Format:
    """Read boxes (ISO/IEC 14496-12 4.2, 8.2.2): `moov` begins with `mvhd`, which has it."""
    if place < 16:  # noqa: PLR2004 (the smallest `ftyp`)
        return None
    for _ in range(MAX_STEPS):
        size, name = struct.unpack(">I4s", (yield place, 8))
        if name == b"moov":
            place += 8
            continue
        if name == b"mvhd":
            return _movie((yield place + 8, 32))
        if size == 1:
            size = struct.unpack(">Q", (yield place + 8, 8))[0]
        if size < 8:  # noqa: PLR2004 (a box's own header; 0 is the last box)
            return None
        place += size
    return None


def _movie(header: bytes) -> _Ending | None:
    form = ">12xII" if header[0] == 0 else ">20xIQ"
    rate, units = struct.unpack_from(form, header)
    return _after(units, rate)


_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_KILOBITS = (
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1 layer III
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2 and 2.5
)


def _mp3(head: bytes, place: int) -> _Format:
    """Read the first frame: it has the bit rate, or the number of frames (Xing, Info, VBRI)."""
    known = head[place:]
    frame = known + (yield place + len(known), 192 - len(known))
    version, layer = frame[1] >> 3 & 3, frame[1] >> 1 & 3
    bit_rate, rate_index = frame[2] >> 4, frame[2] >> 2 & 3
    synchronised = frame[0] == 0xFF and frame[1] & 0xE0 == 0xE0  # noqa: PLR2004 (11 bits set)
    if not synchronised or version == 1 or layer != 1 or rate_index == 3:  # noqa: PLR2004
        return None  # reserved values, or another layer
    rate = _RATES[version][rate_index]
    samples = 1152 if version == 3 else 576  # noqa: PLR2004 (the code of MPEG 1)
    frames = _frames(frame)
    if frames:
        return _after(frames * samples, rate)
    if not 0 < bit_rate < 15:  # noqa: PLR2004 (free and forbidden)
        return None
    return _at_rate(place, _KILOBITS[version != 3][bit_rate - 1] * 125, None)  # noqa: PLR2004


def _frames(frame: bytes) -> int:
    """Return how many frames the first one says there are, 0 where it does not say."""
    for mark in (b"Xing", b"Info"):
        found = frame.find(mark, 4, 64)
        if found > 0 and frame[found + 7] & 1:
            return int.from_bytes(frame[found + 8 : found + 12], "big")
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big")
    return 0


def _after(units: int, rate: int) -> _Ending | None:
    """Divide what the file tells: so many units at so many a second."""
    return _Ending(lambda _size, _tail: units / rate) if rate else None


def _at_rate(start: int, rate: int, announced: int | None) -> _Ending | None:
    """Divide the bytes that came, at most those that were announced."""
    if not rate:
        return None

    def seconds(size: int, _tail: bytes) -> float:
        played = max(size - start, 0)
        return (played if announced is None else min(played, announced)) / rate

    return _Ending(seconds)

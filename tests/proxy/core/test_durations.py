"""How long a file plays is told from its bytes, however they are cut."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.durations import AudioProbe


def played(file: bytes, *cuts: int) -> float | None:
    """Return the length of a file that came in pieces."""
    probe = AudioProbe()
    edges = [0, *sorted(cut % (len(file) + 1) for cut in cuts), len(file)]
    for start, end in pairwise(edges):
        probe.feed(file[start:end])
    return probe.finish()


def riff(rate: int, data: bytes, announced: int, *, before: bytes = b"") -> bytes:
    """Return a WAV file of so many bytes a second."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate // 2, rate, 2, 16)
    return b"RIFF\0\0\0\0WAVE" + before + form + struct.pack("<4sI", b"data", announced) + data


def box(name: bytes, content: bytes) -> bytes:
    """Return an MP4 box."""
    return struct.pack(">I4s", len(content) + 8, name) + content


def page(granule: int, content: bytes) -> bytes:
    """Return an Ogg page of one segment."""
    return b"OggS\0\0" + struct.pack("<q", granule) + bytes(12) + bytes((1, len(content))) + content


def flac(rate: int, samples: int) -> bytes:
    """Return the beginning of a FLAC file."""
    bits = rate << 44 | 15 << 36 | samples
    return b"fLaC\0\0\0\x22" + bytes(10) + bits.to_bytes(8, "big") + bytes(16)


LONG_HEADER = b"LIST" + struct.pack("<I", 5) + b"hello\0"
OPUS = b"OpusHead\1\1" + struct.pack("<H", 312) + bytes(7)
VORBIS = b"\1vorbis" + bytes(5) + struct.pack("<I", 22_050) + bytes(14)
MP3_128 = b"\xff\xfb\x90\x44"  # MPEG 1 layer III, 128 kbit/s, 44.1 kHz
MP3_24K = b"\xff\xf3\x84\xc4"  # MPEG 2 layer III, 64 kbit/s, 24 kHz
TAG = b"ID3\4\0\0" + bytes((0, 0, 2, 0))  # 256 bytes follow
XING = bytes(32) + b"Xing" + struct.pack(">II", 1, 100) + bytes(200)
VBRI = bytes(32) + b"VBRI" + bytes(10) + struct.pack(">I", 100) + bytes(200)
MOVIE = box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 1000, 2500) + bytes(80))
MOVIE_64 = box(b"mvhd", struct.pack(">IQQIQ", 1 << 24, 0, 0, 1000, 2500) + bytes(80))
TYPE = box(b"ftyp", b"M4A \0\0\0\0")
LARGE = struct.pack(">I4sQ", 1, b"mdat", 500) + bytes(484)

FILES = {
    "WAV": (riff(32_000, bytes(48_000), 48_000), 1.5),
    "WAV with other chunks": (riff(32_000, bytes(48_000), 48_000, before=LONG_HEADER), 1.5),
    "WAV that was streamed": (riff(32_000, bytes(48_000), 0xFFFFFFFF), 1.5),
    "WAV that is followed": (riff(32_000, bytes(64_000), 48_000), 1.5),
    "WAV that was cut": (riff(32_000, bytes(16_000), 48_000), 0.5),
    "WAV without a rate": (riff(0, bytes(16_000), 48_000), None),
    "FLAC": (flac(48_000, 72_000), 1.5),
    "FLAC of unknown length": (flac(48_000, 0), None),
    "FLAC without a rate": (flac(0, 72_000), None),
    "Opus": (page(0, OPUS) + page(99, bytes(99)) + page(48_312, bytes(200)), 1.0),
    "Vorbis": (page(0, VORBIS) + page(22_050, bytes(200)), 1.0),
    "Vorbis of another time": (page(0, VORBIS) + page(-5, bytes(200)), 0.0),
    "Ogg of another kind": (page(0, b"\x80theora" + bytes(20)), None),
    "Ogg that was cut": (page(0, VORBIS) + b"OggS\0\0", None),
    "Vorbis without a rate": (page(0, b"\1vorbis" + bytes(25)) + page(1, bytes(9)), None),
    "M4A": (TYPE + box(b"moov", MOVIE) + box(b"mdat", bytes(500)), 2.5),
    "M4A that ends with its index": (TYPE + box(b"mdat", bytes(500)) + box(b"moov", MOVIE), 2.5),
    "M4A of the long form": (TYPE + LARGE + box(b"moov", MOVIE_64), 2.5),
    "M4A without an index": (TYPE + box(b"mdat", bytes(500)), None),
    "M4A with a last box": (TYPE + struct.pack(">I4s", 0, b"mdat") + bytes(500), None),
    "M4A of an impossible kind": (struct.pack(">I4s", 8, b"ftyp") + bytes(500), None),
    "MP3": (MP3_128 + bytes(31_996), 2.0),
    "MP3 with a tag": (TAG + bytes(256) + MP3_128 + bytes(31_996), 2.0),
    "MP3 with an empty tag": (b"ID3\4\0\0" + bytes(4) + MP3_128 + bytes(31_996), 2.0),
    "MP3 with a tag at both ends": (
        b"ID3\4\0\x10" + bytes(4) + b"3DI" + bytes(7) + MP3_128 + bytes(31_996),
        2.0,
    ),
    "MP3 of MPEG 2": (MP3_24K + bytes(15_996), 2.0),
    "MP3 of varying rate": (MP3_128 + XING, 100 * 1152 / 44_100),
    "MP3 of MPEG 2 and varying rate": (MP3_24K + XING, 100 * 576 / 24_000),
    "MP3 of another encoder": (MP3_128 + VBRI, 100 * 1152 / 44_100),
    "MP3 without a count": (MP3_128 + XING.replace(b"\0\0\0\1", bytes(4)) + bytes(31_752), 2.0),
    "MP3 of free rate": (b"\xff\xfb\x00\x44" + bytes(999), None),
    "MP3 of a reserved kind": (b"\xff\xeb\x90\x44" + bytes(999), None),
    "MP3 of another layer": (b"\xff\xfd\x90\x44" + bytes(999), None),
    "MP3 of a reserved rate": (b"\xff\xfb\x9c\x44" + bytes(999), None),
    "nothing": (b"", None),
    "text": (b"hello " * 99, None),
    "WebM": (b"\x1a\x45\xdf\xa3" + bytes(999), None),
    "a length that cannot be": (flac(1, 1 << 35), None),
}


@pytest.mark.parametrize("name", FILES)
@given(cuts=st.lists(st.integers(0, 70_000), max_size=4))
def test_the_length_is_that_of_the_file(name: str, cuts: list[int]) -> None:
    """Where the format tells it; None where it does not."""
    file, seconds = FILES[name]
    found = played(file, *cuts)
    assert found == (seconds if seconds is None else pytest.approx(seconds, rel=1e-3))


@pytest.mark.parametrize("name", ["M4A that ends with its index", "Opus", "WAV with other chunks"])
def test_every_byte_may_come_alone(name: str) -> None:
    """What is asked for may be cut itself."""
    file, seconds = FILES[name]
    file = file[:2000]
    assert played(file, *range(len(file))) == played(file)
    assert seconds


def test_chunks_without_end_end_the_reading() -> None:
    """A hostile file has any number of empty chunks or boxes."""
    assert played(b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 10_001 + riff(2, b"", 0)[12:]) is None
    assert played(TYPE + box(b"free", b"") * 10_001 + box(b"moov", MOVIE)) is None


@given(
    st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", b"fLaC", b"OggS", TYPE, b"ID3", b"\xff\xfb"]),
    st.binary(max_size=300),
    st.lists(st.integers(0, 300), max_size=4),
)
def test_no_bytes_make_a_probe_raise(start: bytes, rest: bytes, cuts: list[int]) -> None:
    """And the pieces they come in make no difference."""
    assert played(start + rest, *cuts) == played(start + rest)

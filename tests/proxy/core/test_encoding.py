"""Bodies are decoded in any chunks, bounded, and without an exception whatever they hold."""

import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.encoding import Decoder, decoder_for

TEXT = b'{"usage":{"prompt_tokens":22}}' * 500


def raw_deflate(data: bytes) -> bytes:
    """Compress without the zlib header, as some senders of deflate do."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def halves(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Compress in two members."""
    return lambda data: compress(data[: len(data) // 2]) + compress(data[len(data) // 2 :])


CODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "none": ("", bytes),
    "identity": ("identity", bytes),
    "gzip": ("gzip", gzip.compress),
    "x-gzip": (" X-GZip ", gzip.compress),
    "gzip, two members": ("gzip", halves(gzip.compress)),
    "gzip, padded": ("gzip", lambda data: gzip.compress(data) + b"\0\0\0"),
    "deflate": ("deflate", zlib.compress),
    "deflate, raw": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstandard.compress),
    "zstd, two frames": ("zstd", halves(zstandard.compress)),
    "gzip in br": ("gzip, br", lambda data: brotli.compress(gzip.compress(data))),
}


def decoder(coding: str, **limits: int) -> Decoder:
    """Return the decoder for a coding that is known."""
    found = decoder_for(coding, **limits)
    assert found is not None
    return found


def decoded(coding: str, body: bytes, size: int) -> tuple[bytes, str | None]:
    """Return what a body decodes to when it comes in chunks of a size, and the problem."""
    reading = decoder(coding)
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    text = b"".join(map(reading.feed, chunks)) + reading.finish()
    return text, reading.problem


@pytest.mark.parametrize("name", CODERS)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_a_body_is_decoded_whatever_the_chunks(name: str, size: int) -> None:
    """Single bytes, odd pieces and the whole at once give the same text."""
    coding, compress = CODERS[name]
    assert decoded(coding, compress(TEXT), size) == (TEXT, None)


@pytest.mark.parametrize("name", [name for name in CODERS if name not in {"none", "identity"}])
def test_a_cut_body_is_known_to_be_cut(name: str) -> None:
    """What came is decoded; that the end is missing is said."""
    coding, compress = CODERS[name]
    text, problem = decoded(coding, compress(TEXT)[:-9], 100)
    assert TEXT.startswith(text)
    assert problem == "truncated"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, br"])
def test_no_body_at_all_is_no_problem(coding: str) -> None:
    """HEAD and 304 answers name a coding and have no body."""
    assert decoded(coding, b"", 1) == (b"", None)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_corrupt_body_is_undecodable(coding: str) -> None:
    """The fault is named, and nothing more is decoded after it."""
    reading = decoder(coding)
    assert reading.feed(b"no such thing as this, at all " * 9) == b""
    assert reading.feed(b"more") == b""
    reading.finish()
    assert reading.problem == "undecodable_body"


@pytest.mark.parametrize("name", ["gzip", "deflate", "deflate, raw", "br", "zstd", "gzip in br"])
def test_a_decompression_bomb_ends_the_decoding(name: str) -> None:
    """A few kilobytes that unfold into many megabytes are not unfolded."""
    coding, compress = CODERS[name]
    reading = decoder(coding, max_bytes_per_feed=1 << 20)
    assert len(reading.feed(compress(bytes(64 << 20)))) <= 1 << 20
    assert reading.problem == "decoded_body_too_large"


def test_a_body_that_unfolds_to_very_much_is_taken_for_a_bomb() -> None:
    """Whoever reads what comes out has no time for others meanwhile."""
    packed = gzip.compress(bytes(16 << 20))
    lax, strict = decoder("gzip"), decoder("gzip", max_ratio=128)
    for start in range(0, len(packed), 1024):
        lax.feed(packed[start : start + 1024])
        strict.feed(packed[start : start + 1024])
    assert (lax.problem, strict.problem) == (None, "decoded_body_too_large")
    modest = decoder("gzip", max_ratio=1)
    assert modest.feed(gzip.compress(TEXT)) == TEXT
    assert modest.problem is None


def test_a_body_is_decoded_up_to_a_total() -> None:
    """Many small chunks are no way around the bound."""
    reading = decoder("gzip", max_bytes=10_000)
    body = gzip.compress(TEXT)
    total = sum(len(reading.feed(bytes([byte]))) for byte in body)
    assert total <= 10_000
    assert reading.problem == "decoded_body_too_large"


def test_what_follows_the_end_is_ignored() -> None:
    """Bytes behind a whole body neither change it nor make it faulty."""
    assert decoded("deflate", zlib.compress(TEXT) + b"more", 1) == (TEXT, None)
    assert decoded("gzip", gzip.compress(TEXT) + b"\x1fmore", 1) == (TEXT, None)


@pytest.mark.parametrize("coding", ["compress", "aes128gcm", "gzip, sdch", "gzip,gzip,gzip,br,br"])
def test_an_unknown_coding_has_no_decoder(coding: str) -> None:
    """The caller is told, instead of being handed what nobody can read."""
    assert decoder_for(coding) is None


@given(st.sampled_from(["gzip", "deflate", "br", "zstd", "br, gzip"]), st.lists(st.binary()))
def test_no_bytes_make_a_decoder_raise(coding: str, chunks: list[bytes]) -> None:
    """A fault of a body must not become a fault of the call."""
    reading = decoder(coding)
    for chunk in chunks:
        reading.feed(chunk)
    assert reading.finish() == b""

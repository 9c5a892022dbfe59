"""An image's tokens follow from its size, and its size from its first bytes."""

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.pictures import Size, image_tokens, is_fixed, size_of

JPEG = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08\x00\x20\x00\x30"


def data_url(head: bytes, kind: str = "image/png") -> str:
    """Return an image as requests carry it."""
    return f"data:{kind};base64,{base64.b64encode(head).decode()}"


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 640, 480), (640, 480)),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 0, 480), None),
        (b"GIF89a" + struct.pack("<HH", 12, 34), (12, 34)),
        (JPEG, (48, 32)),
        (JPEG[:9], None),
        (b"\xff\xd8\xff\xe0\x00\x04abcdef", None),
        (b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + b"\x0f\x00\x00\x1f\x00\x00", (16, 32)),
        (b"RIFF\0\0\0\0WEBPVP8L" + bytes(5) + struct.pack("<I", 7 | 9 << 14), (8, 10)),
        (b"RIFF\0\0\0\0WEBPVP8 " + bytes(10) + struct.pack("<HH", 20, 30), (20, 30)),
        (b"RIFF\0\0\0\0AVI ", None),
        (b"nothing", None),
    ],
    ids=["png", "empty", "gif", "jpeg", "cut", "no-frame", "vp8x", "vp8l", "vp8", "avi", "none"],
)
def test_the_first_bytes_tell_the_size(head: bytes, size: Size | None) -> None:
    """Whatever its type is said to be."""
    assert size_of(data_url(head)) == size


@pytest.mark.parametrize("url", ["", "https://example.com/a.png", "data:image/png;base64,é"])
def test_what_is_not_in_the_request_has_no_size(url: str) -> None:
    """Nobody fetches it."""
    assert size_of(url) is None


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        ("gpt-4o", (100, 100), "auto", 255),
        ("gpt-4o", (1024, 1024), "high", 765),
        ("gpt-4o", (2048, 4096), "high", 1105),
        ("gpt-4o", (2048, 4096), "low", 85),
        ("gpt-4o", None, "", 765),
        ("gpt-4o-mini", (1, 1), "", 8500),
        ("gpt-5", (1, 1), "", 210),
        ("gpt-5-nano", (16, 16), "", 3),
        ("gpt-5-nano", (540, 360), "low", 307),
        ("gpt-4.1-mini", (1800, 2400), "", 2354),
        ("gpt-4.1-nano", (1, 100_000), "", 3780),
    ],
)
def test_the_size_tells_the_tokens(model: str, size: Size | None, detail: str, tokens: int) -> None:
    """As recorded traffic has it, and OpenAI's own examples."""
    assert image_tokens(model, size, detail) == tokens


def test_an_image_of_little_detail_has_no_size() -> None:
    """Where it counts by squares; in patches its size matters."""
    assert is_fixed("gpt-4o", "low")
    assert not is_fixed("gpt-4o", "auto")
    assert not is_fixed("gpt-5-mini", "low")


@given(st.integers(1, 2**31), st.integers(1, 2**31))
def test_an_image_has_a_bound(width: int, height: int) -> None:
    """However large it says it is."""
    assert 0 < image_tokens("gpt-4.1-nano", (width, height), "") <= 3780
    assert 85 < image_tokens("gpt-4o", (width, height), "") <= 85 + 170 * 8


@given(st.binary(max_size=64))
def test_nothing_raises(head: bytes) -> None:
    """An image is whatever a client says it is."""
    size_of(data_url(b"\xff\xd8" + head))
    size_of(data_url(b"RIFF\0\0\0\0WEBPVP8" + head))

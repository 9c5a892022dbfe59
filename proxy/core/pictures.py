"""How many tokens an image makes in a prompt: by its size, which its first bytes tell."""

import base64
import binascii
import math
import struct

from proxy.core.families import Patches, sight_of

DEFAULT_SIZE = (1024, 1024)  # of an image that is not in the request
MAX_HEAD_CHARACTERS = 1 << 18  # of base64: a JPEG may carry a lot before it tells its size
TILE, SHORT_SIDE, LONG_SIDE = 512, 768, 2048
PATCH = 32
AROUND_PATCHES = 1  # token more than the patches make
JPEG_MARK = 0xFF
JPEG_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
Size = tuple[int, int]


def size_of(url: str) -> Size | None:
    """Return width and height of an image in a data URL, None where that cannot be told."""
    kind, _, data = url.partition(";base64,")
    if not kind.startswith("data:") or not data:
        return None
    data = data[:MAX_HEAD_CHARACTERS].rstrip("=")
    data = data[:-1] if len(data) % 4 == 1 else data  # it was cut
    padding = "=" * (-len(data) % 4)
    try:
        head = base64.b64decode(data + padding)
        return _png(head) or _gif(head) or _webp(head) or _jpeg(head)
    except (binascii.Error, ValueError, struct.error, IndexError):
        return None


def image_tokens(model: str, size: Size | None, detail: str) -> int:
    """Return the tokens of an image; `detail` is what the request asks for."""
    width, height = size or DEFAULT_SIZE
    sight = sight_of(model)
    if isinstance(sight, Patches):
        return math.ceil(_patches(width, height, sight.most) * sight.factor) + AROUND_PATCHES
    return sight.base + (0 if detail == "low" else sight.tile * _tiles(width, height))


def is_fixed(model: str, detail: str) -> bool:
    """Tell whether an image makes as many tokens whatever its size."""
    return detail == "low" and not isinstance(sight_of(model), Patches)


def _tiles(width: int, height: int) -> int:
    """Return the number of squares that cover an image once it is made to fit."""
    scale = min(1.0, LONG_SIDE / max(width, height))
    scale *= min(1.0, SHORT_SIDE / (min(width, height) * scale))
    return math.ceil(width * scale / TILE) * math.ceil(height * scale / TILE)


def _patches(width: int, height: int, most: int) -> int:
    count = math.ceil(width / PATCH) * math.ceil(height / PATCH)
    if count <= most:
        return count
    scale = math.sqrt(most * PATCH**2 / (width * height))
    across, down = width * scale / PATCH, height * scale / PATCH
    scale *= min(max(math.floor(across), 1) / across, max(math.floor(down), 1) / down)
    return min(most, math.ceil(width * scale / PATCH) * math.ceil(height * scale / PATCH))


def _png(head: bytes) -> Size | None:
    return _sized(struct.unpack_from(">II", head, 16)) if head.startswith(b"\x89PNG") else None


def _gif(head: bytes) -> Size | None:
    return _sized(struct.unpack_from("<HH", head, 6)) if head.startswith(b"GIF8") else None


def _webp(head: bytes) -> Size | None:
    if not head.startswith(b"RIFF") or head[8:12] != b"WEBP":
        return None
    if head[12:16] == b"VP8X":
        wide, high = head[24:27], head[27:30]
        return int.from_bytes(wide, "little") + 1, int.from_bytes(high, "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", head, 26)
    return _sized((width & 0x3FFF, height & 0x3FFF))


def _jpeg(head: bytes) -> Size | None:
    """Go from segment to segment until one tells of the frame."""
    if not head.startswith(b"\xff\xd8"):
        return None
    place = 2
    while head[place] == JPEG_MARK:
        marker, (length,) = head[place + 1], struct.unpack_from(">H", head, place + 2)
        if marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", head, place + 5)
            return _sized((width, height))
        place += 2 + length
    return None


def _sized(size: tuple[int, ...]) -> Size | None:
    width, height = size
    return (width, height) if width and height else None

"""Event ids: UUIDv7 made from a clock reading and random bits that the caller supplies."""

import struct

_MILLISECOND = 1_000_000  # nanoseconds
_VERSION = 0x7000
_pack = struct.Struct(">Q").pack


def uuid7(unix_ns: int, tail: bytes) -> bytes:
    """Return the 16 bytes of a UUIDv7 (RFC 9562 sections 5.7 and 6.2, method 3).

    `rand_a` holds the fraction of the millisecond in 1/4096, so that ids of one process sort by
    time; `tail` is one of `tails`.
    """
    milliseconds, rest = divmod(unix_ns, _MILLISECOND)
    fraction = (rest << 12) // _MILLISECOND
    return _pack((milliseconds & 0xFFFF_FFFF_FFFF) << 16 | _VERSION | fraction) + tail


def tails(random: bytes) -> list[bytes]:
    """Return the second halves of ids, eight bytes each: the variant and 62 random bits."""
    return [
        bytes((0x80 | random[start] & 0x3F,)) + random[start + 1 : start + 8]
        for start in range(0, len(random), 8)
    ]

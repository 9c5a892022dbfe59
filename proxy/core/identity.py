"""Event ids: UUIDv7 made from a clock reading and random bits that the caller supplies."""

import struct
from hashlib import sha256

_MILLISECOND = 1_000_000  # nanoseconds
_VERSION = 0x7000
_VARIANT = 0x8000_0000_0000_0000
_pack = struct.Struct(">QQ").pack


def uuid7(unix_ns: int, random_bits: int) -> bytes:
    """Return the 16 bytes of a UUIDv7 (RFC 9562 sections 5.7 and 6.2, method 3).

    `rand_a` holds the fraction of the millisecond in 1/4096, so that ids of one process sort by
    time; `random_bits` are 62 bits.
    """
    milliseconds, rest = divmod(unix_ns, _MILLISECOND)
    fraction = (rest << 12) // _MILLISECOND
    return _pack(
        (milliseconds & 0xFFFF_FFFF_FFFF) << 16 | _VERSION | fraction, _VARIANT | random_bits
    )


def derived(event_id: bytes, *names: str) -> bytes:
    """Return the id of what follows from an event: the same moment, and always the same id."""
    digest = sha256(event_id + "\0".join(names).encode(errors="replace")).digest()
    high, low = struct.unpack(">HQ", digest[:10])
    milliseconds = int.from_bytes(event_id[:6], "big")
    return _pack(milliseconds << 16 | _VERSION | high & 0xFFF, _VARIANT | low >> 2)

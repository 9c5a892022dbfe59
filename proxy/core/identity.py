"""Event ids: UUIDv7 made from a clock reading and random bits that the caller supplies."""

_MILLISECOND = 1_000_000  # nanoseconds


def uuid7(unix_ns: int, random_bits: int) -> bytes:
    """Return the 16 bytes of a UUIDv7 (RFC 9562 sections 5.7 and 6.2, method 3).

    `rand_a` holds the fraction of the millisecond in 1/4096, so that ids of one process sort by
    time; `random_bits` are 62 bits.
    """
    milliseconds, rest = divmod(unix_ns, _MILLISECOND)
    fraction = (rest << 12) // _MILLISECOND
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    value |= (0x7000 | fraction) << 64
    value |= 0x8000_0000_0000_0000 | (random_bits & 0x3FFF_FFFF_FFFF_FFFF)
    return value.to_bytes(16, "big")

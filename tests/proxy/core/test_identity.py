"""Event ids are UUIDv7 whose time can be read back."""

from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.identity import derived, uuid7
from proxy.core.model import created_at

MOMENTS = st.integers(0, 4_000_000_000_000_000_000)
BITS = st.integers(0, 2**62 - 1)


@given(MOMENTS, BITS)
def test_an_id_is_a_uuid_of_version_7(unix_ns: int, bits: int) -> None:
    """Others must be able to read it (RFC 9562 section 5.7)."""
    value = UUID(bytes=uuid7(unix_ns, bits))
    assert (value.version, value.variant) == (7, "specified in RFC 4122")


@given(MOMENTS, MOMENTS, BITS, BITS)
def test_ids_sort_by_time(first: int, second: int, some: int, other: int) -> None:
    """The primary key and every index rely on it, down to a quarter of a microsecond."""
    if second - first >= 300:
        assert uuid7(first, some) < uuid7(second, other)


def test_all_random_bits_are_kept() -> None:
    """All 62, so that no two ids of one moment meet."""
    assert uuid7(0, 2**62 - 1)[8:] == b"\xbf" + b"\xff" * 7
    assert uuid7(0, 0)[8:] == b"\x80" + bytes(7)


def test_the_moment_is_read_back_to_the_millisecond() -> None:
    """The row's created_at is made from the id alone."""
    unix_ns = 1_795_360_000_123_999_999
    expected = datetime(2026, 11, 22, 15, 6, 40, 123_000, tzinfo=UTC)
    assert created_at(uuid7(unix_ns, 0)) == expected


@given(MOMENTS, BITS)
def test_an_id_that_is_derived_keeps_the_moment(unix_ns: int, bits: int) -> None:
    """And is the same for the same names, so that whoever derives it finds the same row."""
    event_id = uuid7(unix_ns, bits)
    found = derived(event_id, "a", "b")
    assert UUID(bytes=found).version == 7
    assert UUID(bytes=found).variant == "specified in RFC 4122"
    assert created_at(found) == created_at(event_id)
    assert found == derived(event_id, "a", "b") != derived(event_id, "ab")

import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.core.model import (
    AnswerUnits,
    Closing,
    Lines,
    Opening,
    Record,
    RequestUnits,
    Sighting,
)
from proxy.core.records import (
    HEADER,
    MAGIC,
    MAX_FRAME_BYTES,
    MAX_PAYLOAD_BYTES,
    Folded,
    framed,
    lock_name,
    pack,
    scan,
    scan_folded,
    segment_name,
    segment_of,
    writer_name,
)
from tests.fakes.records import closing, opening

RECORDS: list[Record] = [opening(1), opening(2), closing(1), closing(2)]
STREAM = b"".join(map(pack, RECORDS))
EDGES = [0, *(len(b"".join(map(pack, RECORDS[:count]))) for count in (1, 2, 3, 4))]


def test_records_come_back_as_they_went() -> None:
    """The journal is read by another process: nothing may change on the way."""
    found = scan(STREAM, limit=10, final=False)
    assert found.records == RECORDS
    assert (found.consumed, found.skipped) == (len(STREAM), 0)


def test_openings_are_left_as_they_are_until_somebody_asks() -> None:
    """Of most only the id is wanted; those of earlier releases had fewer fields."""
    old = msgspec.msgpack.encode(msgspec.msgpack.decode(msgspec.msgpack.encode(opening(3)))[:14])
    found = scan_folded(STREAM + framed(old), limit=10, final=False).records
    folded = [record for record in found if isinstance(record, Folded)]
    assert [each.event_id for each in folded] == [opening(n).event_id for n in (1, 2, 3)]
    assert [each.opening() for each in folded] == [opening(1), opening(2), opening(3)]
    assert [record for record in found if record not in folded] == [closing(1), closing(2)]


def test_a_folded_opening_that_cannot_be_read_is_none() -> None:
    """It may be of a release to come, or no opening at all."""
    assert Folded(b"", b"\x01").opening() is None
    assert Folded(b"", msgspec.msgpack.encode(closing(1))).opening() is None


def test_what_is_billed_by_the_unit_comes_back() -> None:
    """And a journal from before there were such fields is read all the same."""
    asked = RequestUnits(images=2, size="1024x1024", audio_seconds=1.5)
    told = AnswerUnits(web_searches=2, containers=("1g", "4g"), image_usage=b"{}")
    record = replace(closing(1), request_units=asked, answer_units=told)
    assert scan(pack(record), limit=1, final=True).records == [record]
    old = msgspec.msgpack.encode(msgspec.msgpack.decode(msgspec.msgpack.encode(closing(1)))[:-2])
    frame = HEADER.pack(MAGIC, len(old), zlib.crc32(old)) + old
    assert scan(frame, limit=1, final=True).records == [closing(1)]


def test_no_more_records_than_asked_for_are_read() -> None:
    """Batches are bounded; the rest is read from where the first part ended."""
    found = scan(STREAM, limit=3, final=True)
    assert found.records == RECORDS[:3]
    rest = scan(STREAM[found.consumed :], limit=3, final=True)
    assert rest.records == RECORDS[3:]


@given(st.integers(0, len(STREAM)))
def test_a_torn_tail_is_waited_for_while_its_writer_lives(cut: int) -> None:
    """A reader may look while a write is under way: what it sees then is no garbage."""
    whole = sum(edge <= cut for edge in EDGES) - 1
    found = scan(STREAM[:cut], limit=10, final=False)
    assert found.records == RECORDS[:whole]
    assert (found.consumed, found.skipped) == (EDGES[whole], 0)


@given(st.integers(0, len(STREAM)))
def test_a_torn_tail_is_skipped_when_nothing_follows(cut: int) -> None:
    """A killed process or a power cut leaves one: it is ordinary, and counted."""
    whole = sum(edge <= cut for edge in EDGES) - 1
    found = scan(STREAM[:cut], limit=10, final=True)
    assert found.records == RECORDS[:whole]
    assert (found.consumed, found.skipped) == (cut, cut - EDGES[whole])


@given(st.binary(max_size=200), st.booleans())
def test_garbage_between_records_is_skipped_and_counted(garbage: bytes, final: bool) -> None:  # noqa: FBT001  given by hypothesis
    """One bad block must not hide what was written after it."""
    found = scan(STREAM + garbage + STREAM, limit=20, final=final)
    assert found.records == RECORDS * 2
    assert found.skipped == len(garbage)


@given(st.integers(0, len(STREAM) - 1), st.integers(1, 255))
def test_a_flipped_byte_costs_the_record_it_is_in(place: int, flip: int) -> None:
    """The checksum finds it; the others are read."""
    hit = sum(edge <= place for edge in EDGES) - 1
    data = bytearray(STREAM)
    data[place] ^= flip
    found = scan(bytes(data), limit=10, final=True)
    assert found.records == RECORDS[:hit] + RECORDS[hit + 1 :]
    assert found.skipped == EDGES[hit + 1] - EDGES[hit]


@given(st.binary(max_size=400), st.booleans())
def test_no_bytes_make_the_reader_fail(data: bytes, final: bool) -> None:  # noqa: FBT001  given by hypothesis
    """Whatever a disk gives back is read without an exception."""
    found = scan(data, limit=10, final=final)
    assert 0 <= found.consumed <= len(data)


def test_a_bad_place_at_a_living_end_is_left_until_a_record_follows() -> None:
    """On some file systems a write is seen in parts, in any order."""
    broken = STREAM[:-1] + b"?"
    found = scan(broken, limit=10, final=False)
    assert (found.records, found.consumed) == (RECORDS[:3], EDGES[3])
    later = scan(broken[found.consumed :] + STREAM, limit=10, final=False)
    assert later.records == RECORDS


def test_garbage_longer_than_any_record_is_passed_even_at_a_living_end() -> None:
    """Otherwise a reader with a bounded window would stand still for ever."""
    found = scan(bytes(3 * MAX_FRAME_BYTES), limit=10, final=False)
    assert found.consumed == found.skipped == 2 * MAX_FRAME_BYTES


def test_a_length_that_no_record_has_is_no_frame() -> None:
    """A wrong length must not make the reader wait for gigabytes."""
    liar = HEADER.pack(MAGIC, MAX_PAYLOAD_BYTES + 1, 0)
    found = scan(liar + STREAM, limit=10, final=False)
    assert found.records == RECORDS


def test_a_whole_frame_with_an_unknown_record_is_skipped() -> None:
    """A later version may have written kinds of records that this one does not know."""
    payload = msgspec.msgpack.encode([99, "from the future"])
    frame = HEADER.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload
    found = scan(frame + STREAM, limit=10, final=False)
    assert (found.records, found.skipped) == (RECORDS, len(frame))


@pytest.mark.parametrize(
    "metadata", [{"a": "\ud800"}, {"a": 2**70}, {"a": object()}, {"a": "x" * MAX_PAYLOAD_BYTES}]
)
def test_metadata_that_cannot_be_stored_is_left_out_and_said(metadata: dict[str, Any]) -> None:
    """The call is still counted, for its user."""
    given_ = replace(opening(7), metadata=metadata)
    records: list[Record] = [given_, replace(closing(7), opening=given_)]
    found = scan(b"".join(map(pack, records)), limit=9, final=True)
    first, second = found.records
    assert isinstance(first, Opening)
    assert isinstance(second, Closing)
    assert first == second.opening
    assert (first.metadata, first.attribution_problem) == (None, "metadata_not_storable")
    assert first.user_id == "ada"


def test_texts_that_utf8_cannot_carry_are_replaced() -> None:
    """Header fields are bytes; where they were decoded loosely, the record is kept all the same."""
    found = scan(
        pack(replace(opening(), api_path="/v1/\udcff", metadata=None)), limit=1, final=True
    )
    assert isinstance(found.records[0], Opening)
    assert found.records[0].api_path == "/v1/�"


def test_usage_of_absurd_size_is_left_out_and_said() -> None:
    """A usage object has a few hundred bytes; what is no usage object must not fill the disk."""
    found = scan(pack(replace(closing(), usage=b"x" * MAX_PAYLOAD_BYTES)), limit=1, final=True)
    record = found.records[0]
    assert isinstance(record, Closing)
    assert (record.usage, record.usage_problem) == (None, "usage_too_large")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("w1-5-7-ab.00000001.journal", ("w1-5-7-ab", 1)),
        ("w.123456789.journal", ("w", 123456789)),
        ("w.1.journal", None),
        ("w.00000001.journal.new", None),
        ("w.lock", None),
    ],
)
def test_segments_are_known_by_their_names(name: str, expected: tuple[str, int] | None) -> None:
    """Other files in the directory are none of our business."""
    assert segment_of(name) == expected
    if expected:
        assert segment_name(*expected) == name


@pytest.mark.parametrize("name", ["worker-1", "../../etc", "a.b", "w 1/é", ""])
def test_a_writer_of_any_name_has_segments_that_are_known(name: str) -> None:
    """A name comes from outside; it must neither leave the directory nor confuse the reader."""
    writer = writer_name(name, "5-7-ab")
    assert segment_of(segment_name(writer, 3)) == (writer, 3)


def test_the_lock_is_named_after_its_writer() -> None:
    """Writer and recorder meet there."""
    assert lock_name("w1") == "w1.lock"


def test_lines_and_sightings_come_back_as_they_were() -> None:
    """Of a call that has seen far too much, some of it."""
    seen = Sighting(kind="batch", object_id="b", usage=b'{"a":1}', units=AnswerUnits(images=1))
    lines = Lines(event_id=bytes(16), upstream="u", file_id="f", lines=(seen,))
    told = replace(closing(), sightings=(seen,) * 100)
    found = scan(pack(lines) + pack(told), limit=9, final=True)
    assert found.records == [lines, told]
    huge = replace(seen, usage=b"x" * 4096)
    (record,) = scan(pack(replace(told, sightings=(huge,) * 100)), limit=9, final=True).records
    assert isinstance(record, Closing)
    assert record.sightings == (huge,) * 16
    (record,) = scan(pack(replace(lines, lines=(huge,) * 100)), limit=9, final=True).records
    assert record == replace(lines, lines=())

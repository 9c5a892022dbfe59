"""How the journal looks on disk: the names of its files and the frame around each record.

A frame is two bytes of magic, the payload's length and its CRC-32 (big-endian), then the payload:
an `Opening`, a `Closing` or `Lines` in msgpack. The magic starts with 0xC1, which neither UTF-8 nor
msgpack ever uses, so that no text that a client sends can look like a frame. Whoever reads may meet
anything: a write that is still under way, a torn tail, blocks of zeros after a power cut. Reading
therefore never fails; it finds the next place where a frame is whole and counts what lay between.
"""

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import msgspec

from proxy.core.model import Closing, Lines, Opening, Record

MAGIC = b"\xc1\xf5"
HEADER = struct.Struct(">2sII")  # magic, length and CRC-32 of the payload
MAX_PAYLOAD_BYTES = 256 * 1024
MAX_FRAME_BYTES = HEADER.size + MAX_PAYLOAD_BYTES
MAX_TEXT_CHARACTERS = 2048  # of one text, where a record does not fit as it is
MAX_USAGE_BYTES = 64 * 1024  # likewise
MAX_SIGHTINGS = 16  # likewise; each holds two usage objects of 4 KiB at most

_SEGMENT = re.compile(r"(?P<writer>[A-Za-z0-9_-]+)\.(?P<number>\d{8,})\.journal")
_ODD = re.compile(r"[^A-Za-z0-9_-]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_NOT_STORED = "metadata_not_storable"
_R = TypeVar("_R", Opening, Closing, Lines)
_T = TypeVar("_T")

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)

# How an opening begins: the array, its tag, the head of its event_id.
_ID_OCTETS = 16
_OPENING = _encode(
    Opening(event_id=bytes(_ID_OCTETS), operation_name="", method="", api_path="", upstream="")
).partition(bytes(_ID_OCTETS))[0]
_ID = slice(len(_OPENING), len(_OPENING) + _ID_OCTETS)


class Folded(NamedTuple):
    """An opening as it lies in the journal; most are never read, because their closing comes."""

    event_id: bytes
    payload: bytes

    def opening(self) -> Opening | None:
        """Return the record; None where this version of the program cannot read it."""
        record = _read(self.payload)
        return record if isinstance(record, Opening) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan(Generic[_T]):
    """What was found in a stretch of a segment: the first `consumed` bytes are dealt with."""

    records: list[_T]
    consumed: int
    skipped: int  # bytes among the consumed ones that belong to no readable record


def writer_name(name: str, unique: str) -> str:
    """Return what a writer's files are called, whatever it is called itself."""
    return f"{_ODD.sub('-', name)}-{unique}"


def segment_name(writer: str, number: int) -> str:
    """Return the file name of a writer's segment."""
    return f"{writer}.{number:08d}.journal"


def segment_of(file_name: str) -> tuple[str, int] | None:
    """Return writer and number of a segment, or None where the file is not a segment."""
    match = _SEGMENT.fullmatch(file_name)
    return (match["writer"], int(match["number"])) if match else None


def lock_name(writer: str) -> str:
    """Return the name of the file that a writer keeps locked for as long as it lives."""
    return f"{writer}.lock"


def pack(record: Record) -> bytes:
    """Return the frame of a record; what cannot be stored in it is left out, and it says so."""
    try:
        payload = _encode(record)
    except (ValueError, OverflowError, TypeError, RecursionError):  # surrogates, 128-bit integers
        payload = _encode(_storable(record))
    if len(payload) > MAX_PAYLOAD_BYTES:
        payload = _encode(_storable(record))
    return framed(payload)


def framed(payload: bytes) -> bytes:
    """Return the frame around a record that is encoded already."""
    return HEADER.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload


def scan(data: bytes, *, limit: int, final: bool) -> Scan[Record]:
    """Read at most `limit` records from the start of `data`.

    `final`: nothing will ever follow `data`, so that what is unfinished is torn. Otherwise a bad
    place near the end is left for later, unless a whole frame follows it.
    """
    return _scan(data, limit, _read, final=final)


def scan_folded(data: bytes, *, limit: int, final: bool) -> Scan[Closing | Lines | Folded]:
    """Do the same, and leave openings as they are."""
    return _scan(data, limit, _read_folded, final=final)


def _scan(data: bytes, limit: int, read: Callable[[bytes], _T | None], *, final: bool) -> Scan[_T]:
    records: list[_T] = []
    place = settled = readable = 0
    size = len(data)
    while len(records) < limit:
        place = data.find(MAGIC, place)
        begin = place + HEADER.size
        if place < 0 or begin > size:
            settled = _settled(settled, size, final=final)
            break
        _, length, checksum = HEADER.unpack_from(data, place)
        end = begin + length
        if length <= MAX_PAYLOAD_BYTES and end > size and not final:
            settled = _settled(settled, size, final=final)
            break
        payload = data[begin:end]
        if length > MAX_PAYLOAD_BYTES or end > size or zlib.crc32(payload) != checksum:
            place += 1
            continue
        if (record := read(payload)) is not None:
            records.append(record)
            readable += end - place
        place = settled = end
    return Scan(records=records, consumed=settled, skipped=settled - readable)


def _settled(settled: int, size: int, *, final: bool) -> int:
    """Return how far data is dealt with in which nothing whole is left."""
    return max(settled, size if final else size - MAX_FRAME_BYTES)


def _read(payload: bytes) -> Record | None:
    """Return the record, or None where this version of the program cannot read it."""
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError:
        return None


def _read_folded(payload: bytes) -> Closing | Lines | Folded | None:
    if payload.startswith(_OPENING):
        return Folded(payload[_ID], payload)
    record = _read(payload)
    if isinstance(record, Opening):  # of a release that wrote fewer fields
        return Folded(record.event_id, payload)
    return record


def _storable(record: Record) -> Record:
    """Return the record with clean and short texts, and without what is only of use whole."""
    if isinstance(record, Lines):
        return msgspec.structs.replace(_clean(record), lines=())
    if isinstance(record, Opening):
        return msgspec.structs.replace(
            _clean(record), metadata=None, attribution_problem=_NOT_STORED
        )
    opening = msgspec.structs.replace(
        _clean(record.opening), metadata=None, attribution_problem=_NOT_STORED
    )
    record = msgspec.structs.replace(record, sightings=record.sightings[:MAX_SIGHTINGS])
    usage = record.usage
    if usage is not None and len(usage) > MAX_USAGE_BYTES:
        return msgspec.structs.replace(
            _clean(record), opening=opening, usage=None, usage_problem="usage_too_large"
        )
    return msgspec.structs.replace(_clean(record), opening=opening)


def _clean(record: _R) -> _R:
    """Return the record with texts that UTF-8 can carry, none longer than a few kilobytes."""
    texts = {
        field: _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", value)[:MAX_TEXT_CHARACTERS]
        for field in record.__struct_fields__
        if isinstance(value := getattr(record, field), str)
    }
    return msgspec.structs.replace(record, **texts)

"""Journals as somebody finds them: copied, put back, or torn at their end."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from random import Random

from proxy.core.model import Closing, Opening, Record
from proxy.core.records import HEADER, lock_name, scan, segment_name, segment_of
from proxy.durability import is_locked

EVERYTHING = 10**9
TORN, CUT_SHORT = 0.7, 0.6  # how often a closing is torn, and a piece of a record left behind


def copy_segments(source: Path, target: Path) -> None:
    """Copy all segments into a new directory."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in source.glob("*.journal"):
        with suppress(FileNotFoundError):
            shutil.copyfile(path, target / path.name)


def put_back(source: Path, target: Path) -> list[Path]:
    """Put copied segments back, under their own names where these are free; return where."""
    put = []
    for path in sorted(source.iterdir()):
        writer, number = segment_of(path.name) or ("", 0)
        is_free = not list(target.glob(f"{writer}.*"))
        name = path.name if is_free else segment_name(f"again-{os.urandom(4).hex()}", number)
        part = (target / name).with_suffix(".part")
        shutil.copyfile(path, part)
        part.rename(target / name)
        put.append(target / name)
    return put


def calls_of(directory: Path) -> list[str]:
    """Return the ids of all calls of which there is a record."""
    found = set()
    for path in directory.iterdir():
        for record in _records(path.read_bytes()):
            if isinstance(record, Opening):
                found.add(record.event_id.hex())
            elif isinstance(record, Closing):
                found.add(record.opening.event_id.hex())
    return sorted(found)


def last_of_the_dead(directory: Path) -> Path | None:
    """Return the segment that was written last by a writer that is dead."""
    found = [
        path
        for path in directory.glob("*.journal")
        if (segment := segment_of(path.name))
        and not is_locked(directory / lock_name(segment[0]))
        and path.stat().st_size
    ]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def has_written(directory: Path, pid: int) -> bool:
    """Tell whether a record of the worker with this process id is there."""
    with suppress(FileNotFoundError):
        return any(path.stat().st_size for path in directory.glob(f"*-{pid}-*.journal"))
    return False


def tear(path: Path, chance: Random) -> int | None:
    """Tear the end of a segment; return the call that has lost its closing by that.

    An opening is never torn: what a power cut takes of these is bounded by syncing, and not what a
    kill can do. Such a segment gets the beginning of a record at its end, or zeros.
    """
    data = path.read_bytes()
    place = last = 0
    while place + HEADER.size <= len(data):
        last, place = place, place + HEADER.size + HEADER.unpack_from(data, place)[1]
    middle = last + (len(data) - last) // 2
    number = _closed_call(data[last:])
    if number is not None and chance.random() < TORN:
        os.truncate(path, middle)
        return number
    with path.open("ab") as file:
        file.write(data[last:middle] if chance.random() < CUT_SHORT else bytes(4096))
    return None


def _closed_call(frame: bytes) -> int | None:
    records = _records(frame)
    if not records or not isinstance(records[0], Closing):
        return None
    number = (records[0].opening.metadata or {}).get("call")
    return None if number is None else int(str(number))


def _records(data: bytes) -> list[Record]:
    return scan(data, limit=EVERYTHING, final=True).records

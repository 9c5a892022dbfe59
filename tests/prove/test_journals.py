import os
from pathlib import Path
from random import Random

from msgspec.structs import replace

from prove.journals import (
    calls_of,
    copy_segments,
    has_written,
    last_of_the_dead,
    put_back,
    tear,
)
from proxy.core.model import Opening
from proxy.core.records import pack, scan
from proxy.journal import JournalWriter
from tests.fakes.records import closing, opening

TEARS = 20  # seeds, among which each way to tear is found


def _written(directory: Path, *numbers: int) -> Path:
    """Return the segment of a writer that is gone, with the closings of some calls."""
    journal = JournalWriter(directory)
    for number in numbers:
        opened = replace(opening(number), metadata={"call": str(number)})
        journal.append(replace(closing(number), opening=opened))
    journal.close()
    (segment,) = directory.glob(f"{journal.writer}*.journal")
    return segment


def test_only_the_last_closing_is_torn(tmp_path: Path) -> None:
    """Or something is left at the end that is no record; what stands before stays readable."""
    found = set()
    for seed in range(TEARS):
        segment = _written(tmp_path / str(seed), 1, 2)
        torn = tear(segment, Random(seed))
        found.add(torn)
        left = scan(segment.read_bytes(), limit=9, final=True)
        assert len(left.records) == (2 if torn is None else 1)
        assert left.skipped > 0
    assert found == {None, 2}


def test_an_opening_is_never_torn(tmp_path: Path) -> None:
    """It gets something behind it."""
    segment = tmp_path / "w-1.00000001.journal"
    segment.write_bytes(pack(opening()))
    assert tear(segment, Random(1)) is None
    (left,) = scan(segment.read_bytes(), limit=9, final=True).records
    assert isinstance(left, Opening)


def test_a_copy_is_put_back_under_a_name_that_is_free(tmp_path: Path) -> None:
    """Its own, where nobody has it any more."""
    source, kept = tmp_path / "journal", tmp_path / "kept"
    segment = _written(source, 1, 2, 3)
    assert last_of_the_dead(source) == segment
    copy_segments(source, kept)
    assert len(calls_of(kept)) == 3
    (other,) = put_back(kept, source)
    assert other != segment
    for path in source.iterdir():
        path.unlink()
    assert put_back(kept, source) == [segment]


def test_a_worker_that_has_written_is_known_by_its_process_id(tmp_path: Path) -> None:
    """One that was only just started has a segment, and nothing in it."""
    journal = JournalWriter(tmp_path, name="worker-0")
    assert not has_written(tmp_path, os.getpid())
    journal.append(opening())
    assert has_written(tmp_path, os.getpid())
    assert not has_written(tmp_path, 1)
    journal.close()

import os
from pathlib import Path

from prove.stage import holder_of
from proxy.durability import lock_file


def test_who_holds_a_lock_is_told_while_it_is_held(tmp_path: Path) -> None:
    """A file that is not there, or that nobody has locked, is held by nobody."""
    lock = tmp_path / "recorder.lock"
    assert holder_of(lock) is None
    fd = lock_file(lock)
    assert holder_of(lock) == os.getpid()
    os.close(fd)
    assert holder_of(lock) is None

import multiprocessing
import os
from pathlib import Path

import pytest

from proxy.durability import is_locked, lock_file, replace_file, sync_directory


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    """Readers see the old content or the new; nothing else is left behind."""
    path = tmp_path / "state"
    replace_file(path, b"old")
    with path.open("rb") as reader:
        replace_file(path, b"new", lasting=False)
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o077 == 0


def test_a_replacement_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """What was there stays, and no half-written file eats the room."""
    (tmp_path / "state").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "state", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    """The second who wants it is told, and gets it after the first is gone."""
    path = tmp_path / "x.lock"
    assert not is_locked(path)
    first = lock_file(path)
    assert is_locked(path)
    with pytest.raises(BlockingIOError):
        lock_file(path)
    os.close(first)
    assert not is_locked(path)
    os.close(lock_file(path))


def test_a_fresh_lock_is_already_locked_when_it_appears(tmp_path: Path) -> None:
    """Nobody may take a writer that just starts for a dead one."""
    path = tmp_path / "x.lock"
    lock = lock_file(path, fresh=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.lock"]
    assert is_locked(path)
    os.close(lock)


def test_a_killed_process_gives_its_lock_back(tmp_path: Path) -> None:
    """The kernel releases it, whatever the process could not do any more."""
    path = tmp_path / "x.lock"
    context = multiprocessing.get_context("spawn")
    locked = context.Event()
    process = context.Process(target=_hold, args=(path, locked))
    process.start()
    assert locked.wait(20)
    assert is_locked(path)
    process.kill()
    process.join()
    process.close()
    assert not is_locked(path)


def test_a_directory_can_be_synced(tmp_path: Path) -> None:
    """What it brings cannot be seen without a power cut; that it works can."""
    sync_directory(tmp_path)


def _hold(path: Path, locked: "multiprocessing.synchronize.Event") -> None:
    lock_file(path)
    locked.set()
    locked.wait()
    multiprocessing.Event().wait()

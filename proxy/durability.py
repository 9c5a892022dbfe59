"""Files that survive a power cut, and files that only one process may hold.

It knows nothing of what is in them.
"""

import fcntl
import os
from pathlib import Path

_CREATE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


def sync_directory(directory: Path) -> None:
    """Make names that were made or removed in a directory last."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, content: bytes, *, lasting: bool = True) -> None:
    """Give a file new content in one step: readers see the old or the new, never a part."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        with open(os.open(fresh, _CREATE | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123
            file.write(content)
            file.flush()
            if lasting:
                os.fdatasync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    if lasting:
        sync_directory(path.parent)


def lock_file(path: Path, *, fresh: bool = False) -> int:
    """Lock a file and return its descriptor; closing it, or dying, gives the lock back.

    Raises BlockingIOError where another process holds it. `fresh`: the file is made here, and
    already locked when it first appears under its name.
    """
    place = path.with_name(f".{path.name}.new") if fresh else path
    fd = os.open(place, _CREATE | (os.O_EXCL if fresh else 0), 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if fresh:
            place.rename(path)
    except OSError:
        os.close(fd)
        raise
    return fd


def is_locked(path: Path) -> bool:
    """Tell whether a living process holds the lock of a file; a missing file is not locked."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)

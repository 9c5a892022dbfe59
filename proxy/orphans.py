"""What a killed Postgres leaves behind, and how it is ended before another one starts.

A process of Postgres notices that its postmaster is gone when it next waits for something. A long
statement may not wait for hours, and nobody else may open the data meanwhile. What such a process
still does is worth nothing: its work ends with recovery, as after any crash. So it is told to quit,
as its postmaster would have told it, and then it is killed.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

QUIT_SECONDS = 1.0  # then it is killed
LEAVE_SECONDS = 30.0  # then somebody has to look


def ending(data: Path) -> Iterator[None]:
    """End the processes of a Postgres whose postmaster is dead, one step after another.

    Who goes through the steps decides what happens in between. When there are no more, no process
    is left, unless the last ones did not even leave when they were killed.
    """
    begun = time.monotonic()
    while (left := orphans_of(data)) and time.monotonic() < begun + LEAVE_SECONDS:
        is_late = time.monotonic() > begun + QUIT_SECONDS
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL if is_late else signal.SIGQUIT)
        yield


def orphans_of(data: Path) -> list[int]:
    """Return the processes of Postgres that work in this directory."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _is_postgres(path, data)]


def works_in(pid: int, data: Path) -> bool:
    """Return whether a living process has the data directory as its own, as a postmaster does."""
    return _link(Path(f"/proc/{pid}/cwd")) == data


def _is_postgres(process: Path, data: Path) -> bool:
    """Look at directory and program: a shell or a tool that stands there is left alone."""
    program = _link(process / "exe")
    return (
        program is not None
        and program.name.split(" ")[0] == "postgres"  # " (deleted)" after an upgrade
        and _link(process / "cwd") == data
    )


def _link(path: Path) -> Path | None:
    """Return where a link of /proc leads; None: the process has ended, or is somebody else's."""
    try:
        return path.readlink()
    except OSError:
        return None

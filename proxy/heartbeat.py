"""What the recorder lets other processes know: a small file, replaced about once a second.

Health pages and metrics of the workers read it; when its time stands still, the recorder is dead.
"""

from datetime import datetime
from pathlib import Path

import msgspec

from proxy.durability import replace_file

FILE_NAME = "recorder.json"  # in the data directory
FAILURES = ("unreachable", "refused")  # kinds of inserts that failed


class State(msgspec.Struct):
    """What other processes may know of the recorder; counts are since its start."""

    time: datetime
    database_reachable: bool | None = None  # None: not tried yet
    database_problem: str | None = None
    last_commit: datetime | None = None
    lag_bytes: int = 0  # of journal not yet in the ledger
    lag_seconds: float = 0.0  # since everything was in the ledger
    backlog_seconds: float = 0.0  # age of the oldest call on its way to the ledger
    journal_bytes: int = 0  # on disk, what is in the ledger and not cleared away included
    open_calls: int = 0
    open_objects: int = 0  # made here, billed when they are done, and not seen done
    rows: int = 0
    rows_per_second: float = 0.0  # since the last time
    unpriced: int = 0  # rows whose usage is known and whose cost is not, or not all of it
    estimated: int = 0  # rows whose usage is estimated
    insert_failures: dict[str, int] = {}  # by kind, one of FAILURES
    interrupted: int = 0
    faults: int = 0  # rows without usage and cost because of a fault of ours
    refused: int = 0
    skipped_bytes: int = 0
    unmetered_calls: int = 0  # of the last 400 days, as the ledger knows them
    journal_problem: str | None = None
    prices_problem: str | None = None
    catalog_version: str | None = None
    sums_checked: datetime | None = None  # the sums of the last days against their rows
    sums_problem: str | None = None


def publish(state: State, directory: Path) -> None:
    """Replace the file; raise OSError where that is not possible."""
    replace_file(directory / FILE_NAME, msgspec.json.encode(state), lasting=False)

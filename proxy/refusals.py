"""Keep what the database would not take: facts and the reason, one JSON line each.

Nothing reads the file but people. It is bounded: when it is full, the one before it goes.
"""

from datetime import datetime
from pathlib import Path

import msgspec

from proxy.core.model import Closing, LedgerRow

MAX_BYTES = 16 * 1024 * 1024

_encoder = msgspec.json.Encoder(enc_hook=repr)


class Refusals:
    """The file of a ledger's refusals."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes

    def keep(self, refused: LedgerRow | Closing, reason: str, *, at: datetime) -> None:
        """Append what was refused; raise OSError where that is not possible."""
        if self._path.exists() and self._path.stat().st_size >= self._max_bytes:
            self._path.replace(self._path.with_suffix(".old.jsonl"))
        with self._path.open("ab") as file:
            file.write(_line(refused, reason, at))


def _line(refused: LedgerRow | Closing, reason: str, at: datetime) -> bytes:
    fact = {"time": at, "reason": reason}
    try:
        return _encoder.encode(fact | {"refused": msgspec.to_builtins(refused)}) + b"\n"
    except (ValueError, TypeError, OverflowError, RecursionError):  # it may be refused for this
        event_id = refused.event_id if isinstance(refused, LedgerRow) else refused.opening.event_id
        return _encoder.encode(fact | {"event_id": repr(event_id)}) + b"\n"

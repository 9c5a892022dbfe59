"""Several records, one `write`: what one turn of the event loop notes goes to the journal at once.

Whatever has to wait for a record (a request on its way up, the last bytes of an answer) is handed
over with it and done right after the write. So the promise holds as if each record had a write of
its own, and a busy worker pays for one where it had dozens.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from proxy.core.model import Record


class Journal(Protocol):
    """Where records go; nothing here raises."""

    def append_many(self, records: Sequence[Record]) -> bool:
        """Write records and tell whether that worked."""


class GroupedJournal:
    """A journal that writes once a turn."""

    __slots__ = ("_call_soon", "_journal", "_records", "_report_fault", "_then")

    def __init__(
        self,
        journal: Journal,
        *,
        call_soon: Callable[[Callable[[], None]], object],
        report_fault: Callable[[BaseException], None],
    ) -> None:
        """Take where to write, how to be called at the end of the turn, and who hears of faults."""
        self._journal = journal
        self._call_soon = call_soon
        self._report_fault = report_fault
        self._records: list[Record] = []
        self._then: list[Callable[[], None]] = []

    def append(self, record: Record) -> None:
        """Write a record now, behind those that wait."""
        self._records.append(record)
        self._write()

    def append_then(self, record: Record, then: Callable[[], None]) -> None:
        """Write a record at the end of this turn, and do then what waits for it."""
        self._records.append(record)
        self._then.append(then)
        if len(self._then) == 1:
            self._call_soon(self.flush)

    def flush(self) -> None:
        """Write what waits, and do what waited for it."""
        self._write()
        waiting, self._then = self._then, []
        for then in waiting:
            try:
                then()
            except Exception as exc:  # noqa: BLE001 (one call must not take the others with it)
                self._report_fault(exc)

    def _write(self) -> None:
        if self._records:
            records, self._records = self._records, []
            self._journal.append_many(records)

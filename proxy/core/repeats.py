"""Tell a row from one that says the same again: several sockets may attend one realtime call.

A call over WebRTC or a telephone line is attended by sideband sockets (`?call_id=…`), and each of
them is told the end of every response. It is billed once, so whoever is read second adds no row. A
bounded number of ids is remembered: sockets hear of an end within moments of each other.
"""

from collections import OrderedDict
from uuid import UUID

from proxy.core.model import LedgerRow, UsageSource

MAX_REMEMBERED = 20_000
ATTENDED = ("realtime.response", "realtime.transcription")


class Repeats:
    """Remembers which row was the first of each response and each transcription."""

    __slots__ = ("_first",)

    def __init__(self) -> None:
        self._first: OrderedDict[str, UUID] = OrderedDict()

    def has(self, row: LedgerRow) -> bool:
        """Tell whether another row has told this usage; a row that comes again is itself."""
        name = row.response_id
        if row.operation_name not in ATTENDED or name is None:
            return False
        if row.usage_source != UsageSource.REPORTED.value:
            return False
        first = self._first.setdefault(name, row.event_id)
        if len(self._first) > MAX_REMEMBERED:
            self._first.popitem(last=False)
        return first != row.event_id

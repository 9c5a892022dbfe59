"""One write for what a turn of the loop notes; what waits for a record comes after it."""

import asyncio
from collections.abc import Sequence

from proxy.core.model import Record
from proxy.grouping import GroupedJournal
from tests.fakes.records import closing, opening


class Pages:
    """A journal in memory, and everything that happens in the order in which it does."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.faults: list[BaseException] = []
        self.grouped = GroupedJournal(
            self,
            call_soon=asyncio.get_running_loop().call_soon,
            report_fault=self.faults.append,
        )

    def append_many(self, records: Sequence[Record]) -> bool:
        """Note one write."""
        self.events.append(list(records))
        return True


async def test_a_turn_is_one_write() -> None:
    """And nothing goes on before it."""
    pages = Pages()
    pages.grouped.append_then(opening(1), lambda: pages.events.append("first"))
    pages.grouped.append_then(opening(2), lambda: pages.events.append("second"))
    assert pages.events == []
    await asyncio.sleep(0)
    assert pages.events == [[opening(1), opening(2)], "first", "second"]


async def test_a_record_that_cannot_wait_takes_the_others_along() -> None:
    """Records stay in order; what waits for the others still comes at the end of the turn."""
    pages = Pages()
    pages.grouped.append_then(opening(1), lambda: pages.events.append("later"))
    pages.grouped.append(closing(1))
    assert pages.events == [[opening(1), closing(1)]]
    await asyncio.sleep(0)
    assert pages.events == [[opening(1), closing(1)], "later"]


async def test_what_goes_on_may_write_again() -> None:
    """A call that ends at once opens and closes in two turns."""
    pages = Pages()
    again = closing(1)
    pages.grouped.append_then(
        opening(1), lambda: pages.grouped.append_then(again, lambda: pages.events.append("end"))
    )
    await asyncio.sleep(0)
    assert pages.events == [[opening(1)]]
    await asyncio.sleep(0)
    assert pages.events == [[opening(1)], [again], "end"]


async def test_a_fault_in_one_call_spares_the_others() -> None:
    """It is reported."""
    pages = Pages()
    fault = ValueError("a fault")

    def fail() -> None:
        raise fault

    pages.grouped.append_then(opening(1), fail)
    pages.grouped.append_then(opening(2), lambda: pages.events.append("second"))
    pages.grouped.flush()
    assert pages.events[1:] == ["second"]
    assert pages.faults == [fault]
    await asyncio.sleep(0)
    assert len(pages.events) == 2

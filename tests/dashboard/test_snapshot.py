from dashboard.filters import Filter
from dashboard.queries import Ledger
from dashboard.snapshot import Snapshot
from dashboard.together import together
from tests.dashboard.conftest import ROWS, record
from tests.fakes.rows import MOMENT, ledger_row


async def test_two_connections_see_the_same(database: str) -> None:
    """What comes between is in neither."""
    await record(database, ROWS)
    ledger = Ledger(database)
    async with ledger.snapshot() as snapshot:
        await record(database, [ledger_row(50)])
        await snapshot.take_another()
        counted = await together(*(snapshot.totals(_all(snapshot)) for _ in range(4)))
    await ledger.close()
    assert [row["calls"] for row in counted] == [len(ROWS)] * 4


async def test_one_page_at_a_time_has_a_second_connection(database: str) -> None:
    """The others answer with one, and wait for nobody."""
    await record(database, ROWS)
    ledger = Ledger(database)
    async with ledger.snapshot() as one, ledger.snapshot() as other:
        await one.take_another()
        await one.take_another()
        await other.take_another()
        assert await together(one.any_late(_all(one)), one.any_late(_all(one))) == [False, False]
        assert await together(other.any_late(_all(other))) == [False]
        assert (one.hands, other.hands) == (2, 1)
    await ledger.close()


def _all(snapshot: Snapshot) -> Filter:
    zone = snapshot.report_zone
    return Filter(range="all", first=None, last=MOMENT.date(), zone=zone, report_zone=zone)

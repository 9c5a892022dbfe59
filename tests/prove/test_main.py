from random import Random

from prove.__main__ import plan
from prove.faults import FAULTS


def test_every_fault_happens_before_one_happens_twice() -> None:
    """And which ones follow is up to the seed."""
    count = len(FAULTS)
    names = [fault.name for fault in plan(list(FAULTS), count + 30, Random(1))]
    assert set(names[:count]) == {fault.name for fault in FAULTS}
    assert len(names) == count + 30
    assert names == [fault.name for fault in plan(list(FAULTS), count + 30, Random(1))]
    assert names != [fault.name for fault in plan(list(FAULTS), count + 30, Random(2))]

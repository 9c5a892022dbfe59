import pytest

from proxy.core.model import LedgerRow
from proxy.core.repeats import MAX_REMEMBERED, Repeats
from tests.fakes.rows import ledger_row, unavailable_row


def heard(number: int, name: str | None, operation: str = "realtime.response") -> LedgerRow:
    """Return a row of a session."""
    return ledger_row(number, operation_name=operation, response_id=name)


@pytest.mark.parametrize("operation", ["realtime.response", "realtime.transcription"])
def test_the_second_that_tells_of_an_end_is_a_repeat(operation: str) -> None:
    """The first one is none, however often it is read."""
    repeats = Repeats()
    assert not repeats.has(heard(1, "a", operation))
    assert not repeats.has(heard(2, "b", operation))
    assert repeats.has(heard(3, "a", operation))
    assert not repeats.has(heard(1, "a", operation))


def test_other_rows_are_no_repeats() -> None:
    """Calls of other kinds, what has no id, and what has no usage to be doubled."""
    repeats = Repeats()
    for number in (1, 2):
        assert not repeats.has(heard(number, "a", "chat"))
        assert not repeats.has(heard(number, None))
        assert not repeats.has(
            unavailable_row(number, operation_name="realtime.response", response_id="a")
        )


def test_what_is_remembered_is_bounded() -> None:
    """The oldest is forgotten first."""
    repeats = Repeats()
    for number in range(MAX_REMEMBERED + 1):
        assert not repeats.has(heard(number, f"r{number}"))
    assert repeats.has(heard(0, f"r{MAX_REMEMBERED}"))
    assert not repeats.has(heard(1, "r0"))

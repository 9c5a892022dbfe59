from datetime import timedelta
from itertools import permutations
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.claims import Claim, Use, apart, billed_minutes, charged, claim_of, counted
from proxy.core.model import AnswerUnits, Closing, Container, LedgerRow
from tests.fakes.records import closing
from tests.fakes.rows import MOMENT, event_id, ledger_row, unavailable_row

RAN = AnswerUnits(ran_in=(Container(container_id="cntr_1", size="4g"),))


def use(number: int = 1, *, since: float = 0, lasted: float = 0, **changes: Any) -> Use:
    """Return the use of a container by a call; times are in minutes."""
    facts: dict[str, Any] = {
        "upstream": "api.openai.com",
        "container_id": "cntr_1",
        "event_id": event_id(number),
        "size": "1g",
        "began_at": MOMENT + timedelta(minutes=since),
        "ended_at": MOMENT + timedelta(minutes=since + lasted),
    }
    return Use(**(facts | changes))


def recorded(**changes: Any) -> Closing:
    """Return a call that took ninety seconds."""
    return msgspec.structs.replace(closing(7), latency_us=90_000_000, **changes)


@pytest.mark.parametrize("operation", ["realtime.response", "realtime.transcription"])
def test_an_end_that_several_hear_is_claimed_by_its_name(operation: str) -> None:
    """A response and a transcription may have the same id."""
    row = ledger_row(1, operation_name=operation, response_id="a")
    name = f"{operation}/rtc_1/a"
    expected = Claim(upstream="api.openai.com", event_id=event_id(1), name=name)
    assert claim_of(recorded(call_id="rtc_1"), row) == expected


def test_a_session_that_nobody_attends_shares_nothing() -> None:
    """Some upstreams number their responses anew in each."""
    row = ledger_row(1, operation_name="realtime.response", response_id="resp_1")
    assert claim_of(closing(), row) is None


@pytest.mark.parametrize(
    "row",
    [
        ledger_row(1, operation_name="chat"),
        ledger_row(1, operation_name="realtime.response", response_id=None),
        unavailable_row(1, operation_name="realtime.response", response_id="a"),
    ],
    ids=["of another kind", "without an id", "without a usage to be doubled"],
)
def test_other_rows_claim_nothing(row: LedgerRow) -> None:
    """Nobody else charges what they charge."""
    assert claim_of(recorded(call_id="rtc_1"), row) is None
    units = AnswerUnits(file_searches=1)
    assert claim_of(recorded(call_id="rtc_1", answer_units=units), row) is None


def test_a_container_is_claimed_for_as_long_as_the_call_took() -> None:
    """When code ran in it, within the call, is not told."""
    record = recorded(answer_units=RAN)
    row = ledger_row(1)
    claim = claim_of(record, row)
    assert claim is not None
    (found,) = claim.uses
    assert (found.container_id, found.size, found.event_id) == ("cntr_1", "4g", row.event_id)
    assert found.ended_at - found.began_at == timedelta(seconds=90)


def test_a_container_without_an_id_is_shared_with_nobody() -> None:
    """A shell that is hosted, of which the answer tells nothing more."""
    units = AnswerUnits(ran_in=(Container(container_id="", size="1g"),))
    claim = claim_of(recorded(answer_units=units), ledger_row(1))
    assert claim is not None
    assert claim.uses[0].container_id == event_id(1).hex


@pytest.mark.parametrize(
    ("seconds", "minutes"), [(0, 5), (299, 5), (300, 5), (301, 6), (1200, 20), (7200, 120)]
)
def test_a_container_is_billed_by_the_minute_and_five_at_least(seconds: int, minutes: int) -> None:
    """A minute that has begun is one."""
    assert billed_minutes(timedelta(seconds=seconds)) == minutes


@pytest.mark.parametrize(
    ("asked", "minutes"),
    [
        (use(9, since=1, lasted=1), 0),
        (use(9, since=5, lasted=2), 2),
        (use(9, since=24, lasted=1), 20),
        (use(9, since=-3, lasted=1), 3),
        (use(9, since=26, lasted=1), 5),
        (use(9, since=-40, lasted=1), 5),
        (use(9, container_id="cntr_2"), 5),
        (use(1, since=90), 5),
    ],
    ids=[
        "within the first five",
        "the rest of it",
        "shortly before it would be gone",
        "recorded late",
        "after it was gone",
        "before it was made",
        "another one",
        "the same again",
    ],
)
def test_each_use_adds_what_is_not_charged_yet(asked: Use, minutes: int) -> None:
    """The first call has charged five minutes of a container that it needed for one."""
    first = charged(use(1, lasted=5), ())
    assert first.minutes == 5
    assert charged(asked, [first]).minutes == minutes


def test_two_stretches_that_turn_out_to_be_one_are_charged_as_one() -> None:
    """What fills the gap between them comes last, from another host."""
    first = charged(use(1, lasted=1), ())
    second = charged(use(2, since=30, lasted=1), [first])
    between = charged(use(3, since=15, lasted=1), [first, second])
    assert (first.minutes, second.minutes, between.minutes) == (5, 5, 21)


def test_the_size_is_that_of_whoever_made_the_container() -> None:
    """Later calls do not tell it, or something else."""
    made = charged(use(1, size="16g"), ())
    assert charged(use(2, size=None), [made]).size == "16g"
    assert charged(use(3, size="1g"), [use(4, since=1, size="4g"), made]).size == "16g"
    assert charged(use(5, size=None), [use(6, size=None)]).size is None


@given(
    uses=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), min_size=1, max_size=6),
    random=st.randoms(use_true_random=False),
)
def test_the_sum_is_that_of_the_whole_in_whatever_order(
    uses: list[tuple[int, int]], random: Any
) -> None:
    """Where each follows the other in time: nothing is charged twice, and nothing is left out."""
    at, asked = 0, []
    for number, (pause, lasted) in enumerate(uses):
        at += min(pause, 19) if number else 0
        asked.append(use(number, since=at, lasted=lasted))
        at += lasted
    known: list[Use] = []
    for one in asked:
        known.append(charged(one, known))
    assert sum(one.minutes for one in known) == max(5, at)
    random.shuffle(asked)
    assert [charged(one, known) for one in asked] == [
        known[asked_one.event_id.int & 0xFF] for asked_one in asked
    ]


def test_minutes_are_counted_by_size() -> None:
    """Of containers whose size nobody has told, by that."""
    uses = [
        use(1, size="4g", minutes=5),
        use(2, size="1g", minutes=7),
        use(3, size="4g", minutes=0),
        use(4, size=None, minutes=1),
    ]
    assert counted(RAN, uses).container_minutes == (("1g", 7), ("4g", 5), ("unknown", 1))


def test_a_call_by_itself_is_charged_all_that_it_needed() -> None:
    """Nobody has claimed anything."""
    record = recorded()
    assert apart(record, AnswerUnits()) == AnswerUnits()
    assert apart(record, RAN).container_minutes == (("4g", 5),)
    long = msgspec.structs.replace(record, latency_us=400_000_000)
    assert apart(long, RAN).container_minutes == (("4g", 7),)
    claimed = msgspec.structs.replace(RAN, container_minutes=(("4g", 0),))
    assert apart(long, claimed) == claimed
    assert UUID(bytes=record.opening.event_id).version == 7


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
def test_minutes_add_up_in_whichever_order_rows_come(order: tuple[int, ...]) -> None:
    """A short use may be near to others only by way of a long one."""
    uses = {1: use(1, since=-60, lasted=55), 2: use(2, since=-30, lasted=2), 3: use(3, lasted=1)}
    known: list[Use] = []
    for number in order:
        known.append(charged(uses[number], known))
    assert sum(one.minutes for one in known) == 61

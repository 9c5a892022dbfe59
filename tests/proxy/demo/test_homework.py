from collections import Counter
from datetime import UTC, datetime
from random import Random

from proxy.demo.homework import PUPILS, UNPRICED_MODEL, Call, call, history

SINCE = datetime(2026, 10, 1, tzinfo=UTC)
UNTIL = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)
FEATURES = {
    "analyze_homework",
    "generate_hint",
    "verify_answer",
    "chat_response",
    "validate_image",
}


def _history(count: int = 12_000, seed: int = 1) -> list[Call]:
    return history(Random(seed), since=SINCE, until=UNTIL, count=count)


def test_the_same_seed_tells_the_same_story() -> None:
    """So that a screenshot can be made again."""
    assert _history(200) == _history(200)
    assert _history(200) != _history(200, seed=2)


def test_calls_come_in_the_order_of_time_and_as_many_as_asked_for() -> None:
    """The proxy's clock only goes forward, and never beyond now."""
    calls = _history()
    moments = [each.at for each in calls]
    assert moments == sorted(moments)
    assert moments[0] >= SINCE
    assert moments[-1] <= UNTIL
    assert 11_400 < len(calls) < 12_600


def test_afternoons_of_school_days_are_busy() -> None:
    """More than nights, and Tuesdays more than Saturdays."""
    calls = _history()
    hours = Counter(each.at.hour for each in calls)
    days = Counter(each.at.weekday() for each in calls)
    assert hours[16] > 10 * hours[3]
    assert days[1] > 2 * days[5]


def test_everything_happens_that_a_dashboard_should_show() -> None:
    """Five features, hundreds of pupils, errors, streams, searches, pictures, no price, no name."""
    calls = _history()
    users = {each.user for each in calls}
    models = {each.body["model"] for each in calls}
    assert {each.endpoint for each in calls} == FEATURES
    assert 300 < len(users) <= PUPILS + 15
    assert None in users
    assert {UNPRICED_MODEL, "dall-e-3", "tts-1", "gpt-5.4", "text-embedding-3-small"} <= models
    assert {429, 500} <= {each.answer.get("status") for each in calls}
    assert any(each.answer.get("searches") for each in calls)
    assert any(each.hangs_up for each in calls)
    assert sum("stream" in each.body for each in calls) > 3000


def test_counts_are_possible_ones() -> None:
    """What is cached was read, what was thought was written."""
    for each in _history():
        said = each.answer
        assert said.get("cached_tokens", 0) <= said.get("prompt_tokens", 0)
        assert said.get("reasoning_tokens", 0) <= said.get("completion_tokens", 0)


def test_one_call_can_be_made_for_now() -> None:
    """It bears the moment that it was made for."""
    assert call(Random(3), at=UNTIL, now=UNTIL).at == UNTIL

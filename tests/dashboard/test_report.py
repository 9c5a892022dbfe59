from dashboard.report import Period


def _period(calls: int, estimated: int) -> Period:
    return Period(
        name="today",
        since=None,
        calls=calls,
        errors=0,
        active_users=0,
        unpriced_calls=0,
        estimated_calls=estimated,
        unavailable_calls=0,
        prompt_tokens=None,
        completion_tokens=None,
        cached_tokens=None,
        total_tokens=None,
        cost_usd=None,
    )


def test_the_estimated_share_is_a_part_of_the_calls() -> None:
    """Rounded: it is for people."""
    assert _period(3, 1).estimated_share == 0.333333


def test_without_calls_there_is_no_share() -> None:
    """Unknown is None, never 0."""
    assert _period(0, 0).estimated_share is None

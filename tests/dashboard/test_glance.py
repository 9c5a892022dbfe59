from decimal import Decimal

from dashboard import glance
from tests.fakes.reports import calls, periods, projection, report, sums

THIN = "\N{NARROW NO-BREAK SPACE}"


def test_cards_show_today_this_month_and_everything() -> None:
    """Each against as much of what was before; all of time has nothing before it."""
    cards = glance.cards(report("overview", periods()))
    assert [card["title"] for card in cards] == ["Today", "This month", "Overall"]
    today, _, overall = cards
    assert today["cost"].text == "$1.50"
    assert today["cost"].change == "+50\N{NARROW NO-BREAK SPACE}%"
    assert overall["cost"].change is None
    assert [item.text for item in today["rows"]] == ["12", "3", "12.3M", "1.23M", "1,000"]
    assert today["href"] == "/admin?range=today"


def test_all_of_the_month_is_compared() -> None:
    """Cached tokens too, beside the part that they are."""
    before = {"calls": 10, "active_users": 3, "cached_tokens": 1_000_000}
    before |= {"prompt_tokens": 12_345_678, "completion_tokens": 2_000}
    was = {f"previous_{name}": value for name, value in before.items()}
    rows = glance.cards(report("overview", periods(**was)))[1]["rows"]
    assert [item.change and item.change.replace(THIN, "") for item in rows] == [
        "+20%",
        "±0.0%",
        "±0.0%",
        "+23%",
        "−50%",
    ]
    assert rows[3].words == f"10.0{THIN}%"


def test_an_unknown_cost_is_not_a_sum() -> None:
    """It is said to be unknown."""
    card = glance.cards(report("overview", periods(cost_usd=None, calls=None)))[1]
    assert card["cost"].text == "—"
    assert card["rows"][0].text == "—"


def test_the_strip_warns_of_what_is_not_as_it_should_be() -> None:
    """And leaves out what did not happen."""
    table = sums("endpoints", ("endpoint",), {"endpoint": "e"})
    items = {item.title: item for item in glance.strip(report("endpoints", table), "endpoints")}
    assert "Estimated" not in items
    assert items["Errors"].attention
    assert items["Errors"].href is not None
    assert "outcome=upstream_error" in items["Errors"].href
    assert items["Unpriced"].words == "17\N{NARROW NO-BREAK SPACE}%"
    assert items["Active users"].text == "3"


def test_the_months_end_is_a_range() -> None:
    """And its gauge lies within its box."""
    table = projection(
        cost_usd=Decimal(50),
        low_cost_usd=Decimal(80),
        expected_cost_usd=Decimal(90),
        high_cost_usd=Decimal(100),
    )
    found = glance.projection(report("overview", table))
    assert found is not None
    assert found["range"] == "$80.00 – $100.00"
    assert (found["part"], found["low"], found["width"]) == ("47.62%", "76.19%", "19.05%")
    assert found["title"] == "November will end at"


def test_without_days_behind_it_nothing_is_projected() -> None:
    """What was spent is known all the same."""
    found = glance.projection(report("overview", projection(cost_usd=Decimal(3))))
    assert found == {"title": "November", "range": None, "so_far": "$3.00"}


def test_the_newest_calls_are_named() -> None:
    """Also where a call names nobody and costs nobody knows what."""
    table = calls("calls", {"user_id": None, "endpoint": None, "model": None, "cost_usd": None})
    (call,) = glance.latest(report("overview", table))
    assert (call["user"], call["endpoint"], call["model"]) == (
        "(no user)",
        "(no endpoint)",
        "(no model)",
    )
    assert (call["cost"], call["clock"]) == ("—", "12:00:00")

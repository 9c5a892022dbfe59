from typing import Any

from dashboard import pricetable
from dashboard.report import Report
from tests.fakes.reports import prices, report, sums

_MINI = "gpt-5.4-mini"


def _rows(listed: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(row["name"], row["since"], row["tier"]) for row in listed["rows"]]


def _report(*models: tuple[str, str | None]) -> Report:
    used = sums(
        "models",
        ("model", "service_tier"),
        *({"model": model, "service_tier": tier} for model, tier in models),
    )
    return report(
        "models",
        used,
        prices(
            (f"{_MINI}@start/default/short", "input", "0.00000075"),
            (f"{_MINI}@start/default/short", "image_input", "0.00000075"),
            (f"{_MINI}@start/default/short", "output", "0.0000045"),
            (f"{_MINI}@2026-11-01/default/short", "input", "0.0000005"),
            (f"{_MINI}@2027-01-01/default/short", "input", "0.0000004"),
            (f"{_MINI}@start/batch/short", "input", "0.000000375"),
            (f"{_MINI}@start/default/short/regional_processing", "input", "0.00000083"),
            ("gpt-5.4@start/default/long", "input", "0.000005"),
            ("dall-e-3@start/default/short", "image/hd/1024x1024", "0.08"),
            ("web_search", "thousand_calls", "10"),
        ),
    )


def test_one_line_has_all_kinds_of_tokens() -> None:
    """By the million; what only falls back to another price is not said twice."""
    listed = pricetable.priced(_report(), tier="default")
    row = next(row for row in listed["rows"] if row["name"] == _MINI and row["since"] == "ever")
    assert [amount and amount["text"] for amount in row["amounts"]] == [
        "$0.75",
        None,
        None,
        "$4.50",
    ]
    assert row["units"] == []
    drawing = next(row for row in listed["rows"] if row["name"] == "dall-e-3")
    assert drawing["units"] == [{"component": "image hd 1024x1024", "text": "$0.08"}]


def test_a_tier_has_its_own_prices_and_old_ones_stay() -> None:
    """What a call cost last year can be looked up."""
    default = _rows(pricetable.priced(_report(), tier="default"))
    assert [since for name, since, tier in default if (name, tier) == (_MINI, "default")] == [
        "ever",
        "2026-11-01",
        "2027-01-01",
    ]
    batch = _rows(pricetable.priced(_report(), tier="batch"))
    assert (_MINI, "ever", "batch") in batch
    assert ("gpt-5.4", "ever", "default, long context") not in batch
    assert pricetable.tiers(_report()) == ["default", "batch"]


def test_prices_in_force_are_those_of_the_models_that_were_called() -> None:
    """The latest that has begun, also under a name with a date; regional ones are special."""
    found = _rows(pricetable.in_force(_report((f"{_MINI}-2026-03-17", "default"), (_MINI, None))))
    assert found == [(_MINI, "2026-11-01", "default")]
    assert _rows(pricetable.in_force(_report(("gpt-5.4", "default")))) == [
        ("gpt-5.4", "ever", "default, long context")
    ]


def test_catalogues_are_counted() -> None:
    """Those that calls were priced with."""
    assert pricetable.versions(_report()) == [{"name": "2026-11-22.3", "prices": 8}]


def test_without_prices_there_is_nothing_to_list() -> None:
    """And nothing breaks."""
    found = pricetable.priced(report("pricing", prices()), tier="default")
    assert (found["rows"], found["version"]) == ([], None)

"""One call told: what it was, and how its cost is made, line by line. Pure."""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from dashboard import formatting
from dashboard.filters import written_pair
from dashboard.layout import address, cell, facts
from dashboard.parsing import MOST_METADATA
from dashboard.report import Report

_GROUPS = (
    (
        "What was called",
        (
            *("created_at", "user_id", "endpoint", "operation_name", "api_path", "upstream"),
            *("upstream_name", "request_model", "model", "service_tier", "stream"),
        ),
    ),
    (
        "What came of it",
        (
            *("outcome", "status", "error_type", "latency_ms", "time_to_first_byte_ms"),
            *("request_bytes", "response_bytes", "retry_count"),
        ),
    ),
    (
        "What it used",
        (
            *("usage_source", "usage_problem", "prompt_tokens", "cached_tokens"),
            *("cache_write_tokens", "audio_prompt_tokens", "completion_tokens"),
            *("reasoning_tokens", "audio_completion_tokens", "total_tokens"),
        ),
    ),
    (
        "Where to find it again",
        (
            *("event_id", "upstream_request_id", "response_id", "corrects", "price_id"),
            *("catalog_version", "recorded_at", "attribution_problem"),
        ),
    ),
)
_WHY_NOT = {
    "unknown_model": "The model is in no price list, so no price is known.",
    "unknown_tool_fee": "A hosted tool was used whose fee is not known: it is missing in the sum.",
}
_WORDS = {
    "input": "read, not from the cache",
    "cached_input": "read from the cache",
    "output": "written, reasoning included",
}
_UNAVAILABLE = (
    "Neither the upstream nor anybody else could say what this call used: no cost is known."
)
_FREE = "Calls of this kind cost nothing."


def story(report: Report) -> dict[str, Any]:
    """Return everything that the page of one call shows."""
    row: Mapping[str, Any] = report.table("call").records()[0]
    columns = {column.name: column for column in report.table("call").columns}
    return {
        "identity": str(row["event_id"]),
        "sentence": _sentence(row),
        "lines": _lines(report),
        "cost": cell(columns["cost_usd"], row, report),
        "priced": row["cost_usd"] is not None and row["unpriced_reason"] is None,
        "why_not": _why_not(row),
        "source": _source(row),
        "groups": [
            {"title": title, "facts": found}
            for title, names in _GROUPS
            if (found := facts(report, names))
        ],
        "metadata": _metadata(report, row["metadata"]),
    }


def _sentence(row: Mapping[str, Any]) -> dict[str, str]:
    kind = formatting.text(str(row["operation_name"]))
    model = formatting.text(str(row["model"] or row["request_model"] or "an unknown model"))
    user = "nobody who was named" if row["user_id"] is None else formatting.text(row["user_id"])
    feature = "an unnamed endpoint" if row["endpoint"] is None else formatting.text(row["endpoint"])
    return {
        "before": f"One {kind} call of ",
        "endpoint": feature,
        "between": " for ",
        "user": user,
        "after": f", answered by {model}.",
    }


def _lines(report: Report) -> list[dict[str, str | None]]:
    """Return the components: quantity × unit price = amount."""
    if not any(table.name == "components" for table in report.tables):
        return []
    return [_line(dict(row)) for row in report.table("components").records()]


def _line(row: dict[str, Any]) -> dict[str, str | None]:
    component, price, amount = row["component"] or "cost", row["list_unit_price"], row["cost_usd"]
    listed, words = row["list_cost_usd"], _WORDS.get(component, "")
    if listed is not None and listed != amount:  # a negotiated price
        words = f"{words}; {formatting.exact(listed)} by the list".removeprefix("; ")
    return {
        "component": re.sub("[_/]", " ", component),
        "words": words or None,
        "quantity": _quantity(row["quantity"]),
        "price": None if price is None else formatting.unit_price(price, component),
        "exact_price": None if price is None else f"{formatting.exact(price)} for one",
        "amount": None if amount is None else formatting.exact(amount),
    }


def _quantity(value: Any) -> str:  # noqa: ANN401 - an int or a Decimal
    if value is None:
        return "—"
    number = Decimal(value)
    return f"{number:,f}" if number % 1 else f"{int(number):,}"


def _why_not(row: Mapping[str, Any]) -> str | None:
    reason = row["unpriced_reason"]
    if reason is not None:
        return _WHY_NOT.get(str(reason), f"Not, or not wholly, priced: {reason}.")
    if row["cost_usd"] is None:
        return _UNAVAILABLE
    return _FREE if row["price_id"] == "free" else None


def _source(row: Mapping[str, Any]) -> str | None:
    """Say which entry of which catalogue made the price."""
    if row["price_id"] is None or row["catalog_version"] is None:
        return None
    return f"Prices of {row['price_id']}, catalogue {row['catalog_version']}."


def _metadata(report: Report, held: Any) -> list[dict[str, str | None]]:  # noqa: ANN401 - of JSON
    if not held:
        return []
    members = json.loads(held) if isinstance(held, str) else held
    if not isinstance(members, dict):
        return []
    found = []
    for name, value in members.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        wanted = report.filter.with_(range="all", first=None, metadata=((name, text),))
        short = len(written_pair(name, text)) <= MOST_METADATA
        findable = short and not re.search("[\0\ud800-\udfff]", name + text)
        found.append(
            {
                "name": formatting.text(name),
                "value": formatting.text(text, longest=400),
                "href": address("calls", wanted) if findable else None,
            }
        )
    return found

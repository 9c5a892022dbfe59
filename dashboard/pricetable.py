"""Unit prices side by side: one line for each price, one column for each kind of token. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from dashboard import formatting
from dashboard.report import Report

DEFAULT = "default"
_BEGINNING = "start"
_REGIONAL = "regional_processing"
_WORDS = {"short": "", "long": "long context", _REGIONAL: "regional"}
_FALLS_BACK = {  # a kind of token without a price of its own, and whose price it then pays
    "audio_input": "input",
    "image_input": "input",
    "cached_audio_input": "cached_input",
    "cached_image_input": "cached_input",
    "cache_write_12h": "cache_write",
    "audio_output": "output",
    "image_output": "output",
}
_COMPONENTS = ("input", "cached_input", "cache_write", "output")
_TITLES = ("Input", "Cached input", "Cache write", "Output")
_PRICE = re.compile(r"(?P<model>.+?)@(?P<since>[^/]+)/(?P<tier>[^/]+)(?:/(?P<rest>.+))?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One entry of a catalogue: whom it prices, since when, and its amounts by component."""

    version: str
    price_id: str
    model: str
    since: str  # empty: ever since
    tier: str
    rest: str
    amounts: dict[str, Decimal] = field(default_factory=dict)


def priced(report: Report, *, tier: str) -> dict[str, Any]:
    """Return the newest catalogue's prices of one service tier, old periods included."""
    found = [price for price in _newest(report) if price.tier in {tier, ""}]
    return _listed(report, found)


def in_force(report: Report) -> dict[str, Any]:
    """Return the prices of the models of a report as they are now, in the tiers that were used."""
    used = report.table("models").records()
    models = {str(row["model"]) for row in used if row["model"] is not None}
    tiers = {str(row["service_tier"] or DEFAULT) for row in used} | {""}
    today = report.freshness.as_of.date().isoformat()
    latest: dict[tuple[str, str, str], Price] = {}
    for price in sorted(_newest(report), key=lambda price: price.since):
        if _REGIONAL in price.rest:
            continue
        if price.tier in tiers and price.since <= today and _is_of(price.model, models):
            latest[price.model, price.tier, price.rest] = price
    return _listed(report, latest.values())


def tiers(report: Report) -> list[str]:
    """Return the service tiers that have prices, the default first."""
    found = {price.tier for price in _newest(report)} - {"", DEFAULT}
    return [DEFAULT, *sorted(found)]


def versions(report: Report) -> list[dict[str, Any]]:
    """Return the catalogues that calls were priced with, newest first, and how large they are."""
    counted: dict[str, set[str]] = {}
    for row in report.table("prices").records():
        counted.setdefault(str(row["catalog_version"]), set()).add(str(row["price_id"]))
    return [{"name": name, "prices": len(ids)} for name, ids in counted.items()]


def _newest(report: Report) -> list[Price]:
    """Return the prices of the catalogue that stands first, which is the newest."""
    rows = report.table("prices").records()
    found: dict[str, Price] = {}
    for row in rows:
        if row["catalog_version"] != rows[0]["catalog_version"]:
            continue
        name, amount = str(row["price_id"]), row["list_unit_price"]
        price = found.setdefault(name, _price(str(row["catalog_version"]), name))
        if isinstance(amount, Decimal):
            price.amounts[str(row["component"])] = amount
    return list(found.values())


def _price(version: str, price_id: str) -> Price:
    matched = _PRICE.fullmatch(price_id)
    if matched is None:  # of a fee, or of what is free
        return Price(version=version, price_id=price_id, model=price_id, since="", tier="", rest="")
    since = "" if matched["since"] == _BEGINNING else matched["since"]
    return Price(
        version=version,
        price_id=price_id,
        model=matched["model"],
        since=since,
        tier=matched["tier"],
        rest=matched["rest"] or "",
    )


def _is_of(name: str, models: Iterable[str]) -> bool:
    """Whether an entry prices one of the models, perhaps by a name with a date behind it."""
    return any(model == name or model.startswith(f"{name}-20") for model in models)


def _listed(report: Report, prices: Iterable[Price]) -> dict[str, Any]:
    ranked = sorted(prices, key=lambda price: (price.model, price.tier, price.rest, price.since))
    return {
        "caption": report.table("prices").title,
        "version": ranked[0].version if ranked else None,
        "components": _TITLES,
        "rows": [_row(price) for price in ranked],
    }


def _row(price: Price) -> dict[str, Any]:
    rest = [name for name in sorted(price.amounts) if _is_its_own(name, price.amounts)]
    places = (price.tier, *(_WORDS.get(word, word) for word in price.rest.split("/")))
    return {
        "name": formatting.text(price.model),
        "since": price.since or "ever",
        "tier": ", ".join(filter(None, places)),
        "anchor": re.sub(r"[^A-Za-z0-9]+", "-", price.price_id),
        "amounts": [_amount(price.amounts.get(name), name) for name in _COMPONENTS],
        "units": [
            {
                "component": re.sub("[_/]", " ", name),
                "text": formatting.unit_price(price.amounts[name], name),
            }
            for name in rest
        ],
    }


def _is_its_own(name: str, amounts: Mapping[str, Decimal]) -> bool:
    """Whether a component says more than the columns do."""
    other = _FALLS_BACK.get(name)
    return name not in _COMPONENTS and (other is None or amounts[name] != amounts.get(other))


def _amount(value: Decimal | None, component: str) -> Mapping[str, str] | None:
    if value is None:
        return None
    text = formatting.unit_price(value, component).partition(" / ")[0]
    return {"text": text, "hint": f"{formatting.exact(value)} for one"}

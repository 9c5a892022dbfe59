"""The models of a pricing document: whom each entry prices, and its periods.

Nobody claims a name twice, periods follow each other, a tier is one that has a name, and long
context is priced for tiers that the period has. `sources` and `confidence` inform people; they are
checked like the rest and go no further.
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from decimal import Decimal

from proxy.core.catalog import COMPONENTS, DEFAULT_TIER, Entry, LongContext, Period, Rates
from proxy.core.document import Value

_UNPUBLISHED = "unpublished"
_MODEL = ("names", "prefixes", "dated", "sources", "confidence", "prices")
_PERIOD = ("from", "rates", "tiers", "long_context", "operations", "units")
_LONG_CONTEXT = ("above", "input", "output", "only", "rates")
_CONFIDENCE = ("high", "medium", "low")
_UNITS = (
    "audio_minute",
    "image",
    "million_characters",
    "session_minute",
    "training_hour",
    "training_million_tokens",
    "video_second",
)
_NOTHING = Value(0, "map")


def read_entries(section: Value, tiers: Collection[str]) -> tuple[Entry, ...]:
    """Return the entries of the section `models`; `tiers` are those with a name."""
    models = section.members()
    entries = tuple(_entry(model_id, model, tiers) for model_id, model in models.items())
    _refuse_shared_names(models)
    return entries


def _entry(name: str, model: Value, tiers: Collection[str]) -> Entry:
    members = model.members(_MODEL, ("sources", "confidence", "prices"))
    members["sources"].texts()
    members["confidence"].choice(_CONFIDENCE)
    return Entry(
        model_id=name,
        names=members["names"].texts() if "names" in members else (name,),
        prefixes=tuple(_prefixes(members["prefixes"])) if "prefixes" in members else (),
        dated="dated" in members and members["dated"].flag(),
        periods=tuple(_periods(members["prices"], tiers)),
    )


def _prefixes(value: Value) -> Iterator[str]:
    for item in value.items():
        if not item.text().endswith(":"):
            item.refuse('a prefix that ends with ":"')
        yield item.text()


def _refuse_shared_names(models: Mapping[str, Value]) -> None:
    owners: dict[str, str] = {}
    for model_id, model in models.items():
        for name, value in _claims(model_id, model.members()):
            if name in owners:
                value.refuse(
                    f"names claimed once, but {name!r} belongs to {owners[name]!r} already"
                )
            owners[name] = model_id


def _claims(model_id: str, members: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    if "names" not in members:
        yield model_id, members["prices"]
    for key in ("names", "prefixes"):
        if key in members:
            yield from ((item.text(), item) for item in members[key].items())


def _periods(value: Value, tiers: Collection[str]) -> Iterator[Period]:
    if not value.items():
        value.refuse("at least one period")
    previous: datetime | None = None
    for number, item in enumerate(value.items()):
        members = item.members(_PERIOD, ("from",) if number else ())
        start = members["from"].day() if "from" in members else None
        if previous and start and start <= previous:
            members["from"].refuse(f"a day after {previous.date()}, when the period before begins")
        previous = start
        yield _period(item, members, start, tiers)


def _period(
    item: Value, members: Mapping[str, Value], start: datetime | None, tiers: Collection[str]
) -> Period:
    if not members.keys() & {"rates", "units"}:
        item.refuse("rates, or units")
    own_tiers = members.get("tiers", _NOTHING).members({*tiers} - {DEFAULT_TIER})
    operations = members.get("operations", _NOTHING).members()
    long = members.get("long_context")
    return Period(
        start=start,
        rates=_rates(members.get("rates", _NOTHING)),
        tiers={tier: _tier(value) for tier, value in own_tiers.items()},
        long_context=_long_context(long, {DEFAULT_TIER, *own_tiers}) if long else None,
        operations={name: _rates(value) for name, value in operations.items()},
        units=dict(_units(members.get("units", _NOTHING))),
    )


def _rates(value: Value) -> Rates:
    members = value.members(COMPONENTS)
    return {c: None if r.scalar == _UNPUBLISHED else r.amount() for c, r in members.items()}


def _tier(value: Value) -> Decimal | Rates:
    return _rates(value) if value.kind == "map" else value.factor()


def _long_context(value: Value, tiers: Collection[str]) -> LongContext:
    members = value.members(_LONG_CONTEXT, ("above", "input", "output"))
    rates = members.get("rates", _NOTHING).members(tiers)
    only = members.get("only")
    return LongContext(
        above=members["above"].count(),
        input_factor=members["input"].factor(),
        output_factor=members["output"].factor(),
        only=frozenset(item.choice(tiers) for item in only.items()) if only else None,
        rates={tier: _rates(table) for tier, table in rates.items()},
    )


def _units(value: Value) -> Iterator[tuple[str, Decimal]]:
    """Yield amounts by unit and what tells their prices apart: image/hd/1024x1024."""
    for unit, price in value.members(_UNITS).items():
        yield from _leaves(unit, price)


def _leaves(path: str, value: Value) -> Iterator[tuple[str, Decimal]]:
    if value.kind != "map":
        yield path, value.amount()
        return
    for name, inner in value.members().items():
        yield from _leaves(f"{path}/{name}", inner)

"""What a pricing document may say, and the catalogue that it makes.

Beside the form of each value its meaning is checked: whatever is referred to exists, a spelling
means one tier, a host has one surcharge, and no component falls back to itself.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from decimal import Decimal

from proxy.core.catalog import (
    COMPONENTS,
    DEFAULT_TIER,
    Catalog,
    Contract,
    Deployment,
    Entry,
    Names,
    Tool,
    Uplift,
)
from proxy.core.document import Value
from proxy.core.entries import read_entries

_SECTIONS = (
    "schema_version",
    "catalog_version",
    "tier_names",
    "rate_fallback",
    "uplifts",
    "free",
    "default_models",
    "tools",
    "models",
    "aliases",
    "azure_deployments",
    "contract",
    "upstreams",
)
_UPSTREAM = (
    *("openai_prices", "models", "free", "default_models", "aliases"),
    *("azure_deployments", "contract"),
)
_REQUIRED = ("schema_version", "catalog_version", "models")
_SCHEMA_VERSION = 1
_UPLIFT = ("multiplier", "hosts", "models", "unpublished_for", "sources")
_TOOL = ("fees", "content_tokens_free", "tokens_per_call", "free_gigabytes", "models", "sources")
_TOOL_CHECKS = {
    "content_tokens_free": Value.flag,
    "tokens_per_call": Value.count,
    "free_gigabytes": Value.count,
    "sources": Value.texts,
}
_THOUSAND_CALLS = "thousand_calls"
_NONE = Value(0, "map")
_EMPTY = Value(0, "seq")


def read_catalog(document: Value) -> Catalog:
    """Return the catalogue that a document describes; raise PriceFileError at its first mistake."""
    sections = document.members(_SECTIONS, _REQUIRED)
    if sections["schema_version"].count() != _SCHEMA_VERSION:
        sections["schema_version"].refuse(f"{_SCHEMA_VERSION}, the only form known so far")
    tier_names = _tier_names(sections.get("tier_names", _NONE))
    tiers = {DEFAULT_TIER, *tier_names.values()}
    entries = read_entries(sections["models"], tiers)
    models = {entry.model_id for entry in entries}
    names = Names(entries, {})
    whole = Catalog(
        version=sections["catalog_version"].text(),
        entries=entries,
        tier_names=tier_names,
        fallback=_fallback(sections.get("rate_fallback", _NONE)),
        uplifts=_uplifts(sections.get("uplifts", _NONE), models),
        tools=_tools(sections.get("tools", _NONE), models),
        free=frozenset(sections.get("free", _EMPTY).texts()),
        default_models=_aliases(sections.get("default_models", _NONE), names),
        aliases=_aliases(sections.get("aliases", _NONE), names),
        deployments=_deployments(sections.get("azure_deployments", _NONE), names),
        contracts=_contracts(sections.get("contract", _EMPTY), models),
    )
    upstreams = sections.get("upstreams", _NONE).members()
    return replace(
        whole, upstreams={name: _own(name, own, whole, tiers) for name, own in upstreams.items()}
    )


def _own(name: str, value: Value, whole: Catalog, tiers: Collection[str]) -> Catalog:
    """Return the catalogue of one upstream; its price_ids begin with its name.

    Of the rest only what `openai_prices` lets in is in force there: entries less the names that it
    prices itself, aliases, deployments, tools. A contract is with one provider.
    """
    members = value.members(_UPSTREAM)
    shares = "openai_prices" in members and members["openai_prices"].flag()
    entries = read_entries(members.get("models", _NONE), tiers)
    known = {entry.model_id: f"{name}/{entry.model_id}" for entry in entries}
    own = tuple(replace(entry, model_id=known[entry.model_id]) for entry in entries)
    shared = tuple(_without_claimed(whole.entries, entries)) if shares else ()
    base = whole if shares else Catalog(version=whole.version, entries=())
    names = Names((*own, *shared), {})
    known = {entry.model_id: entry.model_id for entry in shared} | known
    contracts = _contracts(members.get("contract", _EMPTY), known)
    return replace(
        base,
        entries=(*own, *shared),
        tier_names=whole.tier_names,
        fallback=whole.fallback,
        free=whole.free | frozenset(members.get("free", _EMPTY).texts()),
        default_models={
            **base.default_models,
            **_aliases(members.get("default_models", _NONE), names),
        },
        aliases={**base.aliases, **_aliases(members.get("aliases", _NONE), names)},
        deployments={
            **base.deployments,
            **_deployments(members.get("azure_deployments", _NONE), names),
        },
        contracts=tuple(
            replace(contract, models=frozenset(known[model] for model in contract.models))
            if contract.models is not None
            else contract
            for contract in contracts
        ),
    )


def _without_claimed(entries: Iterable[Entry], own: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries without the names that somebody else prices."""
    claimed = {name for entry in own for name in (*entry.names, *entry.prefixes)}
    for entry in entries:
        yield replace(
            entry,
            names=tuple(name for name in entry.names if name not in claimed),
            prefixes=tuple(prefix for prefix in entry.prefixes if prefix not in claimed),
        )


def _tier_names(section: Value) -> dict[str, str]:
    tiers: dict[str, str] = {}
    for tier, spellings in section.members().items():
        for spelling in spellings.items():
            if spelling.text() in tiers:
                spelling.refuse(f"a spelling that {tiers[spelling.text()]!r} does not have already")
            tiers[spelling.text()] = tier
    return tiers


def _fallback(section: Value) -> dict[str, str]:
    members = section.members(COMPONENTS)
    fallback = {component: value.choice(COMPONENTS) for component, value in members.items()}
    for component, value in members.items():
        seen = {component}
        target = fallback[component]
        while target in fallback and target not in seen:
            seen.add(target)
            target = fallback[target]
        if target in seen:
            value.refuse("a component that does not lead back to where it began")
    return fallback


def _tools(section: Value, models: Collection[str]) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    for name, value in section.members().items():
        members = value.members(_TOOL, ("sources",))
        for check, way in _TOOL_CHECKS.items():
            if check in members:
                way(members[check])
        fees = members.get("fees", _NONE).members()
        tools[name] = Tool(
            unit_prices=dict(_fee(name, per, fee) for per, fee in fees.items()),
            models=_known_models(members.get("models", _EMPTY), models),
        )
    return tools


def _fee(tool: str, per: str, fee: Value) -> tuple[str, Decimal]:
    """Return component and price of a unit: a call goes by the tool's name alone."""
    if per == _THOUSAND_CALLS:
        return tool, fee.amount().scaleb(-3)
    return f"{tool}/{per}", fee.amount()


def _uplifts(section: Value, models: Collection[str]) -> tuple[Uplift, ...]:
    owners: dict[str, str] = {}
    uplifts = []
    for name, value in section.members().items():
        members = value.members(_UPLIFT, ("multiplier", "hosts", "models"))
        members.get("sources", _EMPTY).texts()
        for host in members["hosts"].items():
            if owners.setdefault(host.text().lower(), name) != name:
                host.refuse("a host that no other uplift has")
        uplifts.append(
            Uplift(
                name=name,
                factor=members["multiplier"].factor(),
                hosts=frozenset(host.lower() for host in members["hosts"].texts()),
                models=_known_models(members["models"], models),
                unpublished_for=_known_models(members.get("unpublished_for", _EMPTY), models),
            )
        )
    return tuple(uplifts)


def _known_models(value: Value, models: Collection[str]) -> frozenset[str]:
    return frozenset(item.choice(models) for item in value.items())


def _aliases(section: Value, names: Names) -> dict[str, str]:
    return {alias: _priced(target, names) for alias, target in section.members().items()}


def _priced(value: Value, names: Names) -> str:
    name = value.text()
    if names.find(name) is None:
        value.refuse("the name of a model that is priced here")
    return name


def _deployments(section: Value, names: Names) -> dict[str, Deployment]:
    deployments = {}
    for name, value in section.members().items():
        members = value.members(("model", "multiplier"), ("model",))
        factor = members["multiplier"].factor() if "multiplier" in members else None
        deployments[name] = Deployment(model=_priced(members["model"], names), factor=factor)
    return deployments


def _contracts(section: Value, models: Collection[str]) -> tuple[Contract, ...]:
    contracts = []
    for item in section.items():
        members = item.members(("from", "multiplier", "models"), ("from", "multiplier"))
        named = members.get("models")
        contracts.append(
            Contract(
                start=members["from"].day(),
                factor=members["multiplier"].factor(),
                models=_known_models(named, models) if named else None,
            )
        )
    return tuple(sorted(contracts, key=lambda contract: contract.start))

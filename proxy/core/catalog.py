"""A price catalogue: its nouns, and how the name of a model finds its entry.

A catalogue says what was published and nothing else: rates in USD per million tokens, dated, with
the factors that the provider names. A name finds an entry by being listed, by being a listed name
with a date behind it, or by a listed prefix that ends with a colon. It never finds one by being
similar: a model that nobody has priced has no price.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal

INPUT_COMPONENTS = (
    "input",
    "cached_input",
    "cache_write",
    "cache_write_12h",
    "audio_input",
    "cached_audio_input",
    "image_input",
    "cached_image_input",
)
OUTPUT_COMPONENTS = ("output", "audio_output", "image_output")
COMPONENTS = INPUT_COMPONENTS + OUTPUT_COMPONENTS
DEFAULT_TIER = "default"
TOOLS_PRICE_ID = "tools"
FREE_PRICE_ID = "free"
_DATE = re.compile(r"-[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATE_LENGTH = len("-2026-11-22")
MAX_KNOWN = 4096

Rates = Mapping[str, Decimal | None]
"""USD per million tokens by component; None: known not to be published, so nothing replaces it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LongContext:
    """What a whole call costs when it reads more than `above` tokens; `only` None: in any tier."""

    above: int
    input_factor: Decimal
    output_factor: Decimal
    only: frozenset[str] | None = None
    rates: Mapping[str, Rates] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """The prices of a model from `start` until the next period; None: since it exists."""

    start: datetime | None = None
    rates: Rates = field(default_factory=dict)
    tiers: Mapping[str, Decimal | Rates] = field(default_factory=dict)
    long_context: LongContext | None = None
    operations: Mapping[str, Rates] = field(default_factory=dict)
    units: Mapping[str, Decimal] = field(default_factory=dict)  # per minute, image, …: not tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One priced model; `periods` are in order of time."""

    model_id: str
    names: tuple[str, ...]
    prefixes: tuple[str, ...] = ()
    dated: bool = False
    periods: tuple[Period, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplift:
    """A surcharge by the host a call is sent to; models are named by their `model_id`."""

    name: str
    factor: Decimal
    hosts: frozenset[str]
    models: frozenset[str]
    unpublished_for: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """An Azure deployment: the model behind it, and the factor on its prices."""

    model: str
    factor: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """A negotiated factor on list costs from `start` on; `models` None: all of them."""

    factor: Decimal
    start: datetime
    models: frozenset[str] | None = None

    def covers(self, model_id: str, at: datetime) -> bool:
        """Tell whether a call of this model at this time is under the contract."""
        return self.concerns(model_id) and self.start <= at

    def concerns(self, model_id: str) -> bool:
        """Tell whether the contract names this model, whenever it begins."""
        return self.models is None or model_id in self.models


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """What a hosted tool costs by the unit, in USD; `models` are those that this price is for."""

    unit_prices: Mapping[str, Decimal] = field(default_factory=dict)  # by component
    models: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """All that a pricing file says. Contracts are in order of time."""

    version: str
    entries: tuple[Entry, ...]
    fallback: Mapping[str, str] = field(default_factory=dict)
    tier_names: Mapping[str, str] = field(default_factory=dict)  # spelling → tier
    uplifts: tuple[Uplift, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    deployments: Mapping[str, Deployment] = field(default_factory=dict)
    contracts: tuple[Contract, ...] = ()
    tools: Mapping[str, Tool] = field(default_factory=dict)
    free: frozenset[str] = frozenset()  # operations
    default_models: Mapping[str, str] = field(default_factory=dict)  # operation → model
    upstreams: "Mapping[str, Catalog]" = field(default_factory=dict)  # of mounted ones, by name


class Names:
    """Finds the entry of a model name: alias, listed name, listed name with a date, prefix."""

    __slots__ = ("_aliases", "_dated", "_known", "_listed", "_prefixes")

    def __init__(self, entries: Iterable[Entry], aliases: Mapping[str, str]) -> None:
        entries = tuple(entries)
        self._listed = {name: entry for entry in entries for name in entry.names}
        self._dated = {name: entry for entry in entries if entry.dated for name in entry.names}
        by_prefix = [(prefix, entry) for entry in entries for prefix in entry.prefixes]
        self._prefixes = sorted(by_prefix, key=lambda pair: len(pair[0]), reverse=True)
        found = {alias: self._find(target) for alias, target in aliases.items()}
        self._aliases = {alias: entry for alias, entry in found.items() if entry}
        self._known: dict[str, Entry | None] = {}  # names come again, millions of times

    def find(self, name: str | None) -> Entry | None:
        """Return the entry that prices this name, None when there is none."""
        if not name:
            return None
        if name not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[name] = self._aliases.get(name) or self._find(name)
        return self._known[name]

    def _find(self, name: str) -> Entry | None:
        return self._listed.get(name) or self._find_dated(name) or self._find_prefixed(name)

    def _find_dated(self, name: str) -> Entry | None:
        entry = self._dated.get(name[:-_DATE_LENGTH])
        return entry if entry and _is_date(name[-_DATE_LENGTH:]) else None

    def _find_prefixed(self, name: str) -> Entry | None:
        if ":" not in name:
            return None
        return next((entry for prefix, entry in self._prefixes if name.startswith(prefix)), None)


def _is_date(suffix: str) -> bool:
    """Tell whether the suffix reads -YYYY-MM-DD, a day that exists."""
    if not _DATE.fullmatch(suffix):
        return False  # fromisoformat also takes weeks
    try:
        date.fromisoformat(suffix[1:])
    except ValueError:
        return False
    return True

"""What a call costs: usage times the list prices of the moment it was sent.

Usage is split into components that share no token (`components`); each has one unit price. Sums
are exact: a listed unit price is a whole number of 1e-12 USD, and only what a surcharge or a
contract makes finer than that is rounded, half to even. Nothing is guessed: what has no price is an
error that says why.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal

from proxy.core.catalog import (
    DEFAULT_TIER,
    FREE_PRICE_ID,
    TOOLS_PRICE_ID,
    Catalog,
    Contract,
    Deployment,
    Entry,
    Names,
)
from proxy.core.components import Quantities, decompose
from proxy.core.model import Cost, PriceLine, Usage
from proxy.core.tariffs import GRAIN, PriceTable, Tariff, grained, surcharge_name, tariffs
from proxy.errors import (
    NoPricePeriodError,
    UnknownModelError,
    UnknownRateError,
    UnknownTierError,
    UnknownToolFeeError,
    UnknownUpliftError,
    UsageError,
)

_LARGEST_COST = Decimal(10**8)  # USD; what numeric(20,12) cannot hold any more
_MOST_QUOTES = 4096  # of one book
_FOR_EVER = datetime.max.replace(tzinfo=UTC)
NOTHING = Decimal("0.000000000000")
_AZURE_DOMAINS = (".azure.com", ".azure.us", ".azure.cn")


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRate:
    """One unit price under its price_id, in USD per token, before any contract."""

    price_id: str
    component: str
    list_unit_price: Decimal


@dataclass(frozen=True, slots=True)
class _Quote:
    """What prices all calls that are alike, from one change of prices until the next."""

    since: datetime
    past: datetime
    model_id: str
    tier: str
    above: int | None  # tokens of input, from which on a context is long
    short: PriceTable | None
    long: PriceTable | None
    contract: Contract | None

    def table(self, input_tokens: int) -> PriceTable:
        is_long = self.above is not None and input_tokens > self.above
        table = self.long if is_long else self.short
        if table is None:
            raise UnknownRateError(
                f"{self.model_id} in {self.tier!r} has no price above {self.above} tokens"
            )
        return table


_Alike = tuple[str | None, str | None, str | None, str | None, str, str]


class PriceBook:
    """Prices calls by a catalogue; it never changes, a new catalogue is a new book."""

    __slots__ = (
        "_catalog",
        "_deployments",
        "_mounted",
        "_names",
        "_quotes",
        "_tariffs",
        "_tools",
        "_uplifts",
        "catalog_version",
    )

    def __init__(self, catalog: Catalog, catalog_version: str) -> None:
        self.catalog_version = catalog_version
        self._catalog = catalog
        self._names = Names(catalog.entries, catalog.aliases)
        self._tariffs = {entry.model_id: tariffs(entry, catalog) for entry in catalog.entries}
        self._uplifts = {host: uplift for uplift in catalog.uplifts for host in uplift.hosts}
        self._deployments = catalog.deployments
        self._quotes: dict[_Alike, _Quote] = {}  # calls are alike, millions of times
        self._tools: dict[tuple[tuple[str, ...], str | None], str | None] = {}  # likewise
        self._mounted = {
            name: PriceBook(own, catalog_version) for name, own in catalog.upstreams.items()
        }

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The mounted upstreams that have prices of their own."""
        return tuple(self._mounted)

    def of(self, upstream_name: str | None) -> "PriceBook":
        """Return the book for a mounted upstream: its own, where the file has a section for it."""
        return self._mounted.get(upstream_name or "", self)

    def cost(
        self,
        usage: Usage,
        *,
        response_model: str | None,
        request_model: str | None,
        deployment: str | None,
        service_tier: str | None,
        operation_name: str,
        upstream: str,
        at: datetime,
        requests: int = 1,
    ) -> Cost:
        """Return what the usage costs; raise UnpricedError or, for absurd usage, UsageError.

        Of the sum of many requests the mean one says whether their context was long.
        """
        alike = response_model, request_model, deployment, service_tier, operation_name, upstream
        quote = self._quotes.get(alike)
        if quote is None or not quote.since <= at < quote.past:
            quote = self._quote(alike, at)
            if len(self._quotes) >= _MOST_QUOTES:
                self._quotes.clear()
            self._quotes[alike] = quote
        table = quote.table((usage.input_tokens or 0) // requests)
        return self._charge(table, decompose(usage), quote.contract)

    def _quote(self, alike: _Alike, at: datetime) -> _Quote:
        """Return what prices a call, and all others that are like it, while no price changes."""
        response_model, request_model, deployment, service_tier, operation_name, upstream = alike
        host = upstream.lower().partition(":")[0]
        served = self._served(deployment, request_model, host)
        entry = self._entry(response_model, request_model, served)
        tariff = self._tariff(entry, at)
        tier = self.tier(service_tier or DEFAULT_TIER)
        operation = operation_name if operation_name in tariff.operations else ""
        surcharge = self._surcharge(entry, served, host)
        if tier not in tariff.tiers:
            raise UnknownTierError(f"{entry.model_id} has no price in the tier {tier!r}")
        changes = [tariff.start for tariff in self._tariffs[entry.model_id]]
        changes += (c.start for c in self._catalog.contracts if c.concerns(entry.model_id))
        return _Quote(
            since=max(change for change in changes if change <= at),
            past=min((change for change in changes if change > at), default=_FOR_EVER),
            model_id=entry.model_id,
            tier=tier,
            above=tariff.long_context_above,
            short=tariff.tables.get((tier, False, operation, surcharge)),
            long=tariff.tables.get((tier, True, operation, surcharge)),
            contract=self._contract(entry, at),
        )

    def unit_cost(
        self, quantities: Quantities, *, model: str | None, upstream: str, at: datetime
    ) -> Cost | None:
        """Return what images, characters or seconds cost; None where the model bills tokens."""
        host = upstream.lower().partition(":")[0]
        served = self._served(None, model, host)
        entry = self._entry(model, None, served)
        tariff = self._tariff(entry, at)
        if not tariff.has_units:
            return None
        surcharge = self._surcharge(entry, served, host)
        table = tariff.tables[DEFAULT_TIER, False, "", surcharge]
        return self._charge(table, quantities, self._contract(entry, at))

    def tool_price(self, component: str) -> Decimal:
        """Return the price of one use of a hosted tool, in USD."""
        tool = self._catalog.tools.get(component.partition("/")[0])
        price = tool.unit_prices.get(component) if tool else None
        if price is None:
            raise UnknownToolFeeError(f"no fee is known for {component!r}")
        return price

    def is_tool_for(self, tool: str, model: str | None) -> bool:
        """Tell whether a tool has its price with this model."""
        entry, found = self._names.find(model), self._catalog.tools.get(tool)
        return entry is not None and found is not None and entry.model_id in found.models

    def tool_for(self, tools: tuple[str, ...], model: str | None) -> str | None:
        """Return the first of some tools that has its price with this model."""
        asked = tools, model
        if asked not in self._tools:
            if len(self._tools) >= _MOST_QUOTES:
                self._tools.clear()
            found = next((tool for tool in tools if self.is_tool_for(tool, model)), None)
            self._tools[asked] = found
        return self._tools[asked]

    def is_free(self, operation_name: str) -> bool:
        """Tell whether calls of this kind cost nothing."""
        return operation_name in self._catalog.free

    def default_model(self, operation_name: str) -> str | None:
        """Return the model of a request that names none, where one is known."""
        return self._catalog.default_models.get(operation_name)

    def tier(self, service_tier: str) -> str:
        """Return the tier that a spelling stands for; one that nobody listed stays as it is."""
        return self._catalog.tier_names.get(service_tier, service_tier)

    def asked_model(
        self, *, deployment: str | None, request_model: str | None, upstream: str
    ) -> str | None:
        """Return the model that a request asks for: behind a listed Azure deployment the real one.

        In the order in which a model is priced.
        """
        host = upstream.lower().partition(":")[0]
        served = self._served(deployment, request_model, host)
        if served is None or self._names.find(request_model):
            return request_model
        return served.model

    def rates(self) -> Iterator[PriceRate]:
        """Yield every unit price under every price_id that a cost can carry."""
        seen: set[tuple[str, str]] = set()
        for book in (self, *self._mounted.values()):
            for rate in book.own_rates():
                if (rate.price_id, rate.component) not in seen:
                    seen.add((rate.price_id, rate.component))
                    yield rate

    def own_rates(self) -> Iterator[PriceRate]:
        """Yield those of this book, less those of mounted upstreams."""
        for entry in self._catalog.entries:
            for price_id, table in self._price_ids(entry):
                for component, price in table.unit_prices.items():
                    yield PriceRate(price_id=price_id, component=component, list_unit_price=price)
        for tool in self._catalog.tools.values():
            for component, price in tool.unit_prices.items():
                yield PriceRate(
                    price_id=TOOLS_PRICE_ID, component=component, list_unit_price=grained(price)
                )
        if self._catalog.free:
            yield PriceRate(price_id=FREE_PRICE_ID, component="call", list_unit_price=NOTHING)

    def _price_ids(self, entry: Entry) -> Iterator[tuple[str, PriceTable]]:
        factors = {c.factor for c in self._catalog.contracts if c.concerns(entry.model_id)}
        for tariff in self._tariffs[entry.model_id]:
            for table in tariff.tables.values():
                yield table.price_id, table
                for factor in factors:
                    yield _contracted(table.price_id, factor), table

    def _served(
        self, deployment: str | None, request_model: str | None, host: str
    ) -> Deployment | None:
        """Return the Azure deployment that was called, as far as the catalogue knows it."""
        name = deployment or (request_model if host.endswith(_AZURE_DOMAINS) else None)
        resource = host.partition(".")[0]
        return self._deployments.get(f"{resource}/{name}") or self._deployments.get(name or "")

    def _entry(
        self, response_model: str | None, request_model: str | None, served: Deployment | None
    ) -> Entry:
        for name in (response_model, request_model, served.model if served else None):
            entry = self._names.find(name)
            if entry:
                return entry
        raise UnknownModelError(
            f"no price entry for {response_model!r}, asked as {request_model!r}"
        )

    def _tariff(self, entry: Entry, at: datetime) -> Tariff:
        candidates = self._tariffs[entry.model_id]
        index = bisect_right(candidates, at, key=_start)
        if not index:
            raise NoPricePeriodError(f"no price of {entry.model_id} before {candidates[0].start}")
        return candidates[index - 1]

    def _surcharge(self, entry: Entry, served: Deployment | None, host: str) -> str:
        if served and served.factor is not None:
            return surcharge_name(served.factor)
        uplift = self._uplifts.get(host)
        if uplift and entry.model_id in uplift.unpublished_for:
            raise UnknownUpliftError(f"does {entry.model_id} cost more at {host}? Nothing says so")
        return uplift.name if uplift and entry.model_id in uplift.models else ""

    def _contract(self, entry: Entry, at: datetime) -> Contract | None:
        contracts = reversed(self._catalog.contracts)
        return next((c for c in contracts if c.covers(entry.model_id, at)), None)

    def _charge(self, table: PriceTable, quantities: Quantities, contract: Contract | None) -> Cost:
        lines = tuple([_line(table, component, n) for component, n in quantities.items()])
        list_cost = list_cost_of(lines)
        cost = grained(list_cost * contract.factor) if contract else list_cost
        if cost >= _LARGEST_COST:
            raise UsageError(f"the usage costs {cost} USD; expected less than {_LARGEST_COST}")
        return Cost(
            cost_usd=cost,
            price_id=_contracted(table.price_id, contract.factor) if contract else table.price_id,
            catalog_version=self.catalog_version,
            lines=lines,
        )


def list_cost_of(lines: Iterable[PriceLine]) -> Decimal:
    """Return what lines come to before any contract."""
    total = NOTHING
    for line in lines:
        total += line.amount
    return total


def _start(tariff: Tariff) -> datetime:
    return tariff.start


def _line(table: PriceTable, component: str, quantity: int | Decimal) -> PriceLine:
    price = table.unit_prices.get(component)
    if price is None:
        raise UnknownRateError(f"{table.price_id} has no rate for {quantity} × {component}")
    amount = (quantity * price).quantize(GRAIN, ROUND_HALF_EVEN)  # as `grained` does
    return PriceLine(component=component, quantity=quantity, list_unit_price=price, amount=amount)


def _contracted(price_id: str, factor: Decimal) -> str:
    return f"{price_id}/contract-{surcharge_name(factor)}"

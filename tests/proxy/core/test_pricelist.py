from datetime import UTC, datetime
from decimal import Decimal

import pytest

from proxy.core.catalog import Catalog, Contract, Deployment, Tool, Uplift
from proxy.core.pricelist import read_catalog
from proxy.errors import PriceFileError
from proxy.pricefile import read_document

START = """
schema_version: 1
catalog_version: "2026-11-22.1"
models:
  gpt-9: {dated: true, sources: [], confidence: low, prices: [{rates: {input: "1"}}]}
"""
REST = """
tier_names:
  default: [default, auto]
  priority: [priority, fast]
rate_fallback: {cached_input: input, cached_image_input: cached_input}
uplifts:
  regional:
    multiplier: x1.10
    hosts: [US.api.openai.com]
    models: [gpt-9]
  unclear: {multiplier: x1.10, hosts: [eu.api.openai.com], models: [], unpublished_for: [gpt-9]}
tools:
  web_search: {fees: {thousand_calls: "10"}, sources: [LL]}
  box: {fees: {session_1g: "0.03"}, sources: [LL]}
  block: {tokens_per_call: 8000, models: [gpt-9], content_tokens_free: true, sources: []}
free: [models.list, files.list]
default_models: {images.edits: gpt-9}
aliases: {homework: gpt-9-2026-11-01}
azure_deployments:
  acme/nine: {model: gpt-9, multiplier: x1.05}
  eight: {model: gpt-9}
contract:
  - {from: 2027-01-01, multiplier: x0.9, models: [gpt-9]}
  - {from: 2026-01-01, multiplier: x0.95}
"""


def catalog_of(text: str) -> Catalog:
    """Return the catalogue of a YAML text."""
    return read_catalog(read_document(text.encode()))


MOUNTED = """
upstreams:
  vllm:
    free: [chat, embeddings]
  openrouter:
    models:
      openai/gpt-9: {sources: [], confidence: low, prices: [{rates: {input: "2"}}]}
    contract: [{from: 2026-01-01, multiplier: x0.9}]
  azure:
    openai_prices: true
    models:
      gpt-10: {names: [gpt-10, "ft:gpt-9:"], sources: [], confidence: low, prices: [{rates: {}}]}
    aliases: {mine: gpt-9}
    default_models: {images.edits: gpt-10}
    azure_deployments: {ten: {model: gpt-10, multiplier: x1.20}}
    contract: [{from: 2026-01-01, multiplier: x0.9, models: [gpt-9, gpt-10]}]
"""


def test_an_upstream_without_openais_prices_has_its_own_alone() -> None:
    """Tiers and free calls mean the same everywhere; a contract is with one provider."""
    upstreams = catalog_of(START + REST + MOUNTED).upstreams
    assert upstreams["vllm"].entries == ()
    assert upstreams["vllm"].free == {"chat", "embeddings", "models.list", "files.list"}
    router = upstreams["openrouter"]
    (entry,) = router.entries
    assert (entry.model_id, entry.names) == ("openrouter/openai/gpt-9", ("openai/gpt-9",))
    assert router.tier_names["fast"] == "priority"
    assert router.fallback["cached_input"] == "input"
    assert (router.tools, router.uplifts, router.aliases, router.deployments) == ({}, (), {}, {})
    assert router.contracts == (
        Contract(start=datetime(2026, 1, 1, tzinfo=UTC), factor=Decimal("0.9")),
    )


def test_an_upstream_may_add_to_openais_prices() -> None:
    """Its own win over a listed name, and over an alias."""
    start = START.replace("gpt-9: {", 'gpt-9: {names: [gpt-9, gpt-10], prefixes: ["ft:gpt-9:"], ')
    azure = catalog_of(start + REST + MOUNTED).upstreams["azure"]
    own, shared = azure.entries
    assert (own.model_id, own.names) == ("azure/gpt-10", ("gpt-10", "ft:gpt-9:"))
    assert (shared.model_id, shared.names, shared.prefixes) == ("gpt-9", ("gpt-9",), ())
    assert azure.aliases == {"homework": "gpt-9-2026-11-01", "mine": "gpt-9"}
    assert azure.default_models == {"images.edits": "gpt-10"}
    assert azure.deployments["ten"] == Deployment(model="gpt-10", factor=Decimal("1.20"))
    assert azure.deployments["eight"] == Deployment(model="gpt-9")
    assert [contract.models for contract in azure.contracts] == [
        frozenset({"gpt-9", "azure/gpt-10"})
    ]
    assert set(azure.tools) == {"web_search", "box", "block"}
    assert azure.upstreams == {}


def test_the_smallest_document_has_a_version_and_models() -> None:
    """All other sections may be left out."""
    catalog = catalog_of(START)
    assert catalog.version == "2026-11-22.1"
    assert [entry.model_id for entry in catalog.entries] == ["gpt-9"]
    assert (catalog.uplifts, catalog.aliases, catalog.contracts) == ((), {}, ())


def test_every_section_is_read() -> None:
    """Each section has its place in the catalogue; contracts come in order of time."""
    catalog = catalog_of(START + REST)
    assert catalog.tier_names == {
        "default": "default",
        "auto": "default",
        "priority": "priority",
        "fast": "priority",
    }
    assert catalog.fallback == {"cached_input": "input", "cached_image_input": "cached_input"}
    assert catalog.uplifts == (
        Uplift(
            name="regional",
            factor=Decimal("1.10"),
            hosts=frozenset({"us.api.openai.com"}),
            models=frozenset({"gpt-9"}),
        ),
        Uplift(
            name="unclear",
            factor=Decimal("1.10"),
            hosts=frozenset({"eu.api.openai.com"}),
            models=frozenset(),
            unpublished_for=frozenset({"gpt-9"}),
        ),
    )
    assert catalog.tools == {
        "web_search": Tool(unit_prices={"web_search": Decimal("0.010")}),
        "box": Tool(unit_prices={"box/session_1g": Decimal("0.03")}),
        "block": Tool(models=frozenset({"gpt-9"})),
    }
    assert catalog.free == {"models.list", "files.list"}
    assert catalog.default_models == {"images.edits": "gpt-9"}
    assert catalog.aliases == {"homework": "gpt-9-2026-11-01"}
    assert catalog.deployments == {
        "acme/nine": Deployment(model="gpt-9", factor=Decimal("1.05")),
        "eight": Deployment(model="gpt-9"),
    }
    assert catalog.contracts == (
        Contract(start=datetime(2026, 1, 1, tzinfo=UTC), factor=Decimal("0.95")),
        Contract(
            start=datetime(2027, 1, 1, tzinfo=UTC),
            factor=Decimal("0.9"),
            models=frozenset({"gpt-9"}),
        ),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema_version: 1\nmodels: {}", "expected a member 'catalog_version'"),
        (
            START.replace("schema_version: 1", "schema_version: 2"),
            "found the int 2; expected 1, the",
        ),
        (START + "alias: {}", "line 6: found 'alias'; expected a known name (did"),
        (
            START + "tier_names: {default: [auto], flex: [auto]}",
            "found 'auto'; expected a spelling that 'default' does not have already",
        ),
        (
            START + "rate_fallback:\n  cached_input: cache_write\n  cache_write: cached_input",
            "line 7: found 'cache_write'; expected a component that does not lead back",
        ),
        (START + "rate_fallback: {input: input}", "expected a component that does not lead back"),
        (
            START + "uplifts: {a: {multiplier: x2, hosts: [h], models: [gpt-8]}}",
            "found 'gpt-8'; expected one of gpt-9 (did you mean 'gpt-9'?)",
        ),
        (
            START + "uplifts:\n  a: {multiplier: x2, hosts: [h], models: []}\n"
            "  b: {multiplier: x2, hosts: [H], models: []}",
            "line 8: found 'H'; expected a host that no other uplift has",
        ),
        (START + "tools: {t: {sources: [], tokens_per_call: '9'}}", "expected a whole number"),
        (START + "default_models: {images.edits: gpt-8}", "a model that is priced here"),
        (START + "free: models.list", "expected a list"),
        (
            START + "aliases: {a: gpt-8}",
            "found 'gpt-8'; expected the name of a model that is priced",
        ),
        (START + "azure_deployments: {d: {model: gpt-8}}", "expected the name of a model that is"),
        (START + "contract: [{multiplier: x0.9}]", "expected a member 'from'"),
        (START + "upstreams: {a: {price: 1}}", "found 'price'; expected one of aliases,"),
        (START + "upstreams: {a: {aliases: {b: gpt-9}}}", "expected the name of a model that is"),
        (START + "upstreams: {a: {openai_prices: 1}}", "expected true or false"),
        (
            START + "upstreams: {a: {contract: [{from: 2026-01-01, multiplier: x1, models: [b]}]}}",
            "found 'b'; expected one of",
        ),
        (START + "contract: {}", "found a mapping; expected a list"),
    ],
)
def test_a_mistake_is_refused_with_its_line(text: str, message: str) -> None:
    """Whatever is referred to exists, and nothing means two things."""
    with pytest.raises(PriceFileError) as caught:
        catalog_of(text)
    assert message in str(caught.value)

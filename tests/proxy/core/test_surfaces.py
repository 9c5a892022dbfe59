"""docs/surfaces.md is what registry and price list make, and no published call is undecided."""

import pytest

from proxy.core.operations import operation_of
from proxy.core.surfaces import Verdict, page, surfaces, verdict_of
from proxy.pricefile import load_price_book
from proxy.resources import resource
from tests.documents import ROOT

BOOK = load_price_book(resource("pricing.yaml"))
PUBLISHED = (ROOT / "tests/data/openai_paths_2026-11-22.tsv").read_text().splitlines()
CALLS = [line.split("\t")[:2] for line in PUBLISHED if not line.startswith("#")]


def test_the_page_is_what_the_registry_makes() -> None:
    """Whoever changes the one makes the other anew: make surfaces."""
    assert (ROOT / "docs/surfaces.md").read_text() == page(BOOK)


@pytest.mark.parametrize("prefix", ["/v1", "/openai/v1"])
def test_every_published_call_is_decided(prefix: str) -> None:
    """It is charged, free, charged when it is done, or there is a word why it has no price."""
    undecided, mistaken = [], []
    for method, path in CALLS:
        sent = "GET" if method == "UPGRADE" else method
        operation = operation_of(sent, prefix + path.replace("*", "some-id"))
        verdict = verdict_of(operation, BOOK)
        if operation.name == "unknown" or verdict is Verdict.UNDECIDED:
            undecided.append(f"{method} {path}")
        if operation.is_session != (method == "UPGRADE"):
            mistaken.append(f"{method} {path} is {operation.name}")
    assert not undecided
    assert not mistaken


@pytest.mark.parametrize(
    ("method", "path", "verdict"),
    [
        ("POST", "/v1/responses", Verdict.CHARGED),
        ("GET", "/v1/responses", Verdict.SESSION),
        ("GET", "/v1/live/sessions", Verdict.SESSION),
        ("GET", "/v1/live/sessions/s/attach", Verdict.UNPRICED),
        ("GET", "/v1/responses/r", Verdict.FREE),
        ("POST", "/v1/batches", Verdict.DEFERRED),
        ("GET", "/v1/files/f/content", Verdict.FREE),
        ("POST", "/v1/vector_stores/v/search", Verdict.UNPRICED),
        ("POST", "/v1/containers", Verdict.CHARGED),
        ("POST", "/v1/realtime/calls", Verdict.UNPRICED),
        ("POST", "/v1/realtime/client_secrets", Verdict.FREE),
        ("POST", "/v1/conversations", Verdict.FREE),
        ("POST", "/v1/evals/e/runs", Verdict.DEFERRED),
        ("POST", "/v1/fine_tuning/alpha/graders/run", Verdict.UNPRICED),
        ("POST", "/v1/chatkit/sessions", Verdict.UNPRICED),
        ("GET", "/v1/chatkit/threads", Verdict.FREE),
        ("GET", "/v1/organization/costs", Verdict.FREE),
        ("POST", "/v1/agents/sessions", Verdict.UNPRICED),
        ("GET", "/v1/agents/sessions", Verdict.FREE),
        ("POST", "/v1/models", Verdict.UNDECIDED),  # there is no such call
        ("POST", "/v1/nothing/of/this/kind", Verdict.UNPRICED),
    ],
)
def test_a_verdict_follows_from_what_a_call_does(method: str, path: str, verdict: Verdict) -> None:
    """One of each, and those that were asked about."""
    assert verdict_of(operation_of(method, path), BOOK) is verdict


def test_only_calls_that_nobody_publishes_are_undecided() -> None:
    """The registry lists the usual verbs of a resource, of which some have only a few."""
    published = {(method, path.removeprefix("/")) for method, path in CALLS}
    undecided = {(s.method, s.path) for s in surfaces(BOOK) if s.verdict is Verdict.UNDECIDED}
    assert undecided.isdisjoint(published)

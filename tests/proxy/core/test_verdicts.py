"""What has no price has a word for it, and a sentence."""

import pytest

from proxy.core.registry import REGISTRY
from proxy.core.verdicts import UNPRICED
from proxy.pricefile import load_price_book
from proxy.resources import resource

NAMES = {operation.name for group in REGISTRY.values() for operation in group.values()}


@pytest.mark.parametrize("name", sorted(UNPRICED))
def test_a_kind_without_a_price_is_one_that_there_is_and_is_not_free(name: str) -> None:
    """A misspelt name would say nothing of any call, and a free kind needs no excuse."""
    word, why = UNPRICED[name]
    assert word.replace("_", "").isalpha()
    assert why
    assert name in NAMES | {"unknown"}
    assert not load_price_book(resource("pricing.yaml")).is_free(name)

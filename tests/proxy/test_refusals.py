import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from proxy.core.charging import charge
from proxy.core.model import Closing, LedgerRow, Opening
from proxy.pricefile import load_price_book
from proxy.refusals import Refusals
from proxy.resources import resource
from tests.fakes.records import closing, opening

AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def interrupted(begun: Opening) -> LedgerRow:
    """Return the row of a call whose worker died."""
    book = load_price_book(resource("pricing.yaml"))
    return charge(Closing(opening=begun, outcome="interrupted"), book)


def lines(path: Path) -> list[dict[str, Any]]:
    """Return what was kept."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_row_is_kept_with_its_facts_and_the_reason(tmp_path: Path) -> None:
    """A human can put it right later."""
    path = tmp_path / "refused.jsonl"
    Refusals(path).keep(interrupted(opening(1)), "because", at=AT)
    Refusals(path).keep(closing(2), "also", at=AT)
    first, second = lines(path)
    assert (first["time"], first["reason"]) == ("2026-11-22T12:00:00Z", "because")
    assert first["refused"]["user_id"] == "ada"
    assert second["reason"] == "also"


@pytest.mark.parametrize("metadata", [{"a": "\ud800"}, {"a": 2**70}])
def test_what_cannot_be_written_as_json_is_named_at_least(
    tmp_path: Path, metadata: dict[str, Any]
) -> None:
    """It may have been refused for exactly this."""
    path = tmp_path / "refused.jsonl"
    row = replace(interrupted(opening(1)), metadata=metadata)
    record = structs.replace(closing(1), opening=structs.replace(opening(1), metadata=metadata))
    Refusals(path).keep(row, "odd", at=AT)
    Refusals(path).keep(record, "odd", at=AT)
    assert len(lines(path)) == 2
    assert str(row.event_id) in path.read_text()


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    """A fault may refuse every row there is, for weeks."""
    path = tmp_path / "refused.jsonl"
    refusals = Refusals(path, max_bytes=3000)
    for number in range(50):
        refusals.keep(interrupted(opening(number)), "because", at=AT)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "refused.jsonl",
        "refused.old.jsonl",
    ]
    assert all(entry.stat().st_size < 5000 for entry in tmp_path.iterdir())
    assert lines(path)[-1]["refused"]["event_id"] == str(interrupted(opening(49)).event_id)

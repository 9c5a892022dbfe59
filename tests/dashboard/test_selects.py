from types import ModuleType

import pytest

from dashboard import adding, cells, listing, selects

TABLES = ("user_api_usage", "usage_by_", "price_rate")


def _texts(value: object) -> list[str]:
    """Return the statements in a constant: one, or those of a dictionary."""
    if isinstance(value, dict):
        return [text for part in value.values() for text in _texts(part)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("room", [adding, cells, listing, selects], ids=lambda room: room.__name__)
def test_no_statement_reads_a_table(room: ModuleType) -> None:
    """The role of the dashboard could not."""
    constants = [
        value for name, value in vars(room).items() if name.isupper() and not name.startswith("__")
    ]
    texts = [text for value in constants for text in _texts(value)]
    assert texts
    assert not [(name, text) for text in texts for name in TABLES if name in text]

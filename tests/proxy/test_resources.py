"""Tests of proxy.resources."""

import pytest

from proxy.errors import ConfigurationError
from proxy.resources import resource


def test_the_schema_is_found() -> None:
    """In a checkout it stands at the top level; in a wheel, inside the package."""
    assert "CREATE TABLE IF NOT EXISTS user_api_usage" in resource("schema.sql").read_text()


def test_a_missing_file_is_named() -> None:
    """A broken installation says what is missing."""
    with pytest.raises(ConfigurationError, match="no-such-file"):
        resource("no-such-file")

"""One setting for all calls, another for single endpoints, and downloads never."""

import pytest

from proxy.core.leaving import ByEndpoint, Policy

POST, GET = b"POST", b"GET"


@pytest.mark.parametrize(
    ("policy", "endpoint", "drains"),
    [
        (Policy(), None, True),
        (Policy(), "hint", True),
        (Policy("cancel"), "hint", False),
        (Policy("cancel", {"hint": "drain"}), "hint", True),
        (Policy("cancel", {"hint": "drain"}), "chat", False),
        (Policy("drain", {"hint": "cancel"}), "hint", False),
        (Policy("drain", {"hint": "cancel"}), None, True),
    ],
)
def test_an_endpoint_may_have_a_choice_of_its_own(
    policy: Policy, endpoint: str | None, *, drains: bool
) -> None:
    """All others, and calls that name none, follow the general one."""
    assert policy.drains(endpoint, POST, reads_usage=True) is drains


@pytest.mark.parametrize(
    ("method", "reads_usage", "drains"),
    [
        (GET, False, False),
        (b"HEAD", False, False),
        (GET, True, True),
        (POST, False, True),
        (b"DELETE", False, True),
    ],
)
def test_what_bills_nothing_is_not_read_on(
    method: bytes, *, reads_usage: bool, drains: bool
) -> None:
    """What changes something at the upstream is: its answer names what it made."""
    assert Policy().drains(None, method, reads_usage=reads_usage) is drains


def test_choices_are_read_and_written() -> None:
    """As JSON, as an object that has been read, or as they are."""
    choices = ByEndpoint.parse('{"hint": "cancel"}')
    assert choices == ByEndpoint({"hint": "cancel"})
    assert ByEndpoint.parse(choices) is choices
    assert ByEndpoint.parse({"hint": "cancel"}) == choices
    assert str(choices) == '{"hint": "cancel"}'
    assert str(ByEndpoint()) == "{}"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hint=cancel", "expected a JSON object"),
        ('["hint"]', "expected a JSON object"),
        ("[" * 100_000, "expected a JSON object"),
        ('{"hint": "wait"}', "'hint' has 'wait'"),
        ('{"hint": []}', "with drain or cancel"),
    ],
)
def test_a_choice_that_is_none_is_refused(text: str, complaint: str) -> None:
    """In words that say what was expected."""
    with pytest.raises(ValueError, match=complaint):
        ByEndpoint.parse(text)

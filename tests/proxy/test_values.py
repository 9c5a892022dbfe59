import re

import pytest

from proxy import values
from proxy.values import Address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("[::]:8080", Address("::", 8080)),
        (":8080", Address("", 8080)),
        ("localhost:0", Address("localhost", 0)),
    ],
)
def test_addresses_are_read_and_written_alike(text: str, address: Address) -> None:
    """What `parse` reads, `str` writes."""
    assert Address.parse(text) == address
    assert str(address) == text
    assert Address.parse(address) is address


def test_a_list_is_split_at_its_commas_and_blanks_fall_away() -> None:
    """A sequence is one already."""
    assert values.listed(" a, b ,,c") == ("a", "b", "c")
    assert values.listed(("a,b",)) == ("a,b",)


def test_an_address_keeps_its_path_and_loses_its_last_slash() -> None:
    """Targets begin with one themselves."""
    assert values.base_url("http://10.0.0.7:9000/gateway/") == "http://10.0.0.7:9000/gateway"
    assert values.issuer("https://id.example/realm/") == "https://id.example/realm/"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_provider_on_this_machine_needs_no_tls(host: str) -> None:
    """Nobody is on the way there."""
    assert values.issuer(f"http://{host}:9000") == f"http://{host}:9000"


def test_a_role_is_what_stands_behind_the_last_equals_sign() -> None:
    """Values of claims may have one themselves, as distinguished names do."""
    assert values.role_choices(("cn=ops=admin", "*=viewer")) == ("cn=ops=admin", "*=viewer")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://user:s3cret@api.openai.com", "without user, query or fragment"),
        ("https://api.openai.com/?key=s3cret", "without user, query or fragment"),
        ("https://s3cret:s3cret", "expected a URL such as"),
    ],
)
def test_a_refusal_does_not_repeat_what_may_be_secret(url: str, expected: str) -> None:
    """Whoever shows the value decides that."""
    with pytest.raises(ValueError, match=re.escape(expected)) as caught:
        values.base_url(url)
    assert "s3cret" not in str(caught.value)

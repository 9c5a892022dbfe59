from typing import Any

import pytest

from dashboard.claims import Expected, checked, key_of, name_of, role_of
from dashboard.errors import SignOnError
from tests.fakes.provider import Key

EXPECTED = Expected(issuer="https://id.example", client_id="meter", nonce="n")


def test_what_is_no_token_is_refused() -> None:
    """Before any key is looked at."""
    for text in ("", "a.b.c", "🙂"):
        with pytest.raises(SignOnError):
            key_of(text, [])
        with pytest.raises(SignOnError):
            checked(text, Key("k").public(), EXPECTED, now=0)


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"email": "a@b.c", "email_verified": True, "sub": "1"}, "oidc:a@b.c"),
        ({"email": "a@b.c", "sub": "1"}, "oidc:1 (says a@b.c)"),
        ({"email": 7, "preferred_username": "admin", "sub": "1"}, "oidc:1 (says admin)"),
        ({"email": "", "email_verified": True, "sub": "x" * 1000}, "oidc:" + "x" * 200),
    ],
)
def test_a_name_is_never_one_of_our_accounts(claims: dict[str, Any], name: str) -> None:
    """Those have no colon."""
    assert name_of(claims) == name


def test_nobody_is_refused() -> None:
    """A token without a subject names nobody."""
    with pytest.raises(SignOnError, match="nobody"):
        name_of({"sub": 7})


def test_the_highest_role_counts() -> None:
    """Whatever the order; values that are no texts give nothing."""
    roles = {"a": "viewer", "b": "admin"}
    assert role_of({"groups": ["a", 7, "b", None]}, "groups", roles) == "admin"
    assert role_of({"groups": [["b"]]}, "groups", roles) is None
    assert role_of({"groups": {"x": "b"}}, "groups.x.y", roles) is None

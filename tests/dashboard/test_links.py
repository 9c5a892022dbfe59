import pytest

from dashboard.errors import ParameterError
from dashboard.links import demand_scopes, paths_of, span, user_of

KEY = b"k" * 32


def test_a_link_opens_one_user_until_it_expires() -> None:
    """As page and as JSON, with the same signature."""
    (page, path), (data, other) = paths_of(KEY, "a/b&c", 100)
    assert (page, data) == ("page", "json")
    link = path.removeprefix("/usage/user?link=")
    assert other == f"/usage/user.json?link={link}"
    assert user_of(KEY, link, now=99) == "a/b&c"
    assert user_of(KEY, link, now=100) is None
    assert user_of(KEY, link[::-1], now=99) is None


@pytest.mark.parametrize("days", [0, 367, True, 1.5, "30", None])
def test_a_link_is_not_for_ever(days: object) -> None:
    """A year and a day at most."""
    with pytest.raises(ParameterError, match="days"):
        span(days)
    assert span(366) == 366


def test_scopes_are_some_of_few() -> None:
    """Each once; whoever sees pseudonyms has no user of their own."""
    given = ["user:ada", "usage:read", "usage:read"]
    assert demand_scopes(given, "finance") == ["usage:read", "user:ada"]
    assert demand_scopes([], "viewer") == []
    for wrong, role in ((["all"], "finance"), ("usage:read", "admin"), (given, "viewer")):
        with pytest.raises(ParameterError, match="scopes"):
            demand_scopes(wrong, role)  # type: ignore[arg-type]  # a role

import pytest

from dashboard.provider import is_safe, told


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        ("https://id.example/token", True),
        ("http://127.0.0.1:8080/token", True),
        ("http://[::1]/token", True),
        ("http://localhost/token", True),
        ("http://id.example/token", False),
        ("http://localhost.evil.example/", False),
        ("https://", False),
        ("http://[::1/", False),
        ("file:///etc/passwd", False),
        ("None", False),
    ],
)
def test_only_https_is_safe_but_on_this_machine(address: str, safe: bool) -> None:  # noqa: FBT001
    """Whoever stands between could sign tokens of their own otherwise."""
    assert is_safe(address) == safe


@pytest.mark.parametrize(
    ("error", "shown"),
    [("access_denied", "access_denied"), ("<b>", ""), ("x" * 65, ""), (None, ""), (7, "")],
)
def test_only_codes_of_oauth_are_repeated(error: object, shown: str) -> None:
    """What a provider, or whoever poses as one, writes for people is not shown."""
    assert told(error) == shown

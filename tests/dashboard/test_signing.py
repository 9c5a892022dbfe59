import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.signing import form_token, opened, pseudonym, signed

KEY = b"k" * 32


@given(st.lists(st.text(), max_size=3))
def test_what_is_signed_can_be_opened_until_it_expires(fields: list[str]) -> None:
    """For its purpose, and with its key."""
    text = signed(KEY, "link", *fields, expires_at=100)
    assert opened(KEY, "link", text, now=99) == tuple(fields)
    assert opened(KEY, "link", text, now=100) is None
    assert opened(KEY, "session", text, now=99) is None
    assert opened(b"other", "link", text, now=99) is None


@given(st.text(), st.integers(0, 200))
def test_whatever_is_changed_opens_nothing(letters: str, place: int) -> None:
    """Or is exactly what it was."""
    text = signed(KEY, "link", "ada", expires_at=100)
    changed = text[:place] + letters + text[place + len(letters) :]
    if changed.partition(".")[0] != text.partition(".")[0]:
        assert opened(KEY, "link", changed, now=1) is None


@pytest.mark.parametrize("text", ["", ".", "a.b", "\udcff.", "e30.e30", "=.=", "ä.ö"])
def test_what_is_no_signature_opens_nothing(text: str) -> None:
    """Without an exception."""
    assert opened(KEY, "link", text, now=1) is None


def test_a_pseudonym_stays_the_same_and_tells_nothing() -> None:
    """It depends on a key that nobody else has."""
    assert pseudonym(KEY, "ada") == pseudonym(KEY, "ada")
    assert pseudonym(KEY, "ada") != pseudonym(KEY, "ada ")
    assert pseudonym(KEY, "ada") != pseudonym(b"other", "ada")
    assert "ada" not in pseudonym(KEY, "ada").removeprefix("user-")
    assert form_token(KEY, "a") != form_token(KEY, "b")

import threading
from pathlib import Path

import pytest

from dashboard.errors import ConfigurationError, NotFoundError
from dashboard.register import FILE_NAME, MOST_AUDITED, Account, Entry, Register


def test_the_key_is_made_once_and_kept(tmp_path: Path) -> None:
    """Also when several ask for it at the same time; the file is for this user alone."""
    keys: set[bytes] = set()
    threads = [
        threading.Thread(target=lambda: keys.add(Register(tmp_path).key())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(key) for key in keys] == [32]
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_tokens_are_listed_without_themselves(tmp_path: Path) -> None:
    """What is kept cannot be used."""
    register = Register(tmp_path)
    token = register.add_token("ci", "finance", now=1, expires_at=5)
    [kept] = register.tokens()
    assert (kept.name, kept.role, kept.expires_at, kept.revoked_at) == ("ci", "finance", 5, None)
    assert token.encode() not in (tmp_path / FILE_NAME).read_bytes()
    assert register.token(token, now=4) == ("ci", "finance", ())
    assert register.token(token, now=5) is None
    assert register.token("' OR 1=1 --", now=4) is None


def test_a_token_is_revoked_by_its_id(tmp_path: Path) -> None:
    """Once; another id is an error."""
    register = Register(tmp_path)
    register.add_token("ci", "finance", now=1, expires_at=None)
    register.revoke_token(register.tokens()[0].id, now=2)
    register.revoke_token(register.tokens()[0].id, now=3)
    assert register.tokens()[0].revoked_at == 2
    with pytest.raises(NotFoundError):
        register.revoke_token("nobody", now=2)


def test_an_account_has_one_password(tmp_path: Path) -> None:
    """Another one replaces it and ends its sessions."""
    register = Register(tmp_path)
    register.add_account(Account(name="flo", role="viewer", hashed="x"), now=1)
    secret = register.begin_session("flo", "viewer", expires_at=9, now=1)
    assert register.session(secret, now=2) == ("flo", "viewer")
    register.add_account(Account(name="flo", role="finance", hashed="y"), now=3)
    assert register.session(secret, now=4) is None
    assert register.accounts() == [Account(name="flo", role="finance", hashed="y")]
    register.remove_account("flo")
    with pytest.raises(NotFoundError):
        register.remove_account("flo")


def test_sessions_that_are_over_are_swept(tmp_path: Path) -> None:
    """When another one begins."""
    register = Register(tmp_path)
    old = register.begin_session("flo", "viewer", expires_at=2, now=1)
    register.begin_session("ada", "admin", expires_at=9, now=3)
    assert register.session(old, now=1) is None


def test_the_audit_log_is_newest_first_and_bounded(tmp_path: Path) -> None:
    """What is beyond the bound is forgotten."""
    register = Register(tmp_path)
    for what in ("login", "logout"):
        register.note(Entry(at=1.5, who="ada", address="::1", what=what, detail=""))
    assert [entry.what for entry in register.audited(limit=10)] == ["logout", "login"]
    assert len(register.audited(limit=1)) == 1
    assert MOST_AUDITED > 1


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    """By the setting."""
    with pytest.raises(ConfigurationError, match="METER_DATA_DIR"):
        Register(tmp_path / "gone").key()


def test_scopes_of_a_token_are_kept(tmp_path: Path) -> None:
    """Those of another one are not its own."""
    register = Register(tmp_path)
    narrow = register.add_token(
        "ci", "admin", now=1, expires_at=None, scopes=("usage:read", "exports:read")
    )
    wide = register.add_token("all", "admin", now=2, expires_at=None)
    assert register.token(narrow, now=3) == ("ci", "admin", ("exports:read", "usage:read"))
    assert register.token(wide, now=3) == ("all", "admin", ())
    assert [token.scopes for token in register.tokens()] == [(), ("exports:read", "usage:read")]


def test_the_address_of_a_dashboard_is_kept(tmp_path: Path) -> None:
    """The last one."""
    register = Register(tmp_path)
    assert register.address() is None
    register.note_address("http://127.0.0.1:1")
    register.note_address("https://meter.example")
    assert register.address() == "https://meter.example"

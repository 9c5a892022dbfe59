"""Who may come in, and what they did: accounts, tokens, sessions, an audit log, in one small file.

It is an SQLite file of mode 0600 in the data directory and not a table of the ledger's database,
so that the dashboard needs no right to write there, whichever Postgres that is. Passwords are kept
as argon2 hashes and tokens as digests. Everything here blocks: call it in a thread.
"""

import contextlib
import hashlib
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dashboard.errors import ConfigurationError, NotFoundError
from dashboard.roles import Role

FILE_NAME = "dashboard.sqlite"
TOKEN_PREFIX = "mtr_"  # noqa: S105 - how a token begins, so that one that leaked can be recognised
MOST_AUDITED = 100_000
LOCKED_SECONDS = 5.0

_TABLES = """
CREATE TABLE IF NOT EXISTS secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS account (
    name TEXT PRIMARY KEY, hashed TEXT NOT NULL, role TEXT NOT NULL, made_at REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS token (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, digest BLOB NOT NULL UNIQUE, role TEXT NOT NULL,
    made_at REAL NOT NULL, expires_at REAL, revoked_at REAL
) STRICT;
CREATE TABLE IF NOT EXISTS scope (
    token TEXT NOT NULL, scope TEXT NOT NULL, PRIMARY KEY (token, scope)
) STRICT;
CREATE TABLE IF NOT EXISTS session (
    digest BLOB PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, expires_at REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL, address TEXT NOT NULL,
    what TEXT NOT NULL, detail TEXT NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Somebody who can log in with a password."""

    name: str
    role: Role
    hashed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer token, without the token itself: that is shown once, when it is made."""

    id: str
    name: str
    role: Role
    scopes: tuple[str, ...]  # none: whatever the role may
    made_at: float
    expires_at: float | None
    revoked_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the audit log."""

    at: float
    who: str
    address: str
    what: str
    detail: str


class Register:
    """The file; every method opens it, so that commands and a running dashboard can share it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    @property
    def is_there(self) -> bool:
        """Whether there is a file already; anything else makes one."""
        return self._path.exists()

    def key(self) -> bytes:
        """Return the key that cookies and links are signed with; it is made at the first start."""
        with self._open() as file:
            file.execute(
                "INSERT OR IGNORE INTO secret VALUES ('signing', ?)", (secrets.token_bytes(32),)
            )
            row = file.execute("SELECT value FROM secret WHERE name = 'signing'").fetchone()
        return bytes(row[0])

    def add_account(self, account: Account, *, now: float) -> None:
        """Add an account, or give one a new password or role; either ends its sessions."""
        with self._open() as file:
            file.execute(
                "INSERT OR REPLACE INTO account VALUES (?, ?, ?, ?)",
                (account.name, account.hashed, account.role, now),
            )
            file.execute("DELETE FROM session WHERE name = ?", (account.name,))

    def remove_account(self, name: str) -> None:
        """Remove an account and end its sessions; raise NotFoundError: there is none."""
        with self._open() as file:
            removed = file.execute("DELETE FROM account WHERE name = ?", (name,)).rowcount
            file.execute("DELETE FROM session WHERE name = ?", (name,))
        if not removed:
            raise NotFoundError(f"There is no account {name!r}.")

    def accounts(self) -> list[Account]:
        """Return all accounts but the admin of the settings."""
        with self._open() as file:
            rows = file.execute("SELECT name, role, hashed FROM account ORDER BY name").fetchall()
        return [Account(name=name, role=role, hashed=hashed) for name, role, hashed in rows]

    def add_token(
        self,
        name: str,
        role: Role,
        *,
        now: float,
        expires_at: float | None,
        scopes: Sequence[str] = (),
    ) -> str:
        """Make a token and return it; only its digest is kept."""
        identity, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        token = f"{TOKEN_PREFIX}{identity}_{secret}"
        with self._open() as file:
            file.execute(
                "INSERT INTO token VALUES (?, ?, ?, ?, ?, ?, NULL)",
                (identity, name, _digest(token), role, now, expires_at),
            )
            file.executemany(
                "INSERT INTO scope VALUES (?, ?)", [(identity, scope) for scope in set(scopes)]
            )
        return token

    def revoke_token(self, identity: str, *, now: float) -> None:
        """Let a token open nothing any more; raise NotFoundError: there is none."""
        with self._open() as file:
            changed = file.execute(
                "UPDATE token SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?",
                (now, identity),
            ).rowcount
        if not changed:
            raise NotFoundError(f"There is no token {identity!r}.")

    def tokens(self) -> list[Token]:
        """Return all tokens, the revoked ones too, newest first."""
        query = "SELECT id, name, role, made_at, expires_at, revoked_at FROM token ORDER BY made_at"
        with self._open() as file:
            rows = file.execute(f"{query} DESC").fetchall()
            scopes = {row[0]: _scopes(file, row[0]) for row in rows}
        names = ("id", "name", "role", "made_at", "expires_at", "revoked_at")
        return [Token(scopes=scopes[row[0]], **dict(zip(names, row, strict=True))) for row in rows]

    def token(self, token: str, *, now: float) -> tuple[str, Role, tuple[str, ...]] | None:
        """Return the name, role and scopes of a token that is good now."""
        query = (
            "SELECT name, role, id FROM token WHERE digest = ? AND revoked_at IS NULL"
            " AND (expires_at IS NULL OR expires_at > ?)"
        )
        with self._open() as file:
            row = file.execute(query, (_digest(token), now)).fetchone()
            return None if row is None else (row[0], row[1], _scopes(file, row[2]))

    def begin_session(self, name: str, role: Role, *, expires_at: float, now: float) -> str:
        """Begin a session and return its secret, which nobody has seen before."""
        secret = secrets.token_urlsafe(32)
        with self._open() as file:
            file.execute("DELETE FROM session WHERE expires_at <= ?", (now,))
            file.execute(
                "INSERT INTO session VALUES (?, ?, ?, ?)", (_digest(secret), name, role, expires_at)
            )
        return secret

    def session(self, secret: str, *, now: float) -> tuple[str, Role] | None:
        """Return whose session it is, if it is not over."""
        query = "SELECT name, role FROM session WHERE digest = ? AND expires_at > ?"
        with self._open() as file:
            row = file.execute(query, (_digest(secret), now)).fetchone()
        return None if row is None else (row[0], row[1])

    def end_session(self, secret: str) -> None:
        """End a session at once."""
        with self._open() as file:
            file.execute("DELETE FROM session WHERE digest = ?", (_digest(secret),))

    def note_address(self, address: str) -> None:
        """Keep the address at which a running dashboard is reached."""
        with self._open() as file:
            file.execute("INSERT OR REPLACE INTO secret VALUES ('address', ?)", (address.encode(),))

    def address(self) -> str | None:
        """Return the address at which a dashboard was reached last; None: none has run yet."""
        with self._open() as file:
            row = file.execute("SELECT value FROM secret WHERE name = 'address'").fetchone()
        return None if row is None else bytes(row[0]).decode()

    def note(self, entry: Entry) -> None:
        """Add a line to the audit log; the oldest beyond a bound are forgotten."""
        with self._open() as file:
            number = file.execute(
                "INSERT INTO audit (at, who, address, what, detail) VALUES (?, ?, ?, ?, ?)",
                (entry.at, entry.who, entry.address, entry.what, entry.detail),
            ).lastrowid
            file.execute("DELETE FROM audit WHERE number <= ?", ((number or 0) - MOST_AUDITED,))

    def audited(self, *, limit: int) -> list[Entry]:
        """Return the newest lines of the audit log."""
        query = "SELECT at, who, address, what, detail FROM audit ORDER BY number DESC LIMIT ?"
        with self._open() as file:
            rows = file.execute(query, (limit,)).fetchall()
        names = ("at", "who", "address", "what", "detail")
        return [Entry(**dict(zip(names, row, strict=True))) for row in rows]

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the file, which is made at first, for one transaction."""
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            with contextlib.closing(sqlite3.connect(self._path, timeout=LOCKED_SECONDS)) as file:
                file.executescript(_TABLES)
                with file:
                    yield file
        except (OSError, sqlite3.Error) as exc:
            raise ConfigurationError(f"METER_DATA_DIR: {self._path} cannot be used: {exc}") from exc


def identity_of(token: str) -> str:
    """Return the id that a token of ours is listed and revoked by."""
    return token.removeprefix(TOKEN_PREFIX).partition("_")[0]


def _scopes(file: sqlite3.Connection, identity: str) -> tuple[str, ...]:
    query = "SELECT scope FROM scope WHERE token = ? ORDER BY scope"
    return tuple(row[0] for row in file.execute(query, (identity,)))


def _digest(secret: str) -> bytes:
    """Return what is kept of a secret; it has 256 random bits, so that a quick hash will do."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()

"""Who is asking, and what a role lets them see and do. Pure."""

from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["admin", "finance", "viewer"]
ROLES: tuple[Role, ...] = get_args(Role)
Via = Literal["token", "session", "basic"]
Scope = Literal["usage:read", "exports:read"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
OWN = "user:"  # before an id: a scope that opens the numbers of this user and nothing else
MOST_SCOPES = 50
MOST_CHARACTERS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Whoever is asking."""

    name: str
    role: Role
    via: Via
    scopes: frozenset[str] | None = None  # of a token that may less than its role; None: all of it
    csrf: str = ""  # what a form has to send; empty: no browser sends these credentials by itself

    @property
    def sees_users(self) -> bool:
        """Whether ids of users are shown in clear."""
        return self.role != "viewer"

    @property
    def may_export(self) -> bool:
        """Whether files of all rows are given."""
        return self.role != "viewer" and self._may("exports:read")

    @property
    def is_admin(self) -> bool:
        """Whether access and database may be changed; by no token that is narrowed."""
        return self.role == "admin" and self.scopes is None

    @property
    def may_read(self) -> bool:
        """Whether pages are shown, and the same as JSON and CSV."""
        return self._may("usage:read")

    def owns(self, user: str) -> bool:
        """Whether it is a token for the numbers of this user."""
        return self.scopes is not None and f"{OWN}{user}" in self.scopes

    def _may(self, scope: Scope) -> bool:
        return self.scopes is None or scope in self.scopes


def is_scope(text: object) -> bool:
    """Whether a token may have this scope."""
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        return False
    return text in SCOPES or (text.startswith(OWN) and text != OWN)

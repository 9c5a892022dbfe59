"""Who is asking, and what a role lets them see and do. Pure."""

from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["admin", "finance", "viewer"]
ROLES: tuple[Role, ...] = get_args(Role)
Via = Literal["token", "session", "basic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Whoever is asking."""

    name: str
    role: Role
    via: Via
    csrf: str = ""  # what a form has to send; empty: no browser sends these credentials by itself

    @property
    def sees_users(self) -> bool:
        """Whether ids of users are shown in clear."""
        return self.role != "viewer"

    @property
    def may_export(self) -> bool:
        """Whether files of all rows are given."""
        return self.role != "viewer"

    @property
    def is_admin(self) -> bool:
        """Whether access and database may be changed."""
        return self.role == "admin"

"""What can be handed on: links that open one user's numbers, scopes that narrow a token. Pure.

A backend can put a link into its own pages: it is signed, so that nobody can make one for somebody
else, needs no account, and opens nothing else, until it expires.
"""

from urllib.parse import urlencode

from dashboard import signing
from dashboard.errors import ParameterError
from dashboard.roles import MOST_SCOPES, OWN, SCOPES, Role, is_scope

DAYS = 30
MOST_DAYS = 366


def paths_of(key: bytes, user: str, expires_at: float) -> list[tuple[str, str]]:
    """Return the paths of the page and of the same as JSON."""
    query = urlencode({"link": signing.signed(key, "link", user, expires_at=expires_at)})
    return [("page", f"/usage/user?{query}"), ("json", f"/usage/user.json?{query}")]


def user_of(key: bytes, link: str, *, now: float) -> str | None:
    """Return whose numbers a link opens; None: nobody's, or not any more."""
    fields = signing.opened(key, "link", link, now=now)
    return None if fields is None else fields[0]


def demand_scopes(given: object, role: Role) -> list[str]:
    """Return the scopes that a token of this role may be narrowed to."""
    if not isinstance(given, list) or len(given) > MOST_SCOPES or not all(map(is_scope, given)):
        raise ParameterError("scopes", f"expected some of {', '.join(SCOPES)}, {OWN}ID")
    if role == "viewer" and any(scope.startswith(OWN) for scope in given):
        raise ParameterError("scopes", f"expected no {OWN}ID for a role that sees pseudonyms")
    return sorted(set(given))


def span(days: object) -> int:
    """Return for how many days something shall be good."""
    if not isinstance(days, int) or isinstance(days, bool) or not 0 < days <= MOST_DAYS:
        raise ParameterError("days", f"expected 1 to {MOST_DAYS}")
    return days

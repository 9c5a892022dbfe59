"""A link that opens one user's numbers and nothing else, until it expires. Pure.

A backend can put it into its own pages: it is signed, so that nobody can make one for somebody
else, and needs no account.
"""

from urllib.parse import urlencode

from dashboard import signing
from dashboard.errors import ParameterError

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


def span(days: object) -> int:
    """Return for how many days something shall be good."""
    if not isinstance(days, int) or isinstance(days, bool) or not 0 < days <= MOST_DAYS:
        raise ParameterError("days", f"expected 1 to {MOST_DAYS}")
    return days

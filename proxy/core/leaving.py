"""What becomes of a call whose client has hung up: it is read to its end, or cancelled.

One setting says so for all calls, another for those of single endpoints (the caller's features).
Only what tells something at its end is worth reading on: a download that costs nothing is not.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from typing_extensions import override

DRAIN = "drain"
CANCEL = "cancel"
CHOICES = (DRAIN, CANCEL)
_EXPECTED = 'expected a JSON object such as {"generate_hint": "cancel"} with drain or cancel'
_SAFE_METHODS = (b"GET", b"HEAD", b"OPTIONS")


@dataclass(frozen=True, slots=True)
class ByEndpoint:
    """The choice for single endpoints, where it is another than for all the others."""

    choices: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: object) -> "ByEndpoint":
        """Read a JSON object, or take one that has been read."""
        if isinstance(value, cls):
            return value
        try:
            members = json.loads(value) if isinstance(value, str) else value
        except (ValueError, RecursionError):
            raise ValueError(_EXPECTED) from None
        if not isinstance(members, dict):
            raise ValueError(_EXPECTED)  # noqa: TRY004 - pydantic asks for this one
        for endpoint, choice in members.items():
            if choice not in CHOICES:
                raise ValueError(f"{_EXPECTED}; {endpoint!r} has {choice!r}")
        return cls(members)

    @override
    def __str__(self) -> str:
        """Return the notation that `parse` reads."""
        return json.dumps(dict(self.choices))


@dataclass(frozen=True, slots=True)
class Policy:
    """The choice for all endpoints."""

    otherwise: str = DRAIN
    choices: Mapping[str, str] = field(default_factory=dict)

    def drains(self, endpoint: str | None, method: bytes, *, reads_usage: bool) -> bool:
        """Tell whether a call of this endpoint is to be read to its end."""
        if not reads_usage and method in _SAFE_METHODS:
            return False  # it changes nothing, and nothing is billed
        choice = self.otherwise if endpoint is None else self.choices.get(endpoint, self.otherwise)
        return choice == DRAIN

"""Read a query string as a Filter, or name the parameter that is wrong. Pure.

What cannot be used is refused by its name and never ignored: a number for another question than
the one that was asked is worse than none.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TypeVar, get_args
from zoneinfo import ZoneInfo

from dashboard.errors import ParameterError
from dashboard.filters import LISTS, OUTCOMES, PRESETS, SIZES, Compare, Filter, Key, Named, Preset

_T = TypeVar("_T", bound=str)

MOST_VALUES = 50
KEY_LENGTH = 2
MOST_CHARACTERS = 1024  # of a value; an id of the ledger has at most as many bytes
MOST_METADATA = 8192  # of key=value; all metadata of a call has at most as many bytes
FIRST_DAY = date(1970, 1, 1)
LAST_DAY = date(9000, 1, 1)
PARAMETERS = (
    "range", "from", "to", "tz", *LISTS, "without", "metadata", "search", "sort", "size",
    "after", "compare",
)  # fmt: skip

_DAYS_BACK = {"today": 0, "7d": 6, "30d": 29, "90d": 89}


def parse(
    pairs: Sequence[tuple[str, str]],
    *,
    now: datetime,
    report_zone: ZoneInfo,
    zones: Mapping[str, ZoneInfo],
    columns: Iterable[str] = (),
    refused: Mapping[str, str] | None = None,
) -> Filter:
    """Read the parameters of a request; raise ParameterError naming the first that is wrong.

    `columns` are what can be sorted by; `refused` names parameters that make no sense here, and
    says why. An empty value is one that was not given, as forms send it.
    """
    given = _gathered(pairs)
    for name in given:
        if refused and name in refused:
            raise ParameterError(name, refused[name])
    zone = _zone(_one(given, "tz"), zones) if "tz" in given else report_zone
    today = now.astimezone(zone).date()
    preset, first, last = _days(given, today)
    return Filter(
        range=preset,
        first=first,
        last=last,
        zone=zone,
        report_zone=report_zone,
        users=_several(given, "user"),
        endpoints=_several(given, "endpoint"),
        models=_several(given, "model"),
        tiers=_several(given, "tier"),
        outcomes=_several(given, "outcome", allowed=OUTCOMES),
        without=tuple(_several(given, "without", allowed=get_args(Named))),  # type: ignore[arg-type]  # checked
        metadata=_metadata(given.get("metadata", ())),
        search=_one(given, "search"),
        sort=_sort(_one(given, "sort"), tuple(columns)),
        size=_size(_one(given, "size")),
        after=_key(_one(given, "after")),
        compare=_choice(given, "compare", get_args(Compare), "none"),
    )


def _gathered(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the values of each parameter that has any; refuse what is no parameter."""
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in PARAMETERS:
            shown = name[:64]
            raise ParameterError(shown, f"no such parameter; expected {', '.join(PARAMETERS)}")
        most = MOST_METADATA if name == "metadata" else MOST_CHARACTERS
        if len(value) > most:
            raise ParameterError(name, f"expected at most {most} characters")
        if not _is_text(value):
            raise ParameterError(name, "expected text without NUL, in UTF-8")
        if value:
            given.setdefault(name, []).append(value)
    return given


def _is_text(value: str) -> bool:
    """Whether Postgres takes it as a text."""
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def _one(given: Mapping[str, Sequence[str]], name: str) -> str | None:
    values = given.get(name, ())
    if len(values) > 1:
        raise ParameterError(name, "expected once")
    return values[0] if values else None


def _several(
    given: Mapping[str, Sequence[str]], name: str, *, allowed: Sequence[str] = ()
) -> tuple[str, ...]:
    values = tuple(dict.fromkeys(given.get(name, ())))
    if len(values) > MOST_VALUES:
        raise ParameterError(name, f"expected at most {MOST_VALUES} values")
    for value in values:
        if allowed and value not in allowed:
            raise ParameterError(name, f"expected one of {', '.join(allowed)}")
    return values


def _choice(
    given: Mapping[str, Sequence[str]], name: str, allowed: tuple[_T, ...], default: _T
) -> _T:
    value = _one(given, name)
    if value is None:
        return default
    for choice in allowed:
        if value == choice:
            return choice
    raise ParameterError(name, f"expected one of {', '.join(allowed)}")


def _zone(name: str | None, zones: Mapping[str, ZoneInfo]) -> ZoneInfo:
    if name is None or name not in zones:
        raise ParameterError("tz", "expected an IANA time zone such as UTC or Europe/Berlin")
    return zones[name]


def _days(given: Mapping[str, Sequence[str]], today: date) -> tuple[Preset, date | None, date]:
    """Return the name of the range and its days; the last one may be in the future."""
    begin, finish = _one(given, "from"), _one(given, "to")
    if begin is None and finish is None:
        return _preset(_choice(given, "range", PRESETS, "30d"), today)
    preset = _choice(given, "range", PRESETS, "custom")
    if preset != "custom":
        raise ParameterError("range", "expected either range, or from and to")
    first = None if begin is None else _day("from", begin)
    last = today if finish is None else _day("to", finish)
    if first is not None and first > last:
        raise ParameterError("from", f"expected a day up to {last}")
    return "custom", first, last


def _preset(preset: Preset, today: date) -> tuple[Preset, date | None, date]:
    month = today.replace(day=1)
    match preset:
        case "today" | "7d" | "30d" | "90d":
            return preset, today - timedelta(days=_DAYS_BACK[preset]), today
        case "yesterday":
            return preset, today - timedelta(days=1), today - timedelta(days=1)
        case "this_month":
            return preset, month, _month_end(month)
        case "last_month":
            last = month - timedelta(days=1)
            return preset, last.replace(day=1), last
        case "this_year":
            return preset, today.replace(month=1, day=1), today.replace(month=12, day=31)
        case "all":
            return preset, None, today
        case "custom":
            raise ParameterError("range", "custom expected from and to")


def _day(name: str, value: str) -> date:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise ParameterError(name, "expected a day such as 2026-11-22")
    try:
        day = date.fromisoformat(value)
    except ValueError:
        raise ParameterError(name, "there is no such day in the calendar") from None
    if not FIRST_DAY <= day <= LAST_DAY:
        raise ParameterError(name, f"expected a day from {FIRST_DAY} to {LAST_DAY}")
    return day


def _month_end(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1) - timedelta(days=1)


def _metadata(values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    if len(values) > MOST_VALUES:
        raise ParameterError("metadata", f"expected at most {MOST_VALUES} values")
    return tuple(_pair(value) for value in dict.fromkeys(values))


def _pair(text: str) -> tuple[str, str]:
    """Read key=value, or {"key": "value"} for keys that would be read as others."""
    named = _member(text) if text.startswith("{") else None
    if named is not None:
        return named
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ParameterError("metadata", 'expected key=value, or {"key": "value"}')
    return key, value


def _member(text: str) -> tuple[str, str] | None:
    """Return the one member of a JSON object, a text; None: it is no such object."""
    try:
        members = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(members, dict) or len(members) != 1:
        return None
    [(key, value)] = members.items()
    return (key, value) if isinstance(value, str) and _is_text(key + value) else None


def _sort(value: str | None, columns: tuple[str, ...]) -> str | None:
    if value is not None and value.removeprefix("-") not in columns:
        expected = (
            f"expected one of {', '.join(columns)}, or -column" if columns else "expected none"
        )
        raise ParameterError("sort", expected)
    return value


def _size(value: str | None) -> int:
    if value is None:
        return SIZES[0]
    if value not in {str(size) for size in SIZES}:
        raise ParameterError("size", f"expected one of {', '.join(map(str, SIZES))}")
    return int(value)


def _key(value: str | None) -> Key | None:
    if value is None:
        return None
    wrong = ParameterError("after", "expected what an earlier page has given as its next")
    try:
        found = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    except (binascii.Error, ValueError):
        raise wrong from None
    if (
        not isinstance(found, list)
        or len(found) != KEY_LENGTH
        or not all(part is None or (isinstance(part, str) and _is_text(part)) for part in found)
    ):
        raise wrong
    return tuple(found)

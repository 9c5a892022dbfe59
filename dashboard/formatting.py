"""Values as people read them: never rounded to nothing, never a number where none is known. Pure.

What is shown is short; what is exact stands beside it, as the tooltip and in JSON and CSV.
"""

import unicodedata
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

LONGEST = 96  # characters of a name that are shown
LONGEST_HINT = 2048

_MILLION = 1_000_000
_SCALES = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))
_TOKEN_COMPONENTS = ("input", "output", "cache_write")
_MINUS = "\N{MINUS SIGN}"
_THIN = "\N{NARROW NO-BREAK SPACE}"


def money(value: Decimal) -> str:
    """Return dollars: cents, and below ten cents so many places that two digits count."""
    sign, amount = (_MINUS if value < 0 else ""), abs(value)
    if amount == 0 or amount >= Decimal("0.1"):
        return f"{sign}${amount:,.2f}"
    places = 1 - amount.adjusted()
    return f"{sign}${amount:.{max(4, places)}f}"


def exact(value: Decimal) -> str:
    """Return dollars with every digit, without the zeros behind the last one that counts."""
    text = f"{value:,f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    sign, digits = (_MINUS, text[1:]) if text.startswith("-") else ("", text)
    return f"{sign}${digits}"


def ticks(values: Sequence[float]) -> list[str]:
    """Return dollars along an axis: all with as many places, none or two at least."""
    texts = [f"{value:.10g}" for value in values]
    places = max((len(text.partition(".")[2]) for text in texts), default=0)
    return [f"${value:,.{max(2, places) if places else 0}f}" for value in values]


def count(value: int) -> str:
    """Return a number with its thousands apart."""
    return f"{value:,}".replace("-", _MINUS)


def compact(value: int) -> str:
    """Return a number in three or four characters, as a headline has it."""
    for scale, letter in _SCALES:
        if abs(value) >= scale:
            shown = Decimal(value) / scale
            places = max(0, 2 - shown.adjusted())
            return f"{shown:.{places}f}".replace("-", _MINUS) + letter
    return count(value)


def share(value: Decimal | float) -> str:
    """Return a part of a whole in per cent; what is not nothing never looks like it."""
    part = Decimal(value) * 100
    if 0 < part < Decimal("0.1"):
        return f"<{_THIN}0.1{_THIN}%"
    return f"{part:.1f}{_THIN}%" if part < 10 else f"{part:.0f}{_THIN}%"  # noqa: PLR2004 - two digits


def change(now: Decimal | int | None, before: Decimal | int | None) -> str | None:
    """Return by how much something has changed; None: that cannot be told."""
    if now is None or before is None or (not now and not before):
        return None
    if not before:
        return "new"
    part = (Decimal(now) - Decimal(before)) / abs(Decimal(before)) * 100
    if abs(part) >= 1000:  # noqa: PLR2004 - more digits say less
        return f"×{Decimal(now) / Decimal(before):,.0f}"
    sign = "+" if part > 0 else _MINUS if part < 0 else "±"
    return f"{sign}{abs(part):.{1 if abs(part) < 10 else 0}f}{_THIN}%"  # noqa: PLR2004 - as above


def unit_price(value: Decimal, component: str) -> str:
    """Return the price of one unit; that of tokens by the million, as price lists have it."""
    if is_token(component):
        return f"{_priced(value * _MILLION)} / 1M"
    return _priced(value)


def _priced(value: Decimal) -> str:
    """Return dollars with every digit, and cents at least."""
    text = exact(value)
    places = len(text.partition(".")[2])
    return text if places > 1 else f"{text}{'' if places else '.'}{'0' * (2 - places)}"


def is_token(component: str) -> bool:
    """Whether a component of a price counts tokens."""
    return component.rpartition("_")[2] in _TOKEN_COMPONENTS or component.startswith("cache_write")


def milliseconds(value: int) -> str:
    """Return a time that something took."""
    if value < 1000:  # noqa: PLR2004 - a second
        return f"{value}{_THIN}ms"
    seconds = Decimal(value) / 1000
    return f"{seconds:.{2 if value < 10_000 else 1}f}{_THIN}s"  # noqa: PLR2004 - three digits


def size(value: int) -> str:
    """Return a number of bytes."""
    if value < 1000:  # noqa: PLR2004 - a kilobyte
        return f"{value}{_THIN}B"
    for scale, letter in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if value >= scale:
            return f"{Decimal(value) / scale:.1f}{_THIN}{letter}"
    raise AssertionError  # pragma: no cover - a kilobyte has been reached


def moment(value: datetime, zone: ZoneInfo) -> str:
    """Return a moment to the second, on the clock of a zone."""
    return f"{value.astimezone(zone):%Y-%m-%d %H:%M:%S}"


def day(value: date) -> str:
    """Return a day without its year, as an axis has it."""
    return f"{value:%b} {value.day}"


def span(first: date | None, last: date) -> str:
    """Return a range of days in words."""
    if first is None:
        return f"everything up to {day(last)}, {last.year}"
    if first == last:
        return f"{first:%a} {day(first)}, {first.year}"
    begun = day(first) if first.year == last.year else f"{day(first)}, {first.year}"
    return f"{begun} – {day(last)}, {last.year}"


def text(value: str, *, longest: int = LONGEST) -> str:
    """Return a text of a client's as one line: what is invisible becomes a sign, what is long ends.

    It is not escaped: that is for whoever puts it into a page.
    """
    cut = value[:longest] + ("…" if len(value) > longest else "")
    return "".join(map(_visible, cut))


def hint(value: str) -> str:
    """Return the whole of a text, as far as a tooltip may hold it."""
    return text(value, longest=LONGEST_HINT)


def _visible(character: str) -> str:
    """Return a picture of what would break a line, hide or turn the reading around."""
    code = ord(character)
    if code < 0x20:  # noqa: PLR2004 - the control characters have pictures of their own
        return chr(0x2400 + code)
    if code == 0x7F:  # noqa: PLR2004 - DEL
        return "\N{SYMBOL FOR DELETE}"
    if unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp"}:
        joins = character in "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"  # emoji, scripts
        return character if joins else "\N{REPLACEMENT CHARACTER}"
    return character

"""What is known of families of models that tokens depend on: vocabulary, framing, sight.

A family is found by the longest listed beginning of a model's name. That is good enough here and
nowhere else: an estimate says that it is one, a price never goes by likeness. The numbers are what
reported usage showed; docs/estimates.md says how well they fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

O200K = "o200k_base"
CL100K = "cl100k_base"
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """An image costs a base, and so much for each square of 512 pixels that covers it."""

    base: int
    tile: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """An image costs a factor for each patch of 32 pixels, up to so many patches."""

    factor: float
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How the models of a family count."""

    vocabulary: str = O200K
    is_newer: bool = False  # from o3 and gpt-5 on: other framing around prompt and reply
    thinks: bool = False  # unasked, before it answers


OLDER = Family()
THINKING = Family(is_newer=True, thinks=True)
NEWER = Family(is_newer=True)
EARLY = Family(vocabulary=CL100K)
FAMILIES: Mapping[str, Family] = {
    "gpt-3.5": EARLY,
    "gpt-35": EARLY,
    "gpt-4": EARLY,
    "gpt-4o": OLDER,
    "gpt-4.": OLDER,
    "text-": EARLY,
    "davinci": EARLY,
    "babbage": EARLY,
    "o1": Family(thinks=True),
    "o3": THINKING,
    "o4": THINKING,
    "codex": THINKING,
    "computer-use": NEWER,
    "gpt-oss": THINKING,
    "gpt-5": THINKING,
    "gpt-5-chat": NEWER,
    "gpt-5.": NEWER,
    "gpt-6": NEWER,
}
FIRST_SIGHT = Tiles(base=85, tile=170)
LARGE = 2500
SMALL = 1536
SIGHTS: Mapping[str, Tiles | Patches] = {
    "gpt-4o-mini": Tiles(base=2833, tile=5667),
    "gpt-4.1-mini": Patches(factor=1.62, most=SMALL),
    "gpt-4.1-nano": Patches(factor=2.46, most=SMALL),
    "o1": Tiles(base=75, tile=150),
    "o3": Tiles(base=75, tile=150),
    "o4-mini": Patches(factor=1.72, most=SMALL),
    "codex-mini": Patches(factor=1.72, most=SMALL),
    "computer-use": Tiles(base=65, tile=129),
    "gpt-5": Tiles(base=70, tile=140),
    "gpt-5-mini": Patches(factor=1.2, most=SMALL),
    "gpt-5-nano": Patches(factor=1.5, most=SMALL),
    "gpt-5.2": Patches(factor=1.2, most=SMALL),
    "gpt-5.3": Patches(factor=1.2, most=SMALL),
    "gpt-5.": Patches(factor=1.2, most=LARGE),
    "gpt-5.1": Tiles(base=70, tile=140),
    "gpt-6": Patches(factor=1.2, most=LARGE),
}


def family_of(model: str) -> Family:
    """Return the family of a model; one that nobody has listed is taken for a GPT-4o."""
    return _longest(FAMILIES, model) or OLDER


def sight_of(model: str) -> Tiles | Patches:
    """Return how a model counts images."""
    return _longest(SIGHTS, model) or FIRST_SIGHT


def _longest(table: Mapping[str, T], model: str) -> T | None:
    name = model.removeprefix("ft:").rpartition("/")[2]
    fitting = [beginning for beginning in table if name.startswith(beginning)]
    return table[max(fitting, key=len)] if fitting else None

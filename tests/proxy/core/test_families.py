"""Models are told by the beginning of their names, the longest that is listed."""

import pytest

from proxy.core.families import (
    CL100K,
    EARLY,
    NEWER,
    O200K,
    OLDER,
    THINKING,
    Family,
    Patches,
    Tiles,
    family_of,
    sight_of,
)


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-3.5-turbo-0125", EARLY),
        ("gpt-35-turbo", EARLY),
        ("gpt-4-0613", EARLY),
        ("text-embedding-3-small", EARLY),
        ("ft:gpt-4o-2024-08-06:acme::abc", OLDER),
        ("gpt-4.1-nano", OLDER),
        ("openai/gpt-5-mini", THINKING),
        ("gpt-5.6-sol", NEWER),
        ("my-deployment", OLDER),
        ("", OLDER),
    ],
)
def test_a_name_finds_its_family(model: str, family: Family) -> None:
    """A name that nobody has listed is taken for a GPT-4o."""
    assert family_of(model) == family


def test_the_early_models_have_another_vocabulary() -> None:
    """A text makes some percent more tokens in it."""
    assert (family_of("gpt-4").vocabulary, family_of("gpt-4o").vocabulary) == (CL100K, O200K)


@pytest.mark.parametrize(
    ("model", "sight"),
    [
        ("gpt-4o", Tiles(base=85, tile=170)),
        ("gpt-4o-mini-2024-07-18", Tiles(base=2833, tile=5667)),
        ("gpt-4.1", Tiles(base=85, tile=170)),
        ("gpt-4.1-mini", Patches(factor=1.62, most=1536)),
        ("gpt-5-nano", Patches(factor=1.5, most=1536)),
        ("gpt-5.1", Tiles(base=70, tile=140)),
        ("gpt-6.2-sol", Patches(factor=1.2, most=2500)),
    ],
)
def test_a_name_finds_how_it_sees(model: str, sight: Tiles | Patches) -> None:
    """By squares or by patches."""
    assert sight_of(model) == sight

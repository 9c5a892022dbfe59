"""What the proof takes for right: written out for some calls, and the same at every run."""

from decimal import Decimal

from prove.calls import WEIGHTS, Call, Kind, Tokens, call, expected, pieces

TOKENS = Tokens(prompt=20, cached=4, completion=10, reasoning=1)


def _call(kind: Kind) -> Call:
    return Call(number=9, kind=kind, tokens=TOKENS, pause=0.0, status=200, user="ada")


def test_costs_are_those_of_the_price_list() -> None:
    """16 × 0.15 + 4 × 0.075 + 10 × 0.60 a million; an embedding of 20 tokens at 0.02."""
    assert _call(Kind.JSON).cost == Decimal("0.0000087")
    assert _call(Kind.EMBEDDING).cost == Decimal("0.0000004")


def test_the_same_seed_makes_the_same_calls() -> None:
    """And all kinds of them, soon."""
    some = [call(7, number) for number in range(200)]
    assert some == [call(7, number) for number in range(200)]
    assert some != [call(8, number) for number in range(200)]
    assert {one.kind for one in some} == set(WEIGHTS)


def test_a_client_that_did_not_ask_for_usage_sees_none() -> None:
    """Though the upstream tells it when the proxy asks."""
    stream = _call(Kind.STREAM)
    assert b"usage" not in expected(stream)
    assert b'"prompt_tokens":20' in b"".join(pieces(stream, with_usage=True))

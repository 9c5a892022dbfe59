from datetime import UTC, datetime
from decimal import Decimal

import pytest

from proxy.core.document import Value
from proxy.errors import PriceFileError


def text(scalar: str, line: int = 3) -> Value:
    """Return a text value in some line."""
    return Value(line, "str", scalar)


def test_each_form_is_read_as_it_is_meant() -> None:
    """The plain spellings give exact values."""
    assert text("0.15").amount() == Decimal("0.15")
    assert text("x1.10").factor() == Decimal("1.10")
    assert Value(1, "int", "272000").count() == 272_000
    assert Value(1, "bool", "true").flag() is True
    assert Value(1, "bool", "false").flag() is False
    assert Value(1, "timestamp", "2026-11-22").day() == datetime(2026, 11, 22, tzinfo=UTC)
    assert Value(1, "seq", sequence=(text("a"), text("b"))).texts() == ("a", "b")
    assert text("high").choice(("high", "low")) == "high"
    mapping = Value(1, "map", mapping=((text("a"), text("1")), (text("b"), text("2"))))
    assert mapping.members(("a", "b", "c"), ("a", "b")) == {"a": text("1"), "b": text("2")}


@pytest.mark.parametrize(
    ("value", "verb", "message"),
    [
        (Value(4, "float", "0.15"), "amount", "line 4: found the float 0.15; expected a quoted"),
        (Value(4, "int", "15"), "amount", "found the int 15; expected a quoted decimal"),
        (text("1e-3"), "amount", "found '1e-3'; expected a quoted decimal"),
        (text("-1"), "amount", "found '-1'"),
        (text("0.0000001"), "amount", "at most six places"),
        (text("٣"), "amount", "found '٣'"),
        (Value(4, "float", "0.5"), "factor", "found the float 0.5; expected a factor"),
        (text("2"), "factor", "expected a factor with at most six places, such as x1.10"),
        (text("272000"), "count", "found '272000'; expected a whole number"),
        (Value(4, "int", "-5"), "count", "found the int -5"),
        (Value(4, "bool", "yes"), "flag", "found the bool yes; expected true or false"),
        (text("true"), "flag", "found 'true'"),
        (Value(4, "timestamp", "2026-02-30"), "day", "found '2026-02-30'; expected a day that"),
        (text("20261122"), "day", "expected a day that exists, such as 2026-11-22"),
        (Value(4, "null"), "text", "found nothing; expected a text"),
        (text(""), "text", "found ''; expected a text"),
        (Value(4, "int", "4"), "text", "found the int 4; expected a text (in quotes"),
        (Value(4, "map"), "items", "found a mapping; expected a list"),
        (Value(4, "seq"), "members", "found a list; expected a mapping"),
    ],
)
def test_another_spelling_is_refused_with_what_was_expected(
    value: Value, verb: str, message: str
) -> None:
    """Whoever edits the file learns the line, the finding and the cure."""
    with pytest.raises(PriceFileError) as caught:
        getattr(value, verb)()
    assert message in str(caught.value)


def test_a_member_given_twice_is_refused() -> None:
    """YAML itself would let the second win in silence."""
    twice = Value(1, "map", mapping=((text("input", 2), text("1")), (text("input", 5), text("2"))))
    with pytest.raises(PriceFileError, match="line 5: found 'input'; expected each member once; l"):
        twice.members()


def test_a_stranger_among_the_members_is_refused_with_the_closest_name() -> None:
    """A misspelt member would otherwise be a missing price."""
    value = Value(1, "map", mapping=((text("cached_inputs"), text("1")),))
    with pytest.raises(PriceFileError) as caught:
        value.members(("input", "cached_input"))
    assert str(caught.value) == (
        "line 3: found 'cached_inputs'; "
        "expected one of cached_input, input (did you mean 'cached_input'?)"
    )


def test_a_missing_member_is_named() -> None:
    """The line is that of the mapping."""
    with pytest.raises(PriceFileError, match="line 7: found a mapping; expected a member 'model'"):
        Value(7, "map").members(("model",), ("model",))


def test_many_possible_names_are_not_listed() -> None:
    """A hundred models do not fit a message."""
    options = [f"gpt-{number}" for number in range(100)]
    with pytest.raises(PriceFileError, match=r"expected a known name$"):
        text("whisper").choice(options)

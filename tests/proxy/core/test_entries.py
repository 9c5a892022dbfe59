from datetime import UTC, datetime
from decimal import Decimal

import pytest

from proxy.core.catalog import Entry, LongContext, Period
from proxy.core.entries import read_entries
from proxy.errors import PriceFileError
from proxy.pricefile import read_document

TIERS = {"default", "batch", "flex"}
WHOLE = b"""
gpt-9:
  names: [gpt-9, gpt-9-sol]
  prefixes: ["ft:gpt-9:"]
  dated: true
  sources: [LL]
  confidence: high
  prices:
    - rates: {input: "1", cache_write_12h: unpublished}
    - from: 2026-11-22
      rates: {input: "2"}
      tiers:
        batch: x0.5
        flex: {input: "0.99"}
      long_context:
        {above: 1000, input: x2, output: x1.5, only: [batch], rates: {batch: {input: "3"}}}
      operations: {decisions: {output: "0"}}
      units:
        audio_minute: "0.006"
        image: {hd: {"1024x1024": "0.08"}}
"""
SHORT = "{sources: [LL], confidence: low, prices: [{rates: {}}]}"
REST = "  sources: []\n  confidence: low\n  prices: [{rates: {}}]"


def entries_of(text: str | bytes) -> tuple[Entry, ...]:
    """Return the entries of a YAML text."""
    content = text if isinstance(text, bytes) else text.encode()
    return read_entries(read_document(content), TIERS)


def test_an_entry_is_read_whole() -> None:
    """Every member has its place in the catalogue."""
    assert entries_of(WHOLE) == (
        Entry(
            model_id="gpt-9",
            names=("gpt-9", "gpt-9-sol"),
            prefixes=("ft:gpt-9:",),
            dated=True,
            periods=(
                Period(rates={"input": Decimal(1), "cache_write_12h": None}),
                Period(
                    start=datetime(2026, 11, 22, tzinfo=UTC),
                    rates={"input": Decimal(2)},
                    tiers={"batch": Decimal("0.5"), "flex": {"input": Decimal("0.99")}},
                    long_context=LongContext(
                        above=1000,
                        input_factor=Decimal(2),
                        output_factor=Decimal("1.5"),
                        only=frozenset({"batch"}),
                        rates={"batch": {"input": Decimal(3)}},
                    ),
                    operations={"decisions": {"output": Decimal(0)}},
                    units={
                        "audio_minute": Decimal("0.006"),
                        "image/hd/1024x1024": Decimal("0.08"),
                    },
                ),
            ),
        ),
    )


def test_the_key_is_the_name_where_no_names_are_given() -> None:
    """Most models have one name."""
    (entry,) = entries_of(f"gpt-9: {SHORT}")
    assert (entry.names, entry.prefixes, entry.dated) == (("gpt-9",), (), False)


def periods(*members: str) -> str:
    """Return a model with these periods, one a line from line 2 on."""
    lines = ["m: {sources: [], confidence: low, prices: [", *(f"  {{{m}}}," for m in members), "]}"]
    return "\n".join(lines)


LONG = "above: 9, input: x2, output: x1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"a: {SHORT}\na: {SHORT}", "line 2: found 'a'; expected each member once; line 1 has"),
        (
            f"a: {SHORT}\nb:\n  names: [c, a]\n{REST}",
            "line 3: found 'a'; expected names claimed once, but 'a' belongs to 'a' already",
        ),
        (
            f"a:\n  names: [b]\n{REST}\nb: {SHORT}",
            "line 6: found a list; expected names claimed once, but 'b' belongs to 'a' already",
        ),
        ("a: {confidence: low, prices: []}", "expected a member 'sources'"),
        (
            "a: {sources: [], confidence: certain, prices: []}",
            "found 'certain'; expected one of high, low, medium",
        ),
        (
            "a: {sources: [], confidence: low, prices: [], prefixes: [gpt-]}",
            "found 'gpt-'; expected a prefix that ends with \":\"",
        ),
        (periods(), "found a list; expected at least one period"),
        (periods("from: 2026-01-01"), "line 2: found a mapping; expected rates, or units"),
        (
            periods("rates: {}", "rates: {}"),
            "line 3: found a mapping; expected a member 'from'",
        ),
        (
            periods("from: 2026-01-02, rates: {}", "from: 2026-01-02, rates: {}"),
            "line 3: found '2026-01-02'; expected a day after 2026-01-02, when the period before",
        ),
        (periods("form: 2026-01-01, rates: {}"), "(did you mean 'from'?)"),
        (
            periods("rates: {input: 0.15}"),
            "line 2: found the float 0.15; expected a quoted decimal",
        ),
        (periods("rates: {outputs: '1'}"), "(did you mean 'output'?)"),
        (
            periods("rates: {}, tiers: {default: x1}"),
            "found 'default'; expected one of batch, flex",
        ),
        (periods("rates: {}, tiers: {flexi: x1}"), "(did you mean 'flex'?)"),
        (periods("rates: {}, tiers: {flex: '0.5'}"), "found '0.5'; expected a factor"),
        (
            periods(f"rates: {{}}, long_context: {{{LONG}, only: [flex]}}"),
            "found 'flex'; expected one of default",
        ),
        (
            periods(f"rates: {{}}, long_context: {{{LONG}, rates: {{flex: {{}}}}}}"),
            "found 'flex'; expected one of default",
        ),
        (periods("rates: {}, long_context: {above: 9}"), "expected a member 'input'"),
        (periods("units: {audio_minutes: '1'}"), "(did you mean 'audio_minute'?)"),
    ],
)
def test_a_mistake_is_refused_with_its_line(text: str, message: str) -> None:
    """What is misread here is mischarged on every call."""
    with pytest.raises(PriceFileError) as caught:
        entries_of(text)
    assert message in str(caught.value)

import hashlib
import os
from decimal import Decimal
from pathlib import Path

import pytest

from proxy.errors import PriceFileError
from proxy.pricefile import PriceFile, load_price_book, read_document

SHIPPED = Path(__file__).parents[2] / "pricing.yaml"
SMALL = """
schema_version: 1
catalog_version: "7"
models:
  m: {sources: [], confidence: low, prices: [{rates: {input: "PRICE"}}]}
"""


def written(path: Path, price: str) -> Path:
    """Write a small pricing file with one price."""
    path.write_text(SMALL.replace("PRICE", price), encoding="utf-8")
    return path


def input_price(file: PriceFile) -> Decimal:
    """Return the only price of the book in force, per million tokens."""
    (rate, *_) = file.book.rates()
    return rate.list_unit_price * 10**6


def test_the_shipped_file_is_without_mistakes() -> None:
    """Its version names what is in it, to the byte."""
    book = load_price_book(SHIPPED)
    digest = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert book.catalog_version.endswith(f"+{digest[:12]}")
    assert len({rate.price_id.partition("@")[0] for rate in book.rates()}) > 100


def test_a_new_file_is_a_new_book(tmp_path: Path) -> None:
    """Prices change without a restart, and an unchanged file costs one look."""
    file = PriceFile(written(tmp_path / "prices.yaml", "1"))
    assert not file.reload_if_changed()
    written(tmp_path / "prices.yaml", "2.5")
    assert file.reload_if_changed()
    assert input_price(file) == Decimal("2.5")
    assert not file.reload_if_changed()


def test_a_file_that_took_the_place_of_another_is_noticed(tmp_path: Path) -> None:
    """Editors and config maps replace files; size and time may stay the same."""
    path = written(tmp_path / "prices.yaml", "1")
    file = PriceFile(path)
    times = path.stat()
    other = written(tmp_path / "other.yaml", "2")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)
    assert file.reload_if_changed()
    assert input_price(file) == 2


def test_a_mistake_changes_nothing_and_is_told_until_it_is_mended(tmp_path: Path) -> None:
    """Calls go on being priced by what was last right."""
    path = written(tmp_path / "prices.yaml", "1")
    file = PriceFile(path)
    written(path, "one")
    assert not file.reload_if_changed()
    assert not file.reload_if_changed()
    problem = file.problem
    assert problem == (
        f"{path}, line 5: found 'one'; "
        'expected a quoted decimal with at most six places, such as "0.15"'
    )
    assert input_price(file) == 1
    written(path, "10")
    assert file.reload_if_changed()
    assert file.problem is None
    assert input_price(file) == 10


def test_a_file_that_is_gone_leaves_its_prices(tmp_path: Path) -> None:
    """A missing file is a problem, not a reason to stop pricing."""
    path = written(tmp_path / "prices.yaml", "1")
    file = PriceFile(path)
    path.unlink()
    assert not file.reload_if_changed()
    assert file.problem == f"{path} cannot be read: No such file or directory"
    assert input_price(file) == 1


def test_without_a_readable_file_there_is_no_book(tmp_path: Path) -> None:
    """At the start there is nothing to fall back to."""
    with pytest.raises(PriceFileError, match=r"none\.yaml cannot be read: No such file"):
        PriceFile(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: found nothing; expected a mapping"),
        (b"a: 1\nb: [1, 2\n", "line 3: did not find expected ',' or ']'; expected YAML"),
        (b"a: *nowhere", "line 1: found undefined alias; expected YAML"),
        (b"a: \xff", "expected YAML in UTF-8"),
        (b"a: 1\n--- \nb: 2", "but found another document; expected YAML"),
        (b"&a [*a]", "line 1: found more than 12 levels; expected fewer"),
        (
            SMALL.replace("PRICE", "1").replace('"7"', '!!python/name:os.system ""').encode(),
            "line 3: found the os.system ; expected a text",
        ),
    ],
    ids=["empty", "open list", "alias", "latin-1", "two documents", "endless", "object"],
)
def test_what_is_no_pricing_document_is_refused_with_its_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    """Nothing of the file is ever run or guessed at."""
    path = tmp_path / "prices.yaml"
    path.write_bytes(content)
    with pytest.raises(PriceFileError) as caught:
        load_price_book(path)
    assert message in str(caught.value)


def test_values_keep_their_spelling_and_their_line() -> None:
    """A bare 0.10 is a float to YAML, and stays recognisable as one."""
    document = read_document(b'a: "0.10"\nb: 0.10\nc:\n  - 2026-11-22\n')
    members = document.members()
    assert (members["a"].kind, members["a"].scalar) == ("str", "0.10")
    assert (members["b"].kind, members["b"].scalar, members["b"].line) == ("float", "0.10", 2)
    assert (members["c"].items()[0].kind, members["c"].items()[0].line) == ("timestamp", 4)

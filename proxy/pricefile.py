"""The pricing file: `pricing.yaml` as a price book, read again when it changes.

PyYAML only finds the values and their lines. It constructs none of them, so its floats, dates and
objects never come into being. A file with a mistake changes nothing: the book in force stays.
"""

import hashlib
from pathlib import Path

import yaml

from proxy.core.document import Value
from proxy.core.pricelist import read_catalog
from proxy.core.pricing import PriceBook
from proxy.errors import PriceFileError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times as fast
_DEEPEST = 12  # levels; a document that contains itself has no end
_HASH_DIGITS = 12


def load_price_book(path: Path) -> PriceBook:
    """Read the file; raise PriceFileError that names the line, the finding and the expectation."""
    try:
        content = path.read_bytes()
        catalog = read_catalog(read_document(content))
    except OSError as exc:
        raise PriceFileError(f"{path} cannot be read: {exc.strerror}") from exc
    except PriceFileError as exc:
        raise PriceFileError(f"{path}, {exc}") from exc
    digest = hashlib.sha256(content).hexdigest()[:_HASH_DIGITS]
    return PriceBook(catalog, f"{catalog.version}+{digest}")


class PriceFile:
    """The price book of a file that may change at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _signature(path)
        self.book = load_price_book(path)
        self.problem: str | None = None

    def reload_if_changed(self) -> bool:
        """Look at the file; return whether there is a new book, keep the old one on a mistake."""
        signature = _signature(self._path)
        if signature == self._seen:
            return False
        self._seen = signature
        try:
            self.book = load_price_book(self._path)
        except PriceFileError as exc:
            self.problem = str(exc)
            return False
        self.problem = None
        return True


def read_document(content: bytes) -> Value:
    """Return the document in a YAML text; raise PriceFileError where it is none."""
    try:
        node = yaml.compose(content, Loader=_LOADER)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise PriceFileError(f"line {line}: {exc.problem}; expected YAML") from exc
    except yaml.YAMLError as exc:
        raise PriceFileError(f"line 1: {exc}; expected YAML in UTF-8") from exc
    return _value(node, _DEEPEST) if node else Value(1, "null")


def _signature(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with the file; None while there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _value(node: yaml.Node, levels: int) -> Value:
    line = node.start_mark.line + 1
    if not levels:
        raise PriceFileError(f"line {line}: found more than {_DEEPEST} levels; expected fewer")
    if isinstance(node, yaml.MappingNode):
        pairs = ((_value(k, levels - 1), _value(v, levels - 1)) for k, v in node.value)
        return Value(line, "map", mapping=tuple(pairs))
    if isinstance(node, yaml.SequenceNode):
        return Value(line, "seq", sequence=tuple(_value(n, levels - 1) for n in node.value))
    return Value(line, node.tag.rpartition(":")[2], node.value)

"""The documents of the project, as far as tests read them: code blocks, tables, links."""

import re
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = (README, *sorted((ROOT / "docs").glob("*.md")))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(document: Path, language: str) -> list[str]:
    """Return the code blocks in a language; an empty one is that of plain text."""
    return [text for found, text in _FENCE.findall(document.read_text()) if found == language]


def block(document: Path, language: str, containing: str) -> str:
    """Return the one code block that contains a text."""
    (found,) = [text for text in blocks(document, language) if containing in text]
    return found


def table(document: Path, first_header: str) -> list[list[str]]:
    """Return the rows of the table whose first column has that header."""
    _, found, rest = document.read_text().partition(f"\n| {first_header} |")
    assert found, f"{document.name} has no table that begins with {first_header!r}"
    rows = takewhile(lambda line: line.startswith("|"), rest.splitlines()[2:])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def links(document: Path) -> list[str]:
    """Return where the links of a document lead."""
    text = _FENCE.sub("", document.read_text())
    return _LINK.findall(text)


def anchors(document: Path) -> list[str]:
    """Return what its headings are called in links."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", document.read_text()), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]

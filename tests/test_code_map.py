"""docs/code.md is a map of all rooms, and says of each what the room itself says."""

import ast
import re
from pathlib import Path

import pytest

from tests.documents import ROOT

MAP = ROOT / "docs" / "code.md"
PACKAGES = ("proxy", "proxy/core", "proxy/demo", "dashboard")
_ROW = re.compile(r"^\| \[`(\w+)`\]\(\.\./([\w/]+)\.py\) \| (.*) \|$", re.MULTILINE)


def _first_sentence(module: Path) -> str:
    text = ast.get_docstring(ast.parse(module.read_text())) or ""
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0].replace("\n", " ")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_is_on_the_map_once(package: str) -> None:
    """With the first sentence of its docstring, under the name by which it is linked."""
    rows = [row for row in _ROW.findall(MAP.read_text()) if row[1].rpartition("/")[0] == package]
    rooms = [path for path in (ROOT / package).glob("*.py") if path.stem != "__init__"]
    assert sorted(rows) == sorted(
        (path.stem, f"{package}/{path.stem}", _first_sentence(path)) for path in rooms
    )


def test_nothing_else_is_on_the_map() -> None:
    """Every row of its tables is a room, the name of a theme, or a head."""
    lines = [line for line in MAP.read_text().splitlines() if line.startswith("|")]
    heads = {"| Room | What it does |", "|---|---|"}
    rest = [line for line in lines if not _ROW.match(line) and line not in heads]
    assert [line for line in rest if not re.fullmatch(r"\| \*\*[\w ]+\*\* \| \|", line)] == []
    places = {row[1].rpartition("/")[0] for row in _ROW.findall(MAP.read_text())}
    assert places == set(PACKAGES)

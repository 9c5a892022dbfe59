"""docs/estimates.md states the errors that are measured where recorded traffic is at hand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from proxy import inquiring
from proxy.core import completions, estimates, prompts
from tests.documents import README, ROOT, table

DOCUMENT = ROOT / "docs" / "estimates.md"
MOST = {"prompt: text only": 1.0, "answer: text": 2.0}  # percent, of the median
NOTES = {
    value
    for module in (completions, estimates, inquiring, prompts)
    for name, value in vars(module).items()
    if name.endswith(("_SEEN", "_ASSUMED", "_KNOWN", "_KEPT", "_READ")) and isinstance(value, str)
}


@pytest.mark.corpus
def test_the_stated_errors_are_those_measured(corpus_path: Path) -> None:
    """To the tenth of a percent, for every kind."""
    measured = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, ROOT / "bench" / "estimates.py", corpus_path],
        capture_output=True,
        check=True,
        text=True,
        timeout=300,
    ).stdout
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in measured.splitlines()]
    assert table(DOCUMENT, "Kind") == rows[2:]


@pytest.mark.parametrize(("kind", "percent"), MOST.items())
def test_texts_are_estimated_closely(kind: str, percent: float) -> None:
    """Prompts of text alone, and answers that can be seen."""
    medians = [float(row[2].strip("%")) for row in table(DOCUMENT, "Kind") if kind in row[0]]
    assert medians
    assert max(medians) <= percent


def test_every_gap_is_explained() -> None:
    """Whoever finds a note on a row finds it in the document."""
    said = {note for row in table(DOCUMENT, "Note") for note in re.findall(r"`(\w+)`", row[0])}
    assert said >= NOTES
    assert {inquiring.BUSY, inquiring.LATE, inquiring.FAILED, inquiring.STOPPED} <= said


def test_the_readme_leads_there() -> None:
    """From where it says what is estimated."""
    assert "(docs/estimates.md)" in README.read_text()

"""Of the output of a batch every line is read, of any other file none."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.findings import Findings
from proxy.core.model import AnswerUnits, Sighting
from proxy.core.outputs import OutputReader

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def line(number: int, *, status: int = 200, body: Any = None, **changes: Any) -> bytes:
    """Return a line of a batch's output."""
    answer = {"id": f"chatcmpl-{number}", "model": "m", "usage": USAGE} if body is None else body
    response = {"status_code": status, "request_id": "r", "body": answer}
    found = {"id": f"batch_req_{number}", "custom_id": f"c{number}", "response": response}
    return json.dumps(found | {"error": None} | changes).encode() + b"\n"


def read(*chunks: bytes, limit: int = 1 << 16) -> Findings:
    """Return what is found in a file."""
    findings = Findings()
    reader = OutputReader(findings, max_line_bytes=limit)
    for chunk in chunks:
        reader.feed(chunk)
    reader.finish()
    return findings


def state(findings: Findings) -> str | None:
    """Return what is said of the file as a whole; None: it is no output."""
    return next((seen.state for seen in findings.seen.values()), None)


def test_each_line_has_its_usage() -> None:
    """And the ids by which it is known to both sides."""
    findings = read(line(1) + line(2).rstrip(b"\n"))
    assert [(one.part, one.custom_id) for one in findings.lines] == [
        ("batch_req_1", "c1"),
        ("batch_req_2", "c2"),
    ]
    assert findings.lines[0] == Sighting(
        kind="output",
        object_id="",
        part="batch_req_1",
        model="m",
        usage=json.dumps(USAGE).encode(),
        units=AnswerUnits(),
        response_id="chatcmpl-1",
        custom_id="c1",
    )
    assert state(findings) == "complete"


FILE = line(1) + b"\r\n" + line(2, status=500, body={}) + line(3)


@given(st.lists(st.integers(0, len(FILE)), max_size=12))
def test_any_chunking_finds_the_same_lines(cuts: list[int]) -> None:
    """Wherever the network cuts."""
    edges = [0, *sorted(cuts), len(FILE)]
    findings = read(*(FILE[start:end] for start, end in pairwise(edges)))
    assert [one.part for one in findings.lines] == ["batch_req_1", "batch_req_3"]
    assert state(findings) == "complete"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n",
        b'{"messages":[]}\n' + line(1),
        b"[1]\n" + line(1),
        b"{broken\n" + line(1),
        b'{"custom_id":"c","response":null}'[:-1] + b"\n",
        b"{" + b"x" * (1 << 17),
    ],
)
def test_of_another_file_nothing_is_read(content: bytes) -> None:
    """Training data, pictures, results of something else."""
    findings = read(content[:4], content[4:])
    assert (findings.lines, findings.seen) == ([], {})


@pytest.mark.parametrize(
    "odd",
    [
        line(2, response=None),
        line(2, status=400, body={"error": {}}),
        line(2, body="text"),
        line(2, body={"id": "x", "usage": None}),
        b"  \n",
    ],
)
def test_a_line_that_failed_has_no_usage(odd: bytes) -> None:
    """It is not billed, and does not make the file incomplete."""
    findings = read(line(1) + odd + line(3))
    assert [one.part for one in findings.lines] == ["batch_req_1", "batch_req_3"]
    assert state(findings) == "complete"


@pytest.mark.parametrize(
    "odd",
    [
        b"{broken\n",
        line(2, id=None, custom_id="ü"),
        line(2, body={"id": "x", "usage": {"a": "y" * 5000}}),
        b"{" + b"x" * (1 << 17) + b"\n",
    ],
)
def test_a_line_that_is_lost_takes_the_claim_to_have_seen_all(odd: bytes) -> None:
    """What was read so far stays; the batch's own sum is the better one then."""
    findings = read(line(1), *(odd[i : i + 4096] for i in range(0, len(odd), 4096)), line(3))
    assert findings.lines[0].part == "batch_req_1"
    assert state(findings) == "line_unreadable"


def test_a_line_without_an_id_is_known_by_the_clients() -> None:
    """Other upstreams number no lines."""
    assert [one.part for one in read(line(1, id=None)).lines] == ["c1"]

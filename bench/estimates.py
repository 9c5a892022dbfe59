"""How far estimates are from what was reported: the table of docs/estimates.md.

Usage: python bench/estimates.py exchanges.jsonl.gz

Every recorded exchange that reports its usage is estimated as if it did not, from the same
request and the same answer. The error is |estimate - reported| / reported. Thoughts are billed
and cannot be seen, so an answer is compared with what was reported less its reasoning tokens.
"""

import base64
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from proxy.core import completions, loose, prompts
from proxy.core.estimates import ESTIMABLE, Question, estimate
from proxy.core.operations import operation_of
from proxy.core.sse import parse, split
from proxy.estimating import count

HIGH = 0.95
HIDDEN = {prompts.HISTORY_NOT_SEEN, prompts.TOOLS_NOT_SEEN}
UNCOUNTED = {prompts.FILE_NOT_SEEN, prompts.ITEM_NOT_SEEN}


class Compared(NamedTuple):
    """One side of one exchange."""

    kind: str
    estimated: int
    reported: int

    @property
    def error(self) -> float:
        """Return by how much of what was reported the estimate is wrong."""
        return abs(self.estimated - self.reported) / self.reported


def comparisons(path: Path) -> Iterator[Compared]:
    """Yield both sides of every exchange that can be compared."""
    with gzip.open(path) as lines:
        for line in lines:
            row = json.loads(line)
            usable = row["metering"] == "usage_in_body" and row["request_fidelity"] != "missing"
            if usable and "include_usage_mismatch" not in row["features"]:
                yield from _compared(row)


def _compared(row: dict[str, Any]) -> Iterator[Compared]:
    operation = operation_of(row["method"], row["path"])
    usage = row["usage"]
    if operation.name not in ESTIMABLE or row["request_body_is_b64"]:
        return
    body = row["request_body"].encode()
    answer = base64.b64decode(row["response_body_b64"])
    question = Question(
        operation_name=operation.name,
        model=row["model"] or row["request_model"] or "",
        request=body,
        answer=answer,
        answer_kind="stream" if row["is_stream"] else "json",
        answer_bytes=len(answer),
    )
    found = estimate(question, count)
    notes = (found.note or "").split(",")
    asked = usage.get("prompt_tokens", usage.get("input_tokens"))
    told = usage.get("completion_tokens", usage.get("output_tokens")) or 0
    details = usage.get("completion_tokens_details", usage.get("output_tokens_details")) or {}
    told -= details.get("reasoning_tokens") or 0
    if asked and found.input_tokens is not None:
        kind = _kind_of_prompt(operation.api_type, loose.decoded(body), notes)
        yield Compared(kind, found.input_tokens, asked)
    if told > 0 and found.output_tokens is not None:
        kind = _kind_of_answer(operation.api_type, _said(row, answer), notes)
        yield Compared(kind, found.output_tokens, told)


def _kind_of_prompt(api_type: str, request: object, notes: list[str]) -> str:
    text = json.dumps(request)
    schema = loose.at(request, "text", "format", "schema")
    kinds = {  # the first that is true
        "with hosted tools or an earlier response": HIDDEN & set(notes),
        "with files or items that are not counted": UNCOUNTED & set(notes),
        "with images behind a URL or an id": prompts.IMAGE_NOT_SEEN in notes,
        "with images in the request": '"image_url"' in text,
        "with audio": '"input_audio"' in text,
        "with custom tools": prompts.CUSTOM_ASSUMED in notes,
        "with the schema of an answer": schema or '"json_schema"' in text,
        f"with functions, {api_type}": '"function' in text,
    }
    kind = next((kind for kind, is_so in kinds.items() if is_so), f"text only, {api_type}")
    return f"prompt: {kind}"


def _kind_of_answer(api_type: str, said: str, notes: list[str]) -> str:
    if completions.OUTPUT_NOT_SEEN in notes:
        return "answer: with calls of hosted tools"
    if '"function_call' in said or '"tool_calls"' in said:
        return f"answer: calls of functions, {api_type}"
    return f"answer: text, {api_type}"


def _said(row: dict[str, Any], answer: bytes) -> str:
    """Return the answer as one text in which calls can be looked for."""
    if not row["is_stream"]:
        return json.dumps(loose.decoded(answer))
    return json.dumps([loose.decoded(parse(block).data) for block in split(answer)])


def table(found: list[Compared]) -> str:
    """Return the errors by kind as a table."""
    lines = ["| Kind | Compared | Median error | 95th percentile |", "|---|---:|---:|---:|"]
    for kind in sorted({one.kind for one in found}):
        errors = sorted(one.error for one in found if one.kind == kind)
        high = errors[min(int(len(errors) * HIGH), len(errors) - 1)]
        lines.append(f"| {kind} | {len(errors)} | {median(errors):.1%} | {high:.1%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(list(comparisons(Path(sys.argv[1])))))

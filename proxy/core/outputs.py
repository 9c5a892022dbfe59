"""Read the output file of a batch as it passes by: one answer a line, each with its own usage.

A file is one of a batch if its first line is an object with `custom_id` and `response`; of any
other file nothing is read after that. Whoever feeds takes the lines, so that a file of any length
is read in bounded memory; a line that is too long is lost, and with it the claim to have seen all.
"""

import msgspec

from proxy.core.counting import tools_used
from proxy.core.findings import Findings, name_of, read_members, text_of
from proxy.core.gathering import Pieces
from proxy.core.mending import UNREADABLE, read
from proxy.core.model import Sighting
from proxy.core.objects import MAX_USAGE_BYTES, id_of

OUTPUT = "output"
COMPLETE = "complete"
NO_OUTPUT = "no_output_of_a_batch"
LINE_LOST = "line_unreadable"
SUCCESS = b"200"


class _Line(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw()
    custom_id: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()


class _Response(msgspec.Struct):
    status_code: msgspec.Raw = msgspec.Raw()
    body: msgspec.Raw = msgspec.Raw()


_read_line = msgspec.json.Decoder(_Line).decode
_read_response = msgspec.json.Decoder(_Response).decode


class OutputReader:
    """Reads a file that may be the output of a batch."""

    __slots__ = (
        "_answers",
        "_carry",
        "_findings",
        "_is_output",
        "_max_line_bytes",
        "_problem",
    )

    def __init__(self, findings: Findings, *, max_line_bytes: int) -> None:
        self._findings = findings
        self._max_line_bytes = max_line_bytes
        self._carry = Pieces()
        self._answers = 0  # lines with a usage
        self._is_output: bool | None = None  # None: nothing is known yet
        self._problem: str | None = None

    def feed(self, chunk: bytes) -> None:
        """Look at the lines that are whole now."""
        if self._is_output is False or self._problem or not chunk:
            return
        if self._is_output is None and not self._carry.size and not chunk.lstrip().startswith(b"{"):
            self._is_output = False
            return
        *ended, rest = chunk.split(b"\n")
        if ended:
            self._carry.add(ended[0])
            ended[0] = self._carry.joined()
            self._carry = Pieces()
            for line in ended:
                self._read(line)
        self._carry.add(rest)
        if self._carry.size > self._max_line_bytes:
            self._lose()

    def finish(self) -> None:
        """Read the last line, and say whether all of the output was read."""
        self._read(self._carry.joined())
        self._carry = Pieces()
        if self._is_output:
            state = self._problem or COMPLETE
            seen = Sighting(kind=OUTPUT, object_id="", state=state, requests=self._answers)
            self._findings.see((seen,))

    def _read(self, line: bytes) -> None:
        if self._is_output is False or not line.strip():
            return
        try:
            found = read(_read_line, line)
            is_answer = bool(bytes(found.custom_id)) and bool(bytes(found.response))
            if self._is_output is None:
                self._is_output = is_answer
            if self._is_output:
                self._note(found)
        except UNREADABLE:
            self._lose()

    def _lose(self) -> None:
        if self._is_output is None:
            self._is_output = False
        self._problem = LINE_LOST
        self._carry = Pieces()

    def _note(self, line: _Line) -> None:
        """Keep what a line is billed by; one that failed has no usage."""
        if not bytes(line.response).startswith(b"{"):
            return
        response = read(_read_response, bytes(line.response))
        body = bytes(response.body)
        if bytes(response.status_code) != SUCCESS or not body.startswith(b"{"):
            return
        answer = read_members(body)
        usage = bytes(answer.usage)
        part = id_of(line.id) or id_of(line.custom_id)
        if part is None or len(usage) > MAX_USAGE_BYTES:
            self._lose()
        elif usage.startswith(b"{"):
            self._answers += 1
            self._findings.lines.append(
                Sighting(
                    kind=OUTPUT,
                    object_id="",
                    part=part,
                    model=name_of(answer.model),
                    usage=usage,
                    units=tools_used(body, answer, is_condensed=False),
                    response_id=name_of(answer.id),
                    custom_id=text_of(line.custom_id),
                )
            )

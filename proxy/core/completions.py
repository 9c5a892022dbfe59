"""How many tokens an answer makes, as far as it has been seen: its texts, its calls of functions.

An answer is an event stream, one JSON object, or (of a transcription) plain text; each may break
off anywhere. Only what can be seen is counted: what a model thinks is billed, and not in the text.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from proxy.core import loose
from proxy.core.families import Family, family_of
from proxy.core.sse import parse, split
from proxy.core.tally import Tally

AROUND_REPLY_NEWER, AROUND_REPLY_THINKING = 3, 9  # tokens around a reply in a chat
AROUND_RESPONSE, AROUND_RESPONSE_NEWER, AROUND_RESPONSE_THINKING = 1, 4, 6
AROUND_TRANSCRIPT = 1
DELTAS = {
    "response.output_text.delta",
    "response.refusal.delta",
    "response.function_call_arguments.delta",
    "response.custom_tool_call_input.delta",
    "response.mcp_call_arguments.delta",
    "response.code_interpreter_call_code.delta",
    "response.reasoning_text.delta",
}
HOLDERS = ("choices", "output", "text")  # of what was made, in a whole answer
CALLS = {"function_call": "arguments", "custom_tool_call": "input", "mcp_call": "arguments"}
CUES = re.compile(r"^(?:WEBVTT.*|\d+|[\d:.,]+ --> .*)$", re.MULTILINE)  # of SRT and WebVTT

THOUGHTS_NOT_SEEN = "reasoning_not_seen"
OUTPUT_NOT_SEEN = "output_not_counted"


class Reader(Protocol):
    """Counts what documents of one API say."""

    def __call__(
        self, documents: list[Any], family: Family, tally: Tally, *, is_forced: bool
    ) -> None:
        """Add to the tally."""


def count_answer(
    operation_name: str,
    model: str,
    kind: str,
    answer: bytes,
    tally: Tally,
    *,
    is_forced: bool = False,
) -> bool:
    """Count an answer: `kind` is stream, json or text; `tally` gets tokens and notes.

    False: it is none of the API's, so that nothing can be told of what was made.
    `is_forced`: the request names the function to be called, so that its name is not generated.
    """
    family = family_of(model)
    if kind == "text":
        tally.text(CUES.sub("", answer.decode(errors="ignore")).strip())
        tally.add(AROUND_TRANSCRIPT)
        return True
    documents = list(_events(answer)) if kind == "stream" else [loose.decoded_as_far(answer)]
    if kind == "json" and all(loose.at(documents[0], name) is None for name in HOLDERS):
        return False
    reader = READERS.get(operation_name)
    if reader is not None:
        reader(documents, family, tally, is_forced=is_forced)
    return True


def _events(answer: bytes) -> Iterator[object]:
    """Yield what the events of a stream say, the last one as far as it goes."""
    for block in split(answer):
        data = parse(block).data
        if data and data != b"[DONE]":
            yield loose.decoded_as_far(data)


class _Pieces:
    """Texts that come in pieces, by what they belong to."""

    def __init__(self) -> None:
        self._texts: dict[object, list[str]] = {}

    def add(self, key: object, piece: str) -> None:
        if piece:
            self._texts.setdefault(key, []).append(piece)

    def count(self, tally: Tally) -> None:
        for pieces in self._texts.values():
            tally.text("".join(pieces))


def _chat(documents: list[Any], family: Family, tally: Tally, *, is_forced: bool) -> None:
    """Count chunks of a chat completion, or a whole one: both have choices."""
    texts, calls = _Pieces(), _Pieces()
    choices: dict[object, set[object]] = {}
    for choice in _choices(documents):
        index = loose.at(choice, "index")
        part = loose.members(choice, "delta") or loose.members(choice, "message")
        made = choices.setdefault(index, set())
        for name in ("content", "refusal", "reasoning_content", "reasoning"):
            texts.add((index, name), loose.text(part, name))
        for place, call in enumerate(_calls(part)):
            key = (index, loose.at(call, "index") or place)
            made.add(key)
            if not is_forced:
                for kind in ("function", "custom"):
                    calls.add((*key, "name"), loose.text(call, kind, "name"))
            calls.add((*key, "arguments"), loose.text(call, "function", "arguments"))
            calls.add((*key, "arguments"), loose.text(call, "custom", "input"))
    texts.count(tally)
    calls.count(tally)
    around = AROUND_REPLY_THINKING if family.thinks else AROUND_REPLY_NEWER
    for made in choices.values():
        tally.add(around if family.is_newer else 0)
        tally.calls(0 if is_forced else len(made))
    _note_gaps([], family, tally)


def _choices(documents: list[Any]) -> Iterator[object]:
    for document in documents:
        yield from loose.items(document, "choices")


def _calls(part: dict[str, Any]) -> list[Any]:
    old = loose.members(part, "function_call")
    return [*loose.items(part, "tool_calls"), *([{"function": old}] if old else [])]


def _completion(documents: list[Any], family: Family, tally: Tally, *, is_forced: bool) -> None:
    """Count chunks of a text completion, or a whole one."""
    del family, is_forced
    texts = _Pieces()
    for choice in _choices(documents):
        texts.add(loose.at(choice, "index"), loose.text(choice, "text"))
    texts.count(tally)


def _response(documents: list[Any], family: Family, tally: Tally, *, is_forced: bool) -> None:
    """Count the events of a response, or a whole one."""
    pieces = _Pieces()
    items: list[Any] = []
    for document in documents:
        kind = loose.text(document, "type")
        if kind in DELTAS:
            key = (kind, loose.at(document, "output_index"), loose.at(document, "content_index"))
            pieces.add(key, loose.text(document, "delta"))
        elif kind == "response.output_item.added":
            items.append(loose.at(document, "item"))
        elif not kind:
            items += loose.items(document, "output")
            _contents(document, pieces)
    for place, item in enumerate(() if is_forced else items):
        pieces.add(("name", place), loose.text(item, "name"))
    kinds = [loose.text(item, "type") for item in items]
    if documents:
        tally.add(_around_response(kinds, family))
    tally.calls(0 if is_forced else sum(kind in CALLS for kind in kinds))
    pieces.count(tally)
    _note_gaps(kinds, family, tally)


def _contents(document: object, pieces: _Pieces) -> None:
    """Take the texts and calls of a whole response."""
    for place, item in enumerate(loose.items(document, "output")):
        for index, part in enumerate(loose.items(item, "content")):
            pieces.add((place, index), loose.text(part, "text") or loose.text(part, "refusal"))
        pieces.add((place, "call"), loose.text(item, CALLS.get(loose.text(item, "type"), "")))


def _around_response(kinds: list[str], family: Family) -> int:
    """Return the tokens around what a response says."""
    if not family.is_newer:
        return AROUND_RESPONSE
    has_thought = family.thinks or "reasoning" in kinds
    return AROUND_RESPONSE_THINKING if has_thought else AROUND_RESPONSE_NEWER


def _note_gaps(kinds: list[str], family: Family, tally: Tally) -> None:
    if "reasoning" in kinds or family.thinks:
        tally.note(THOUGHTS_NOT_SEEN)
    if any(kind not in {"message", "reasoning", *CALLS} for kind in kinds):
        tally.note(OUTPUT_NOT_SEEN)


def _transcript(documents: list[Any], family: Family, tally: Tally, *, is_forced: bool) -> None:
    """Count the pieces of a transcription, or a whole one."""
    del family, is_forced
    pieces = _Pieces()
    for document in documents:
        pieces.add("text", loose.text(document, "delta"))
        if not loose.text(document, "type"):
            pieces.add("text", loose.text(document, "text"))
    pieces.count(tally)
    tally.add(AROUND_TRANSCRIPT)


READERS: Mapping[str, Reader] = {  # by operation
    "chat": _chat,
    "text_completion": _completion,
    "responses": _response,
    "responses.compact": _response,
    "audio.transcriptions": _transcript,
    "audio.translations": _transcript,
}

"""Objects that are billed when they are done: what an answer tells of each, one or a page of them.

A background response, a run, a batch, a fine-tuning job, a video or an evaluation is made by one
call and polled by others; every answer after its end shows the same usage again. So an answer is
only asked what it shows; who made the object, and whether it was charged before, is for the ledger
to know. Usage is taken from an object at its end alone: until then its numbers are none.
"""

import re
from collections.abc import Callable, Iterator

import msgspec

from proxy.core.counting import tools_used
from proxy.core.findings import read_members, text_of
from proxy.core.mending import read
from proxy.core.model import AnswerUnits, Sighting

MAX_PAGE = 100  # objects in one answer; a page of the API holds no more
MAX_USAGE_BYTES = 4096
MAX_DIGITS = 15
ENDS = {  # the states in which nothing more is to come
    "response": {"completed", "failed", "incomplete", "cancelled"},
    "run": {"completed", "failed", "cancelled", "expired", "incomplete"},
    "batch": {"completed", "failed", "expired", "cancelled"},
    "job": {"succeeded", "failed", "cancelled"},
    "video": {"completed", "failed"},
    "eval_run": {"completed", "failed", "canceled", "cancelled"},
}
CONTENT = re.compile(r"/files/(?P<file_id>[!-.0-~]{1,256})/content/?")
MAX_ID = 256
UNKNOWN_TOOLS = AnswerUnits(is_partial=True)
_ZEROS = re.compile(rb'"[a-z]+_tokens"\s*:\s*[1-9]')


class Shown(msgspec.Struct, gc=False):
    """The members that matter in such an object, and in a page of them."""

    id: msgspec.Raw = msgspec.Raw()
    object: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()
    status: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()
    service_tier: msgspec.Raw = msgspec.Raw()
    background: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    endpoint: msgspec.Raw = msgspec.Raw()
    output_file_id: msgspec.Raw = msgspec.Raw()
    request_counts: msgspec.Raw = msgspec.Raw()
    trained_tokens: msgspec.Raw = msgspec.Raw()
    method: msgspec.Raw = msgspec.Raw()
    seconds: msgspec.Raw = msgspec.Raw()
    size: msgspec.Raw = msgspec.Raw()
    per_model_usage: msgspec.Raw = msgspec.Raw()
    created_at: msgspec.Raw = msgspec.Raw()
    completed_at: msgspec.Raw = msgspec.Raw()


class _Counts(msgspec.Struct):
    completed: msgspec.Raw = msgspec.Raw()
    type: msgspec.Raw = msgspec.Raw()
    model_name: msgspec.Raw = msgspec.Raw()
    prompt_tokens: msgspec.Raw = msgspec.Raw()
    completion_tokens: msgspec.Raw = msgspec.Raw()
    total_tokens: msgspec.Raw = msgspec.Raw()
    cached_tokens: msgspec.Raw = msgspec.Raw()


_read_shown = msgspec.json.Decoder(Shown).decode
_read_counts = msgspec.json.Decoder(_Counts).decode
_read_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def sightings(
    kind: str, answer: bytes, *, is_new: bool = False, is_condensed: bool = False
) -> tuple[Sighting, ...]:
    """Return what an answer tells of its objects; raises one of UNREADABLE.

    `is_condensed`: large members are gone from it.
    """
    shown = read(_read_shown, answer)
    page = bytes(shown.data)
    if not page.startswith(b"["):
        seen = tuple(_sightings(kind, shown, answer, is_new=is_new))
        if not is_condensed:
            return seen
        return tuple(
            msgspec.structs.replace(one, units=UNKNOWN_TOOLS) if one.units else one for one in seen
        )
    texts = [bytes(item) for item in _read_list(page)[:MAX_PAGE]]
    return tuple(
        seen
        for text in texts
        if text.startswith(b"{")
        for seen in _sightings(kind, read(_read_shown, text), text, is_new=is_new)
    )


def file_of(api_path: str) -> str | None:
    """Return the id of the file whose content is at this path."""
    found = CONTENT.search(api_path)
    return found["file_id"] if found else None


def id_of(raw: msgspec.Raw) -> str | None:
    """Return an id; None for what is none of the API's: it is a key of the database."""
    name = text_of(raw)
    return name if name and name.isascii() and len(name) <= MAX_ID else None


def _sightings(kind: str, shown: Shown, text: bytes, *, is_new: bool) -> Iterator[Sighting]:
    object_id, state = id_of(shown.id), text_of(shown.status)
    if object_id is None or bytes(shown.background) == b"false":
        return  # a response that was billed when it was made
    seen = Sighting(
        kind=kind,
        object_id=object_id,
        is_new=is_new,
        state=state,
        model=text_of(shown.model),
        service_tier=text_of(shown.service_tier),
    )
    is_over = state in ENDS[kind]
    if is_new or not is_over:
        yield seen
    if is_over:
        yield from READERS[kind](seen, shown, text)


def _response(seen: Sighting, shown: Shown, text: bytes) -> Iterator[Sighting]:
    usage = None if seen.state == "failed" else _object(shown.usage)  # a failure is not charged
    units = tools_used(text, read_members(text), is_condensed=False) if usage else None
    began, over = _second(shown.created_at), _second(shown.completed_at)
    lasted = over - began if began and over and over >= began else None
    yield msgspec.structs.replace(_ended(seen, usage, units=units), seconds=lasted)


def _run(seen: Sighting, shown: Shown, text: bytes) -> Iterator[Sighting]:
    """Take the usage of the run; that of its steps is in it."""
    del text
    runs_code = b'"code_interpreter"' in bytes(shown.tools)
    yield _ended(seen, _object(shown.usage), units=UNKNOWN_TOOLS if runs_code else None)


def _batch(seen: Sighting, shown: Shown, text: bytes) -> Iterator[Sighting]:
    """Take the sum of all lines, and where to find these; zeros say nothing of finished work."""
    del text
    usage, counts = _object(shown.usage), _object(shown.request_counts)
    completed = _number(read(_read_counts, counts).completed) if counts else None
    yield msgspec.structs.replace(
        _ended(seen, usage if usage and _ZEROS.search(usage) else None),
        requests=max(1, completed or 1),
        endpoint=id_of(shown.endpoint),
        file_id=id_of(shown.output_file_id),
    )


def _job(seen: Sighting, shown: Shown, text: bytes) -> Iterator[Sighting]:
    """Take the tokens that were trained; reinforcement is billed by hours, which nothing tells."""
    del text
    tokens, method = _number(shown.trained_tokens), _object(shown.method)
    by_hours = method and text_of(read(_read_counts, method).type) == "reinforcement"
    usage = {"reinforced_tokens" if by_hours else "trained_tokens": tokens}
    is_billed = tokens and seen.state != "failed"
    yield _ended(seen, msgspec.json.encode(usage) if is_billed else None)


def _video(seen: Sighting, shown: Shown, text: bytes) -> Iterator[Sighting]:
    del text
    seconds, size = bytes(shown.seconds).strip(b'"'), text_of(shown.size)
    is_billed = seen.state == "completed" and seconds.isdigit() and len(seconds) <= MAX_DIGITS
    usage = {"seconds": int(seconds), "size": size} if is_billed else None
    yield _ended(seen, msgspec.json.encode(usage) if usage else None)


def _eval_run(seen: Sighting, shown: Shown, text: bytes) -> Iterator[Sighting]:
    """Take the usage of each model that has answered or graded."""
    del text
    by_model = bytes(shown.per_model_usage)
    items = _read_list(by_model)[:MAX_PAGE] if by_model.startswith(b"[") else []
    counts = [read(_read_counts, bytes(i)) for i in items if bytes(i).startswith(b"{")]
    for count in counts:
        model = text_of(count.model_name)
        if model is not None:
            ended = _ended(seen, _usage_of(count))
            yield msgspec.structs.replace(ended, model=model, part=model)
    if not counts:
        yield _ended(seen, None)


def _usage_of(count: _Counts) -> bytes | None:
    numbers = {
        "prompt_tokens": _number(count.prompt_tokens),
        "completion_tokens": _number(count.completion_tokens),
        "total_tokens": _number(count.total_tokens),
    }
    if None in numbers.values():
        return None
    cached = {"cached_tokens": _number(count.cached_tokens) or 0}
    return msgspec.json.encode({**numbers, "prompt_tokens_details": cached})


def _ended(seen: Sighting, usage: bytes | None, *, units: AnswerUnits | None = None) -> Sighting:
    if usage is None or len(usage) > MAX_USAGE_BYTES:
        return msgspec.structs.replace(seen, is_new=False)
    return msgspec.structs.replace(seen, is_new=False, usage=usage, units=units)


def _object(raw: msgspec.Raw) -> bytes | None:
    text = bytes(raw)
    return text if text.startswith(b"{") else None


def _second(raw: msgspec.Raw) -> int | None:
    """Return a moment; some of them have fractions."""
    text = bytes(raw).partition(b".")[0]
    return int(text) if text.isdigit() and len(text) <= MAX_DIGITS else None


def _number(raw: msgspec.Raw) -> int | None:
    text = bytes(raw)
    return int(text) if text.isdigit() and len(text) <= MAX_DIGITS else None


Reader = Callable[[Sighting, Shown, bytes], Iterator[Sighting]]
READERS: dict[str, Reader] = {
    "response": _response,
    "run": _run,
    "batch": _batch,
    "job": _job,
    "video": _video,
    "eval_run": _eval_run,
}

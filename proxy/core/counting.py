"""Count in an answer what is billed beside its tokens, or instead of them. Never content.

A response tells of its hosted tools three times: what was allowed (`tools`), what was done (the
calls in its output) and, since 2026, what is billed (`tool_usage`). The last one is believed where
it is there. Else a web search is a call whose action is a search (pages opened are free), and one
that failed is none. Containers are told by the calls that ran something in them; which calls share
one, and for how long, is not for one answer to know. Images that the tool made are counted in
tokens by `tool_usage` alone: without it their price is unknown.
"""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from proxy.core.findings import Members, text_of
from proxy.core.mending import UNREADABLE
from proxy.core.model import AnswerUnits, Container

NONE = AnswerUnits()
UNREAD = AnswerUnits(is_partial=True)
DEFAULT_CONTAINER = "1g"  # where no memory_limit was asked for
MAX_COUNT_DIGITS = 6
MAX_CONTAINERS = 100  # of one answer; each is a few words in the journal
MAX_ID = 128  # characters of the id of a container
MAX_NAME = 64  # characters of a tool, a model or a size
MAX_AUTHORED = 16  # usages of authors in one answer
MAX_USAGE_BYTES = 4096  # of a usage object in the journal
TOOL_SIGNS = (
    b'"web_search',
    b'"file_search"',
    b'"code_interpreter"',
    b'"image_generation"',
    b'"shell"',
)
CALL_SIGNS = (
    b'"web_search_call"',
    b'"file_search_call"',
    b'"code_interpreter_call"',
    b'"image_generation_call"',
    b'"shell_call"',
)
KINDS = ("web_search", "file_search", "code_interpreter", "image_generation")  # how these begin


class Counter(Protocol):
    """Counts in one answer."""

    def __call__(self, answer: bytes, members: Members, *, is_condensed: bool) -> AnswerUnits:
        """Return what is in the answer; `is_condensed`: large members are gone from it."""


class _Item(msgspec.Struct):
    """A tool that was allowed, or a call of one."""

    type: msgspec.Raw = msgspec.Raw()
    status: msgspec.Raw = msgspec.Raw()
    action: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()
    container: msgspec.Raw = msgspec.Raw()
    container_id: msgspec.Raw = msgspec.Raw()
    environment: msgspec.Raw = msgspec.Raw()
    svg_usage: msgspec.Raw = msgspec.Raw()
    memory_limit: msgspec.Raw = msgspec.Raw()


class _ToolUsage(msgspec.Struct):
    image_gen: msgspec.Raw = msgspec.Raw()
    web_search: msgspec.Raw = msgspec.Raw()


class _WebSearchUsage(msgspec.Struct):
    num_requests: msgspec.Raw = msgspec.Raw()


class _Media(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw()
    duration: msgspec.Raw = msgspec.Raw()
    svg_usage: msgspec.Raw = msgspec.Raw()


_read_item = msgspec.json.Decoder(_Item).decode
_read_tool_usage = msgspec.json.Decoder(_ToolUsage).decode
_read_web_search_usage = msgspec.json.Decoder(_WebSearchUsage).decode
_read_media = msgspec.json.Decoder(_Media).decode
_read_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_read_number = msgspec.json.Decoder(float).decode


def tools_used(answer: bytes, members: Members, *, is_condensed: bool) -> AnswerUnits:
    """Count what the hosted tools of a response did."""
    del answer
    allowed = bytes(members.tools)
    is_told = allowed == b"[]" or (allowed and not any(sign in allowed for sign in TOOL_SIGNS))
    if is_told and not _shows_calls(bytes(members.output)):
        return NONE
    try:
        tools, calls = _items(members.tools), _items(members.output)
        usage = _tool_usage(members.tool_usage)
        billed = _number_of(usage.web_search)
    except UNREADABLE:
        return UNREAD
    done = [call for call in calls if text_of(call.status) != "failed"]
    searched = sum(_kind(call) == "web_search_call" and _is_search(call) for call in done)
    is_lost, image = is_condensed and not calls, _object(usage.image_gen)
    ran_in = _ran_in(tools, calls)
    return AnswerUnits(
        web_searches=searched if billed is None else billed,
        web_search_tool=next((k for k in map(_kind, tools) if k.startswith("web_search")), None),
        file_searches=sum(_kind(call) == "file_search_call" for call in done),
        image_calls=sum(_kind(call) == "image_generation_call" for call in done),
        image_model=_name(_tool(tools, "image_generation").model),
        image_usage=image if image and len(image) <= MAX_USAGE_BYTES else None,
        is_partial=len(ran_in) > MAX_CONTAINERS or (is_lost and any(map(_is_billed, tools))),
        ran_in=ran_in[:MAX_CONTAINERS],
        authored=_authored(call.svg_usage for call in done),
    )


def container_made(answer: bytes, members: Members, *, is_condensed: bool) -> AnswerUnits:
    """Tell which container was made, and its size."""
    del is_condensed
    try:
        size = _name(_read_item(answer).memory_limit) or DEFAULT_CONTAINER
    except UNREADABLE:
        return NONE
    if not members.id:
        return NONE
    return AnswerUnits(ran_in=(Container(container_id=members.id[:MAX_ID], size=size),))


def media(answer: bytes, members: Members, *, is_condensed: bool) -> AnswerUnits:
    """Count images, and the seconds that a transcription says it has heard."""
    del members, is_condensed  # images that are gone: the request says how many were wanted
    try:
        found = _read_media(answer)
        data = bytes(found.data)
        seconds = bytes(found.duration).strip(b'"')  # it has come in quotes
        return AnswerUnits(
            images=len(_read_list(data)) if data.startswith(b"[") else None,
            audio_seconds=_read_number(seconds) if seconds else None,
            authored=_authored([found.svg_usage]),
        )
    except UNREADABLE:
        return NONE


def _shows_calls(output: bytes) -> bool:
    """Tell whether hosted tools may have been called: tools are also loaded on the way."""
    return b'_call"' in output and any(sign in output for sign in CALL_SIGNS)


def _authored(usages: Iterable[msgspec.Raw]) -> tuple[bytes, ...]:
    """Return what other models have used to write images; one too large to keep is empty."""
    told = (usage for raw in usages if (usage := _object(raw)) is not None)
    return tuple(usage if len(usage) <= MAX_USAGE_BYTES else b"" for usage in told)[:MAX_AUTHORED]


def _items(raw: msgspec.Raw) -> list[_Item]:
    text = bytes(raw)
    if not text.startswith(b"["):
        return []
    return [_read_item(item) for item in _read_list(text) if bytes(item).startswith(b"{")]


def _tool(tools: list[_Item], kind: str) -> _Item:
    return next((tool for tool in tools if _kind(tool) == kind), _Item())


def _tool_usage(raw: msgspec.Raw) -> _ToolUsage:
    text = _object(raw)
    return _read_tool_usage(text) if text else _ToolUsage()


def _number_of(web_search: msgspec.Raw) -> int | None:
    """Return how many searches are billed, None where that is not said."""
    text = _object(web_search)
    number = bytes(_read_web_search_usage(text).num_requests) if text else b""
    return int(number) if number.isdigit() and len(number) <= MAX_COUNT_DIGITS else None


def _kind(item: _Item) -> str:
    return _name(item.type) or ""


def _name(raw: msgspec.Raw) -> str | None:
    name = text_of(raw)
    return name if name is None or len(name) <= MAX_NAME else None


def _is_search(call: _Item) -> bool:
    """Tell searches from pages opened; before there were these, a call had no action."""
    action = _object(call.action)
    return action is None or text_of(_read_item(action).type) == "search"


def _is_billed(tool: _Item) -> bool:
    """Tell tools that OpenAI runs, for a fee."""
    return _kind(tool).startswith(KINDS) or _is_hosted(tool)


def _is_hosted(tool: _Item) -> bool:
    """Tell a shell in a container of OpenAI's from one that the client runs."""
    where = _object(tool.environment)
    return where is not None and (_kind(_read_item(where))).startswith("container_")


def _ran_in(tools: list[_Item], calls: list[_Item]) -> tuple[Container, ...]:
    """Return each container in which code ran, or commands, once."""
    code, shell = _tool(tools, "code_interpreter"), _tool(tools, "shell")
    found: dict[str, Container] = {}
    for call in calls:
        kind = _kind(call)
        if kind == "code_interpreter_call":
            name, size = text_of(call.container_id), _size(code.container)
        elif kind == "shell_call" and (_is_hosted(call) or _is_hosted(shell)):
            where = _object(call.environment)
            name = text_of(_read_item(where).container_id) if where else None
            name, size = name or "", _size(shell.environment)
        else:
            continue
        if name is not None:
            found.setdefault(name, Container(container_id=name[:MAX_ID], size=size))
    return tuple(found.values())


def _size(asked: msgspec.Raw) -> str | None:
    """Return the size of containers that are made on the way; None: an id was given."""
    text = _object(asked)
    if text is None:
        return None
    item = _read_item(text)
    is_made = (_kind(item) or "auto").endswith("auto")
    return (_name(item.memory_limit) or DEFAULT_CONTAINER) if is_made else None


def _object(raw: msgspec.Raw) -> bytes | None:
    text = bytes(raw)
    return text if text.startswith(b"{") else None


COUNTERS: dict[str, Counter] = {  # by operation; the others have nothing to count
    "responses": tools_used,
    "containers.create": container_made,
    "images.generations": media,
    "images.edits": media,
    "images.variations": media,
    "audio.transcriptions": media,
    "audio.translations": media,
}

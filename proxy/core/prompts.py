"""How many tokens a request's prompt makes: its texts, and what the API puts around them.

The framing of messages, tools and formats is not published. The numbers here are what is left when
the tokens of the texts are taken from reported usage; docs/estimates.md says how well they fit.
What the request only refers to (an earlier response, a file, an image behind a URL) is not fetched:
an image is taken for one of a usual size, the rest is left out, and a note says so.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from proxy.core import loose
from proxy.core.declarations import compact, declared, shape
from proxy.core.durations import AudioProbe
from proxy.core.families import family_of
from proxy.core.pictures import image_tokens, is_fixed, size_of
from proxy.core.tally import AUDIO_INPUT_TOKENS_PER_SECOND, Tally

PER_MESSAGE = 3
PER_NAME = 1
REPLY, REPLY_NEWER = 3, 2  # tokens that begin the reply
TOOLS, TOOLS_BESIDE_SYSTEM, TOOLS_NEWER = 3, -1, 85  # around the declarations, in a chat
TOOLS_OF_RESPONSES, TOOLS_OF_RESPONSES_BESIDE_SYSTEM, TOOLS_OF_RESPONSES_NEWER = 1, -3, 2
NAMED_TOOL = 9  # a tool that must be called
COMPACTION = 93
PAINTING = 17  # around what an image is to show
FORMAT, FORMAT_NEWER = 13, 16  # around the schema of an answer, in a chat
FORMAT_OF_RESPONSES, FORMAT_OF_RESPONSES_NEWER = 7, 6
CUSTOM_TOOL, GRAMMAR_TOOL = 38, 72  # around what is said of a tool that takes any text
HIDDEN_HISTORY = ("previous_response_id", "conversation", "prompt")
SYSTEM = {"system", "developer"}

HISTORY_NOT_SEEN = "history_not_seen"
TOOLS_NOT_SEEN = "hosted_tools_not_seen"
IMAGE_NOT_SEEN = "image_size_assumed"
FILE_NOT_SEEN = "file_not_counted"
AUDIO_NOT_SEEN = "audio_not_counted"
CUSTOM_ASSUMED = "custom_tools_assumed"
ITEM_NOT_SEEN = "item_not_counted"
Prompt = Callable[[Any, str, Tally], None]


def chat(request: object, model: str, tally: Tally) -> None:
    """Count a request for a chat completion."""
    family = family_of(model)
    beside_system = False
    for message in loose.items(request, "messages"):
        role = loose.text(message, "role")
        beside_system = beside_system or role in SYSTEM
        _message(message, role, model, tally)
    tally.add(REPLY_NEWER if family.is_newer else REPLY)
    tools = [loose.at(tool, "function") for tool in loose.items(request, "tools")]
    text = declared([tool for tool in (*tools, *loose.items(request, "functions")) if tool])
    if text:
        older = TOOLS_BESIDE_SYSTEM if beside_system else TOOLS
        tally.text(text)
        tally.add(TOOLS_NEWER if family.is_newer else older)
        tally.add(NAMED_TOOL if loose.members(request, "tool_choice") else 0)
    custom = [loose.at(tool, "custom") for tool in loose.items(request, "tools")]
    if _custom([tool for tool in custom if tool], tally) and not text:
        tally.add(TOOLS_NEWER if family.is_newer else TOOLS)
    wanted = loose.at(request, "response_format", "json_schema")
    _format(wanted, FORMAT_NEWER if family.is_newer else FORMAT, tally)
    if loose.at(request, "web_search_options") is not None:
        tally.note(TOOLS_NOT_SEEN)


def responses(request: object, model: str, tally: Tally) -> None:
    """Count a request for a response."""
    family = family_of(model)
    instructions, given = loose.text(request, "instructions"), loose.at(request, "input")
    beside_system = bool(instructions)
    if instructions:
        _message({"content": instructions}, "system", model, tally)
    if isinstance(given, str):
        _message({"content": given}, "user", model, tally)
    for item in loose.items(given):
        beside_system = beside_system or loose.text(item, "role") in SYSTEM
        _item(item, model, tally)
    tally.add(REPLY_NEWER if family.is_newer else REPLY)
    tools = loose.items(request, "tools")
    text = declared([tool for tool in tools if loose.text(tool, "type") == "function"])
    if text:
        older = TOOLS_OF_RESPONSES_BESIDE_SYSTEM if beside_system else TOOLS_OF_RESPONSES
        tally.text(text)
        tally.add(TOOLS_OF_RESPONSES_NEWER if family.is_newer else older)
    _custom([tool for tool in tools if loose.text(tool, "type") == "custom"], tally)
    if any(loose.text(tool, "type") not in {"function", "custom"} for tool in tools):
        tally.note(TOOLS_NOT_SEEN)
    around = FORMAT_OF_RESPONSES_NEWER if family.is_newer else FORMAT_OF_RESPONSES
    _format(loose.at(request, "text", "format"), around, tally)
    if any(loose.at(request, name) for name in HIDDEN_HISTORY):
        tally.note(HISTORY_NOT_SEEN)


def completion(request: object, model: str, tally: Tally) -> None:
    """Count a prompt without messages; `model` plays no part in it."""
    del model
    _texts(loose.at(request, "prompt"), tally)
    tally.text(loose.text(request, "suffix"))


def embedding(request: object, model: str, tally: Tally) -> None:
    """Count what is to be embedded: texts, or tokens as they are."""
    del model
    _texts(loose.at(request, "input"), tally)


def speech(request: object, model: str, tally: Tally) -> None:
    """Count what is to be spoken."""
    del model
    tally.text(loose.text(request, "input"))
    tally.text(loose.text(request, "instructions"))


def painting(request: object, model: str, tally: Tally) -> None:
    """Count what is to be painted."""
    del model
    tally.text(loose.text(request, "prompt"))
    tally.add(PAINTING)


def compaction(request: object, model: str, tally: Tally) -> None:
    """Count a request to compact a conversation: it brings instructions of its own."""
    responses(request, model, tally)
    tally.add(COMPACTION)


def forces_call(operation_name: str, request: object) -> bool:
    """Tell whether a request leaves the model no choice which function to call."""
    choice = loose.at(request, "tool_choice")
    return isinstance(choice, dict) or (choice == "required" and operation_name == "responses")


def called(call: object) -> dict[str, Any]:
    """Return what a call in a chat is of: a function, or a tool that takes any text."""
    return loose.members(call, "function") or loose.members(call, "custom")


PROMPTS: Mapping[str, Prompt] = {  # by operation
    "chat": chat,
    "text_completion": completion,
    "responses": responses,
    "responses.compact": compaction,
    "embeddings": embedding,
    "audio.speech": speech,
    "images.generations": painting,
}


def _message(message: object, role: str, model: str, tally: Tally) -> None:
    tally.add(PER_MESSAGE)
    tally.text(role)
    name = loose.text(message, "name")
    if name:
        tally.add(PER_NAME)
        tally.text(name)
    _content(loose.at(message, "content"), model, tally)
    calls = [called(call) for call in loose.items(message, "tool_calls")]
    old_call = loose.members(message, "function_call")
    for call in (*calls, old_call):
        tally.text(loose.text(call, "name"))
        tally.text(loose.text(call, "arguments") or loose.text(call, "input"))
    tally.calls(len(calls) + bool(old_call))


def _item(item: object, model: str, tally: Tally) -> None:
    """Count an item of a response's input."""
    match loose.text(item, "type") or "message":
        case "message":
            _message(item, loose.text(item, "role"), model, tally)
        case "function_call" | "custom_tool_call":
            tally.text(loose.text(item, "name"))
            tally.text(loose.text(item, "arguments") or loose.text(item, "input"))
            tally.calls(1)
        case "function_call_output" | "custom_tool_call_output":
            _message({"content": loose.at(item, "output")}, "tool", model, tally)
        case _:
            tally.note(ITEM_NOT_SEEN)


def _content(content: object, model: str, tally: Tally) -> None:
    if isinstance(content, str):
        tally.text(content)
    for part in loose.items(content):
        kind = loose.text(part, "type")
        if kind in {"image_url", "input_image"}:
            _image(part, model, tally)
        elif kind == "input_audio":
            _audio(part, tally)
        elif kind in {"file", "input_file"}:
            tally.note(FILE_NOT_SEEN)
        else:
            tally.text(loose.text(part, "text") or loose.text(part, "refusal"))


def _image(part: object, model: str, tally: Tally) -> None:
    """Count an image, of a chat (an object with a URL) or of a response (the URL itself)."""
    url = loose.text(part, "image_url", "url") or loose.text(part, "image_url")
    size = size_of(url)
    detail = loose.text(part, "image_url", "detail") or loose.text(part, "detail")
    if size is None and not is_fixed(model, detail):
        tally.note(IMAGE_NOT_SEEN)
    tally.image(image_tokens(model, size, detail))


def _audio(part: object, tally: Tally) -> None:
    probe = AudioProbe()
    try:
        probe.feed(base64.b64decode(loose.text(part, "input_audio", "data")))
    except (binascii.Error, ValueError):  # ValueError: not even ASCII
        tally.note(AUDIO_NOT_SEEN)
        return
    seconds = probe.finish()
    if seconds is None:
        tally.note(AUDIO_NOT_SEEN)
    tally.audio(int((seconds or 0) * AUDIO_INPUT_TOKENS_PER_SECOND))


def _custom(tools: list[Any], tally: Tally) -> bool:
    """Count tools that take any text; tell whether there are any."""
    for tool in tools:
        form = loose.members(tool, "format")
        grammar = loose.text(form, "definition") or loose.text(form, "grammar", "definition")
        for text in (loose.text(tool, "name"), loose.text(tool, "description"), grammar):
            tally.text(text)
        tally.add(GRAMMAR_TOOL if grammar else CUSTOM_TOOL)
        tally.note(CUSTOM_ASSUMED)
    return bool(tools)


def _format(wanted: object, around: int, tally: Tally) -> None:
    """Count the schema that an answer must have, and its name."""
    schema = loose.at(wanted, "schema")
    if schema is not None:
        tally.text(compact(shape(schema)))
        tally.text(loose.text(wanted, "name"))
        tally.text(loose.text(wanted, "description"))
        tally.add(around)


def _texts(value: object, tally: Tally) -> None:
    """Count a text, tokens that stand for themselves, or an array of either."""
    if isinstance(value, str):
        tally.text(value)
    for element in loose.items(value):
        if isinstance(element, int):
            tally.add(1)
        else:
            _texts(element, tally)

"""Walk through JSON of which nothing is promised: requests of any client, answers cut anywhere.

What is not of the type that was hoped for counts as not being there, so that nothing here raises.
An answer that breaks off is closed where it broke: its strings and brackets get the ends that are
missing, and what stood there so far can be read.
"""

import re
from typing import Any

import msgspec

from proxy.core.mending import UNREADABLE, read
from proxy.core.sse import BOM

TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?P<end>"?)|[\[\]{}]', re.DOTALL)
HALF_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")
CLOSERS = {b"{": b"}", b"[": b"]"}
MAX_DEPTH = 512
_decode = msgspec.json.Decoder().decode


def decoded(text: bytes) -> Any:  # noqa: ANN401 (the JSON edge)
    """Return what a text says, None where it is no JSON."""
    try:
        return read(_decode, text.removeprefix(BOM))
    except UNREADABLE:
        return None


def decoded_as_far(text: bytes) -> Any:  # noqa: ANN401 (as above)
    """Return what a text says as far as it goes, None where nothing can be made of it."""
    whole = decoded(text)
    if whole is not None:
        return whole
    body, closers = _closable(text.removeprefix(BOM))
    tries = (body, body + b"null", body + b":null", body.rstrip(b" \t\r\n").rstrip(b","))
    endings = (*tries, body[: max(body.rfind(b","), 0)])
    found = (decoded(ending + closers) for ending in endings)
    return next((value for value in found if value is not None), None)


def at(value: object, *path: str) -> Any:  # noqa: ANN401 (as above)
    """Return the member at a path of names, None where there is none."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def text(value: object, *path: str) -> str:
    """Return the text at a path, empty where there is none."""
    found = at(value, *path)
    return found if isinstance(found, str) else ""


def items(value: object, *path: str) -> list[Any]:
    """Return the elements of the array at a path, none where there is no array."""
    found = at(value, *path)
    return found if isinstance(found, list) else []


def members(value: object, *path: str) -> dict[str, Any]:
    """Return the members of the object at a path, none where there is no object."""
    found = at(value, *path)
    return found if isinstance(found, dict) else {}


def _closable(body: bytes) -> tuple[bytes, bytes]:
    """Return a text whose last string has its end, and the brackets that are missing behind it."""
    open_brackets: list[bytes] = []
    for found in TOKEN.finditer(body):
        token = found[0]
        if token in CLOSERS:
            open_brackets.append(CLOSERS[token])
        elif token in {b"]", b"}"} and open_brackets:
            open_brackets.pop()
        elif found["end"] == b"":
            body = HALF_ESCAPE.sub(b"", _whole_characters(body)) + b'"'
    return body, b"".join(reversed(open_brackets[-MAX_DEPTH:]))


def _whole_characters(body: bytes) -> bytes:
    """Return a text without the half of a character that it may end with."""
    return body.decode(errors="ignore").encode()

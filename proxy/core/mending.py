r"""Decode JSON that is valid by its grammar but holds halves of characters.

Text that was cut in the middle of an emoji is sent as `\ud83d` (RFC 8259 8.2 lets it), and the
decoder refuses it. Prompts and answers are not ours to judge: the halves are read as U+FFFD, in a
copy of the same length, so that offsets found in it hold in the text that came.
"""

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
HIGH = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
LOW = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
HALF = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!" + LOW + rb")"
    rb"|[c-fC-F][0-9a-fA-F]{2}(?<!" + HIGH + LOW + rb"))"
)
WHOLE = rb"\\ufffd"
BACKSLASH, MARK = rb"\\", b"\0\0"  # an escaped one, and what stands for it meanwhile
T = TypeVar("T")


def read(decode: Callable[[bytes], T], text: bytes) -> T:
    """Return what a decoder makes of a text, mended where that helps; raises one of UNREADABLE."""
    try:
        return decode(text)
    except msgspec.DecodeError:
        mended = mend(text)
        if mended == text:
            raise
        return decode(mended)


def mend(text: bytes) -> bytes:
    """Return a text of the same length without halves of characters."""
    if b"\0" in text:
        return text  # no JSON
    return HALF.sub(WHOLE, text.replace(BACKSLASH, MARK)).replace(MARK, BACKSLASH)

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
ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a whole pair
    rb"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|.)",
    re.DOTALL,
)
T = TypeVar("T")


def read(decode: Callable[[bytes], T], text: bytes) -> T:
    """Return what a decoder makes of a text, mended where that helps; raises one of UNREADABLE."""
    try:
        return decode(text)
    except msgspec.DecodeError:
        mended = ESCAPE.sub(_mend, text)
        if mended == text:
            raise
        return decode(mended)


def _mend(escape: re.Match[bytes]) -> bytes:
    return b"\\ufffd" if escape["half"] else escape[0]

"""Count tokens with tiktoken, in a process of its own: questions come in, estimates go out.

The relay's processes never load a vocabulary (one takes 80 MB) and never count a text; they ask
this one over its standard input and hear from it over its standard output, in frames of msgpack.
What comes in holds prompts and answers: nothing of it is kept, written or logged. tiktoken would
fetch its vocabularies from the network; here they come from files that are part of the package.
"""

import contextlib
import lzma
import os
import signal
import struct
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import tiktoken
from tiktoken_ext import openai_public

from proxy.core.estimates import Question, estimate
from proxy.core.families import CL100K, O200K
from proxy.core.model import Estimate
from proxy.priority import step_back

FAILED = "estimate_failed"
FRAME = struct.Struct(">I")  # the length of what follows
NICENESS = 5  # calls come first
OOM_SCORE = "900"  # of 1000: where memory is short
_DIRECTORY = Path(__file__).parent / "vocabularies"
_DEFINITIONS: dict[str, Callable[[], dict[str, Any]]] = {
    O200K: openai_public.o200k_base,
    CL100K: openai_public.cl100k_base,
}
_decode = msgspec.msgpack.Decoder(Question).decode
_encode = msgspec.msgpack.Encoder().encode


def count(vocabulary: str, text: str) -> int:
    """Return how many tokens a text has; what looks like a special token is text."""
    return len(_encoding(vocabulary).encode_ordinary(text))


def ranks_of(vocabulary: str) -> dict[bytes, int]:
    """Return the tokens of a vocabulary in their order: each is a byte of length and its bytes."""
    packed = lzma.decompress((_DIRECTORY / f"{vocabulary}.xz").read_bytes())
    ranks: dict[bytes, int] = {}
    place = 0
    while place < len(packed):
        end = place + 1 + packed[place]
        ranks[packed[place + 1 : end]] = len(ranks)
        place = end
    return ranks


@lru_cache
def _encoding(vocabulary: str) -> tiktoken.Encoding:
    """Return tiktoken's own encoding, with our copy of its vocabulary in place of a download."""
    ranks = ranks_of(vocabulary)
    fetch = openai_public.load_tiktoken_bpe
    openai_public.load_tiktoken_bpe = lambda *_, **__: ranks
    try:
        return tiktoken.Encoding(**_DEFINITIONS[vocabulary]())
    finally:
        openai_public.load_tiktoken_bpe = fetch


def answer(question: bytes) -> Estimate:
    """Return the estimate for a question as it comes over the pipe; nothing here raises."""
    try:
        return estimate(_decode(question), count)
    except Exception:  # noqa: BLE001 (whatever is asked, the next question gets its answer)
        return Estimate(note=FAILED)


def serve(questions: BinaryIO, estimates: BinaryIO) -> None:
    """Answer until there are no more questions."""
    while len(length := questions.read(FRAME.size)) == FRAME.size:
        packed = _encode(answer(questions.read(FRAME.unpack(length)[0])))
        estimates.write(FRAME.pack(len(packed)) + packed)
        estimates.flush()


def main() -> None:
    """Serve the process that started this one; its end is the end of the questions."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    step_back(os.getpid(), NICENESS)
    with contextlib.suppress(OSError):  # no Linux; else it goes before a worker does
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()

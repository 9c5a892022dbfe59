"""Pack a vocabulary as OpenAI publishes it: each token is a byte of length and its bytes, then xz.

Usage: python bench/vocabularies.py o200k_base.tiktoken proxy/vocabularies/o200k_base.xz

The ranks are the numbers of the lines, so they need not be kept. tests/proxy/test_estimating.py
unpacks what is there and compares it with the hash that tiktoken expects of the original.
"""

import base64
import lzma
import sys
from pathlib import Path


def packed(published: bytes) -> bytes:
    """Return a vocabulary in the form that is shipped."""
    parts = []
    for rank, line in enumerate(published.splitlines()):
        token, number = line.split()
        if int(number) != rank:
            raise SystemExit(f"line {rank + 1} has rank {number.decode()}, expected {rank}")
        raw = base64.b64decode(token)
        parts.append(bytes([len(raw)]) + raw)
    return lzma.compress(b"".join(parts), preset=9 | lzma.PRESET_EXTREME)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    target.write_bytes(packed(source.read_bytes()))

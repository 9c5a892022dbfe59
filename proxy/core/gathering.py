"""Gather bytes that come in pieces: few large ones without a copy, many small ones without a list.

A body may come byte by byte. An object for each byte would be forty times its size, so pieces that
have become many are joined, by and by, each of them once or twice.
"""

MANY = 512  # pieces


class Pieces:
    """What has come so far; `size` is the number of its bytes."""

    __slots__ = ("_joined", "_new", "size")

    def __init__(self) -> None:
        self._joined: list[bytes] = []  # each of many pieces
        self._new: list[bytes] = []
        self.size = 0

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
        self._new.append(piece)
        self.size += len(piece)
        if len(self._new) == MANY:
            self._joined.append(b"".join(self._new))
            self._new.clear()

    def joined(self) -> bytes:
        """Return all of it; a single piece is returned as it came."""
        return b"".join((*self._joined, *self._new))

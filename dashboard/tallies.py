"""Packed sums of one column, added up block by block, and kept for whoever asks for the same again.

Whoever has a page open asks for the same days again and again, and of these only those that are not
over have changed. A span that changes is folded and packed again, and has another version then.
"""

import contextlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from dashboard.asking import Row
from dashboard.keeping import Keeping
from dashboard.packed import Block

MOST_BYTES = 6_000_000


@dataclass(frozen=True, slots=True)
class Tally:
    """What is packed of one block: whole numbers of one scale. None: some sums were too large."""

    block: Block | None
    scale: int = 0

    def at(self, scale: int) -> Block | None:
        """Return the same in units of a scale that is no coarser, to be added to."""
        if self.block is None:
            return None
        block = self.block.copy()
        if scale > self.scale:
            block.multiply(10 ** (scale - self.scale))
        return block


class Tallies:
    """Keeps what was added up, the last used first."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._kept: Keeping[Hashable, Tally] = Keeping(most_bytes)

    def begin(self) -> None:
        """Begin another question: what it has taken or kept itself it does not throw out."""
        self._kept.begin()

    def get(self, key: Hashable, version: Hashable) -> Tally | None:
        """Return what is kept of this version; None: it has to be added up."""
        return self._kept.get(key, version)

    def keep(self, key: Hashable, version: Hashable, tally: Tally) -> None:
        """Keep what was added up, unless it is too large."""
        if tally.block is None:
            return
        with contextlib.suppress(OverflowError):
            block = tally.block.compacted()
            self._kept.keep(key, version, Tally(block, tally.scale), block.size)


def added(rows: Sequence[Row], block: Block) -> Tally:
    """Add up packed rows, in the widest scale of any of them; the block is used up."""
    scales = [row["scale"] for row in rows]
    scale = max(scales, default=0)
    if min(scales, default=0) < 0:
        return Tally(None)
    for row in rows:
        block.add_packed(row["users"], row["sums"], times=10 ** (scale - row["scale"]))
    return Tally(block, scale)

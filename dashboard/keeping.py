"""What has been read and never changes is kept: by version, up to so many bytes, last used first.

A question that needs more than there is room for does not throw out what it will itself want again:
it goes on reading what did not fit, each time, and the rest stays.
"""

import sys
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class _Entry(Generic[V]):
    version: Hashable
    value: V
    size: int
    question: int


class Keeping(Generic[K, V]):
    """Remembers values under keys, each as one version of it."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._question = 0
        self.size = 0

    def begin(self) -> None:
        """Begin another question: what earlier ones used may go."""
        self._question += 1

    def get(self, key: K, version: Hashable) -> V | None:
        """Return what is kept of this version; None: nothing is."""
        entry = self._entries.get(key)
        if entry is None or entry.version != version:
            return None
        entry.question = self._question
        self._entries.move_to_end(key)
        return entry.value

    def keep(self, key: K, version: Hashable, value: V, size: int) -> None:
        """Keep a value, if there is room or can be made by what this question did not use.

        `size`: about how many bytes it takes; the texts of its key, which a client may have chosen,
        count besides.
        """
        size += _texts(key)
        old = self._entries.pop(key, None)
        self.size -= 0 if old is None else old.size
        while self.size + size > self._most and self._entries:
            oldest = next(iter(self._entries))
            if self._entries[oldest].question == self._question:
                return
            self.size -= self._entries.pop(oldest).size
        if size <= self._most:
            self._entries[key] = _Entry(version, value, size, self._question)
            self.size += size


def _texts(key: object) -> int:
    """Return how many bytes the texts of a key take."""
    if isinstance(key, str):
        return sys.getsizeof(key)
    return sum(map(_texts, key)) if isinstance(key, tuple) else 0

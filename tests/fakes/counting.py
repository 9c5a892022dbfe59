"""Count the steps that our own code takes: a bound that holds on any machine, however busy."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def counted(function: Callable[..., T], *arguments: Any) -> tuple[T, int]:
    """Return what a function returns, and how many lines of Python it has run."""
    steps = 0

    def count(*_: object) -> Any:
        nonlocal steps
        steps += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        return function(*arguments), steps
    finally:
        sys.settrace(before)

"""Several questions at the same time."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

S = TypeVar("S")
T = TypeVar("T")


async def together(*questions: Coroutine[Any, Any, T]) -> list[T]:
    """Answer several questions at the same time; the first that fails ends all of them."""
    try:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(question) for question in questions]
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return [task.result() for task in asked]


async def both(one: Coroutine[Any, Any, S], other: Coroutine[Any, Any, T]) -> tuple[S, T]:
    """Answer two questions of different kinds at the same time, as `together` does."""
    first, second = await together(cast("Coroutine[Any, Any, object]", one), other)
    return cast("S", first), cast("T", second)

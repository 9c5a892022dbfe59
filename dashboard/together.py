"""Several questions at the same time."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def together(*questions: Coroutine[Any, Any, T]) -> list[T]:
    """Answer several questions at the same time; the first that fails ends all of them."""
    try:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(question) for question in questions]
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return [task.result() for task in asked]

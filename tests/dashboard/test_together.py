import asyncio

import pytest

from dashboard.errors import NotFoundError
from dashboard.together import both, together


async def _answer(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def _fail() -> int:
    await asyncio.sleep(0)
    raise NotFoundError("There is none.")


async def test_questions_are_answered_in_their_order() -> None:
    """Whichever is done first."""
    assert await together(_answer(1), _answer(2), _answer(3)) == [1, 2, 3]


async def test_the_first_that_fails_ends_all_of_them() -> None:
    """With its own error; nobody goes on asking a connection that is given back."""
    waiting = asyncio.Event()

    async def wait() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            waiting.set()
        return 0

    with pytest.raises(NotFoundError):
        await together(wait(), _fail())
    assert waiting.is_set()


async def test_two_questions_may_be_of_different_kinds() -> None:
    """Each has its own answer."""

    async def name() -> str:
        return "ada"

    assert await both(_answer(1), name()) == (1, "ada")

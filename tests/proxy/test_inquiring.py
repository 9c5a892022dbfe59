"""Another process is asked within bounds: whatever becomes of it, every question gets an answer."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy import inquiring
from proxy.core.estimates import Question
from proxy.core.model import Estimate
from proxy.inquiring import Inquiries

HELLO = Question(operation_name="embeddings", request=b'{"input":"hello world"}')
KNOWN = Estimate(input_tokens=2)
SILENT = "import time; time.sleep(600)"
NOISY = "import sys, time; sys.stdout.write('x' * 4); sys.stdout.flush(); time.sleep(600)"
SHORT = "import sys; sys.stdin.buffer.read(4); sys.stdout.write('\\0\\0\\0\\2x')"


@asynccontextmanager
async def inquiries(script: str | None = None, seconds: float = 60.0) -> AsyncIterator[Inquiries]:
    """Give questions to the real process, or to one that does something else."""
    loop = asyncio.get_running_loop()
    asked = Inquiries(
        call_later=loop.call_later,
        call_from_thread=loop.call_soon_threadsafe,
        command=inquiring.COMMAND if script is None else (sys.executable, "-c", script),
        answer_seconds=seconds,
    )
    try:
        yield asked
    finally:
        asked.stop()
        await asyncio.to_thread(asked.join)


def ask(
    asked: Inquiries, question: Question = HELLO, seconds: float = 60.0
) -> asyncio.Future[Estimate]:
    """Ask, and return what will be told."""
    told: asyncio.Future[Estimate] = asyncio.get_running_loop().create_future()
    asked.ask(question, told.set_result, seconds=seconds)
    return told


async def test_a_question_is_answered_by_another_process() -> None:
    """In the order in which it was asked."""
    async with inquiries() as asked, asyncio.timeout(60):
        first, second = ask(asked), ask(asked)
        assert not asked.answered.is_set()
        assert (await first, await second) == (KNOWN, KNOWN)
        assert asked.answered.is_set()


@pytest.mark.parametrize(
    "script", ["pass", SILENT, NOISY, SHORT], ids=["ends", "silent", "noise", "cut"]
)
async def test_a_process_that_fails_is_ended(script: str) -> None:
    """Whatever it says instead of an estimate; each question starts another."""
    async with inquiries(script, seconds=0.5) as asked, asyncio.timeout(60):
        failed = Estimate(note="estimator_failed")
        assert [await ask(asked), await ask(asked)] == [failed, failed]


async def test_a_process_that_cannot_be_started_fails_the_question() -> None:
    """A call is over in any case."""
    loop = asyncio.get_running_loop()
    asked = Inquiries(
        call_later=loop.call_later,
        call_from_thread=loop.call_soon_threadsafe,
        command=("/nowhere/to/be/found",),
    )
    async with asyncio.timeout(60):
        assert await ask(asked) == Estimate(note="estimator_failed")
    asked.stop()
    await asyncio.to_thread(asked.join)


async def test_after_a_killed_process_the_next_question_starts_another() -> None:
    """Out of memory, say."""
    async with inquiries() as asked, asyncio.timeout(60):
        assert await ask(asked) == KNOWN
        process = asked._consultant._process  # noqa: SLF001 - nobody else knows its id
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        assert await ask(asked) == Estimate(note="estimator_failed")
        assert await ask(asked) == KNOWN


async def test_who_waits_too_long_is_told_so() -> None:
    """And is told nothing later."""
    async with inquiries(SILENT) as asked, asyncio.timeout(60):
        assert await ask(asked, seconds=0.05) == Estimate(note="estimate_too_late")
        assert asked.answered.is_set()


async def test_only_so_many_questions_wait() -> None:
    """And only so large ones."""
    async with inquiries(SILENT) as asked, asyncio.timeout(60):
        waiting = [ask(asked) for _ in range(inquiring.MAX_WAITING)]
        busy = Estimate(note="estimator_busy")
        assert await ask(asked) == busy
        asked.stop()
        assert {(await told).note for told in waiting} == {"proxy_stopped"}
    async with inquiries(SILENT) as asked:
        large = Question(operation_name="chat", request=bytes(inquiring.MAX_WAITING_BYTES))
        assert await ask(asked, large) == busy
        assert asked.answered.is_set()


async def test_who_stops_asks_no_more() -> None:
    """A worker that ends has no time for it."""
    async with inquiries() as asked:
        asked.stop()
        assert await ask(asked) == Estimate(note="proxy_stopped")


async def test_asking_takes_no_time() -> None:
    """The event loop goes on while a megabyte is counted."""
    text = b"All work and no play makes Jack a dull boy. " * 20_000
    large = Question(operation_name="embeddings", request=b'{"input":"%b"}' % text)
    async with inquiries() as asked, asyncio.timeout(60):
        await ask(asked)
        longest, told = 0.0, ask(asked, large)
        while not told.done():
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - began)
        assert (await told).input_tokens == 220_001
        assert longest < 1.0  # generous: other work may run on this machine


async def test_what_became_of_questions_is_counted() -> None:
    """Made, given up, and how long it took; what waits is seen."""
    async with inquiries() as asked, asyncio.timeout(60):
        told = [ask(asked) for _ in range(inquiring.MAX_WAITING + 1)]
        assert asked.waiting == inquiring.MAX_WAITING
        await asyncio.gather(*told)
        assert asked.waiting == 0
        assert (asked.counts.made, asked.counts.given_up) == (inquiring.MAX_WAITING, 1)
        assert asked.counts.seconds > 0
    async with inquiries("pass") as asked, asyncio.timeout(60):
        await ask(asked)
        assert (asked.counts.made, asked.counts.given_up) == (0, 1)
        asked.stop()
        await ask(asked)
        assert asked.counts.given_up == 2

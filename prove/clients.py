"""Clients that call at a steady rate, and what each of them got; whose fault it was if it failed.

A failure is ours unless the upstream broke off, the client itself did, the connection was one of a
process that was killed, or nobody was there to take the call and none of it reached the upstream.
"""

import asyncio
import heapq
import re
import time
from collections import deque
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count
from random import Random

from prove.calls import Call, Kind, call, poll, request
from prove.upstream import Upstream, right
from tests.fakes.replay import receive
from tests.fakes.upstream import reset

ANSWER_SECONDS = 60.0
VISITORS = 8
AROUND_SECONDS = 0.25  # a reset reaches the proxy a moment before or after we have counted it
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_LAST = re.compile(rb"(?im)^connection: *close")
_OVER = re.compile(rb'"status": ?"completed"')


class Fate(StrEnum):
    """What became of a call, as its client saw it."""

    ANSWERED = "answered"
    OWN = "the client hung up"
    CUT = "broken off by the upstream"
    KILLED = "on a connection of a killed worker"
    NOT_TAKEN = "closed unanswered by a proxy that was stopping, and never sent"
    OURS = "caused by us"


@dataclass(slots=True, eq=False)
class Link:
    """A connection; `excuse`: why a call on it need not be answered any more."""

    port: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    excuse: Fate | None = None


@dataclass(slots=True)
class Clients:
    """All clients; `closing` is true while the proxy is being stopped or is not there."""

    port: int
    upstream: Upstream
    seed: int
    rate: float
    fates: dict[int, Fate] = field(default_factory=dict)
    polls: dict[int, int] = field(default_factory=dict)  # number of a poll to what it asks for
    told: set[int] = field(default_factory=set)  # background responses that are done, as we know
    troubles: list[str] = field(default_factory=list)  # what was ours, in words
    closing: bool = False
    closed_at: float = 0.0  # when it last came back
    resets: list[float] = field(default_factory=list)
    killed: deque[tuple[float, Container[int]]] = field(default_factory=lambda: deque(maxlen=3))
    _stopping: bool = False
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _links: set[Link] = field(default_factory=set)
    _due: list[tuple[float, int, int]] = field(default_factory=list)  # when, which, how often yet

    async def run(self, clients: int) -> None:
        """Call until told to stop, then until all that was made in the background is done."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(clients):
                chance = Random(self.seed * 7 + number)
                tasks.create_task(self._work(chance, clients / self.rate))

    async def visit(self, port: int, seconds: float) -> None:
        """Make some calls at another port, and see all of them to their end."""
        others = replace(self, port=port, _due=[], _links=set())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(others.run(VISITORS))
            await asyncio.sleep(seconds)
            others.stop()

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._links)

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopping = True

    def excuse(self, ports: Container[int]) -> None:
        """Learn that the process at the other end of these connections was killed."""
        self.killed.append((asyncio.get_running_loop().time(), ports))
        for link in self._links:
            if link.port in ports:
                link.excuse = Fate.KILLED

    def _killed_meanwhile(self, port: int, begun: float) -> Fate | None:
        """Return the excuse of a connection that who was killed had taken before we knew of it."""
        taken = any(moment >= begun and port in ports for moment, ports in self.killed)
        return Fate.KILLED if taken else None

    def excuse_all(self) -> None:
        """Learn that everything was killed."""
        self.excuse([link.port for link in self._links])

    def reset_some(self, chance: Random) -> int:
        """Reset half of the connections; return how many."""
        links = [link for link in self._links if not link.writer.is_closing()]
        links = [link for link in links if chance.random() < 0.5]
        for link in links:
            link.excuse = Fate.OWN
            reset(link.writer)
        return len(links)

    async def _work(self, chance: Random, pause: float) -> None:
        while not (self._stopping and not self._due):
            begun = asyncio.get_running_loop().time()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError as exc:
                if not self._excused_now():
                    self.troubles.append(f"no connection: {exc}")
                await asyncio.sleep(0.05)
                continue
            port = writer.get_extra_info("sockname")[1]
            link = Link(port, reader, writer, self._killed_meanwhile(port, begun))
            self._links.add(link)
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._use(link, chance, pause)
            self._links.discard(link)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _use(self, link: Link, chance: Random, pause: float) -> None:
        """Make calls on a connection for as long as it lasts."""
        while True:
            has_ended = await self._ended_within(link, chance.expovariate(1 / pause))
            if has_ended or (self._stopping and not self._due):
                return
            made, asked, polled = self._next()
            if asked is None:
                continue
            begun = asyncio.get_running_loop().time()
            try:
                link.writer.write(request(asked, of=made))
                if asked.kind is Kind.HANG_UP:
                    await self._hang_up(asked, link, chance)
                    return
                async with asyncio.timeout(ANSWER_SECONDS):
                    got = await receive(link.reader)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as exc:
                self._lost(asked, link, begun, repr(exc))
                if made is not None:
                    self._again(made.number, polled)
                raise
            found = _STATUS.match(got.head)
            status = int(found[1]) if found else 0
            self._got(asked, made, polled, status, got.body, link, begun)
            if _LAST.search(got.head):
                return

    def _next(self) -> tuple[Call | None, Call | None, int]:
        """Return the response to be polled, if it is that time; the call; polls so far."""
        now = asyncio.get_running_loop().time()
        if self._due and self._due[0][0] <= now:
            _, of, polled = heapq.heappop(self._due)
            number = next(self._numbers)
            self.polls[number] = of
            made = call(self.seed, of)
            return made, poll(made, number), polled
        if self._stopping:
            return None, None, 0
        return None, call(self.seed, next(self._numbers)), 0

    def _again(self, of: int, polled: int) -> None:
        at = asyncio.get_running_loop().time() + 0.2 + of % 5 / 5
        heapq.heappush(self._due, (at, of, polled))

    async def _ended_within(self, link: Link, seconds: float) -> bool:
        """Wait for so long; True, and at once, where the connection ends meanwhile.

        A reset is judged when it comes: whoever only looks when he has something to say, finds
        it at a time when its reason is past.
        """
        try:
            async with asyncio.timeout(seconds):
                unasked = await link.reader.read(1)
        except TimeoutError:
            return False
        except OSError as exc:
            if link.excuse is None and not self._excused_now():
                self._trouble(f"idle connection {link.port}", repr(exc))
            return True
        if unasked:
            self._trouble(f"idle connection {link.port}", f"unasked bytes, {unasked!r} first")
        return True

    async def _hang_up(self, asked: Call, link: Link, chance: Random) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(chance.random() * 0.5):
                await link.reader.read(chance.randint(1, 2000))
        self.fates[asked.number] = link.excuse or Fate.OWN
        if chance.random() < 0.5:
            reset(link.writer)

    def _got(
        self,
        asked: Call,
        made: Call | None,
        polled: int,
        status: int,
        body: bytes,
        link: Link,
        begun: float,
    ) -> None:
        if made is not None:
            is_right = status == 200 and b'"resp_' in body
        else:
            is_right = right(asked, status, body)
        if not is_right:
            self._lost(asked, link, begun, f"{status} {body[:200]!r}")
            if made is not None:
                self._again(made.number, polled)
            return
        self.fates[asked.number] = Fate.ANSWERED
        if asked.kind is Kind.BACKGROUND:
            self._again(asked.number, 0)
        elif made is not None:
            self._polled(made, polled + 1, body)

    def _polled(self, made: Call, polled: int, body: bytes) -> None:
        if _OVER.search(body):
            if made.number not in self.told:
                self.told.add(made.number)
                self._again(made.number, polled)  # whoever asks again is charged nothing
            return
        if polled > made.number % 3:
            self.upstream.over.add(made.number)
        self._again(made.number, polled)

    def _lost(self, asked: Call, link: Link, begun: float, reason: str) -> None:
        number = asked.number
        if number in self.upstream.cut or self._was_reset(begun):
            fate = Fate.CUT
        elif link.excuse is not None:
            fate = link.excuse
        elif number not in self.upstream.asked and self._excused_now():
            fate = Fate.NOT_TAKEN
        else:
            fate = Fate.OURS
            self._trouble(f"call {number} ({asked.kind}) on connection {link.port}", reason)
        self.fates[number] = fate

    def _trouble(self, where: str, reason: str) -> None:
        """Note a failure that is ours, and what may help to understand it."""
        now = asyncio.get_running_loop().time()
        kills = [f"{now - moment:.2f} s ago" for moment, _ in self.killed]
        self.troubles.append(
            f"{where}, {time.strftime('%H:%M:%S')}, {now - self.closed_at:.2f} s after the last"
            f" start, workers killed {', '.join(kills) or 'never'}: {reason}"
        )

    def _excused_now(self) -> bool:
        return self.closing or asyncio.get_running_loop().time() < self.closed_at + AROUND_SECONDS

    def _was_reset(self, begun: float) -> bool:
        return any(moment > begun - AROUND_SECONDS for moment in self.resets[-3:])

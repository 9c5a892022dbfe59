"""`openai-meter demo`: start everything on invented traffic, and leave nothing behind.

Everything lives in a directory of its own under the system's temporary one, and listens on this
machine alone. No setting of a real proxy is read, so that nothing invented can reach a real ledger.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import aiohttp
import uvloop

from proxy.children import Child
from proxy.demo import past
from proxy.demo.homework import call, history
from proxy.demo.traffic import Backend
from proxy.errors import ConfigurationError, ListenError
from proxy.listening import bound_port, open_sockets
from proxy.parts import PYTHON, environment
from proxy.settings import PREFIX, Settings
from proxy.values import Address

CALLS = 12_000
AT_ONCE = 400
PASSWORD = "homework"  # noqa: S105 - of a page on this machine alone, with invented numbers
READY_SECONDS = 120.0
STOP_SECONDS = 40.0
PAUSE_SECONDS = 1.5  # between the first calls of the present, on average
PACE_SECONDS = 120.0  # after which the pauses are twice as long, then three times, and so on
SEED = 20261122  # the same helper every time


class _Signals:
    """SIGINT and SIGTERM, noted from the first moment on; `stop` is set by either."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())

    def take(self) -> None:
        """Take the signals for the running loop, from whoever has them."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop.set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """One demonstration in its directory."""

    settings: Settings
    calls: int
    signals: _Signals
    say: Callable[[str], None]

    async def run(self) -> None:
        """Fill the ledger with a past, then go on with the present until a signal comes."""
        self.signals.take()
        async with asyncio.TaskGroup() as tasks:
            showing = tasks.create_task(self._show())
            await self.signals.stop.wait()
            showing.cancel()

    async def _show(self) -> None:
        random = Random(SEED)  # noqa: S311 - a helper that is the same every time
        now = datetime.fromtimestamp(time.time(), UTC)
        since = (now.replace(day=1) - timedelta(days=1)).replace(day=1, hour=0, minute=0)
        calls = history(random, since=since, until=now, count=self.calls)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell_when_ready())
            behind = self.settings.model_copy(update={"listen": Address("127.0.0.1", 0)})
            async with past.working(behind, [each.at for each in calls]) as url:
                await asyncio.sleep(0)  # the worker has taken the signals by now
                self.signals.take()
                async with Backend(url) as backend:
                    await backend.send_all(calls, at_once=AT_ONCE, sent=self._progress(len(calls)))
        self.say(f"\r  {len(calls):,} calls since {since:%B %-d}; more come, many at first\n")
        await self._go_on(random)

    async def _go_on(self, random: Random) -> None:
        """Make calls as time goes by: many at first, to be looked at.

        Then ever fewer, so that a demo that is left alone does not bury its past under today.
        """
        since = time.monotonic()
        async with (
            Backend(f"http://{self.settings.listen}") as backend,
            asyncio.TaskGroup() as all_,
        ):
            while True:
                await asyncio.sleep(random.expovariate(1 / pause(time.monotonic() - since)))
                now = datetime.fromtimestamp(time.time(), UTC)
                all_.create_task(_unbroken(backend.send(call(random, at=now, now=now))))

    async def _tell_when_ready(self) -> None:
        page = f"http://{self.settings.dashboard_listen}"
        async with aiohttp.ClientSession() as session, asyncio.timeout(READY_SECONDS):
            while not await _answers(session, f"{page}/healthz"):  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.1)
        self.say(
            f"\r  dashboard  {page}/admin   user admin, password {PASSWORD}\n"
            f"  base URL   http://{self.settings.listen}/v1\n"
            "  Ctrl-C ends it and leaves nothing behind\n"
        )

    def _progress(self, count: int) -> Callable[[int], None]:
        step = max(1, count // 100)

        def sent(done: int) -> None:
            if done % step == 0:
                self.say(f"\r  {done:,} of {count:,} calls of the past")

        return sent


def pause(seconds: float) -> float:
    """Return how long it is to the next call on average, so long after the first one."""
    return PAUSE_SECONDS * (1 + seconds / PACE_SECONDS)


def run_demo(*, listen: Address, dashboard_listen: Address, calls: int = CALLS) -> None:
    """Show the demonstration until Ctrl-C; raise ConfigurationError if it cannot be had."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]  # what is set for a real proxy is not meant for this one
    signals = _Signals()
    with tempfile.TemporaryDirectory(prefix="openai-meter-demo-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # Postgres has a user of its own where root runs this
        listener = open_sockets(Address("127.0.0.1", 0), 1, setting="the demo's upstream")[0]
        settings = Settings(
            upstream_url=f"http://127.0.0.1:{bound_port(listener)}",
            data_dir=directory / "data",
            listen=_free(listen),
            dashboard_listen=_free(dashboard_listen),
            admin_password=PASSWORD,
            workers=1,
            log_calls=False,
            log_format="json",
            drain_seconds=1.0,
        )
        _say("openai-meter demo: a homework helper, everything about it is invented\n")
        log = directory / "log"
        upstream = ("proxy.demo.upstream", "--listen-fd", str(listener.fileno()))
        with (
            log.open("a") as file,
            contextlib.redirect_stdout(file),  # what the worker of the past logs
            _running("upstream", upstream, settings, log, listener.fileno()),
            listener,
            _running("serve", ("proxy", "serve"), settings, log) as serve,
        ):
            demo = Demo(settings=settings, calls=calls, signals=signals, say=_say)
            try:
                uvloop.run(demo.run())
            except* (TimeoutError, aiohttp.ClientError) as exc:
                said = log.read_text(errors="replace").splitlines()[-5:]
                raise ConfigurationError("\n".join(("the demo did not start", *said))) from exc
            finally:
                _say("\rstopping\n")
                serve.signal(signal.SIGTERM)


@contextlib.contextmanager
def _running(
    name: str, command: tuple[str, ...], settings: Settings, log: Path, *descriptors: int
) -> Iterator[Child]:
    """Run a process that cannot outlive us; what it says goes to a file."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    variables = environment(settings, dsn="")
    variables.pop("METER_DATABASE_URL")
    shell = ("/bin/sh", "-c", 'exec "$@" >>"$0" 2>&1', str(log), *PYTHON)
    child = Child(
        name=name, command=(*shell, *command), environment=variables, descriptors=descriptors
    )
    try:
        problem = child.start(time.monotonic(), lifeline=reader)
        if problem is not None:
            raise ConfigurationError(f"{name} does not start: {problem}")
        yield child
    finally:
        os.close(writer)
        child.signal(signal.SIGTERM)
        child.wait(STOP_SECONDS)
        if child.running:
            child.signal(signal.SIGKILL)
            child.wait(STOP_SECONDS)
        os.close(reader)


def _free(address: Address) -> Address:
    """Return the address, with another port where that one is taken."""
    try:
        probe = open_sockets(address, 1, setting="--listen")[0]
    except ListenError:
        probe = open_sockets(Address(address.host, 0), 1, setting="--listen")[0]
    with probe:
        return Address(address.host, bound_port(probe))


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200  # noqa: PLR2004 - OK
    except aiohttp.ClientError:
        return False


async def _unbroken(sending: Coroutine[None, None, None]) -> None:
    """Let a call that fails be one call."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        await sending


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()

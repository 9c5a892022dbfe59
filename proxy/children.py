"""Child processes that are kept alive, and that never outlive their parent.

A child ends with us whatever happens to us: the kernel sends it SIGTERM when the thread that forked
it is gone (PR_SET_PDEATHSIG), and its standard input is a pipe whose other end only we hold. It has
a session of its own, so that a Ctrl-C reaches us alone and the order of stopping stays ours.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0
SETTLED_SECONDS = 10.0  # who lived that long starts again with the first delay

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@dataclass(slots=True, kw_only=True)
class Backoff:
    """How long to wait before the next start of something that ended."""

    delay_seconds: float = FIRST_DELAY_SECONDS
    due: float = 0.0
    started: float = 0.0

    def ended(self, now: float) -> None:
        """Note that it ended: the next start is due after a delay that doubles."""
        if now - self.started > SETTLED_SECONDS:
            self.delay_seconds = FIRST_DELAY_SECONDS
        self.due = now + self.delay_seconds
        self.delay_seconds = min(2 * self.delay_seconds, LONGEST_DELAY_SECONDS)


@dataclass(slots=True, kw_only=True)
class Child:
    """One process: how to start it, and the one that runs now (None: none does)."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    descriptors: tuple[int, ...] = ()
    blocks_sigterm: bool = False  # until it says that it is ready for it: then it comes through
    backoff: Backoff = field(default_factory=Backoff)
    process: subprocess.Popen[bytes] | None = None
    is_replaced: bool = False  # it was asked to end, so that a new one takes its place

    def start(self, now: float, *, lifeline: int) -> str | None:
        """Start the process; return what is in the way: it is then due again after a delay.

        `lifeline` is the reading end of the pipe that we hold.
        """
        self.backoff.started = now
        try:
            self.process = subprocess.Popen(  # noqa: S603 - our own commands
                self.command,
                env=self.environment,
                stdin=lifeline,
                pass_fds=self.descriptors,
                start_new_session=True,
                preexec_fn=_before(os.getpid(), blocks_sigterm=self.blocks_sigterm),  # noqa: PLW1509 - the supervisor has no threads
            )
        except (OSError, subprocess.SubprocessError) as exc:  # out of processes, or of memory
            self.backoff.ended(now)
            return str(exc)
        return None

    @property
    def pid(self) -> int | None:
        """The id of the process that runs now."""
        return None if self.process is None else self.process.pid

    def poll(self) -> int | None:
        """Return the status of a process that has ended just now, once; else None."""
        status = None if self.process is None else self.process.poll()
        if status is not None:
            self.process = None
        return status

    @property
    def running(self) -> bool:
        """Whether a process runs, reaping it if it has ended."""
        if self.process is not None and self.process.poll() is not None:
            self.process = None
        return self.process is not None

    def wait(self, seconds: float) -> None:
        """Wait for a process that was killed, for so long at most."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if a process runs."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


def _before(parent: int, *, blocks_sigterm: bool) -> Callable[[], None]:
    """Return what the child runs before its program: tie its life to its parent's."""

    def tie() -> None:
        if blocks_sigterm:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return tie

"""Read from a link, but no faster than what was read is passed on.

Nothing is read while the other side does not keep up. In a tunnel nothing is read either while
bytes wait that have come already: whoever looks at them before they go on takes as many as others
can wait for, and is offered the rest in the loop's next turn. So the end of what a peer says is
only met behind all that it has said.
"""

import asyncio
from collections.abc import Callable


class Reading(asyncio.Protocol):
    """One connection, and whether it is being read."""

    transport: asyncio.Transport
    active: bool  # something has come since somebody looked
    reading_paused = False  # the other side does not keep up
    _rest = b""  # of a tunnel: what waits for the next turn

    def pause(self) -> None:
        """Stop reading: the other side does not keep up."""
        if not self.reading_paused and not self.transport.is_closing():
            self.reading_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        if self.reading_paused:
            self.reading_paused = False
            self.active = True
            if not self._rest:
                self._read_on()

    def take_rest(self) -> bytes:
        """Return what waits of a tunnel, once: somebody else takes care of it."""
        rest, self._rest = self._rest, b""
        if rest:
            self._read_on()
        return rest

    def _offer(self, data: bytes, take: Callable[[bytes], bytes]) -> None:
        """Offer bytes of a tunnel to `take`; what it gives back is offered again, with the next."""
        waited, self._rest = self._rest, b""
        self._rest = take(waited + data)
        if self._rest:
            if not waited and not self.transport.is_closing():
                self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._offer_again)
        elif waited:
            self._read_on()

    def _read_on(self) -> None:
        if not self.reading_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _offer_again(self) -> None:
        if self._rest:
            try:
                self.data_received(b"")
            except BaseException:
                self.transport.abort()  # as the transport itself does where it is the caller
                raise

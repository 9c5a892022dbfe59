"""The connections to one upstream: where they go, how they are made, and which are kept.

A connection that cannot be made is told to the call that waits for it, and never tried again for
it: nothing here retries.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from urllib.parse import urlsplit

from proxy.errors import (
    RelayError,
    UpstreamLostError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
)
from proxy.resuming import ResumingContext
from proxy.upstream import FAULT, Caller, UpstreamLink


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where an upstream is: taken from its base URL."""

    host: str
    port: int
    tls: bool
    authority: bytes  # the value of Host
    base_path: bytes  # put in front of every target

    @classmethod
    def of(cls, url: str) -> "Address":
        """Read a checked base URL such as `https://api.openai.com`."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        authority = parts.netloc.rpartition("@")[2]
        return cls(
            host=parts.hostname or "",
            port=parts.port or (443 if tls else 80),
            tls=tls,
            authority=authority.encode("idna" if not authority.isascii() else "ascii"),
            base_path=parts.path.rstrip("/").encode(),
        )


class Pool:
    """The connections to one upstream: kept ones are used again, newest first.

    `spawn` starts a task that its owner ends; a connection is only ever made in one.
    """

    def __init__(
        self,
        address: Address,
        *,
        spawn: Callable[[Coroutine[None, None, None]], object],
        report_fault: Callable[[BaseException], None],
        tls: ResumingContext | None,
        connect_timeout_seconds: float,
        keep_seconds: float = 45.0,
        max_head_bytes: int = 262_144,
    ) -> None:
        self.address = address
        self.max_head_bytes = max_head_bytes
        self.report_fault = report_fault
        self._spawn = spawn
        self._tls = tls
        self._connect_timeout_seconds = connect_timeout_seconds
        self._keep_seconds = keep_seconds
        self._idle: deque[UpstreamLink] = deque()
        self._swept = asyncio.get_running_loop().time()  # a clock that is exact enough

    def __len__(self) -> int:
        """Return how many connections are kept."""
        return len(self._idle)

    def take(self) -> UpstreamLink | None:
        """Return a kept connection, None where a new one is needed."""
        while self._idle:
            link = self._idle.pop()
            if not link.transport.is_closing():
                return link
        return None

    def connect(self, caller: Caller) -> None:
        """Make a connection; the caller hears of it, or of its failure, later."""
        self._spawn(self._connect(caller))

    def keep(self, link: UpstreamLink) -> None:
        """Keep a connection for the next call."""
        link.idle_since = self._swept
        self._idle.append(link)
        if self._tls is not None and not link.session_known:
            link.session_known = True
            self._tls.remember(link.transport.get_extra_info("ssl_object"))

    def forget(self, link: UpstreamLink) -> None:
        """Drop a connection that is no more, wherever it is."""
        if link.caller is None and link in self._idle:
            self._idle.remove(link)

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long: below what upstreams allow (OpenAI: minutes)."""
        self._swept = now
        while self._idle and now - self._idle[0].idle_since > self._keep_seconds:
            self._idle.popleft().transport.close()

    def close(self) -> None:
        """Close all kept connections."""
        while self._idle:
            self._idle.popleft().transport.close()

    async def _connect(self, caller: Caller) -> None:
        try:
            link = await self._made()
            caller.connected(link)
        except RelayError as exc:
            caller.connect_failed(exc)
        except Exception as exc:  # noqa: BLE001 (the relay's last line: a fault ends one call)
            self.report_fault(exc)
            caller.connect_failed(UpstreamLostError(FAULT))

    async def _made(self) -> UpstreamLink:
        where = f"{self.address.host}:{self.address.port}"
        limit = self._connect_timeout_seconds
        try:
            async with asyncio.timeout(limit):
                _, link = await asyncio.get_running_loop().create_connection(
                    lambda: UpstreamLink(self),
                    self.address.host,
                    self.address.port,
                    ssl=self._tls,
                    server_hostname=self.address.host if self._tls else None,
                )
        except TimeoutError as exc:
            raise UpstreamTimeoutError(f"no connection to {where} within {limit:g} s") from exc
        except ssl.SSLError as exc:
            reason = getattr(exc, "verify_message", None) or exc.reason or exc
            raise UpstreamUnreachableError(f"no TLS connection to {where}: {reason}") from exc
        except (OSError, UnicodeError) as exc:
            raise UpstreamUnreachableError(f"cannot connect to {where}: {exc}") from exc
        if link.transport.is_closing():  # it has heard already that it is not wanted
            raise UpstreamLostError
        return link

"""Sockets to listen on, and a clear word where that is not possible.

Several sockets share one address (SO_REUSEPORT): each worker process has its own, and the kernel
deals connections out among them. Whoever opened a socket keeps it open, so that a worker that dies
loses no connection that waits in it: its successor takes the socket over.
"""

import errno
import resource
import socket
from contextlib import ExitStack

from proxy.errors import ListenError
from proxy.values import Address

BACKLOG = 1024
ENOUGH_FILES = 4096

_HINTS = {
    errno.EADDRINUSE: "stop the process that listens there, or choose another address",
    errno.EACCES: "ports below 1024 need privileges: choose another one",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


def open_sockets(address: Address, count: int, *, setting: str) -> list[socket.socket]:
    """Listen `count` times on one address; raise ListenError naming it and the setting."""
    try:
        family, where = _resolved(address)
        with socket.socket(family) as probe:  # without SO_REUSEPORT: finds those who share, too
            _bind(probe, family, where)
        return _opened(family, where, count)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        hint = _HINTS.get(exc.errno or 0, "expected an address of this machine")
        raise ListenError(f"{setting}: cannot listen on {address}: {reason}; {hint}") from exc


def raise_file_limit() -> tuple[int, str | None]:
    """Let this process open as many files as it may; return how many, and what is odd about it.

    A call takes two, its client's connection and the upstream's; many systems begin with 1024.
    """
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        limit = most
    except (OSError, ValueError):  # the system has another bound; what we have must do
        pass
    if limit >= ENOUGH_FILES:
        return limit, None
    return limit, (
        f"{limit} open files allow about {limit // 2} calls at once: "
        "raise the hard limit (`ulimit -Hn`, LimitNOFILE)"
    )


def bound_port(listener: socket.socket) -> int:
    """Return the port of a socket: it is known even where 0 was asked for."""
    return int(listener.getsockname()[1])


def _resolved(address: Address) -> tuple[socket.AddressFamily, tuple[str, int]]:
    host = address.host or ("::" if _has_ipv6() else "0.0.0.0")  # noqa: S104 - as asked for
    found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = found[0]
    return family, (str(where[0]), int(where[1]))


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as attempt:
            attempt.bind(("::", 0))
    except OSError:
        return False
    return True


def _bind(listener: socket.socket, family: socket.AddressFamily, where: tuple[str, int]) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(where)


def _opened(
    family: socket.AddressFamily, where: tuple[str, int], count: int
) -> list[socket.socket]:
    with ExitStack() as undo:
        opened: list[socket.socket] = []
        for _ in range(count):
            listener = undo.enter_context(socket.socket(family))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            _bind(listener, family, where)
            listener.listen(BACKLOG)
            where = (where[0], bound_port(listener))
            opened.append(listener)
        undo.pop_all()
        return opened

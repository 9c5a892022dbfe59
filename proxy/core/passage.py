"""What of a head passes the proxy: the cuts of the transparency contract, and nothing else.

A head goes on as the bytes that came, less the hop-by-hop fields, those that `Connection` names and
the attribution fields; towards the upstream `Host` is the upstream's. Nothing is added, except what
the connection itself or the spliced option needs, and what the owner of a mounted upstream has set.
"""

from typing import NamedTuple

from proxy.core import headers

_SWITCH = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"


class Destination(NamedTuple):
    """How the upstream is named in a head, and what stays with the proxy."""

    authority: bytes  # the value of Host
    base_path: bytes  # put in front of every target
    own_names: tuple[bytes, ...]  # lower-case names of attribution fields
    own_prefixes: tuple[bytes, ...]
    left_out: tuple[bytes, ...] = ()  # fields that the upstream's owner replaces or takes out
    added: bytes = b""  # whole lines of the upstream's owner


def request_head(
    head: headers.Head,
    line: headers.RequestLine,
    destination: Destination,
    *,
    invited: bool,
    spliced_length: int | None,
) -> bytes:
    """Return a request's head for the upstream.

    `invited`: the proxy itself has answered `Expect: 100-continue`. `spliced_length`: the length of
    a body that now asks for usage, None for one that goes on as it came.
    """
    lines, fields = head.lines, head.fields
    names = headers.nominated(fields)
    if names:
        lines = headers.without(lines, names)
    if invited:
        lines = headers.without(lines, (b"expect",))
    if spliced_length is not None:
        lines = _spliced(lines, fields, spliced_length)
    if destination.left_out:
        lines = headers.without(lines, destination.left_out)
    first = first_line(line, destination)
    if b"host" not in fields:
        first += b"\r\nHost: " + destination.authority
    switch = _SWITCH if b"upgrade" in fields and wants_websocket(line, fields) else b""
    return headers.joined(first, _to(destination.authority, lines), destination.added + switch)


def first_line(line: headers.RequestLine, destination: Destination) -> bytes:
    """Return the request line for the upstream."""
    target = line.target if line.target == b"*" else destination.base_path + line.target
    return b"%b %b HTTP/1.1" % (line.method, target)


def _to(authority: bytes, lines: list[bytes]) -> list[bytes]:
    """Return the lines with the upstream's name; most clients put `Host` first."""
    for index, line in enumerate(lines):
        if line[:5].lower() == b"host:":
            return [*lines[:index], line[:5] + b" " + authority, *lines[index + 1 :]]
    return lines


def _spliced(lines: list[bytes], fields: headers.Fields, length: int) -> list[bytes]:
    """Give the length of the spliced body, and ask for an answer that can be read at once."""
    if b"content-length" in fields:
        lines = headers.replaced(lines, b"content-length", b"%d" % length)
    if b"accept-encoding" not in fields:
        return [*lines, b"Accept-Encoding: identity"]
    asked = False
    kept = []
    for line in lines:
        if headers.name_of(line) != b"accept-encoding":
            kept.append(line)
        elif not asked:
            asked = True
            kept += headers.replaced([line], b"accept-encoding", b"identity")
    return kept


def request_trailers(
    trailers: list[tuple[bytes, bytes]], destination: Destination
) -> list[tuple[bytes, bytes]]:
    """Return the trailers that the upstream gets: attribution leaves by no door."""
    return [
        (name, value)
        for name, value in trailers
        if name.lower() not in destination.own_names
        and name.lower() not in destination.left_out
        and not name.lower().startswith(destination.own_prefixes)
    ]


def wants_websocket(line: headers.RequestLine, fields: headers.Fields) -> bool:
    """Tell whether this asks for a WebSocket; no other upgrade is relayed (RFC 9113 drops h2c)."""
    return (
        line.method == b"GET"
        and headers.tokens(fields, b"upgrade") == [b"websocket"]
        and b"upgrade" in headers.tokens(fields, b"connection")
    )


def answer_head(
    head: headers.Head, *, without: tuple[bytes, ...] = (), added: bytes = b""
) -> bytes:
    """Return an answer's head for the client, less some more fields, with whole lines added."""
    lines = head.lines
    names = headers.nominated(head.fields)
    if names:
        lines = headers.without(lines, names)
    elif not without and not added and head.passes_whole:
        return head.raw
    if without:
        lines = headers.without(lines, without)
    return headers.joined(head.first_line, lines, added)

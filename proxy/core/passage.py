"""What of a head passes the proxy: the cuts of the transparency contract, and nothing else.

A head goes on as the bytes that came, less the hop-by-hop fields, those that `Connection` names and
the attribution fields; towards the upstream `Host` is the upstream's. Nothing is added, except what
the connection itself or the spliced option needs.
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


def request_head(
    head: bytes,
    line: headers.RequestLine,
    fields: headers.Fields,
    destination: Destination,
    *,
    invited: bool,
    spliced_length: int | None,
) -> bytes:
    """Return a request's head for the upstream.

    `invited`: the proxy itself has answered `Expect: 100-continue`. `spliced_length`: the length of
    a body that now asks for usage, None for one that goes on as it came.
    """
    cuts = headers.removals(fields, (*headers.HOP_BY_HOP, *destination.own_names))
    if b"connection" in fields:
        cuts += headers.nominated(head, fields)
    if invited:
        cuts += headers.removals(fields, (b"expect",))
    if destination.own_prefixes:
        cuts += headers.removals(
            fields, [name for name in fields if name.startswith(destination.own_prefixes)]
        )
    if spliced_length is not None:
        cuts += _cuts_for_splice(head, fields, spliced_length)
    target = line.target if line.target == b"*" else destination.base_path + line.target
    first_line = b"%b %b HTTP/1.1" % (line.method, target)
    host = fields.get(b"host")
    if host is None:
        first_line += b"\r\nHost: " + destination.authority
    else:
        cuts.append(headers.replaced(head, host[0], destination.authority))
    cuts.append((0, line.end, first_line))
    edited = headers.edited(head, cuts)
    if b"upgrade" in fields and wants_websocket(line, fields):
        return edited[:-2] + _SWITCH + b"\r\n"
    return edited


def _cuts_for_splice(head: bytes, fields: headers.Fields, length: int) -> list[headers.Cut]:
    """Give the length of the spliced body, and ask for an answer that can be read at once."""
    cuts: list[headers.Cut] = []
    if b"content-length" in fields:
        cuts.append(headers.replaced(head, fields[b"content-length"][0], b"%d" % length))
    codings = fields.get(b"accept-encoding")
    if codings:
        cuts.append(headers.replaced(head, codings[0], b"identity"))
        cuts += [(field.start, field.end, b"") for field in codings[1:]]
    else:
        end = len(head) - 4
        cuts.append((end, end, b"\r\nAccept-Encoding: identity"))
    return cuts


def request_trailers(
    trailers: list[tuple[bytes, bytes]], destination: Destination
) -> list[tuple[bytes, bytes]]:
    """Return the trailers that the upstream gets: attribution leaves by no door."""
    return [
        (name, value)
        for name, value in trailers
        if name.lower() not in destination.own_names
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
    head: bytes,
    fields: headers.Fields,
    *,
    without: tuple[bytes, ...] = (),
    added: bytes = b"",
) -> bytes:
    """Return an answer's head for the client, less some more fields, with whole lines added."""
    cuts = headers.removals(fields, (*headers.HOP_BY_HOP, *without))
    if b"connection" in fields:
        cuts += headers.nominated(head, fields)
    edited = headers.edited(head, cuts) if cuts else head
    return edited[:-2] + added + b"\r\n" if added else edited

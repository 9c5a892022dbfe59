"""How a request goes up: its head, and its body as it came, or with its usage asked for.

The counterpart of `answering`: what is here knows no link and keeps nothing.
"""

from proxy import framing
from proxy.core import passage
from proxy.core.splicing import splice_include_usage
from proxy.framing import Request


def with_head(
    request: Request, body: bytes, *, invited: bool, spliced_length: int | None = None
) -> bytes:
    """Return the head for the upstream, and what is here of the body behind it.

    `invited`: the client was told to go on, so the upstream need not say it (RFC 9110 section
    10.1.1); `spliced_length`: of the body, in bytes, where it is not the one that was declared.
    """
    plan = request.plan
    if not invited:
        sent = plan.sent(request.lines, body, spliced_length=spliced_length)
        if sent is not None:
            return sent
    head = passage.request_head(
        request.head, plan.line, plan.destination, invited=invited, spliced_length=spliced_length
    )
    return head + body


def part(request: Request, data: bytes) -> bytes:
    """Return a part of the body, framed as the body was."""
    if request.length == framing.CHUNKED:
        return framing.chunk(data) if data else b""
    return data


def last_chunk(request: Request, trailers: framing.Trailers) -> bytes:
    """Return the end of a chunked body, with those trailers that may pass."""
    if trailers:
        trailers = passage.request_trailers(trailers, request.plan.destination)
    return framing.last_chunk(trailers)


def whole(
    request: Request,
    body: bytes,
    trailers: framing.Trailers,
    *,
    asks_usage: bool,
    invited: bool,
) -> tuple[bytes, bool]:
    """Return a request whose body is all there, and whether its usage had to be asked for."""
    spliced = splice_include_usage(body) if asks_usage else None
    length = None
    if spliced is not None:
        body, length = spliced, len(spliced)
    if request.length == framing.CHUNKED:
        body = part(request, body) + last_chunk(request, trailers)
    return with_head(request, body, invited=invited, spliced_length=length), spliced is not None

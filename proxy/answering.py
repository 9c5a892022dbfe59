"""How an answer's body reaches the client where it cannot go out as it came.

There are two such cases: the traces of the spliced option are taken out of a stream, and a client
of HTTP/1.0, which knows no chunks, gets a body that ends with the connection.
"""

from proxy import framing
from proxy.core import passage
from proxy.core.encoding import Decoder, decoder_for
from proxy.core.plans import OF_A_STRIPPED_BODY, OF_THE_FRAMING
from proxy.core.splicing import UsageStripper
from proxy.errors import UpstreamProtocolError
from proxy.framing import AnswerHead

_STREAMED_STATUS = 200


class Reframed:
    """A body that is framed anew."""

    __slots__ = ("_chunked", "_decoder", "_stripper", "_trailers", "added", "without")

    def __init__(
        self,
        head: AnswerHead,
        *,
        stripper: UsageStripper | None,
        decoder: Decoder | None,
        chunked: bool,
    ) -> None:
        """Take the head it came with; `chunked`: else the end of the connection is its end."""
        self._stripper = stripper
        self._decoder = decoder
        self._chunked = chunked
        self._trailers = head.trailers
        self.without = OF_THE_FRAMING if stripper is None else OF_A_STRIPPED_BODY
        self.added = b"Transfer-Encoding: chunked\r\n" if chunked else b""

    @property
    def closes(self) -> bool:
        """Whether the end of the connection is the end of the body."""
        return not self._chunked

    def part(self, body: bytes, *, done: bool) -> bytes:
        """Return what the client gets for the next part of the body."""
        if self._decoder is not None:
            body = self._decoded(self._decoder, body, done=done)
        if self._stripper is not None:
            body = self._stripper.feed(body)
            if done:
                body += self._stripper.finish()
        if not self._chunked:
            return body
        framed = framing.chunk(body) if body else b""
        return framed + framing.last_chunk(self._trailers) if done else framed

    @staticmethod
    def _decoded(decoder: Decoder, body: bytes, *, done: bool) -> bytes:
        body = decoder.feed(body)
        if done:
            body += decoder.finish()
        if decoder.problem is not None:
            raise UpstreamProtocolError(f"a stream cannot be decoded: {decoder.problem}")
        return body


def reframed(
    head: AnswerHead, *, spliced: bool, minor_version: int, max_event_bytes: int
) -> Reframed | None:
    """Return how the body is to be framed anew, None where it goes out as it came."""
    if head.length == 0:
        return None
    chunked = minor_version == 1
    if spliced and _is_stream(head):
        encoding = head.plan.content_encoding  # identity was asked for
        decoder = decoder_for(encoding) if encoding else None
        if decoder is not None or not encoding:
            stripper = UsageStripper(max_event_bytes)
            return Reframed(head, stripper=stripper, decoder=decoder, chunked=chunked)
    if head.length == framing.CHUNKED and not chunked:
        return Reframed(head, stripper=None, decoder=None, chunked=False)
    return None


def ends_with_link(head: AnswerHead, body: Reframed | None) -> bool:
    """Tell whether the end of the client's connection is the end of the answer."""
    return head.length == framing.UNTIL_CLOSE if body is None else body.closes


def with_head(
    head: AnswerHead, body: Reframed | None, part: bytes, *, close: bool, minor_version: int
) -> bytes:
    """Return the head for the client, and the first part of the body as it goes out.

    The head gets what the client's own connection and the new framing need.
    """
    plan = head.plan
    added = b"" if body is None else body.added
    if not close and minor_version and plan.line.minor_version:
        passed = (
            plan.passed(head.raw, head.lines, part)
            if body is None
            else plan.passed_stripped(head.lines, added, part)
        )
        if passed is not None:
            return passed
    if close:
        added += b"Connection: close\r\n"
    elif minor_version == 0 or plan.line.minor_version == 0:
        added += b"Connection: keep-alive\r\n"
    without = () if body is None else body.without
    return passage.answer_head(head.head, without=without, added=added) + part


def _is_stream(head: AnswerHead) -> bool:
    return head.status == _STREAMED_STATUS and "text/event-stream" in head.plan.content_type

"""Resume TLS sessions: the next connection to an upstream goes on where the last one was.

That saves both sides the larger part of a handshake (RFC 8446 section 2.2), which is most of what a
new connection costs.
"""

import ssl
from typing import Self

from typing_extensions import override


class ResumingContext(ssl.SSLContext):
    """Trusts whom a default context trusts, and offers the last session of its one upstream.

    Event loops have no argument for a session, so it is put in where they wrap a connection. A
    session belongs to the name that was checked when it began: one context serves one upstream.
    """

    session: ssl.SSLSession | None = None

    def __new__(cls) -> Self:
        """Make a context of a client, which checks certificates and names."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    @override
    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(
            incoming,
            outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
            session=session or self.session,
        )

    def remember(self, connection: ssl.SSLObject | None) -> None:
        """Keep the session of a connection that has been used: by then its ticket has come."""
        if connection is not None and connection.session is not None:
            self.session = connection.session

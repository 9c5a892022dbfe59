"""A second connection to an upstream resumes the session of the first; trust stays as strict."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from proxy.resuming import ResumingContext
from tests.fakes.relay import running_worker

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: %b\r\n\r\n{}"
CALL = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Upstream:
    """An upstream over TLS; it notes of each connection whether its session was resumed."""

    def __init__(self) -> None:
        self.resumed: list[bool] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer two calls, then close."""
        self.resumed.append(writer.get_extra_info("ssl_object").session_reused)
        for connection in (b"keep-alive", b"close"):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER % connection)
            await writer.drain()
        writer.close()


async def _call(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(CALL)
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return answer


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_sessions_are_resumed(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """Through the running worker: four calls over two connections, the second one resumed."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.maximum_version = version
    upstream = Upstream()
    server = await asyncio.start_server(upstream.serve, "localhost", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        running_worker(
            tmp_path, f"https://localhost:{port}", upstream_ca_file=tmp_path / "ca.pem"
        ) as worker,
    ):
        for _ in range(4):
            assert (await _call(worker.port)).startswith(b"HTTP/1.1 200 OK")
    assert upstream.resumed == [False, True]


def test_a_context_checks_as_a_default_one_does() -> None:
    """It differs in what it offers, not in whom it trusts."""
    ours, default = ResumingContext(), ssl.create_default_context()
    ours.load_default_certs()
    assert ours.verify_mode is default.verify_mode is ssl.CERT_REQUIRED
    assert ours.check_hostname
    assert default.check_hostname
    assert ours.minimum_version == default.minimum_version
    assert ours.get_ca_certs() == default.get_ca_certs()


def test_nothing_is_remembered_of_what_has_no_session() -> None:
    """A connection in the clear, for example."""
    context = ResumingContext()
    context.remember(None)
    assert context.session is None

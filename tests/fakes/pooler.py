"""A real pgbouncer before a database, in transaction mode and with few connections."""

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest


@contextlib.asynccontextmanager
async def pooled(dsn: str, directory: Path) -> AsyncIterator[str]:
    """Yield the DSN of the same database behind pgbouncer; skip where that is not installed."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    parts = urlsplit(dsn)
    where = parse_qs(parts.query).get("host", [parts.hostname or ""])[0]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    configuration = directory / "pgbouncer.ini"
    login = f"user={parts.username}"
    if parts.password:
        login += f" password='{unquote(parts.password)}'"
    text = f"""
[databases]
ledger = host={where} port={parts.port or 5432} dbname={parts.path[1:]} {login}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
"""
    await asyncio.to_thread(configuration.write_text, text)
    account = None
    if os.geteuid() == 0:  # pgbouncer does not run as root, but as whom the socket belongs to
        account = (await asyncio.to_thread(Path(where).stat)).st_uid if where[0] == "/" else 65534
    process = await asyncio.create_subprocess_exec(program, "-q", configuration, user=account)
    try:
        for _ in range(100):
            with contextlib.suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.05)
        yield f"postgresql://anyone@127.0.0.1:{port}/ledger"
    finally:
        process.terminate()
        await process.wait()

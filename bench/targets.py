"""What is measured beside the peers: nothing in between, nginx, openai-meter with everything on."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from proxy.embedded import EmbeddedPostgres

UNDER_TEST = 0  # the core of what is measured
OTHERS = 1  # the core of load, upstream, recorder and Postgres
BENCH = Path(__file__).parent
ANSWER = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "All work and no play. " * 24},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 180,
            "completion_tokens": 120,
            "total_tokens": 300,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        "service_tier": "default",
    }
)
_COMMON = """
worker_processes 1; daemon off; pid {run}/{name}.pid; error_log {run}/{name}.log crit;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; client_max_body_size 0;
  client_body_temp_path {run}/{name}-body; proxy_temp_path {run}/{name}-proxy;
  fastcgi_temp_path {run}/f; uwsgi_temp_path {run}/u; scgi_temp_path {run}/s;
  {server}
}}
"""
_UPSTREAM = """
server {{
  listen 127.0.0.1:{port} backlog=4096 reuseport {tls}; default_type application/json;
  add_header x-request-id req_0123456789abcdef; add_header openai-processing-ms 12;
  {certificate}
  location / {{ {answer} }}
}}
server {{ listen 127.0.0.1:{status}; location / {{ stub_status; }} }}
"""
_FILE = """
  root {run}; open_file_cache max=10 inactive=600s; sendfile on;
  error_page 405 =200 /answer.json; try_files /answer.json =404;
"""
_TLS = """
  ssl_certificate {run}/certificate.pem; ssl_certificate_key {run}/key.pem;
  ssl_session_cache shared:s:10m; ssl_session_tickets on;
"""
_VERIFIED = """
  proxy_ssl_verify on; proxy_ssl_trusted_certificate {authority}; proxy_ssl_name localhost;
  proxy_ssl_server_name on; proxy_ssl_session_reuse on;
"""
_PROXY = """
upstream up {{ server 127.0.0.1:{upstream}; keepalive 2048; keepalive_requests 100000000; }}
server {{
  listen 127.0.0.1:{port} backlog=4096;
  location / {{
    proxy_pass {scheme}://up; {verified} proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600s;
  }}
}}
"""


@dataclass(slots=True)
class Target:
    """One thing that is measured: where it listens, whose processor time counts, what is on."""

    name: str
    port: int
    pids: list[int] = field(default_factory=list)
    version: str = ""
    switched_on: str = ""
    path: str = "/v1/chat/completions"
    model: str = "gpt-4o-mini"
    fields: str = ""  # header lines that it needs besides
    dsn: str = ""
    count: str = ""  # the statement that counts its rows

    def rows(self) -> int | None:
        """Return how many rows it has metered; None where it meters nothing."""
        if not self.dsn:
            return None
        return asyncio.run(_fetched(self.dsn, self.count))

    def settled(self, seconds: float = 120.0) -> int | None:
        """Wait until no more rows come, so that the next one has the cores; return how many."""
        last, now, limit = -1, self.rows(), time.monotonic() + seconds
        while now is not None and now != last and time.monotonic() < limit:
            time.sleep(2.5)
            last, now = now, self.rows()
        return now


async def _fetched(dsn: str, statement: str) -> int:
    connection = await asyncpg.connect(dsn, timeout=20)
    try:
        return int(await connection.fetchval(statement, timeout=60) or 0)
    finally:
        await connection.close()


@contextmanager
def database(directory: Path, *, wanted: bool) -> Iterator[str]:
    """Run a Postgres for a peer, on the core of the others; give its DSN, or nothing."""
    if not wanted:
        yield ""
        return
    port = free_port()
    directory.mkdir(mode=0o755)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {OTHERS})
    server = EmbeddedPostgres(
        directory, settings={"listen_addresses": "127.0.0.1", "port": str(port)}
    )
    try:
        server.start()
        os.sched_setaffinity(0, before)
        yield f"postgresql://meter@127.0.0.1:{port}/postgres"
    finally:
        os.sched_setaffinity(0, before)
        server.stop()


def is_so(true: Callable[[], bool], seconds: float) -> bool:
    """Wait until it is so, at most that long; return whether it is."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if true():
            return True
        time.sleep(0.05)
    return true()


def pids_under(pid: int) -> list[int]:
    """Return a process and what it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in pids_under(int(child)))]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pinned(core: int, *command: str | Path) -> list[str]:
    """Return a command that runs on one core."""
    return ["taskset", "-c", str(core), *map(str, command)]


@contextmanager
def process(
    command: list[str], port: int, *, wait_seconds: float = 30, **options: object
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; wait until it listens."""
    running = subprocess.Popen(command, **options)  # type: ignore[call-overload]
    try:
        _wait_for(port, running, wait_seconds)
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait(10)


def _wait_for(port: int, running: subprocess.Popen[bytes], seconds: float) -> None:
    for _ in range(round(seconds * 20)):
        if running.poll() is not None:
            raise SystemExit(f"{running.args} ended with {running.returncode}")
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"{running.args} does not listen on {port}")


@contextmanager
def nginx(name: str, server: str, port: int, core: int, run: Path) -> Iterator[int]:
    """Run nginx with one server; give the pid of its worker."""
    configuration = run / f"{name}.conf"
    configuration.write_text(_COMMON.format(run=run, name=name, server=server))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    command = pinned(core, program, "-p", run, "-c", configuration)
    with process(command, port) as running:
        yield _child_of(running.pid)


def _child_of(pid: int) -> int:
    for _ in range(100):
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if found:
            return int(found[0])
        time.sleep(0.05)
    raise SystemExit(f"process {pid} has no worker")


@contextmanager
def fixed_upstream(
    run: Path, *, size: int = 0, authority: Path | None = None
) -> Iterator[tuple[int, Callable[[], int]]]:
    """Run an upstream with one answer for every call; give its port and how much it was asked."""
    port, status = free_port(), free_port()
    answer = f"return 200 '{ANSWER}';"
    if size:
        content = "All work and no play. "
        body = ANSWER.replace(content * 24, content * (size // len(content)))
        (run / "answer.json").write_text(body)
        answer = _FILE.format(run=run)
    server = _UPSTREAM.format(
        port=port,
        status=status,
        answer=answer,
        tls="ssl" if authority else "",
        certificate=_TLS.format(run=run) if authority else "",
    )
    with nginx("upstream", server, port, OTHERS, run):
        yield port, lambda: _asked(status)


def _asked(status: int) -> int:
    with socket.create_connection(("127.0.0.1", status), 10) as link:
        link.sendall(b"GET / HTTP/1.0\r\n\r\n")
        text = link.makefile().read()
    found = re.search(r"requests\s+\d+ \d+ (\d+)", text)
    link.close()
    return int(found[1]) if found else 0


@contextmanager
def plain_nginx(upstream: int, run: Path, authority: Path | None = None) -> Iterator[Target]:
    """Run nginx as a plain reverse proxy."""
    port = free_port()
    server = _PROXY.format(
        port=port,
        upstream=upstream,
        scheme="https" if authority else "http",
        verified=_VERIFIED.format(authority=authority) if authority else "",
    )
    said = subprocess.run(
        ["/usr/sbin/nginx", "-v"], check=True, capture_output=True, text=True
    ).stderr
    with nginx("proxy", server, port, UNDER_TEST, run) as pid:
        version = said.rpartition("/")[2].strip()
        yield Target("nginx", port, [pid], version, "plain reverse proxy, no access log")


@contextmanager
def openai_meter(
    upstream: int, run: Path, python: str, authority: Path | None = None, **settings: str
) -> Iterator[Target]:
    """Run everything: worker on its core, recorder, dashboard and Postgres on the others."""
    port = free_port()
    scheme, host = ("https", "localhost") if authority else ("http", "127.0.0.1")
    environment = {
        **{name: value for name, value in os.environ.items() if name[:6] != "METER_"},
        "METER_DATA_DIR": str(run / "data"),
        "METER_UPSTREAM_URL": f"{scheme}://{host}:{upstream}",
        "METER_LISTEN": f"127.0.0.1:{port}",
        "METER_DASHBOARD_LISTEN": f"127.0.0.1:{free_port()}",
        "METER_WORKERS": "1",
        "METER_LOG_FORMAT": "json",
        **({"METER_UPSTREAM_CA_FILE": str(authority)} if authority else {}),
        **settings,
    }
    command = pinned(OTHERS, python, "-m", "proxy", "serve")
    with (
        (run / "meter.log").open("ab") as log,
        process(
            command,
            port,
            wait_seconds=120,
            env=environment,
            stdout=log,
            stderr=log,
            cwd=BENCH.parent,
        ) as running,
    ):
        pid = _worker_of(running.pid, port)
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {UNDER_TEST})
        yield Target(
            "openai-meter",
            port,
            [pid],
            "this checkout",
            "metering, journal synced every second, recorder and Postgres on",
            dsn=f"postgresql://meter@/postgres?host={run / 'data' / 'postgres' / 'sock'}",
            count="SELECT calls FROM ledger_status",
        )


def _worker_of(supervisor: int, port: int) -> int:
    """Return the pid of the one relay process: the child that says so in its command line."""
    for _ in range(1200):
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        for child in children:
            with suppress(FileNotFoundError):  # one that has ended meanwhile
                line = Path(f"/proc/{child}/cmdline").read_bytes()
                if b"\0-m\0proxy\0proxy\0" in line:
                    return int(child)
        time.sleep(0.05)
    raise SystemExit(f"no worker listens on {port}")

"""What is measured: nothing in between, nginx as a plain reverse proxy, openai-meter, all on."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
  listen 127.0.0.1:{port} backlog=4096 reuseport; default_type application/json;
  add_header x-request-id req_0123456789abcdef; add_header openai-processing-ms 12;
  location / {{ return 200 '{answer}'; }}
}}
"""
_PROXY = """
upstream up {{ server 127.0.0.1:{upstream}; keepalive 2048; keepalive_requests 100000000; }}
server {{
  listen 127.0.0.1:{port} backlog=4096;
  location / {{
    proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600s;
  }}
}}
"""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pinned(core: int, *command: str | Path) -> list[str]:
    """Return a command that runs on one core."""
    return ["taskset", "-c", str(core), *map(str, command)]


@contextmanager
def process(command: list[str], port: int, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; wait until it listens."""
    running = subprocess.Popen(command, **options)  # type: ignore[call-overload]
    try:
        _wait_for(port, running)
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait(10)


def _wait_for(port: int, running: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
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
def fixed_upstream(run: Path) -> Iterator[int]:
    """Run an upstream that gives every call the same answer; give its port."""
    port = free_port()
    with nginx("upstream", _UPSTREAM.format(port=port, answer=ANSWER), port, OTHERS, run):
        yield port


@contextmanager
def plain_nginx(upstream: int, run: Path) -> Iterator[tuple[int, int]]:
    """Run nginx as a plain reverse proxy; give its port and the pid of its worker."""
    port = free_port()
    with nginx("proxy", _PROXY.format(port=port, upstream=upstream), port, UNDER_TEST, run) as pid:
        yield port, pid


@contextmanager
def openai_meter(upstream: int, run: Path, **settings: str) -> Iterator[tuple[int, int]]:
    """Run everything: worker on its core, recorder, dashboard and Postgres on the others."""
    port = free_port()
    environment = {
        **os.environ,
        "METER_DATA_DIR": str(run / "data"),
        "METER_UPSTREAM_URL": f"http://127.0.0.1:{upstream}",
        "METER_LISTEN": f"127.0.0.1:{port}",
        "METER_DASHBOARD_LISTEN": f"127.0.0.1:{free_port()}",
        "METER_WORKERS": "1",
        "METER_LOG_FORMAT": "json",
        **settings,
    }
    command = pinned(OTHERS, sys.executable, "-m", "proxy", "serve")
    with (
        (run / "meter.log").open("ab") as log,
        process(
            command, port, env=environment, stdout=log, stderr=log, cwd=BENCH.parent
        ) as running,
    ):
        pid = _worker_of(running.pid, port)
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {UNDER_TEST})
        yield port, pid


def _worker_of(supervisor: int, port: int) -> int:
    """Return the pid of the one relay process: the child that says so in its command line."""
    for _ in range(1200):
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        for child in children:
            line = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"\0-m\0proxy\0proxy\0" in line:
                return int(child)
        time.sleep(0.05)
    raise SystemExit(f"no worker listens on {port}")

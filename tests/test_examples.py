"""The examples are run as they are, against a real worker; only OpenAI is a fake."""

import asyncio
import os
import shutil
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from proxy.core.model import Closing
from tests.documents import ROOT
from tests.fakes.answers import MODEL, WORDS, answer
from tests.fakes.relay import Running, running_worker
from tests.fakes.upstream import Upstream

EXAMPLES = ROOT / "examples"
USAGE = b'{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15}'
KEY = "sk-of-the-tests"
TEXT = "".join(WORDS)
PATIENCE_SECONDS = 60


@pytest.fixture(autouse=True)
def _zone() -> None:
    """Read the time zone of the worker's settings before the loop runs; it is kept from then on."""
    ZoneInfo("UTC")


async def _run(running: Running, *command: str | Path) -> str:
    """Run an example with base URL and key in its environment, and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "OPENAI_BASE_URL": f"{running.url}/v1", "OPENAI_API_KEY": KEY},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            printed, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, complaint.decode()
    return printed.decode()


def _said(closing: Closing) -> tuple[str | None, str | None, object]:
    return closing.opening.user_id, closing.opening.endpoint, closing.opening.metadata


def _assert_metered(closings: list[Closing]) -> None:
    for closing in closings:
        assert (closing.outcome, closing.response_model) == ("ok", MODEL)
        assert closing.usage is not None


async def test_curl(tmp_path: Path) -> None:
    """One call, metered, and none of our headers goes further."""
    async with (
        Upstream(script=answer(USAGE)) as upstream,
        running_worker(tmp_path, upstream.url) as running,
    ):
        assert TEXT in await _run(running, EXAMPLES / "curl.sh")
        closings = await running.wait_for_closings(1)
    _assert_metered(closings)
    assert _said(closings[0]) == ("u-17", "generate_hint", {"course": "algebra-1"})
    assert upstream.calls[0].header("authorization") == f"Bearer {KEY}".encode()
    assert b"x-meter" not in upstream.calls[0].head.lower()


async def test_python(tmp_path: Path) -> None:
    """One call and one stream: both are printed, both are metered."""
    async with (
        Upstream(script=answer(USAGE)) as upstream,
        running_worker(tmp_path, upstream.url) as running,
    ):
        assert await _run(running, sys.executable, EXAMPLES / "python_openai.py") == (
            f"{TEXT}\n{TEXT}\n"
        )
        closings = await running.wait_for_closings(2)
    _assert_metered(closings)
    assert [_said(closing) for closing in closings] == [
        ("u-17", "generate_hint", {"course": "algebra-1"}),
        ("u-17", "generate_hint", None),
    ]
    assert [closing.opening.stream for closing in closings][1] is True


async def test_backend(tmp_path: Path) -> None:
    """One client, two users: each call names its own."""
    async with (
        Upstream(script=answer(USAGE)) as upstream,
        running_worker(tmp_path, upstream.url) as running,
    ):
        assert await _run(running, sys.executable, EXAMPLES / "backend.py") == f"{TEXT}\n{TEXT}\n"
        closings = await running.wait_for_closings(2)
    _assert_metered(closings)
    assert [_said(closing) for closing in closings] == [
        (user, "analyze_homework", {"course": "algebra-1"}) for user in ("u-17", "u-23")
    ]
    assert upstream.connections == 1  # the connections of the shared client


async def test_node(tmp_path: Path) -> None:
    """As in Python; METER_TEST_NODE_MODULES names a directory that holds the package openai."""
    node, example = await asyncio.to_thread(_node_and_example, tmp_path)
    async with (
        Upstream(script=answer(USAGE)) as upstream,
        running_worker(tmp_path / "data", upstream.url) as running,
    ):
        assert await _run(running, node, example) == f"{TEXT}\n{TEXT}\n"
        closings = await running.wait_for_closings(2)
    _assert_metered(closings)
    assert [_said(closing) for closing in closings] == [
        ("u-17", "generate_hint", {"course": "algebra-1"}),
        ("u-17", "generate_hint", None),
    ]


def _node_and_example(directory: Path) -> tuple[str, Path]:
    """Put the example beside the package that it imports; skip where that cannot be done."""
    modules = Path(os.environ.get("METER_TEST_NODE_MODULES", EXAMPLES / "node_modules")).absolute()
    node = shutil.which("node")
    if node is None or not (modules / "openai").is_dir():
        pytest.skip("needs node, and METER_TEST_NODE_MODULES with the package openai in it")
    (directory / "node_modules").symlink_to(modules)
    return node, Path(shutil.copy(EXAMPLES / "node_openai.mjs", directory))


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.*")), ids=lambda path: path.name)
def test_the_first_line_says_what_for(example: Path) -> None:
    """A reader of the list knows which one to open."""
    lines = [line for line in example.read_text().splitlines() if not line.startswith("#!")]
    assert lines[0].startswith(("# ", '"""', "// "))
    assert len(lines[0].split()) > 5

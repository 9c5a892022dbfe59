"""What cannot work is said in one line, with exit status 2, and nothing has been changed."""

import asyncio
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from proxy.resources import resource
from tests.end_to_end.imitation import imitating
from tests.fakes.running import ledger_rows
from tests.fakes.serving import PATIENCE_SECONDS, processes_of, serving, start

RATE = re.compile(r'(?m)^(.*\binput: )"([0-9.]+)"')


async def _refused(directory: Path, *flags: str) -> str:
    """Return the one line with which a start is refused."""
    process = await start(directory, "http://127.0.0.1:9", *flags)
    async with asyncio.timeout(PATIENCE_SECONDS):
        _, errors = await process.communicate()
    said = errors.decode().splitlines()
    assert process.returncode == 2, said
    assert len(said) == 1, said
    assert said[0].startswith("openai-meter: ")
    return said[0]


def _spoilt() -> tuple[str, str]:
    """Return the shipped prices with one amount not quoted, and the line where that is."""
    text = resource("pricing.yaml").read_text()
    first = RATE.search(text)
    assert first is not None
    line = text.count("\n", 0, first.start()) + 1
    return RATE.sub(r"\1\2", text, count=1), f"line {line}"


def _files(directory: Path) -> dict[str, bytes]:
    """Return all files below a directory."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--workers", "many"), ("METER_WORKERS", "'many'", "expected")),
        (("--workers", "0"), ("METER_WORKERS", "greater than or equal to 1")),
        (("--listen", "8080x"), ("METER_LISTEN", "HOST:PORT")),
        (("--upstream-url", "api.openai.com"), ("METER_UPSTREAM_URL", "https://api.openai.com")),
        (("--database-url", "mysql://ada:secret@db/x"), ("METER_DATABASE_URL", "postgresql://")),
        (("--report-timezone", "Mars/Base"), ("METER_REPORT_TIMEZONE", "IANA")),
        (("--on-disconnect", "panic"), ("METER_ON_DISCONNECT", "'drain' or 'cancel'")),
        (("--pricing-file", "/nowhere/at.yaml"), ("METER_PRICING_FILE", "readable file")),
        (("--upstream-ca-file", "/etc/hostname"), ("METER_UPSTREAM_CA_FILE", "PEM")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) and value[0][0] == "-" else "",
)
async def test_a_wrong_setting_is_named_with_what_it_should_be(
    open_directory: Path, flags: tuple[str, str], words: tuple[str, ...]
) -> None:
    """And no secret is repeated."""
    data = open_directory / "data"
    line = await _refused(data, *flags)
    assert [word for word in words if word not in line] == [], line
    assert "secret" not in line
    assert not data.exists()


async def test_a_pricing_file_is_refused_by_its_line(open_directory: Path) -> None:
    """The line, what is there, what is expected."""
    file, data = open_directory / "prices.yaml", open_directory / "data"
    spoilt, place = await asyncio.to_thread(_spoilt)
    await asyncio.to_thread(file.write_text, spoilt)
    line = await _refused(data, "--pricing-file", str(file))
    assert f"{file}, {place}: " in line
    assert "expected" in line
    assert not data.exists()


async def test_two_of_one_directory_are_one_too_many(open_directory: Path) -> None:
    """The second one says who was first; the first one goes on as before."""
    async with imitating() as upstream, serving(open_directory, upstream.url) as running:
        line = await _refused(open_directory)
        assert f"process {running.process.pid} uses it" in line
        assert "METER_DATA_DIR" in line
        assert await running.call() == 200
        await running.until_calls_are(1)
    assert not processes_of(open_directory)


async def test_a_port_in_use_is_named(open_directory: Path) -> None:
    """Also when it is the port of another instance of ours, in another directory."""
    data = open_directory / "other"
    async with imitating() as upstream, serving(open_directory, upstream.url) as running:
        address = running.proxy_url.removeprefix("http://")
        line = await _refused(data, "--listen", address)
        assert address in line
        assert "METER_LISTEN" in line
        assert await running.call() == 200
    assert not (data / "postgres").exists()


async def test_a_postgres_of_another_version_is_left_alone(open_directory: Path) -> None:
    """The directory was made by another Postgres: which one, and what to do."""
    async with serving(open_directory, "http://127.0.0.1:9") as running:
        assert await running.stop() == 0
    made = open_directory / "postgres" / "data"
    await asyncio.to_thread((made / "PG_VERSION").write_text, "14\n")
    before = await asyncio.to_thread(_files, made)
    line = await _refused(open_directory)
    assert "made by Postgres 14" in line
    assert "METER_POSTGRES_BIN" in line
    assert await asyncio.to_thread(_files, made) == before
    assert not processes_of(open_directory)


async def test_a_bad_change_of_prices_changes_nothing(open_directory: Path, database: str) -> None:
    """A pricing file that breaks while it is in use: prices stay, the log names the line."""
    file = open_directory / "prices.yaml"
    spoilt, place = await asyncio.to_thread(_spoilt)
    await asyncio.to_thread(lambda: shutil.copyfile(resource("pricing.yaml"), file))
    flags = ("--pricing-file", str(file), "--database-url", database)
    async with imitating() as upstream, serving(open_directory, upstream.url, *flags) as running:
        assert await running.call() == 200
        await running.until_calls_are(1)
        await asyncio.to_thread(file.write_text, spoilt)
        await running.until(lambda: any("pricing file unusable" in line for line in running.lines))
        assert await running.call() == 200
        await running.until_calls_are(2)
    assert any(place in line for line in running.lines)
    assert len(await ledger_rows(database)) == 2


async def test_calls_wait_for_prices_that_can_be_read(open_directory: Path, database: str) -> None:
    """A recorder that starts with a broken pricing file prices nothing wrongly: rows come later."""
    file = open_directory / "prices.yaml"
    spoilt, place = await asyncio.to_thread(_spoilt)
    await asyncio.to_thread(lambda: shutil.copyfile(resource("pricing.yaml"), file))
    flags = ("--pricing-file", str(file), "--database-url", database)
    async with imitating() as upstream, serving(open_directory, upstream.url, *flags) as running:
        assert await running.call() == 200
        await running.until_calls_are(1)
        await asyncio.to_thread(file.write_text, spoilt)
        os.kill(running.members()["recorder"], signal.SIGKILL)
        assert await running.call() == 200
        await running.until(
            lambda: any(f"openai-meter: {file}, {place}" in line for line in running.lines)
        )
        assert len(await ledger_rows(database)) == 1
        await asyncio.to_thread(lambda: shutil.copyfile(resource("pricing.yaml"), file))
        await running.until_calls_are(2)

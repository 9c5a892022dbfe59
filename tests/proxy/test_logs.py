import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
import structlog

from proxy import logs


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Give the two ends of a pipe, closed afterwards; logging is put back as it was."""
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        structlog.reset_defaults()
        os.close(reader)
        os.close(writer)


def _lines(reader: int) -> list[dict[str, object]]:
    return [json.loads(line) for line in os.read(reader, 65_536).splitlines()]


def _fail(secret: str, *, prompt: str) -> None:
    raise ValueError(f"bad header {secret} in {len(prompt)} characters")


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_call_is_one_json_line_with_its_facts(pipe: tuple[int, int]) -> None:
    """Facts stand beside time, level, event and process."""
    log = logs.configure("json", process="worker-0", fd=pipe[1])
    log.log({"status": 200, "model": "gpt-5", "latency_ms": 12.5})
    log.close()
    [line] = _lines(pipe[0])
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "level": "info",
        "event": "call",
        "process": "worker-0",
        "status": 200,
        "model": "gpt-5",
        "latency_ms": 12.5,
    }


def test_a_call_without_facts_is_still_json(pipe: tuple[int, int]) -> None:
    """No comma is left over."""
    log = logs.configure("json", process="worker-0", fd=pipe[1])
    log.log({})
    log.close()
    assert _lines(pipe[0])[0]["event"] == "call"


def test_events_are_json_lines_when_the_output_is_no_terminal(pipe: tuple[int, int]) -> None:
    """`auto` chooses JSON for a pipe; the time comes first and is UTC."""
    log = logs.configure("auto", process="recorder", fd=pipe[1])
    structlog.get_logger().warning("price file kept", problem="line 3")
    structlog.get_logger().debug("never seen")
    log.close()
    [line] = _lines(pipe[0])
    assert list(line)[:4] == ["time", "level", "event", "process"]
    assert (line["level"], line["problem"]) == ("warning", "line 3")


def test_console_lines_are_for_people(pipe: tuple[int, int]) -> None:
    """Both a call and an event are readable, and no JSON."""
    log = logs.configure("console", process="worker-0", fd=pipe[1])
    log.log({"status": 200})
    structlog.get_logger().info("ready", port=8080)
    log.close()
    text = os.read(pipe[0], 65_536).decode()
    assert "call" in text
    assert "status=200" in text
    assert "port=8080" in text
    assert "{" not in text


@pytest.mark.parametrize(
    "secret", ["sk-proj-abcdefgh12345678", "Bearer abcdefgh.ijkl", "ek-0123456789"]
)
def test_what_looks_like_a_key_is_masked(pipe: tuple[int, int], secret: str) -> None:
    """Also in the text of an exception, and without the local variables around it."""
    log = logs.configure("json", process="worker-0", fd=pipe[1])
    try:
        _fail(secret, prompt=f"a {secret and 'question'}")
    except ValueError:
        structlog.get_logger().exception("relay failed", target=f"x {secret}")
    log.close()
    written = os.read(pipe[0], 65_536).decode()
    assert "ValueError" in written
    assert secret not in written
    assert "a question" not in written


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_key_that_a_client_sent_as_a_name_is_masked(
    pipe: tuple[int, int], log_format: Literal["json", "console"]
) -> None:
    """The line of a call goes a shorter way, and says no key either; all else stays."""
    log = logs.configure(log_format, process="worker-0", fd=pipe[1])
    log.log({"user": "sk-proj-abcdefgh12345678", "endpoint": "task-12345678", "status": 200})
    log.close()
    written = os.read(pipe[0], 65_536).decode()
    assert "abcdefgh" not in written
    assert logs.MASK in written
    assert "task-12345678" in written


def test_records_of_libraries_take_the_same_way(pipe: tuple[int, int]) -> None:
    """What aiohttp or asyncio log is not lost and has the same form."""
    logger = logging.getLogger("asyncio")
    log = logs.configure("json", process="worker-0", fd=pipe[1])
    logger.error("Task exception was never retrieved")
    log.close()
    [line] = _lines(pipe[0])
    assert line["event"] == "library message"
    assert line["logger"] == "asyncio"


def test_an_output_that_blocks_drops_lines_and_says_how_many(pipe: tuple[int, int]) -> None:
    """Writing returns at once though nobody reads, and the count is reported later."""
    writer = logs.LineWriter(pipe[1], delay_seconds=0.0, limit_bytes=10_000)
    for _ in range(200):  # a pipe holds 65,536 bytes
        writer.write(b'{"filling":"' + b"x" * 985 + b'"}')
        time.sleep(0.0005)
    assert writer.dropped > 0
    received = b""
    while b"log lines dropped" not in received:
        received += os.read(pipe[0], 65_536)
    writer.close()
    received += os.read(pipe[0], 65_536) if not received.endswith(b"\n") else b""
    counts = [json.loads(line).get("count", 0) for line in received.splitlines()]
    lines = sum(1 for count in counts if not count)
    assert lines + sum(counts) <= 200
    assert sum(counts) > 0


def test_a_reader_that_is_gone_hurts_nobody() -> None:
    """A broken pipe ends the writing, not the process."""
    reader, end = os.pipe()
    writer = logs.LineWriter(end, delay_seconds=0.0)
    os.close(reader)
    for _ in range(3):
        writer.write(b"lost")
        time.sleep(0.01)
    writer.close()
    os.close(end)


def test_an_output_made_non_blocking_by_others_loses_nothing(pipe: tuple[int, int]) -> None:
    """The mode of a shared descriptor is not ours to choose."""
    os.set_blocking(pipe[1], False)
    writer = logs.LineWriter(pipe[1], delay_seconds=0.0)
    for _ in range(100):
        writer.write(b"y" * 999)
    received = b""
    while len(received) < 100_000:
        received += os.read(pipe[0], 4096)
    writer.close()
    assert received == (b"y" * 999 + b"\n") * 100


def test_lines_are_collected_into_few_writes_and_pipes_get_whole_lines(tmp_path: Path) -> None:
    """A file gets everything in order, whatever the batches."""
    with (tmp_path / "log").open("wb") as file:
        writer = logs.LineWriter(file.fileno(), delay_seconds=0.01)
        for number in range(2_000):
            writer.write(b"%06d" % number + b"z" * 100)
        writer.close()
    written = (tmp_path / "log").read_bytes().splitlines()
    assert [int(line[:6]) for line in written] == list(range(2_000))


def test_lines_are_written_at_exit() -> None:
    """A process that ends without closing its log loses no line."""
    program = (
        "from proxy import logs; import structlog;"
        "log = logs.configure('json', process='p'); log.log({'n': 1});"
        "structlog.get_logger().info('end')"
    )
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=30
    )
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["call", "end"]


def test_close_gives_up_on_an_output_that_blocks(pipe: tuple[int, int]) -> None:
    """A stopping process does not hang on its log."""
    writer = logs.LineWriter(pipe[1], delay_seconds=0.0)
    for _ in range(100):
        writer.write(b"x" * 999)
    began = time.monotonic()
    writer.close(timeout_seconds=0.1)
    assert time.monotonic() - began < 2
    os.read(pipe[0], 65_536)
    os.read(pipe[0], 65_536)
    _until(lambda: not writer._thread.is_alive())  # noqa: SLF001 - the thread ends by itself


def test_a_process_without_threads_logs_directly(pipe: tuple[int, int]) -> None:
    """The supervisor forks, so it has none; a line that would have to wait is dropped."""
    threads = threading.active_count()
    log = logs.configure("json", process="supervisor", fd=pipe[1], threaded=False)
    assert threading.active_count() == threads
    for number in range(100):  # a pipe holds 65,536 bytes
        structlog.get_logger().info("x" * 2_000, number=number)
    assert log.dropped > 0
    log.close()
    assert [line["number"] for line in _lines(pipe[0])] == list(range(100 - log.dropped))


def test_a_direct_line_that_nobody_reads_is_counted() -> None:
    """A broken pipe is no reason to stop supervising."""
    reader, end = os.pipe()
    os.close(reader)
    writer = logs.DirectWriter(end)
    writer.write(b"lost")
    assert writer.dropped == 1
    os.close(end)

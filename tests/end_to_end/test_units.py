"""What is billed by something else than tokens, from the bytes of a call to its row."""

import asyncio
import io
import json
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.fakes import replay
from tests.fakes.running import metering
from tests.fakes.upstream import Call, Script, Upstream

RATE = 8000  # samples a second
EDIT_USAGE = (
    b'{"input_tokens":336,"input_tokens_details":{"image_tokens":323,"text_tokens":13},'
    b'"output_tokens":272,"total_tokens":608}'
)
SEARCH_USAGE = b'{"input_tokens":1000,"output_tokens":100,"total_tokens":1100}'
SEARCHES = (  # a page that was opened is no search
    b'{"type":"web_search_call","id":"ws_1","status":"completed","action":{"type":"search"}},'
    b'{"type":"web_search_call","id":"ws_2","status":"completed","action":{"type":"open_page"}},'
    b'{"type":"web_search_call","id":"ws_3","status":"completed","action":{"type":"search"}}'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A call, its answer, and what its row says."""

    method: str = "POST"
    target: str
    sends: str = "application/json"
    request: bytes = b""
    gets: str = "application/json"
    answer: bytes
    model: str | None = None
    usage_source: str
    cost: str
    fees: str = "0"
    price_id: str
    units: tuple[tuple[str, int], ...] = ()
    usage: bytes | None = None

    @property
    def message(self) -> bytes:
        """The request as it is sent."""
        head = f"{self.method} {self.target} HTTP/1.1\r\nHost: a\r\nContent-Type: {self.sends}\r\n"
        return f"{head}Content-Length: {len(self.request)}\r\n\r\n".encode() + self.request


def _sound(seconds: float) -> bytes:
    """Return a WAV file of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(bytes(2 * int(RATE * seconds)))
    return file.getvalue()


def _form(*parts: tuple[bytes, bytes]) -> bytes:
    """Return a form; what follows `name=` is as given, quoted or not."""
    body = b"".join(
        b"--bound\r\nContent-Disposition: form-data; name=%b\r\n\r\n%b\r\n" % part for part in parts
    )
    return body + b"--bound--\r\n"


CASES = (
    Case(  # 3.2 seconds are 4, at 0.006 a minute
        target="/v1/audio/transcriptions",
        sends="multipart/form-data; boundary=bound",
        request=_form(
            (b'"model"', b"whisper-1"),
            (b'"response_format"', b"text"),
            (b'"file"; filename="hello.wav"', _sound(3.2)),
        ),
        gets="text/plain; charset=utf-8",
        answer=b"Hello.\n",
        model="whisper-1",
        usage_source="estimated",
        cost="0.0004",
        price_id="whisper-1@start/default/short",
        units=(("audio_second", 4),),
    ),
    Case(  # (13 × 5 + 323 × 10 + 272 × 40) / 1,000,000
        target="/v1/images/edits",
        sends="multipart/form-data; boundary=bound",
        request=_form(
            (b"model", b"gpt-image-1"),
            (b"prompt", b"a hat"),
            (b"image; filename=cat.png", b"\x89PNG\r\n--bou\r\n"),
        ),
        answer=b'{"created":1795305600,"data":[{"b64_json":"aGk="}],"usage":' + EDIT_USAGE + b"}",
        model="gpt-image-1",
        usage_source="reported",
        cost="0.014175",
        price_id="gpt-image-1@start/default/short",
        usage=EDIT_USAGE,
    ),
    Case(  # 14 characters in 17 bytes, at 15 a million
        target="/v1/audio/speech",
        request='{"model":"tts-1","voice":"alloy","input":"Grüße, schön ."}'.encode(),
        gets="audio/mpeg",
        answer=b"\xff\xfb\x90\0" * 100,
        model="tts-1",
        usage_source="estimated",
        cost="0.00021",
        price_id="tts-1@start/default/short",
        units=(("character", 14),),
    ),
    Case(  # (1000 × 0.75 + 100 × 4.5) / 1,000,000, and two searches at 0.01
        target="/v1/responses",
        request=b'{"model":"gpt-5.4-mini","input":"news?","tools":[{"type":"web_search"}]}',
        answer=b'{"id":"resp_1","object":"response","status":"completed","error":null,'
        b'"model":"gpt-5.4-mini-2026-03-17","service_tier":"default",'
        b'"tools":[{"type":"web_search"}],"output":['
        + SEARCHES
        + b'],"usage":'
        + SEARCH_USAGE
        + b"}",
        model="gpt-5.4-mini",
        usage_source="reported",
        cost="0.0212",
        fees="0.02",
        price_id="gpt-5.4-mini@start/default/short",
        units=(("web_search", 2),),
        usage=SEARCH_USAGE,
    ),
    Case(
        method="GET",
        target="/v1/models",
        answer=b'{"object":"list","data":[]}',
        usage_source="unavailable",
        cost="0",
        price_id="free",
    ),
)


def _answering(cases: Sequence[Case]) -> Script:
    """Return a script that answers each call with its case."""
    known = {case.target: case for case in cases}

    async def script(call: Call) -> None:
        case = known[call.first_line.split()[1].decode()]
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {case.gets}\r\n"
        await call.send(f"{head}Content-Length: {len(case.answer)}\r\n\r\n".encode() + case.answer)

    return script


async def _answers(port: int, cases: Sequence[Case]) -> list[bytes]:
    """Make the calls one after the other; return the bodies of their answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    bodies = []
    async with asyncio.timeout(30):
        for case in cases:
            writer.write(case.message)
            bodies.append((await replay.receive(reader)).body)
    writer.close()
    await writer.wait_closed()
    return bodies


def _json(text: str | bytes | None) -> Any:
    return json.loads(text) if text is not None else None


async def test_images_sounds_searches_and_free_calls_are_charged(
    tmp_path: Path, database: str
) -> None:
    """By what answer or request say; bodies arrive as they were sent."""
    async with (
        Upstream(script=_answering(CASES)) as upstream,
        metering(tmp_path, upstream.url, database) as running,
    ):
        answers = await _answers(running.port, CASES)
        rows = {row["api_path"]: row for row in await running.rows(len(CASES))}
    assert answers == [case.answer for case in CASES]
    assert [call.body for call in upstream.calls] == [case.request for case in CASES]
    for case in CASES:
        row = rows[case.target]
        seen = (row["request_model"], row["usage_source"], row["price_id"])
        assert seen == (case.model, case.usage_source, case.price_id)
        sums = (row["cost_usd"], row["list_cost_usd"], row["tool_cost_usd"])
        assert sums == (Decimal(case.cost), Decimal(case.cost), Decimal(case.fees))
        assert (row["unpriced_reason"], row["usage_problem"]) == (None, None)
        assert _json(row["raw_usage"]) == _json(case.usage)
        units = _json(row["billed_units"]) or []
        assert tuple((unit["component"], int(unit["quantity"])) for unit in units) == case.units

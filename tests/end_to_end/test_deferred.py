"""What is billed when it is done, with the official client: charged once, to whoever made it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from proxy.rollups import Period
from proxy.verifying import run_verify
from tests.end_to_end.workshop import Workshop, working
from tests.fakes.running import Metering, fetch, metering, until_rows

COST = Decimal("0.000021")  # 100 tokens in and 10 out of gpt-4o-mini
LINE = Decimal("0.0000045")  # 40 in and 5 out, at half the price
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # older APIs are used, too

CHARGES = """
SELECT
    charge.user_id, charge.endpoint, charge.model, charge.service_tier, charge.response_id,
    charge.metadata, charge.cost_usd + coalesce(sum(correction.cost_usd), 0) AS cost_usd
FROM user_api_usage AS charge
LEFT JOIN user_api_usage AS correction ON correction.corrects = charge.event_id
WHERE charge.settles IS NOT NULL AND charge.corrects IS NULL
GROUP BY charge.created_at, charge.event_id
ORDER BY charge.response_id, charge.model
"""
SUMS = "SELECT user_id, sum(cost_usd) AS cost_usd FROM user_usage_summary GROUP BY user_id"
BODY: Any = {"model": "gpt-4o-mini", "input": "Why?"}

Client = Any  # of which mypy would know what is deprecated
Make = Callable[[Client], Awaitable[Any]]
Look = Callable[[Client, str], Awaitable[Any]]


@pytest.fixture
async def workshop() -> AsyncIterator[Workshop]:
    """Return an upstream where things take their time."""
    async with working() as upstream:
        yield upstream


@pytest.fixture
async def running(workshop: Workshop, tmp_path: Path, database: str) -> AsyncIterator[Metering]:
    """Return a proxy in front of it."""
    async with metering(tmp_path, workshop.url, database) as proxy:
        yield proxy


def client(proxy: Metering, user: str) -> Client:
    """Return the official client of a user."""
    headers = {"X-Meter-User": user, "X-Meter-Endpoint": f"feature-of-{user}"}
    return AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-x", default_headers=headers)


async def drained(stream: Any) -> None:
    """Read a stream to its end."""
    async for _ in stream:
        pass


async def respond(ada: Client) -> Any:
    """Make a response in the background."""
    return await ada.responses.create(**BODY, background=True)


async def run(ada: Client) -> Any:
    """Make a run."""
    return await ada.beta.threads.runs.create("thread_1", assistant_id="asst_1")


async def batch(ada: Client) -> Any:
    """Make a batch."""
    return await ada.batches.create(
        completion_window="24h", endpoint="/v1/chat/completions", input_file_id="file-in"
    )


async def train(ada: Client) -> Any:
    """Make a fine-tuning job."""
    return await ada.fine_tuning.jobs.create(model="gpt-4o-mini", training_file="file-in")


async def film(ada: Client) -> Any:
    """Make a video."""
    return await ada.videos.create(prompt="A tree.", model="sora-2", seconds="8", size="720x1280")


async def extend(ada: Client) -> Any:
    """Make four seconds more of a video, which is eight seconds long then."""
    return await ada.videos.extend(prompt="More.", seconds="4", video=("a.mp4", bytes(100)))


async def evaluate(ada: Client) -> Any:
    """Make a run of an evaluation."""
    source: Any = {"type": "jsonl", "source": {"type": "file_id", "id": "file-in"}}
    return await ada.evals.runs.create("eval_1", data_source=source)


LOOKS: dict[str, list[Look]] = {
    "resp": [
        lambda c, i: c.responses.retrieve(i),
        lambda c, i: _resumed(c, i),  # noqa: PLW0108 - it is defined below
        lambda c, i: c.responses.cancel(i),
    ],
    "run": [
        lambda c, i: c.beta.threads.runs.retrieve(i, thread_id="thread_1"),
        lambda c, _: c.beta.threads.runs.list("thread_1"),
    ],
    "batch": [lambda c, i: c.batches.retrieve(i), lambda c, _: c.batches.list()],
    "ftjob": [lambda c, i: c.fine_tuning.jobs.retrieve(i)],
    "video": [lambda c, i: c.videos.retrieve(i), lambda c, i: c.videos.download_content(i)],
    "evalrun": [lambda c, i: c.evals.runs.retrieve(i, eval_id="eval_1")],
}


async def _resumed(bob: Client, object_id: str) -> None:
    await drained(await bob.responses.retrieve(object_id, stream=True, starting_after=1))


@pytest.mark.parametrize(
    ("make", "costs"),
    [
        (respond, {COST}),
        (run, {COST}),
        (batch, {COST / 2}),
        (train, {Decimal("0.015")}),
        (film, {Decimal("0.8")}),
        (extend, {Decimal("0.4")}),
        (evaluate, {COST, Decimal("0.00035")}),
    ],
    ids=["response", "run", "batch", "job", "video", "extension", "evaluation"],
)
async def test_it_is_charged_once_to_whoever_made_it(
    make: Make, costs: set[Decimal], workshop: Workshop, running: Metering
) -> None:
    """Others poll it before its end and after, in every way there is."""
    async with client(running, "ada") as ada, client(running, "bob") as bob:
        made = await make(ada)
        looks = LOOKS[made.id.partition("_")[0]]
        calls = 1
        for look in looks:
            await look(bob, made.id)
            calls += 1
        await until_rows(running.dsn, calls)
        assert await fetch(running.dsn, CHARGES) == []
        (found,) = await fetch(running.dsn, "SELECT object_id, user_id FROM open_objects")
        assert found == {"object_id": made.id, "user_id": "ada"}
        workshop.finish(made.id)
        for look in looks * 3:
            await look(bob, made.id)
            calls += 1
        await until_rows(running.dsn, calls + len(costs))
    charges = await fetch(running.dsn, CHARGES)
    assert {charge["cost_usd"] for charge in charges} == costs
    assert {(charge["user_id"], charge["endpoint"]) for charge in charges} == {
        ("ada", "feature-of-ada")
    }
    assert await fetch(running.dsn, "SELECT * FROM open_objects") == []
    sums = {row["user_id"]: row["cost_usd"] for row in await fetch(running.dsn, SUMS)}
    assert sums == {"ada": sum(costs), "bob": 0}
    (status,) = await fetch(running.dsn, "SELECT calls, unavailable_calls FROM ledger_status")
    assert (status["calls"], status["unavailable_calls"]) == (calls, 0)


async def test_a_run_that_is_streamed_is_charged_once(running: Metering) -> None:
    """Steps, run and stream say it three times; a later poll once more."""
    async with client(running, "ada") as ada:
        runs = ada.beta.threads.runs
        await drained(await runs.create("thread_1", assistant_id="asst_1", stream=True))
        await runs.retrieve("run_1", thread_id="thread_1")
        await until_rows(running.dsn, 3)
    (charge,) = await fetch(running.dsn, CHARGES)
    assert (charge["user_id"], charge["response_id"], charge["cost_usd"]) == ("ada", "run_1", COST)


async def test_a_stream_in_the_background_that_was_cut_is_charged_when_resumed(
    workshop: Workshop, running: Metering
) -> None:
    """By anybody, from anywhere in it."""
    async with client(running, "ada") as ada, client(running, "bob") as bob:
        await drained(await ada.responses.create(**BODY, background=True, stream=True))
        workshop.finish("resp_1")
        for _ in range(2):
            await _resumed(bob, "resp_1")
        await until_rows(running.dsn, 4)
    (charge,) = await fetch(running.dsn, CHARGES)
    assert (charge["user_id"], charge["cost_usd"]) == ("ada", COST)


@pytest.mark.parametrize("state", ["cancelled", "incomplete"])
async def test_what_was_cut_short_is_charged(
    state: str, workshop: Workshop, running: Metering
) -> None:
    """What was made of it was made."""
    async with client(running, "ada") as ada:
        made = await respond(ada)
        workshop.finish(made.id, state)
        await ada.responses.cancel(made.id)
        await ada.responses.retrieve(made.id)
        await until_rows(running.dsn, 4)
    (charge,) = await fetch(running.dsn, CHARGES)
    assert charge["cost_usd"] == COST


async def test_a_batch_is_charged_by_its_lines_once_these_are_downloaded(
    workshop: Workshop, running: Metering
) -> None:
    """Polled, downloaded, polled and downloaded again: the sum of its lines, and nothing else."""
    async with client(running, "ada") as ada, client(running, "bob") as bob:
        made = await batch(ada)
        workshop.finish(made.id)
        done = await bob.batches.retrieve(made.id)
        await until_rows(running.dsn, 3)
        assert [charge["cost_usd"] for charge in await fetch(running.dsn, CHARGES)] == [COST / 2]
        for _ in range(2):
            assert len((await bob.files.content(done.output_file_id or "")).content) > 100
            await bob.batches.retrieve(made.id)
        await until_rows(running.dsn, 3 + 4 + 2 + 1)
    whole, *lines = await fetch(running.dsn, CHARGES)
    assert (whole["response_id"], whole["cost_usd"]) == (made.id, 0)
    assert [(line["response_id"], line["cost_usd"]) for line in lines] == [
        ("chatcmpl-1", LINE),
        ("chatcmpl-2", LINE),
    ]
    assert {json.loads(line["metadata"])["custom_id"] for line in lines} == {
        "homework-1",
        "homework-2",
    }
    assert {line["service_tier"] for line in lines} == {"batch"}
    sums = {row["user_id"]: row["cost_usd"] for row in await fetch(running.dsn, SUMS)}
    assert sums == {"ada": 2 * LINE, "bob": 0}
    told: list[str] = []
    assert await asyncio.to_thread(run_verify, running.dsn, Period(), told.append) == 0, told


async def test_an_output_that_is_not_read_to_its_end_changes_nothing(
    workshop: Workshop, running: Metering
) -> None:
    """A range of it, for example."""
    async with client(running, "ada") as ada, aiohttp.ClientSession() as session:
        made = await batch(ada)
        workshop.finish(made.id)
        await ada.batches.retrieve(made.id)
        url = f"{running.url}/v1/files/file-{made.id}/content"
        async with session.get(url, headers={"Range": "bytes=0-150"}) as answer:
            assert (answer.status, len(await answer.read())) == (206, 151)
        await until_rows(running.dsn, 4)
    assert [charge["cost_usd"] for charge in await fetch(running.dsn, CHARGES)] == [COST / 2]


async def test_a_stored_completion_is_never_charged_again(running: Metering) -> None:
    """It was charged where it was made."""
    async with client(running, "ada") as ada:
        for _ in range(3):
            await ada.chat.completions.retrieve("chatcmpl-1")
    rows = await running.rows(3)
    assert {(row["cost_usd"], row["price_id"]) for row in rows} == {(Decimal(0), "free")}


async def test_what_was_made_elsewhere_is_not_charged_here(
    workshop: Workshop, running: Metering
) -> None:
    """A poll does not say who pays."""
    workshop.finish("resp_7")
    async with client(running, "ada") as ada:
        await ada.responses.retrieve("resp_7")
    (row,) = await running.rows(1)
    assert (row["cost_usd"], row["settles"]) == (0, None)


async def test_it_is_charged_once_after_a_restart(
    workshop: Workshop, tmp_path: Path, database: str
) -> None:
    """What was made before is known after, and charged by whoever sees it first."""
    async with metering(tmp_path, workshop.url, database) as before, client(before, "ada") as ada:
        made = await respond(ada)
        await before.rows(1)
    workshop.finish(made.id)
    for calls in (1, 2):
        async with metering(tmp_path, workshop.url, database) as after, client(after, "bob") as bob:
            await bob.responses.retrieve(made.id)
            await until_rows(database, 1 + calls + 1)
    (charge,) = await fetch(database, CHARGES)
    assert (charge["user_id"], charge["cost_usd"]) == ("ada", COST)


async def test_hosts_that_share_a_ledger_charge_once(
    workshop: Workshop, tmp_path: Path, database: str
) -> None:
    """Made on one, polled on both at the same time, each with a journal and a recorder."""
    count = 12
    async with (
        metering(tmp_path / "a", workshop.url, database) as here,
        metering(tmp_path / "b", workshop.url, database) as there,
        client(here, "ada") as ada,
        client(here, "bob") as bob,
        client(there, "eve") as eve,
    ):
        for _ in range(count):
            made = await respond(ada)
            workshop.finish(made.id)
            await asyncio.gather(*(c.responses.retrieve(made.id) for c in (bob, eve, eve)))
        await until_rows(database, count * (1 + 3 + 1))
    charges = await fetch(database, CHARGES)
    assert len({charge["response_id"] for charge in charges}) == count
    assert {(charge["user_id"], charge["cost_usd"]) for charge in charges} == {("ada", COST)}

"""Of an object that is billed when it is done, nothing counts before its end."""

import json
from typing import Any

import pytest

from proxy.core.mending import UNREADABLE
from proxy.core.model import AnswerUnits, Sighting
from proxy.core.objects import file_of, sightings

USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
ZEROS = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
RESPONSE = {"id": "resp_1", "background": True, "model": "m", "service_tier": "flex"}
BATCH = {"id": "batch_1", "endpoint": "/v1/chat/completions", "output_file_id": "file-2"}
PER_MODEL = {
    "model_name": "m",
    "prompt_tokens": 3,
    "completion_tokens": 2,
    "total_tokens": 5,
    "cached_tokens": 1,
    "invocation_count": 4,
}


def seen(kind: str, answer: Any, *, is_new: bool = False) -> list[Sighting]:
    """Return what an answer tells."""
    return list(sightings(kind, json.dumps(answer).encode(), is_new=is_new))


def usage_of(kind: str, answer: Any) -> list[Any]:
    """Return the usage of each part at the end of an object."""
    return [json.loads(one.usage) if one.usage else None for one in seen(kind, answer)]


def test_a_response_in_the_background_has_its_usage_at_its_end() -> None:
    """Model and tier are those of the end; before, it is only known to exist."""
    queued = RESPONSE | {"status": "queued", "usage": None}
    assert seen("response", queued, is_new=True) == [
        Sighting(
            kind="response",
            object_id="resp_1",
            is_new=True,
            state="queued",
            model="m",
            service_tier="flex",
        )
    ]
    (ended,) = seen("response", RESPONSE | {"status": "completed", "usage": USAGE})
    assert json.loads(ended.usage or b"") == USAGE
    assert (ended.state, ended.is_new, ended.units) == ("completed", False, AnswerUnits())


@pytest.mark.parametrize(
    ("began", "over", "seconds"),
    [
        (1_763_474_589, 1_763_475_189, 600),
        (1_763_474_589.5, 1_763_475_189.25, 600),
        (1_763_474_589, None, None),
        (1_763_474_589, 5, None),
        ("x", 1_763_475_189, None),
    ],
)
def test_a_response_tells_how_long_it_was_made(began: Any, over: Any, seconds: int | None) -> None:
    """Where both moments are told."""
    times = {"created_at": began, "completed_at": over}
    (ended,) = seen("response", RESPONSE | times | {"status": "completed", "usage": USAGE})
    assert ended.seconds == seconds


@pytest.mark.parametrize("status", ["incomplete", "cancelled"])
def test_a_response_that_was_cut_short_is_billed(status: str) -> None:
    """Its tokens were made all the same."""
    assert usage_of("response", RESPONSE | {"status": status, "usage": USAGE}) == [USAGE]


def test_a_response_that_failed_is_not() -> None:
    """As everywhere: an answer that failed is not charged, whatever it says about usage."""
    assert usage_of("response", RESPONSE | {"status": "failed", "usage": USAGE}) == [None]


def test_a_response_that_was_made_at_once_is_no_such_object() -> None:
    """It was billed where it was made, and is fetched as often as anybody likes."""
    answer = RESPONSE | {"status": "completed", "usage": USAGE, "background": False}
    assert seen("response", answer) == []


@pytest.mark.parametrize("answer", [{}, {"id": 7}, {"id": "ü"}, {"id": "x" * 257}])
def test_an_object_without_an_id_is_none(answer: Any) -> None:
    """Ids are keys of the database."""
    assert seen("run", answer | {"status": "completed", "usage": USAGE}) == []


def test_a_run_says_that_code_may_have_run() -> None:
    """Whether it did stands in its steps."""
    run = {"id": "run_1", "status": "completed", "usage": USAGE, "model": "m"}
    (ended,) = seen("run", run | {"tools": [{"type": "code_interpreter"}]})
    assert ended.units == AnswerUnits(is_partial=True)
    (ended,) = seen("run", run | {"tools": []})
    assert ended.units is None


def test_a_run_that_made_and_ended_in_one_answer_is_both() -> None:
    """A streamed one."""
    run = {"id": "run_1", "status": "expired", "usage": USAGE}
    assert [one.is_new for one in seen("run", run, is_new=True)] == [True, False]


def test_a_batch_tells_its_sum_its_requests_and_its_file() -> None:
    """The mean request decides whether the context was long."""
    done = BATCH | {"status": "completed", "usage": USAGE, "request_counts": {"completed": 4}}
    (ended,) = seen("batch", done)
    assert json.loads(ended.usage or b"") == USAGE
    assert (ended.requests, ended.file_id, ended.endpoint) == (
        4,
        "file-2",
        "/v1/chat/completions",
    )


@pytest.mark.parametrize("usage", [None, ZEROS])
def test_zeros_of_a_finished_batch_say_nothing(usage: Any) -> None:
    """Older batches have none, or zeros: their lines tell."""
    (ended,) = seen("batch", BATCH | {"status": "completed", "usage": usage})
    assert (ended.usage, ended.requests, ended.file_id) == (None, 1, "file-2")


def test_a_job_is_billed_by_what_was_trained() -> None:
    """By hours where it reinforces, and nobody tells the hours."""
    job = {"id": "ftjob-1", "status": "succeeded", "trained_tokens": 5070}
    assert usage_of("job", job) == [{"trained_tokens": 5070}]
    assert usage_of("job", job | {"method": {"type": "supervised"}}) == [{"trained_tokens": 5070}]
    by_hours = job | {"method": {"type": "reinforcement"}}
    assert usage_of("job", by_hours) == [{"reinforced_tokens": 5070}]
    assert usage_of("job", job | {"status": "failed"}) == [None]
    assert usage_of("job", job | {"trained_tokens": None}) == [None]


def test_a_video_is_billed_by_its_seconds_and_its_size() -> None:
    """The API writes seconds as a text."""
    video = {"id": "video_1", "status": "completed", "seconds": "8", "size": "720x1280"}
    assert usage_of("video", video) == [{"seconds": 8, "size": "720x1280"}]
    assert usage_of("video", video | {"seconds": 4}) == [{"seconds": 4, "size": "720x1280"}]
    assert usage_of("video", video | {"status": "failed"}) == [None]
    assert usage_of("video", video | {"seconds": "eight"}) == [None]


def test_an_evaluation_is_billed_by_model() -> None:
    """One that answers and one that grades."""
    run = {"id": "evalrun_1", "status": "completed", "per_model_usage": [PER_MODEL, 5, {}]}
    (ended,) = seen("eval_run", run)
    assert (ended.part, ended.model) == ("m", "m")
    assert json.loads(ended.usage or b"") == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    unknown = run | {"per_model_usage": [PER_MODEL | {"prompt_tokens": None}]}
    assert usage_of("eval_run", unknown) == [None]
    assert usage_of("eval_run", run | {"per_model_usage": None}) == [None]


def test_a_page_tells_of_each_of_its_objects() -> None:
    """And of nothing else that is in it."""
    done = BATCH | {"status": "completed", "usage": USAGE}
    running = BATCH | {"id": "batch_2", "status": "in_progress", "usage": ZEROS}
    page = {"object": "list", "data": [done, 5, running]}
    assert [(one.object_id, one.usage is None) for one in seen("batch", page)] == [
        ("batch_1", False),
        ("batch_2", True),
    ]


def test_a_usage_out_of_all_proportion_is_none() -> None:
    """What is kept of an answer has a bound."""
    usage = USAGE | {"x": "y" * 5000}
    assert usage_of("run", {"id": "run_1", "status": "completed", "usage": usage}) == [None]


@pytest.mark.parametrize("tools", ["[]", "null"])
def test_of_a_large_answer_the_tools_are_unknown(tools: str) -> None:
    """Its output was left out."""
    text = b'{"id":"resp_1","status":"completed","usage":{"total_tokens":1},"tools":%s}'
    (ended,) = sightings("response", text % tools.encode(), is_condensed=True)
    assert ended.units == AnswerUnits(is_partial=True)
    failed = b'{"id":"resp_1","status":"failed"}'
    (ended,) = sightings("response", failed, is_condensed=True)
    assert ended.units is None


def test_what_is_no_object_is_unreadable() -> None:
    """Whoever reads it says so."""
    with pytest.raises(UNREADABLE):
        sightings("run", b"[]")


@pytest.mark.parametrize(
    ("path", "file_id"),
    [
        ("/v1/files/file-1/content", "file-1"),
        ("/openai/v1/files/file-1/content/", "file-1"),
        ("/v1/files/file-1", None),
        ("/v1/files/" + "x" * 257 + "/content", None),
    ],
)
def test_a_file_is_known_by_the_path_of_its_content(path: str, file_id: str | None) -> None:
    """Its answer does not name it."""
    assert file_of(path) == file_id

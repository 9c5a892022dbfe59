"""What is billed beside tokens is counted, each thing once."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.counting import COUNTERS, container_made, media, tools_used
from proxy.core.findings import read_members
from proxy.core.model import AnswerUnits, Container
from proxy.core.registry import REGISTRY


def used(*, is_condensed: bool = False, **members: Any) -> AnswerUnits:
    """Return what is counted in a response."""
    text = json.dumps(members).encode()
    return tools_used(text, read_members(text), is_condensed=is_condensed)


def search(action: str | None = "search", **members: Any) -> dict[str, Any]:
    """Return a call of the web search tool."""
    call = {"type": "web_search_call", "status": "completed", **members}
    return call if action is None else {**call, "action": {"type": action, "query": "otters"}}


def ran(container: str | None) -> dict[str, Any]:
    """Return a call of the code interpreter."""
    return {"type": "code_interpreter_call", "container_id": container}


def shell(**environment: str) -> dict[str, Any]:
    """Return a call of the shell."""
    return {"type": "shell_call", "environment": environment or None}


def containers(*ids: str, size: str | None = "1g") -> AnswerUnits:
    """Return what is counted where code ran in these."""
    return AnswerUnits(ran_in=tuple(Container(container_id=name, size=size) for name in ids))


HOSTED = [{"type": "shell", "environment": {"type": "container_auto", "memory_limit": "16g"}}]
KEPT = [{"type": "shell", "environment": {"type": "container_reference", "container_id": "cntr_1"}}]
OWN_SHELL = [{"type": "shell", "environment": {"type": "local"}}]
WEB = [{"type": "function", "name": "f"}, {"type": "web_search_preview"}]
CODE = [{"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "4g"}}]
PLAIN_CODE = [{"type": "code_interpreter", "container": "cntr_1"}]
IMAGE = [{"type": "image_generation", "model": "gpt-image-1"}]
AUTHOR = b'{"model":"m"}'
IMAGE_USAGE = {"input_tokens": 1, "output_tokens": 2}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"tools": [], "output": []}, AnswerUnits()),
        ({"tools": [{"type": "function"}], "output": [{"type": "function_call"}]}, AnswerUnits()),
        ({"tools": [], "output": [search()]}, AnswerUnits(web_searches=1)),
        (
            {"tools": WEB, "output": [search(), search("open_page"), search("find_in_page"), 7]},
            AnswerUnits(web_searches=1, web_search_tool="web_search_preview"),
        ),
        (
            {"tools": WEB, "output": [search(None), search(status="failed")]},
            AnswerUnits(web_searches=1, web_search_tool="web_search_preview"),
        ),
        (
            {
                "tools": [{"type": "web_search"}],
                "output": [search()],
                "tool_usage": {"web_search": {"num_requests": 3}},
            },
            AnswerUnits(web_searches=3, web_search_tool="web_search"),
        ),
        (
            {
                "tools": [{"type": "web_search"}],
                "output": [search()],
                "tool_usage": {"web_search": {"num_requests": "3"}, "image_gen": None},
            },
            AnswerUnits(web_searches=1, web_search_tool="web_search"),
        ),
        ({"output": [search()]}, AnswerUnits(web_searches=1)),
        (
            {"tools": [{"type": "file_search"}], "output": [{"type": "file_search_call"}] * 2},
            AnswerUnits(file_searches=2),
        ),
        (
            {"tools": CODE, "output": [ran("a"), ran("b"), ran("a"), ran(None), {"type": 7}]},
            containers("a", "b", size="4g"),
        ),
        (
            {"tools": [{"type": "code_interpreter", "container": {}}], "output": [ran("a")]},
            containers("a"),
        ),
        ({"tools": PLAIN_CODE, "output": [ran("cntr_1")]}, containers("cntr_1", size=None)),
        (
            {
                "tools": HOSTED,
                "output": [shell(type="container_reference", container_id="c"), shell()],
            },
            containers("c", "", size="16g"),
        ),
        (
            {
                "tools": KEPT,
                "output": [shell(type="container_reference", container_id="cntr_1")],
            },
            containers("cntr_1", size=None),
        ),
        ({"tools": OWN_SHELL, "output": [shell(type="local"), shell()]}, AnswerUnits()),
        (
            {
                "tools": IMAGE,
                "output": [{"type": "image_generation_call"}],
                "tool_usage": {"image_gen": IMAGE_USAGE},
            },
            AnswerUnits(
                image_calls=1,
                image_model="gpt-image-1",
                image_usage=json.dumps(IMAGE_USAGE).encode(),
            ),
        ),
        (
            {
                "tools": IMAGE,
                "output": [{"type": "image_generation_call", "svg_usage": {"model": "m"}}] * 2,
            },
            AnswerUnits(
                image_calls=2,
                image_model="gpt-image-1",
                authored=(b'{"model": "m"}', b'{"model": "m"}'),
            ),
        ),
    ],
    ids=[
        "no tools",
        "none that is billed",
        "tools that were loaded on the way",
        "pages opened are free",
        "old calls and failed ones",
        "what is billed is told",
        "what is told is odd",
        "tools are not told",
        "file searches",
        "containers",
        "a container of no stated size",
        "a container of one's own",
        "a hosted shell",
        "a hosted shell in a container of one's own",
        "a shell that the client runs",
        "images",
        "images that another model has written",
    ],
)
def test_the_tools_of_a_response_are_counted(
    members: dict[str, Any], expected: AnswerUnits
) -> None:
    """Searches, containers and images; nothing of what they were about."""
    assert used(**members) == expected


def test_what_goes_into_the_journal_is_small() -> None:
    """Whatever an upstream writes into its answers."""
    tools = [
        {"type": "web_search" + "x" * 99},
        {"type": "image_generation", "model": "m" * 99},
        {"type": "code_interpreter", "container": {"memory_limit": "g" * 99}},
    ]
    usage = {"image_gen": {"x": "y" * 5000}}
    counted = used(tools=tools, output=[ran(str(n)) for n in range(2000)], tool_usage=usage)
    few = tuple(Container(container_id=str(n), size="1g") for n in range(100))
    assert counted == AnswerUnits(ran_in=few, is_partial=True)


def test_what_was_too_large_to_be_kept_is_not_taken_for_nothing() -> None:
    """Where a tool may have been used, the count is not complete."""
    assert used(tools=CODE, output=None, is_condensed=True).is_partial
    assert used(tools=HOSTED, output=None, is_condensed=True).is_partial
    assert not used(tools=OWN_SHELL, output=None, is_condensed=True).is_partial
    assert not used(tools=CODE, output=None).is_partial
    assert not used(output=None, is_condensed=True).is_partial


def test_what_cannot_be_read_is_not_taken_for_nothing() -> None:
    """The upstream may send anything."""
    members = read_members(b'{"tools":[{"type":"web_search"}]}')
    members.output = msgspec.Raw(b"[{]")
    assert tools_used(b"", members, is_condensed=False) == AnswerUnits(is_partial=True)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'{"data":[{"url":"x"},{"url":"y"}]}', AnswerUnits(images=2)),
        (b'{"data":null,"duration":5.49}', AnswerUnits(audio_seconds=5.49)),
        (b'{"duration":"5.49"}', AnswerUnits(audio_seconds=5.49)),
        (b'{"duration":[]}', AnswerUnits()),
        (b'{"data":[{}],"svg_usage":{"model":"m"}}', AnswerUnits(images=1, authored=(AUTHOR,))),
        (b'{"svg_usage":null}', AnswerUnits()),
        (b'{"svg_usage":{"x":"' + b"x" * 5000 + b'"}}', AnswerUnits(authored=(b"",))),
        (b"[]", AnswerUnits()),
    ],
)
def test_images_and_seconds_are_counted(answer: bytes, expected: AnswerUnits) -> None:
    """Where no usage tells them."""
    assert media(answer, read_members(b"{}"), is_condensed=False) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'{"id":"cntr_1","memory_limit":"4g"}', containers("cntr_1", size="4g")),
        (b'{"id":"cntr_1","memory_limit":null}', containers("cntr_1")),
        (b'{"memory_limit":"4g"}', AnswerUnits()),
        (b'{"id":7}', AnswerUnits()),
        (b'["cntr_1"]', AnswerUnits()),
    ],
)
def test_a_container_that_was_made_has_a_size(answer: bytes, expected: AnswerUnits) -> None:
    """The smallest one, where nothing else is said."""
    members = read_members(answer if answer.startswith(b"{") else b'{"id":"x"}')
    assert container_made(answer, members, is_condensed=False) == expected


def test_a_counter_belongs_to_an_operation() -> None:
    """Most have nothing to count; the history that is compacted was billed before."""
    operations = {o.name for patterns in REGISTRY.values() for o in patterns.values()}
    assert COUNTERS.keys() <= operations
    assert "responses.compact" not in COUNTERS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["web_search", "search", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "action",
                    "status",
                    "container",
                    "container_id",
                    "web_search",
                    "num_requests",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON, JSON, JSON)
def test_no_json_makes_a_counter_raise(tools: Any, output: Any, tool_usage: Any) -> None:
    """Whatever an upstream calls a response."""
    counted = used(tools=tools, output=output, tool_usage=tool_usage)
    assert counted.web_searches >= 0
    answer = json.dumps({"data": tools, "duration": output}).encode()
    assert media(answer, read_members(answer), is_condensed=False).web_searches == 0

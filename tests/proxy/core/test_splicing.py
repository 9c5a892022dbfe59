"""Usage is asked for without touching another byte, and its traces leave the stream as it was."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.splicing import UsageStripper, splice_include_usage

DATA = Path(__file__).parents[2] / "data"
LIMIT = 1 << 20
BOM = b"\xef\xbb\xbf"
USAGE = {"prompt_tokens": 22, "completion_tokens": 30, "total_tokens": 52}

SPLICES = {
    "no options": (
        b'{"stream":true,"model":"m"}',
        b'{"stream_options":{"include_usage":true},"stream":true,"model":"m"}',
    ),
    "behind a mark and blanks": (
        BOM + b' {\n "stream" : true }\n',
        BOM + b' {"stream_options":{"include_usage":true},\n "stream" : true }\n',
    ),
    "null options": (
        b'{"stream":true, "stream_options" : null ,"n":1}',
        b'{"stream":true, "stream_options" : {"include_usage":true} ,"n":1}',
    ),
    "empty options": (
        b'{"stream_options": { },"stream":true}',
        b'{"stream_options": {"include_usage":true },"stream":true}',
    ),
    "other options": (
        b'{"stream":true,"stream_options":{ "include_obfuscation":false}}',
        b'{"stream":true,"stream_options":{"include_usage":true, "include_obfuscation":false}}',
    ),
    "switched off": (
        b'{"stream":true,"stream_options":{"include_usage" : false}}',
        b'{"stream":true,"stream_options":{"include_usage" : true}}',
    ),
    "left open": (
        b'{"stream":true,"stream_options":{"include_usage":null,"x":1}}',
        b'{"stream":true,"stream_options":{"include_usage":true,"x":1}}',
    ),
    "the last of two wins": (
        b'{"stream":false,"stream_options":{"n":1},"stream":true,"stream_options":null}',
        (
            b'{"stream":false,"stream_options":{"n":1},"stream":true,'
            b'"stream_options":{"include_usage":true}}'
        ),
    ),
    "the same words deeper down": (
        b'{"messages":[{"stream_options":null,"c":"\\"stream_options\\":{}"}],"stream":true}',
        (
            b'{"stream_options":{"include_usage":true},'
            b'"messages":[{"stream_options":null,"c":"\\"stream_options\\":{}"}],"stream":true}'
        ),
    ),
    "odd bytes": (
        b'{"stream":true,"x":"\\ud83d \xff","y":1e-7}',
        b'{"stream_options":{"include_usage":true},"stream":true,"x":"\\ud83d \xff","y":1e-7}',
    ),
}

LEFT_ALONE = {
    "no stream": b'{"model":"m"}',
    "stream is false": b'{"stream":false}',
    "stream is a word": b'{"stream":"true"}',
    "stream is one": b'{"stream":1}',
    "stream deeper down": b'{"a":{"stream":true}}',
    "asked for already": b'{"stream":true,"stream_options":{"include_usage":true}}',
    "stream ends as false": b'{"stream":true,"stream":false}',
    "options are no object": b'{"stream":true,"stream_options":[]}',
    "options are a truth": b'{"stream":true,"stream_options":true}',
    "the option is a word": b'{"stream":true,"stream_options":{"include_usage":"yes"}}',
    "an escaped key": b'{"stream":true,"stream\\u005foptions":{}}',
    "an escaped option": b'{"stream":true,"stream_options":{"include\\u005fusage":false}}',
    "not JSON": b'{"stream":true',
    "more than JSON": b'{"stream":true}{',
    "an array": b'[{"stream":true}]',
    "another encoding": '{"stream":true}'.encode("utf-16"),
    "far too deep": b'{"stream":true,"x":' + b"[" * 100_000,
    "nothing": b"",
}


@pytest.mark.parametrize("name", SPLICES)
def test_the_option_is_spliced_in_and_nothing_else(name: str) -> None:
    """Every other byte stays where it was, and what comes out asks for usage."""
    body, expected = SPLICES[name]
    assert splice_include_usage(body) == expected
    assert splice_include_usage(expected) is None


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_a_request_that_needs_no_splice_is_left_alone(name: str) -> None:
    """Also where it is doubtful what the upstream would understand."""
    assert splice_include_usage(LEFT_ALONE[name]) is None


def test_a_huge_request_is_spliced() -> None:
    """Images make bodies of many megabytes."""
    body = b'{"messages":"' + b"A" * (8 << 20) + b'","stream":true,"stream_options":null}'
    assert splice_include_usage(body) == body[:-5] + b'{"include_usage":true}}'


# The answer.

TEXTS = st.text(max_size=8) | st.sampled_from(['","usage":null}', '"usage":null', "\\", "usage"])
JSON = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers(-99, 99),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXTS, inner, max_size=3)
        | st.fixed_dictionaries({"usage": inner | st.just(USAGE)})
    ),
    max_leaves=6,
)
KEYS = TEXTS.filter(lambda key: key not in {"usage", "choices"})
STYLES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"separators": (",", ":")},
        {"separators": (", ", ": ")},
        {"separators": (",", ":"), "ensure_ascii": False},
        {"separators": (" , ", " : ")},
    ]
)
PREFIXES = st.sampled_from([b"data: ", b"data:", b"event: x\ndata: ", b": y\ndata: ", b"\ndata: "])
OTHERS = st.sampled_from(
    [b": ping\n\n", b"data: [DONE]\n\n", b"event: error\ndata: {}\n\n", b"\n", b"data\n\n"]
)


def written(members: list[tuple[str, Any]], prefix: bytes, style: dict[str, Any]) -> bytes:
    """Return one event."""
    return prefix + json.dumps(dict(members), **style).encode(errors="replace") + b"\n\n"


@st.composite
def marked_events(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Make an event with a trace of the option, and the same event without it."""
    prefix, style = draw(PREFIXES), draw(STYLES)
    members = list(draw(st.dictionaries(KEYS, JSON, max_size=3)).items())
    choices = draw(st.lists(JSON, max_size=3))
    members.insert(draw(st.integers(0, len(members))), ("choices", choices))
    usage = draw(st.sampled_from([None, USAGE]))
    place = draw(st.integers(0, len(members)))
    marked = written([*members[:place], ("usage", usage), *members[place:]], prefix, style)
    if usage and not choices:
        return marked, b"\n" if prefix.startswith(b"\n") else b""
    return marked, written(members, prefix, style)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Make a stream with the traces of the option, and the same stream without them."""
    events = draw(st.lists(marked_events() | OTHERS.map(lambda other: (other, other)), max_size=6))
    line_end = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    with_traces = b"".join(marked for marked, _ in events)
    without = b"".join(plain for _, plain in events)
    return with_traces.replace(b"\n", line_end), without.replace(b"\n", line_end)


def stripped(stream: bytes, cuts: list[int], limit: int = LIMIT) -> bytes:
    """Send a stream in pieces through a stripper."""
    stripper = UsageStripper(limit)
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    passed = [stripper.feed(stream[start:end]) for start, end in pairwise(edges)]
    return b"".join(passed) + stripper.finish()


@given(streams(), st.lists(st.integers(0, 1 << 12), max_size=8))
def test_the_client_sees_the_stream_it_asked_for(
    both: tuple[bytes, bytes], cuts: list[int]
) -> None:
    """With the traces taken out, the stream is the one without the option, byte for byte."""
    with_traces, without = both
    assert stripped(with_traces, cuts) == without


@given(st.lists(marked_events(), max_size=6))
def test_events_that_come_one_by_one_are_cut_as_they_come(
    events: list[tuple[bytes, bytes]],
) -> None:
    """Whole events are held back by nothing, and cut as they are in a stream."""
    stripper = UsageStripper(LIMIT)
    assert [stripper.feed(marked) for marked, _ in events] == [plain for _, plain in events]


def test_an_event_behind_half_of_another_is_none_by_itself() -> None:
    """What looks like a whole event may be the end of one."""
    stripper = UsageStripper(LIMIT)
    pieces = [b": so", b'data: {"a":1,"usage":null}\n\n', b'data: {"a":1,"usage":null}\n\n']
    passed = [stripper.feed(piece) for piece in pieces]
    assert passed == [b"", b"".join(pieces[:2]), b'data: {"a":1}\n\n']


@given(
    st.lists(st.binary(max_size=9) | st.sampled_from([b"data: ", b"\n", b"\r", b'"usage']))
    .map(b"".join)
    .filter(lambda stream: b'"usage"' not in stream),
    st.lists(st.integers(0, 1 << 12), max_size=8),
    st.integers(1, 99),
)
def test_bytes_without_traces_pass_unchanged(stream: bytes, cuts: list[int], limit: int) -> None:
    """Whatever an upstream sends, in whatever pieces, however small the bound."""
    assert stripped(stream, cuts, limit) == stream


@pytest.mark.parametrize("api", ["chat_completions", "azure_chat_completions"])
@pytest.mark.parametrize("size", [1, 100, LIMIT])
def test_a_whole_stream_is_stripped(api: str, size: int) -> None:
    """Real streams have more members than generated ones, and Azure begins without choices."""
    stream = (DATA / f"{api}_2026-11-20.sse").read_bytes()
    without = (DATA / f"{api}_without_usage_2026-11-20.sse").read_bytes()
    assert stripped(stream, list(range(0, len(stream), size))) == without


EVENTS_LEFT = {
    "deeper down": b'data: {"choices":[{"usage":null}],"x":{"usage":null}}\n\n',
    "in a text": b'data: {"choices":[{"c":",\\"usage\\":null}"}],"x":",\\"usage\\":null"}\n\n',
    "neither null nor object": b'data: {"choices":[],"usage":0}\n\n',
    "usage and no choices": b'data: {"a":1,"usage":{"x_tokens":1}}\n\n',
    "choices are null": b'data: {"choices":null,"usage":{"x_tokens":1}}\n\n',
    "an escaped key": b'data: {"choices":[1],"us\\u0061ge":null,"x":"usage","\\"usage":1}\n\n',
    "a key spelled twice over": b'data: {"choices":[1],"us\\u0061ge":null,"a":{"usage":1}}\n\n',
    "not JSON": b'data: x,"usage":1}\n\n',
    "no object": b'data: ["usage"]\n\n',
    "another field in between": b'data: {"choices":[1]\nid: 1\ndata: ,"usage":null}\n\n',
}


@pytest.mark.parametrize("name", EVENTS_LEFT)
def test_what_is_no_trace_stays(name: str) -> None:
    """Only the member at the top level, only null or an object, only for certain."""
    event = EVENTS_LEFT[name]
    assert stripped(event, []) == event


EVENTS_CUT = {
    "the only member": (b'data: {"usage":null}\n\n', b"data: {}\n\n"),
    "first": (b'data: {"usage":null,"a":1}\n\n', b'data: {"a":1}\n\n'),
    "first, spaced": (b'data: { "usage": null, "a": 1}\n\n', b'data: { "a": 1}\n\n'),
    "last, spaced": (b'data: {"a": 1, "usage": null }\n\n', b'data: {"a": 1 }\n\n'),
    "before a blank": (b'data: {"a":1,"usage":null, "b":2}\n\n', b'data: {"a":1, "b":2}\n\n'),
    "over two lines": (
        b'data: {"a":1,\ndata: "usage":null,\ndata: "b":2}\n\n',
        b'data: {"a":1,\ndata: "b":2}\n\n',
    ),
    "behind a mark": (BOM + b'data: {"a":1,"usage":null}\n\n', BOM + b'data: {"a":1}\n\n'),
    "an object beside choices": (
        b'data: {"choices":[1],"usage":{"prompt_tokens":1}}\n\n',
        b'data: {"choices":[1]}\n\n',
    ),
    "the usage event behind a mark": (BOM + b'data: {"choices":[],"usage":{}}\n\n', BOM),
    "the usage event without its end": (b'data: {"choices":[ ],"usage":{}}', b""),
    "its blank line may come later": (
        b'data: {"choices":[],"usage":{}}\r\n\r\ndata: [DONE]\r\n\r\n',
        b"data: [DONE]\r\n\r\n",
    ),
}


@pytest.mark.parametrize("name", EVENTS_CUT)
@pytest.mark.parametrize("size", [1, LIMIT])
def test_a_trace_is_cut_with_its_comma(name: str, size: int) -> None:
    """What is left is what a stream without the option would hold."""
    event, expected = EVENTS_CUT[name]
    assert stripped(event, list(range(0, len(event), size))) == expected


def test_whole_events_pass_on_at_once() -> None:
    """Only what is not yet known is held back, and not longer than that."""
    stripper = UsageStripper(LIMIT)
    assert stripper.feed(b'data: {"a":1}\n\ndata: {"b"') == b'data: {"a":1}\n\n'
    assert stripper.feed(b':2,"usage":null}\n') == b""
    assert stripper.feed(b"\n") == b'data: {"b":2}\n\n'


@pytest.mark.parametrize("size", [1, 30, LIMIT])
def test_a_too_large_event_passes_as_it_is(size: int) -> None:
    """Memory is bounded; the events around it are still stripped."""
    large = b'data: {"a":"' + b"x" * 99 + b'","usage":null}\n\n'
    small = b'data: {"a":1,"usage":null}\n\n'
    stream = small + large + small
    passed = stripped(stream, list(range(0, len(stream), size)), limit=50)
    assert passed == b'data: {"a":1}\n\n' + large + b'data: {"a":1}\n\n'


def test_an_event_of_thousands_of_lines_passes_as_it_is() -> None:
    """No API writes one; to look at each line would hold up other calls."""
    event = b"data: {\n" + b"data: \n" * 5000 + b'data: "choices":[],"usage":null}\n\n'
    assert stripped(event, [], 1 << 20) == event


def test_a_request_of_thousands_of_members_is_left_alone() -> None:
    """The API has a few dozen."""
    body = b'{"stream":true,"stream_options":{},' + b'"":0,' * 5000 + b'"model":"m"}'
    assert splice_include_usage(body) is None

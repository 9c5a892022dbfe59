"""Who a call is for: headers first, the body below them, and nothing unreadable is guessed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.attribution import (
    MAX_METADATA_BYTES,
    MAX_REMEMBERED,
    NOBODY,
    AttributionFields,
    Attributions,
    from_headers,
    with_body,
)
from proxy.core.headers import request_pattern
from proxy.core.model import Attribution

FIELDS = AttributionFields()
HELICONE = AttributionFields(
    user=(b"x-meter-user", b"helicone-user-id"),
    endpoint=(b"x-meter-endpoint",),
    metadata=(b"x-meter-metadata", b"cf-aig-metadata"),
    metadata_prefixes=(b"x-meter-metadata-", b"helicone-property-"),
)


def read(*lines: bytes, names: AttributionFields = FIELDS) -> Attribution:
    """Return the attribution of a request with these lines."""
    head = b"POST / HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    pattern = request_pattern(names.names, names.metadata_prefixes)
    return from_headers(pattern.read(head).fields, names)


def test_the_three_headers_are_read() -> None:
    """The ordinary case."""
    seen = read(
        b"X-Meter-User: u1", b"x-meter-endpoint: analyze_homework", b'X-Meter-Metadata: {"a": 1}'
    )
    assert seen == Attribution(user_id="u1", endpoint="analyze_homework", metadata={"a": 1})


def test_single_metadata_wins_over_the_object() -> None:
    """As the contract says: singles win."""
    seen = read(b'X-Meter-Metadata: {"class": "5a", "k": true}', b"X-Meter-Metadata-Class: 5b")
    assert seen.metadata == {"class": "5b", "k": True}


def test_nothing_sent_is_nothing_known() -> None:
    """Unknown is None, without a problem; an empty header says nothing."""
    assert read() == Attribution()
    assert read(b"X-Meter-User:", b"X-Meter-Metadata:", b"X-Meter-Metadata-: x") == Attribution()


def test_headers_of_other_gateways_serve_as_well() -> None:
    """Names are settings, so that a caller of another gateway changes nothing."""
    seen = read(
        b"Helicone-User-Id: u9",
        b"Helicone-Property-Session: s",
        b'cf-aig-metadata: {"team": 1}',
        names=HELICONE,
    )
    assert seen == Attribution(user_id="u9", metadata={"team": 1, "session": "s"})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"X-Meter-User: \xff", "x-meter-user: not UTF-8"),
        (b"X-Meter-User: " + b"u" * 257, "x-meter-user: longer than 256 characters"),
        ("X-Meter-User: a\u0085b".encode(), "x-meter-user: control characters"),
        (b"X-Meter-Endpoint: a\tb", "x-meter-endpoint: control characters"),
        (b"X-Meter-Metadata: [1]", "x-meter-metadata: not a JSON object"),
        (b"X-Meter-Metadata: {", "x-meter-metadata: not a JSON object"),
        (b"X-Meter-Metadata-A: \xff", "x-meter-metadata-a: not UTF-8"),
        (b'X-Meter-Metadata: {"a": "\\u0000"}', "x-meter-metadata: control characters"),
        (
            b'X-Meter-Metadata: {"a": "' + b"x" * MAX_METADATA_BYTES + b'"}',
            f"x-meter-metadata: longer than {MAX_METADATA_BYTES} bytes",
        ),
        (
            b"X-Meter-Metadata: {" + b",".join(b'"k%d":1' % n for n in range(65)) + b"}",
            "metadata: more than 64 keys",
        ),
    ],
)
def test_what_cannot_be_read_is_said_and_left_out(line: bytes, problem: str) -> None:
    """The call goes on, the row tells; the value itself is never in the text."""
    assert read(line) == Attribution(problem=problem)


def test_problems_add_up_and_spare_the_rest() -> None:
    """One bad header does not take a good one with it."""
    seen = read(b"X-Meter-User: \xff", b"X-Meter-Endpoint: e", b"X-Meter-Metadata: x")
    assert seen.endpoint == "e"
    assert seen.problem == "x-meter-user: not UTF-8; x-meter-metadata: not a JSON object"


def test_the_body_fills_in_below_the_headers() -> None:
    """User where none was sent, metadata under the headers' own."""
    seen = with_body(read(b'X-Meter-Metadata: {"a": 1}'), user="u", metadata={"a": 2, "b": 3})
    assert seen == Attribution(user_id="u", metadata={"a": 1, "b": 3})


def test_the_headers_user_stays() -> None:
    """The body cannot override it."""
    sent = read(b"X-Meter-User: u1")
    assert with_body(sent, user="u2", metadata=None) is sent
    assert with_body(sent, user="u2", metadata={"k": 1}).user_id == "u1"


def test_an_unreadable_user_is_not_replaced_by_a_guess() -> None:
    """The header was sent and meant somebody; the body's user may be somebody else."""
    sent = read(b"X-Meter-User: \xff")
    assert with_body(sent, user="u2", metadata=None).user_id is None


@pytest.mark.parametrize(
    ("user", "metadata", "problem"),
    [
        ("a\nb", None, "body user: control characters"),
        (None, {"k": "x" * 9000}, f"body metadata: longer than {MAX_METADATA_BYTES} bytes"),
        (None, {f"k{n}": n for n in range(65)}, "body metadata: more than 64 keys"),
        (None, {"k": float("nan")}, "body metadata: not representable as JSON"),
        (None, {"k": "\ud800"}, "body metadata: control characters"),
    ],
)
def test_a_bad_body_is_said_too(
    user: str | None, metadata: dict[str, Any] | None, problem: str
) -> None:
    """The same bounds hold wherever a value comes from."""
    seen = with_body(Attribution(metadata={"h": 1}), user=user, metadata=metadata)
    assert seen == Attribution(metadata={"h": 1}, problem=problem)


SECRET = "sk-proj-" + "Ab1_" * 4
SECRETS = (SECRET, "sess-12345678", "ek-abcdefgh", "Bearer abcdefgh", f"my key: {SECRET}")


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("name", ["X-Meter-User", "X-Meter-Endpoint", "X-Meter-Metadata-K"])
def test_what_looks_like_a_key_is_left_out(name: str, secret: str) -> None:
    """A client took the wrong variable; the ledger is no place for secrets, nor is the text."""
    seen = read(f"{name}: {secret}".encode())
    assert seen == Attribution(problem=f"{name.lower()}: looks like a key")


@pytest.mark.parametrize("value", ["task-force-of-2026", "sk-SK", "sk-1234567", "bearer of news"])
def test_what_only_resembles_a_key_stays(value: str) -> None:
    """Eight characters have to follow, and a word begins before."""
    assert read(f"X-Meter-User: {value}".encode()).user_id == value
    assert read(f'X-Meter-Metadata: {{"a": "{value}"}}'.encode()).metadata == {"a": value}


@pytest.mark.parametrize("secret", [*SECRETS, "bEaReR abcdefgh", "sk\\u002dabcdefgh"])
@pytest.mark.parametrize("shape", ['"%s"', '[{"b":[1,"%s"]}]', '{"%s":null}'])
def test_a_member_that_holds_a_key_is_left_out(shape: str, secret: str) -> None:
    """At any depth, as a name, and however it is escaped; the other members stay."""
    member = shape % secret
    seen = read(b'X-Meter-Metadata: {"a":%b,"c":1}' % member.encode())
    problem = "x-meter-metadata: looks like a key"
    assert seen == Attribution(metadata={"c": 1}, problem=problem)


def test_a_name_of_metadata_that_is_a_key_is_left_out() -> None:
    """Of the object as of a header, whose name is then not told."""
    seen = read(b'X-Meter-Metadata: {"%b":1}' % SECRET.encode())
    assert seen == Attribution(problem="x-meter-metadata: looks like a key")
    seen = read(b"X-Meter-Metadata-%b: x" % SECRET.encode(), b"X-Meter-Metadata-Long-Enough: y")
    assert seen == Attribution(
        metadata={"long-enough": "y"}, problem="x-meter-metadata-: looks like a key"
    )


def test_a_key_in_the_body_is_left_out_too() -> None:
    """The user's place and every member of the metadata."""
    seen = with_body(Attribution(), user=SECRET, metadata={"a": [SECRET], "b": "x"})
    problem = "body user: looks like a key; body metadata: looks like a key"
    assert seen == Attribution(metadata={"b": "x"}, problem=problem)
    seen = with_body(Attribution(), user=None, metadata={"a": SECRET})
    assert seen == Attribution(problem="body metadata: looks like a key")


@given(st.binary(max_size=80))
def test_no_value_raises(value: bytes) -> None:
    """Attribution never fails a call, whatever a client sends."""
    safe = value.replace(b"\r", b"").replace(b"\n", b"")
    read(b"X-Meter-User: " + safe, b"X-Meter-Metadata: " + safe, b"X-Meter-Metadata-K: " + safe)


def everything(lines: list[bytes]) -> tuple[bytes, ...]:
    """Take all lines."""
    return tuple(lines)


@dataclass(frozen=True)
class Places:
    """Where the fields stand: everywhere."""

    names: tuple[bytes, ...]
    pick: Callable[[list[bytes]], tuple[bytes, ...]] = everything


def test_lines_that_come_again_are_not_read_again() -> None:
    """What they say is the same object, and never that of others."""
    people = Attributions(FIELDS)
    places = Places((b"x-meter-user", b"x-meter-metadata-a", b"x-meter-user"))
    ada = [b"X-Meter-User: ada", b"X-Meter-Metadata-A: 1", b"X-Meter-User: eve"]
    first = people.of(places, ada)
    assert first == Attribution(user_id="ada", metadata={"a": "1"})
    assert people.of(places, list(ada)) is first
    assert people.of(places, [b"X-Meter-User: bob", *ada[1:]]).user_id == "bob"
    assert people.of(None, ada) is NOBODY


@pytest.mark.parametrize("value", [b"sk-" + b"a" * 20, b"a" * 600, b"\xff"])
def test_what_is_long_or_cannot_be_read_is_not_remembered(value: bytes) -> None:
    """It may be a key that was sent by mistake."""
    people = Attributions(FIELDS)
    lines = [b"X-Meter-User: " + value]
    assert people.of(Places((b"x-meter-user",)), lines).problem
    assert not people._known  # noqa: SLF001 (what is kept is the point)


def test_how_many_are_remembered_is_bounded() -> None:
    """Clients choose them."""
    people = Attributions(FIELDS)
    for number in range(MAX_REMEMBERED + 5):
        people.of(Places((b"x-meter-user",)), [b"X-Meter-User: %d" % number])
    assert len(people._known) == 5  # noqa: SLF001 (as above)

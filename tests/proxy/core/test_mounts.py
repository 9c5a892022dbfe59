"""A mount is found by its bytes, and refused where it would be ambiguous or leak."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.mounts import Mount, Mounts, Place, place_of

URL = "https://my-resource.openai.azure.com"


def accepted(url: str) -> str:
    """Take any URL but one."""
    if url == "ftp://x":
        raise ValueError("expected a URL")
    return url


def parsed(entry: object, name: str = "azure") -> Mount:
    """Return the mount that a setting describes."""
    (mount,) = Mounts.parse(json.dumps({name: entry}), accepted).upstreams
    return mount


@pytest.mark.parametrize(
    ("target", "place"),
    [
        (b"/azure/openai/v1/x?a=/b", Place(b"azure", b"/openai/v1/x?a=/b")),
        (b"/azure/", Place(b"azure", b"/")),
        (b"/azure", Place(b"azure", b"/")),
        (b"/azure?a=/b", Place(b"azure", b"/?a=/b")),
        (b"/azure//x", Place(b"azure", b"//x")),
        (b"/azure/%2e%2e/x", Place(b"azure", b"/%2e%2e/x")),
        (b"/azurex/x", Place(b"azurex", b"/x")),
        (b"/azure-eu/x", Place(b"azure-eu", b"/x")),
        (b"//azure/x", None),
        (b"/./azure/x", None),
        (b"/%61zure/x", None),
        (b"/azure%2fx", None),
        (b"/Azure/x", None),
        (b"/azure;a/x", None),
        (b"/_meter/healthz", None),
        (b"/", None),
        (b"*", None),
    ],
)
def test_a_name_is_the_first_segment_byte_by_byte(target: bytes, place: Place | None) -> None:
    """Whatever else looks like it is a path of the upstream at `/`."""
    assert place_of(target) == place


@given(st.binary())
def test_what_is_taken_off_is_the_name_alone(rest: bytes) -> None:
    """Every byte behind it goes on."""
    assert place_of(b"/azure/" + rest) == (b"azure", b"/" + rest)


def test_a_url_is_enough() -> None:
    """All else is as for the upstream at `/`."""
    mount = parsed(URL)
    assert mount == Mount(name="azure", url=URL)
    assert mount == parsed({"url": URL})
    assert (mount.left_out, mount.added) == ((), b"")


def test_everything_may_be_said() -> None:
    """Fields that are set or taken out, trust, and patience."""
    mount = parsed(
        {
            "url": URL,
            "headers": {"api-key": "s3cret", "Authorization": None},
            "ask_usage": False,
            "ca_file": "/etc/ca.pem",
            "connect_timeout_seconds": 3,
            "idle_timeout_seconds": 0.5,
        }
    )
    assert mount.left_out == (b"api-key", b"authorization")
    assert mount.added == b"api-key: s3cret\r\n"
    assert (mount.ask_usage, mount.ca_file) == (False, "/etc/ca.pem")
    assert (mount.connect_timeout_seconds, mount.idle_timeout_seconds) == (3.0, 0.5)


def test_what_is_written_is_read_again() -> None:
    """So that a child process has the same upstreams; a repr shows no field."""
    mounts = Mounts.parse(
        {"vllm": URL, "azure": {"url": URL, "headers": {"api-key": "s3cret", "X": None}}}, accepted
    )
    assert Mounts.parse(str(mounts), accepted) == mounts
    assert Mounts.parse(mounts, accepted) is mounts
    assert str(Mounts()) == "{}"
    assert "s3cret" not in repr(mounts)


@pytest.mark.parametrize(
    "name",
    [
        *("", "_meter", "Azure", "az/ure", "az%20ure", "1st", "-a", "a" * 33, ".."),
        *("v1", "v2", "openai", "backend-api", "chat", "models", "responses", "organization"),
    ],
)
def test_a_name_that_would_be_ambiguous_is_refused(name: str) -> None:
    """One that a path of the API or of the proxy begins with, or that has two spellings."""
    with pytest.raises(ValueError, match="cannot be mounted"):
        parsed(URL, name)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (7, "azure: expected a URL"),
        ({"headers": {}}, "azure: expected a URL"),
        ("ftp://x", "azure: url: expected a URL"),
        ({"url": URL, "key": "s3cret"}, "'key' is unknown"),
        ({"url": URL, "headers": ["s3cret"]}, "headers: expected an object"),
        ({"url": URL, "headers": {f"x{n}": "s3cret" for n in range(33)}}, "at most 32"),
        ({"url": URL, "headers": {"a b": "s3cret"}}, "'a b' is no header name"),
        ({"url": URL, "headers": {"a": "s3cret", "A": "s3cret"}}, "'A' is no header name"),
        ({"url": URL, "headers": {"Host": "s3cret"}}, "Host belongs to the call"),
        ({"url": URL, "headers": {"X-Meter-User": "s3cret"}}, "X-Meter-User belongs"),
        ({"url": URL, "headers": {"a": "s3cret\r\nb: c"}}, "a has a value that is not shown"),
        ({"url": URL, "headers": {"a": ["s3cret"]}}, "a has a value that is not shown"),
        ({"url": URL, "headers": {"a": ""}}, "a has a value that is not shown"),
        ({"url": URL, "ask_usage": "no"}, "ask_usage: expected true or false"),
        ({"url": URL, "ca_file": "ca.pem"}, "ca_file: expected the absolute path"),
        ({"url": URL, "idle_timeout_seconds": 0}, "idle_timeout_seconds: expected a number"),
        ({"url": URL, "connect_timeout_seconds": True}, "connect_timeout_seconds: expected"),
    ],
)
def test_a_mistake_is_named_and_no_secret_told(entry: object, complaint: str) -> None:
    """Which upstream, which member, what was expected."""
    with pytest.raises(ValueError, match=complaint) as refused:
        parsed(entry)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("azure=https://x", "expected a JSON object"),
        ("[]", "expected a JSON object"),
        ("[" * 100_000, "expected a JSON object"),
        ('{"a-b": "https://x", "a-b": "https://y"}', "'a-b' stands there twice"),
    ],
)
def test_what_is_no_object_of_names_is_refused(text: str, complaint: str) -> None:
    """With an example of one."""
    with pytest.raises(ValueError, match=complaint):
        Mounts.parse(text, accepted)

"""Every method of the official Python client that makes a request, called with next to nothing.

Methods are found by walking the client's resources, so one that is added tomorrow is called too.
Required arguments get the plainest value that the client takes.
"""

import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from openai import DefaultHttpxClient, OpenAI
from openai._resource import SyncAPIResource

MODEL = "gpt-4o-mini"
FILE = ("a.bin", b"\x00\x01bytes")
PATIENCE_SECONDS = 20
# Methods that make their requests through the others.
CONVENIENCE = frozenset(
    (
        "create_and_poll",
        "create_and_run_poll",
        "create_and_run_stream",
        "create_and_stream",
        "for_result",
        "parse",
        "poll",
        "prepare",
        "prepare_directory",
        "stream",
        "submit_tool_outputs_and_poll",
        "submit_tool_outputs_stream",
        "upload",
        "upload_and_poll",
        "upload_file_chunked",
        "wait_for_processing",
    )
)
WITHOUT_REQUEST = frozenset(("webhooks.unwrap", "webhooks.verify_signature"))
OVER_WEBSOCKET = "connect"
_REQUESTS = re.compile(r"self\._(?:get|post|put|patch|delete|get_api_list)\(")
_VALUES: dict[str, Any] = {
    "model": MODEL,
    "file": FILE,
    "image": FILE,
    "video": FILE,
    "data": FILE,
    "audio_sample": FILE,
    "recording": FILE,
    "files": [FILE],
    "bytes": 1,
    "seconds": "4",
    "start_time": 1_795_000_000,
    "messages": [{"role": "user", "content": "Why?"}],
    "tool_outputs": [{"tool_call_id": "call_1", "output": "4"}],
    "items": [{"type": "message", "role": "user", "content": "Why?"}],
}
_OBJECTS = ("config", "environment", "grader", "source", "source_config", "session", "metadata")


@dataclass(frozen=True, slots=True)
class Received:
    """An answer as the client's HTTP library got it."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes


def methods(client: OpenAI) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield each method of each resource that is no convenience, with its name."""
    for name, resource in _resources(client, OpenAI, ""):
        for attribute, function in inspect.getmembers(type(resource), inspect.isfunction):
            is_public = not attribute.startswith(("_", "with_"))
            if is_public and not _is_convenience(attribute, function):
                yield f"{name}.{attribute}", getattr(resource, attribute)


def _is_convenience(name: str, function: Callable[..., Any]) -> bool:
    return name in CONVENIENCE and not _REQUESTS.search(inspect.getsource(function))


def _resources(owner: Any, kind: type, prefix: str) -> Iterator[tuple[str, SyncAPIResource]]:
    for attribute in sorted(dir(kind)):
        if isinstance(inspect.getattr_static(kind, attribute), cached_property):
            resource = getattr(owner, attribute)
            if isinstance(resource, SyncAPIResource):
                yield f"{prefix}{attribute}", resource
                yield from _resources(resource, type(resource), f"{prefix}{attribute}.")


def call(method: Callable[..., Any]) -> None:
    """Call a method with what it requires; what it makes of the answer does not matter."""
    required = [
        name
        for name, parameter in inspect.signature(method).parameters.items()
        if parameter.default is inspect.Parameter.empty
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            result = method(**{name: _value(name) for name in required})
        except TypeError as exc:  # one of several sets of arguments
            told = str(exc).partition(" or ")[0]
            required += re.findall(r"'(\w+)'", told)
            result = method(**{name: _value(name) for name in required})
    close = getattr(result, "close", None)
    if close is not None:
        close()


def _value(name: str) -> Any:
    if name in _OBJECTS or name.endswith("_config"):
        return {}
    plural = name.endswith("s") and name not in {"certificate_ids", "file_ids"}
    return _VALUES.get(name, name if not plural else [name])


def client_of(base_url: str, received: list[Received], **headers: str) -> OpenAI:
    """Return a client that keeps what it receives."""

    def keep(response: Any) -> None:
        fields = tuple((k.lower(), v) for k, v in response.headers.multi_items())
        received.append(Received(response.status_code, fields, response.read()))

    return OpenAI(
        base_url=f"{base_url}/v1",
        api_key="sk-of-the-tests",
        admin_api_key="sk-admin-of-the-tests",
        max_retries=0,
        timeout=PATIENCE_SECONDS,
        default_headers=headers,
        http_client=DefaultHttpxClient(event_hooks={"response": [keep]}),
    )


def call_everything(base_url: str, **headers: str) -> tuple[list[str], list[Received]]:
    """Call each method that makes a request, in turn; return their names and all answers."""
    received: list[Received] = []
    names: list[str] = []
    with client_of(base_url, received, **headers) as client:
        for name, method in methods(client):
            if name in WITHOUT_REQUEST or name.endswith(OVER_WEBSOCKET):
                continue
            call(method)
            names.append(name)
            if len(received) != len(names):
                raise AssertionError(f"{name} made {len(received) - len(names) + 1} requests")
    return names, received

"""Requests are named by method and path, wherever the API is mounted."""

import pytest

from proxy.core.operations import operation_of
from proxy.core.registry import REGISTRY, UNKNOWN

CALLS: tuple[tuple[str, str, str, str], ...] = (
    ("POST", "/v1/chat/completions", "chat", "chat_completions"),
    ("POST", "/v1/completions", "text_completion", "completions"),
    ("POST", "/v1/responses", "responses", "responses"),
    ("POST", "/v1/embeddings", "embeddings", "embeddings"),
    ("POST", "/v1/engines/davinci-002/completions", "text_completion", "completions"),
    ("POST", "/openai/v1/responses", "responses", "responses"),
    ("POST", "/openai/responses", "responses", "responses"),
    ("POST", "//v1//chat/completions/", "chat", "chat_completions"),
    ("POST", "/backend-api/codex/responses", "responses", "responses"),
    ("POST", "/v1/responses/compact", "responses.compact", "responses"),
    ("POST", "/v1/decisions", "decisions", "decisions"),
    ("POST", "/v1/images/generations", "images.generations", "images"),
    ("POST", "/openai/deployments/d/images/edits", "images.edits", "images"),
    ("POST", "/v1/images/variations", "images.variations", "images"),
    ("POST", "/v1/audio/speech", "audio.speech", "audio"),
    ("POST", "/v1/audio/transcriptions", "audio.transcriptions", "audio"),
    ("POST", "/v1/audio/translations", "audio.translations", "audio"),
)

FREE: tuple[tuple[str, str, str, str], ...] = (
    ("GET", "/v1/responses/resp_1", "responses.retrieve", "responses"),
    ("POST", "/v1/responses/resp_1/cancel", "responses.cancel", "responses"),
    ("DELETE", "/v1/responses/resp_1", "responses.delete", "responses"),
    ("GET", "/v1/responses/resp_1/input_items", "responses.input_items", "responses"),
    ("POST", "/v1/responses/input_tokens", "responses.input_tokens", "responses"),
    ("GET", "/v1/chat/completions", "chat.completions.list", "chat"),
    ("GET", "/v1/chat/completions/c1", "chat.completions.retrieve", "chat"),
    ("POST", "/v1/chat/completions/c1", "chat.completions.update", "chat"),
    ("GET", "/v1/chat/completions/c1/messages", "chat.completions.messages", "chat"),
    ("GET", "/v1/models", "models.list", "models"),
    ("DELETE", "/v1/models/ft:gpt-4o::abc", "models.delete", "models"),
    ("POST", "/v1/realtime/calls/rtc_1/accept", "realtime.calls.accept", "realtime"),
    ("POST", "/v1/live/sessions/s1/refer", "live.refer", "live"),
    ("GET", "/v1/files/file-1/content", "files.content", "files"),
    ("GET", "/v1/batches/batch_1", "batches.retrieve", "batches"),
    ("POST", "/v1/fine_tuning/jobs", "fine_tuning.jobs.create", "fine_tuning"),
    ("POST", "/v1/threads/runs", "threads.create_and_run", "threads"),
    ("POST", "/v1/threads/t1/runs/r1", "threads.runs.modify", "threads"),
    ("GET", "/v1/threads/t1/runs/r1/steps", "threads.runs.steps", "threads"),
    ("POST", "/v1/vector_stores/vs_1/search", "vector_stores.search", "vector_stores"),
    ("GET", "/v1/organization/usage/images", "organization", "organization"),
)

SESSION_PATHS: tuple[tuple[str, str], ...] = (
    ("/v1/realtime", "realtime.connect"),
    ("/openai/realtime", "realtime.connect"),
    ("/openai/v1/realtime", "realtime.connect"),
    ("/voice-live/realtime", "realtime.connect"),
    ("/v1/realtime/translations", "realtime.translations.connect"),
    ("/v1/responses", "responses.connect"),
    ("/v1/live/sessions", "live.connect"),
    ("/v1/live/sessions/s1/attach", "live.attach"),
    ("/v1/live/sessions/s1/fork", "live.fork"),
)

STRANGE: tuple[tuple[str, str], ...] = (
    ("GET", "/v1/embeddings"),
    ("POST", "/v1/chat%2Fcompletions"),
    ("POST", "/v1/chat/completions/c1/messages/m1"),
    ("POST", "/v2/chat/completions"),
    ("OPTIONS", "/v1/chat/completions"),
    ("POST", "/chat/completions"),
    ("POST", "/api/chat/completions"),
    ("POST", "/a/b/c/d/e/f/g/v1/chat/completions"),
    ("POST", "/v1/nothing/v1/of/this/kind"),
    ("POST", "/apiv1/chat/completions"),
    ("GET", "/v1/"),
    ("GET", ""),
)


@pytest.mark.parametrize(("method", "path", "name", "api_type"), CALLS)
def test_a_charged_call_is_known(method: str, path: str, name: str, api_type: str) -> None:
    """Prefixes and doubled slashes do not hide a call that costs money."""
    operation = operation_of(method, path)
    assert (operation.name, operation.api_type) == (name, api_type)
    assert operation.reads_usage


@pytest.mark.parametrize(("method", "path", "name", "api_type"), FREE)
def test_any_other_call_has_a_name_and_reads_no_usage(
    method: str, path: str, name: str, api_type: str
) -> None:
    """What was charged when it was made is not charged when it is fetched."""
    operation = operation_of(method, path)
    assert (operation.name, operation.api_type) == (name, api_type)
    assert not operation.reads_usage
    assert not operation.splices


@pytest.mark.parametrize(
    ("path", "deployment"),
    [
        ("/api/v1/chat/completions", None),
        ("/inference/v1/chat/completions", None),
        ("/v1beta/openai/chat/completions", None),
        ("/v1/account/gateway/openai/chat/completions", None),
        ("/api/projects/mine/openai/v1//chat/completions", None),
        ("/gateway/openai/deployments/d/chat/completions", "d"),
    ],
)
def test_other_providers_have_the_api_behind_paths_of_their_own(
    path: str, deployment: str | None
) -> None:
    """A few segments in front hide no call that costs money."""
    operation = operation_of("POST", path)
    assert (operation.name, operation.deployment) == ("chat", deployment)


@pytest.mark.parametrize(("path", "name"), SESSION_PATHS)
def test_a_session_is_known(path: str, name: str) -> None:
    """What is asked for by an upgrade."""
    operation = operation_of("GET", path)
    assert (operation.name, operation.is_session, operation.reads_usage) == (name, True, False)
    assert not operation_of("POST", path).is_session


@pytest.mark.parametrize(("method", "path"), STRANGE)
def test_an_unknown_call_is_called_unknown(method: str, path: str) -> None:
    """Paths are compared as they came, and nothing is taken for something similar."""
    assert operation_of(method, path) is UNKNOWN


def test_an_azure_path_tells_the_deployment() -> None:
    """There the request body may have no model at all."""
    operation = operation_of("POST", "//openai/deployments/my%20gpt/chat/completions")
    assert (operation.name, operation.deployment) == ("chat", "my%20gpt")
    assert operation_of("POST", "/v1/chat/completions").deployment is None


def test_each_line_of_the_registry_is_reachable() -> None:
    """A line behind a broader one would be dead."""
    for (method, _), entries in REGISTRY.items():
        for pattern, operation in entries.items():
            path = "/v1/" + "/".join(pattern).replace("*", "some-id")
            assert operation_of(method, path) == operation, pattern


def test_a_long_path_is_found_without_being_remembered() -> None:
    """Clients choose paths: what is kept of them is bounded."""
    path = "/openai/deployments/" + "d" * 300 + "/chat/completions"
    assert operation_of("POST", path).name == "chat"
    assert operation_of("POST", path).deployment == "d" * 300

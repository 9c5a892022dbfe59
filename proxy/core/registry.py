"""The calls of OpenAI's API that are known: which operation each is, and what is done about it.

Data, one line an operation, so that whoever teaches the proxy to read a further usage moves a line.
A call is charged where it is made: fetching a stored answer again reads no usage. Where the answer
shows an object that is billed when it is done, the object is charged, and the call that made it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What is asked of the API, and what the proxy does about it."""

    name: str  # gen_ai.operation.name where the convention has one
    api_type: str
    reads_usage: bool = False  # its answer is charged and holds usage
    splices: bool = False  # a stream of it holds usage only if asked to
    is_session: bool = False  # it opens a WebSocket, in which other things are billed
    shows: str | None = None  # the kind of objects in its answer that are billed when they are done
    makes: bool = False  # such an object
    deployment: str | None = None  # the name in an Azure path, as it came


UNKNOWN = Operation(name="unknown", api_type="unknown")
CHAT = Operation(name="chat", api_type="chat_completions", reads_usage=True, splices=True)
COMPLETION = Operation(
    name="text_completion", api_type="completions", reads_usage=True, splices=True
)
RESPONSES = Operation(name="responses", api_type="responses", reads_usage=True, shows="response")
EMBEDDINGS = Operation(name="embeddings", api_type="embeddings", reads_usage=True)

# Method, path behind the mount (`*` is any one segment), operation.
CHARGED: tuple[tuple[str, str, Operation], ...] = (
    ("POST", "chat/completions", CHAT),
    ("POST", "extensions/chat/completions", CHAT),
    ("POST", "completions", COMPLETION),
    ("POST", "engines/*/completions", COMPLETION),
    ("POST", "responses", RESPONSES),
    ("POST", "embeddings", EMBEDDINGS),
    ("POST", "engines/*/embeddings", EMBEDDINGS),
    *(
        (
            "POST",
            path,
            Operation(
                name=path.replace("/", "."), api_type=path.partition("/")[0], reads_usage=True
            ),
        )
        for path in (
            "responses/compact",
            "decisions",
            "images/generations",
            "images/edits",
            "images/variations",
            "audio/speech",
            "audio/transcriptions",
            "audio/translations",
        )
    ),
    (
        "POST",
        "containers",
        Operation(name="containers.create", api_type="containers", reads_usage=True),
    ),
)

# Path behind the mount and name of what is asked for by an upgrade to WebSocket.
SESSIONS: tuple[tuple[str, str], ...] = (
    ("realtime", "realtime.connect"),
    ("realtime/translations", "realtime.translations.connect"),
    ("responses", "responses.connect"),
    ("live/sessions", "live.connect"),
    ("live/sessions/*/attach", "live.attach"),
    ("live/sessions/*/fork", "live.fork"),
)

# Those that are billed by the time they last.
TIMED_SESSIONS = frozenset(("realtime.translations.connect", "live.connect", "live.fork"))

# Calls that set up what is then spoken over WebRTC or a telephone line, past this proxy.
MEDIA_ELSEWHERE = frozenset(
    (
        "realtime.calls",
        "realtime.calls.accept",
        "realtime.calls.hangup",
        "realtime.calls.refer",
        "realtime.calls.reject",
        "realtime.client_secrets",
        "realtime.sessions",
        "realtime.transcription_sessions",
        "realtime.translations.calls",
        "realtime.translations.client_secrets",
        "live.create",
        "live.accept",
        "live.hangup",
        "live.refer",
        "live.reject",
        "live.sessions.fork",
    )
)

# Method, path behind the mount, name; the first segment of the path is the api_type.
NAMED: tuple[tuple[str, str, str], ...] = (
    ("GET", "chat/completions", "chat.completions.list"),
    ("GET", "chat/completions/*", "chat.completions.retrieve"),
    ("POST", "chat/completions/*", "chat.completions.update"),
    ("DELETE", "chat/completions/*", "chat.completions.delete"),
    ("GET", "chat/completions/*/messages", "chat.completions.messages"),
    ("GET", "responses/*", "responses.retrieve"),
    ("DELETE", "responses/*", "responses.delete"),
    ("POST", "responses/*/cancel", "responses.cancel"),
    ("GET", "responses/*/input_items", "responses.input_items"),
    ("POST", "responses/input_tokens", "responses.input_tokens"),
    ("POST", "moderations", "moderations"),
    ("POST", "realtime", "realtime.calls"),
    ("POST", "realtime/calls", "realtime.calls"),
    ("POST", "realtime/calls/*/accept", "realtime.calls.accept"),
    ("POST", "realtime/calls/*/hangup", "realtime.calls.hangup"),
    ("POST", "realtime/calls/*/refer", "realtime.calls.refer"),
    ("POST", "realtime/calls/*/reject", "realtime.calls.reject"),
    ("POST", "realtime/client_secrets", "realtime.client_secrets"),
    ("POST", "realtime/sessions", "realtime.sessions"),
    ("POST", "realtime/transcription_sessions", "realtime.transcription_sessions"),
    ("POST", "realtime/translations/calls", "realtime.translations.calls"),
    ("POST", "realtime/translations/client_secrets", "realtime.translations.client_secrets"),
    ("POST", "live/sessions", "live.create"),
    ("POST", "live/sessions/*/accept", "live.accept"),
    ("POST", "live/sessions/*/fork", "live.sessions.fork"),
    ("POST", "live/sessions/*/hangup", "live.hangup"),
    ("POST", "live/sessions/*/refer", "live.refer"),
    ("POST", "live/sessions/*/reject", "live.reject"),
    ("GET", "live/sessions/*/content", "live.content"),
    ("GET", "files/*/content", "files.content"),
    ("POST", "uploads/*/parts", "uploads.parts"),
    ("POST", "uploads/*/complete", "uploads.complete"),
    ("POST", "uploads/*/cancel", "uploads.cancel"),
    ("POST", "batches/*/cancel", "batches.cancel"),
    ("POST", "fine_tuning/jobs/*/cancel", "fine_tuning.jobs.cancel"),
    ("POST", "fine_tuning/jobs/*/pause", "fine_tuning.jobs.pause"),
    ("POST", "fine_tuning/jobs/*/resume", "fine_tuning.jobs.resume"),
    ("GET", "fine_tuning/jobs/*/events", "fine_tuning.jobs.events"),
    ("GET", "fine_tuning/jobs/*/checkpoints", "fine_tuning.jobs.checkpoints"),
    ("POST", "fine_tuning/alpha/graders/run", "fine_tuning.graders.run"),
    ("POST", "fine_tuning/alpha/graders/validate", "fine_tuning.graders.validate"),
    ("POST", "threads/runs", "threads.create_and_run"),
    ("POST", "threads/*/runs/*", "threads.runs.modify"),
    ("POST", "threads/*/runs/*/cancel", "threads.runs.cancel"),
    ("POST", "threads/*/runs/*/submit_tool_outputs", "threads.runs.submit_tool_outputs"),
    ("GET", "threads/*/runs/*/steps", "threads.runs.steps"),
    ("GET", "threads/*/runs/*/steps/*", "threads.runs.steps.retrieve"),
    ("POST", "vector_stores/*/search", "vector_stores.search"),
    ("POST", "vector_stores/*/file_batches/*/cancel", "vector_stores.file_batches.cancel"),
    ("GET", "vector_stores/*/file_batches/*/files", "vector_stores.file_batches.files"),
    ("GET", "vector_stores/*/files/*/content", "vector_stores.files.content"),
    ("GET", "containers/*/files/*/content", "containers.files.content"),
    ("GET", "videos/*/content", "videos.content"),
    ("POST", "videos/*/remix", "videos.remix"),
    ("POST", "videos/edits", "videos.edits"),
    ("POST", "videos/extensions", "videos.extensions"),
    ("POST", "videos/characters", "videos.characters.create"),
    ("GET", "videos/characters/*", "videos.characters.retrieve"),
    ("POST", "evals/*/runs/*", "evals.runs.cancel"),
    ("POST", "evals/*/runs/*/cancel", "evals.runs.cancel"),
    ("GET", "evals/*/runs/*/output_items", "evals.runs.output_items"),
    ("GET", "evals/*/runs/*/output_items/*", "evals.runs.output_items.retrieve"),
    ("GET", "deployments", "models.list"),
    ("POST", "content_provenance_checks", "content_provenance_checks"),
    ("POST", "chatkit/sessions", "chatkit.sessions.create"),
    ("POST", "agents/automations/*/pause", "agents.automations.pause"),
    ("POST", "agents/automations/*/resume", "agents.automations.resume"),
    ("GET", "agents/sessions/*/artifacts/*/content", "agents.sessions.artifacts.content"),
)

# Path and name of what can be listed, created, retrieved, updated and deleted in the usual way.
RESOURCES: tuple[tuple[str, str], ...] = (
    ("models", "models"),
    ("files", "files"),
    ("uploads", "uploads"),
    ("batches", "batches"),
    ("fine_tuning/jobs", "fine_tuning.jobs"),
    ("fine_tuning/checkpoints/*/permissions", "fine_tuning.checkpoints.permissions"),
    ("assistants", "assistants"),
    ("threads", "threads"),
    ("threads/*/messages", "threads.messages"),
    ("threads/*/runs", "threads.runs"),
    ("vector_stores", "vector_stores"),
    ("vector_stores/*/files", "vector_stores.files"),
    ("vector_stores/*/file_batches", "vector_stores.file_batches"),
    ("containers", "containers"),
    ("containers/*/files", "containers.files"),
    ("conversations", "conversations"),
    ("conversations/*/items", "conversations.items"),
    ("videos", "videos"),
    ("evals", "evals"),
    ("evals/*/runs", "evals.runs"),
    ("skills", "skills"),
    ("audio/voices", "audio.voices"),
    ("audio/voice_consents", "audio.voice_consents"),
    ("agents/automations", "agents.automations"),
    ("agents/automations/*/invocations", "agents.automations.invocations"),
    ("agents/environments/templates", "agents.environments.templates"),
    ("agents/environments", "agents.environments"),
    ("agents/environments/*/files", "agents.environments.files"),
    ("agents/sessions", "agents.sessions"),
    ("agents/sessions/*/artifacts", "agents.sessions.artifacts"),
    ("agents/sessions/*/events", "agents.sessions.events"),
    ("agents/sessions/*/items", "agents.sessions.items"),
    ("agents/sessions/*/traces", "agents.sessions.traces"),
    ("agents/sessions/*/turns", "agents.sessions.turns"),
    ("agents/sessions/*/turns/*/items", "agents.sessions.turns.items"),
    ("agents/sessions/*/subagents", "agents.sessions.subagents"),
    ("agents/sessions/*/subagents/*/items", "agents.sessions.subagents.items"),
    ("agents/sessions/*/subagents/*/turns", "agents.sessions.subagents.turns"),
    ("agents/sessions/*/subagents/*/turns/*/items", "agents.sessions.subagents.turns.items"),
    ("agents", "agents"),  # last, for agents/* is also the list of each of these
)
VERBS: tuple[tuple[str, str, str], ...] = (
    ("GET", "", "list"),
    ("POST", "", "create"),
    ("GET", "/*", "retrieve"),
    ("POST", "/*", "update"),
    ("DELETE", "/*", "delete"),
)
# Name and kind of the objects that its answer shows; what is billed is the object, when it is done.
SHOWN: Mapping[str, str] = {
    "responses.retrieve": "response",
    "responses.cancel": "response",
    "threads.create_and_run": "run",
    "threads.runs.create": "run",
    "threads.runs.list": "run",
    "threads.runs.retrieve": "run",
    "threads.runs.modify": "run",
    "threads.runs.cancel": "run",
    "threads.runs.submit_tool_outputs": "run",
    "batches.create": "batch",
    "batches.list": "batch",
    "batches.retrieve": "batch",
    "batches.cancel": "batch",
    "files.content": "output",
    "fine_tuning.jobs.create": "job",
    "fine_tuning.jobs.list": "job",
    "fine_tuning.jobs.retrieve": "job",
    "fine_tuning.jobs.cancel": "job",
    "fine_tuning.jobs.pause": "job",
    "fine_tuning.jobs.resume": "job",
    "videos.create": "video",
    "videos.edits": "video",
    "videos.extensions": "video",
    "videos.remix": "video",
    "videos.list": "video",
    "videos.retrieve": "video",
    "evals.runs.create": "eval_run",
    "evals.runs.list": "eval_run",
    "evals.runs.retrieve": "eval_run",
    "evals.runs.cancel": "eval_run",
}
MAKERS = frozenset(
    (
        "threads.create_and_run",
        "threads.runs.create",
        "batches.create",
        "fine_tuning.jobs.create",
        "videos.create",
        "videos.edits",
        "videos.extensions",
        "videos.remix",
        "evals.runs.create",
    )
)
FAMILIES = (  # named as a whole, whatever the path below
    "organization",
    "chatkit",
    "skills",
    "projects",
    "safety",
    "vaults",
    "webhook_endpoints",
    "webhook_event_types",
)


def _entries() -> Iterator[tuple[str, str, Operation]]:
    """Yield the whole registry, the more particular first."""
    yield from CHARGED
    for path, name in SESSIONS:
        yield "GET", path, Operation(name=name, api_type=path.partition("/")[0], is_session=True)
    for method, path, name in NAMED:
        yield method, path, _named(name, path)
    for path, name in RESOURCES:
        for method, suffix, verb in VERBS:
            yield method, path + suffix, _named(f"{name}.{verb}", path)


def _named(name: str, path: str) -> Operation:
    api_type = path.partition("/")[0]
    return Operation(name=name, api_type=api_type, shows=SHOWN.get(name), makes=name in MAKERS)


def _registry() -> dict[tuple[str, int], dict[tuple[str, ...], Operation]]:
    registry: dict[tuple[str, int], dict[tuple[str, ...], Operation]] = {}
    for method, path, operation in _entries():
        pattern = tuple(path.split("/"))
        registry.setdefault((method, len(pattern)), {}).setdefault(pattern, operation)
    return registry


REGISTRY = _registry()

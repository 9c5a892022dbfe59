"""What the proxy does about each kind of call, told by the registry itself: docs/surfaces.md.

Nothing is decided here. Verdicts follow from what an operation reads, shows and opens, from the
price list's free kinds, and from `verdicts`; an operation of which none of these says anything is
undecided, and a test fails.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from proxy.core.asking import BILLED_BY_UNITS
from proxy.core.counting import COUNTERS, tools_used
from proxy.core.estimates import ESTIMABLE, HEARERS, WITHOUT_OUTPUT
from proxy.core.fees import CONTAINER_MAKER
from proxy.core.pricing import PriceBook
from proxy.core.registry import (
    FAMILIES,
    MEDIA_ELSEWHERE,
    REGISTRY,
    TIMED_SESSIONS,
    UNKNOWN,
    Operation,
)
from proxy.core.settling import EXTENSION
from proxy.core.units import IMAGE_MAKERS, SPEAKER
from proxy.core.verdicts import UNPRICED

HEAD = """\
# Every surface

What openai-meter does about each call of the API: where it reads usage, how it prices it, what it
estimates and when. This page is made from the code's own registry and from the price list that is
shipped (`make surfaces`), and a test fails where it is not what they make. Paths stand as they come
behind `/v1`, `/openai/v1` and the like; `*` is an id. What is estimated is marked so on its row
(`usage_source`), and [estimates.md](estimates.md) says how far such numbers are off.

What no call shows is in no row: what is stored by the day (vector stores, files), the time of
containers between and after the calls that use them, containers of which no answer tells because no
code ran in them, provisioned capacity, and whatever is spent past this proxy.
"""
_PLANS = {  # how objects are charged that are billed when they are done, by kind
    "response": "its `usage`, at the model's prices",
    "run": "its `usage`, at the model's prices",
    "batch": "its `usage`, at batch prices, until the lines of its output file have passed by",
    "output": "the `usage` of each line, at batch prices, in place of the batch's own sum",
    "job": "`trained_tokens`, or hours, at the training price",
    "video": "`seconds` at the price of model and `size`",
    "eval_run": "`per_model_usage`, each model at its prices",
}


class Verdict(Enum):
    """What is decided of an operation."""

    CHARGED = "charged"
    SESSION = "session"
    DEFERRED = "deferred"  # it makes an object that is billed when it is done
    UNPRICED = "unpriced"  # with a reason
    FREE = "free"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """A line of the registry, and what is decided of it."""

    method: str
    path: str
    operation: Operation
    verdict: Verdict


def verdict_of(operation: Operation, book: PriceBook) -> Verdict:
    """Return what is decided of an operation."""
    name = operation.name
    if operation.reads_usage:
        return Verdict.CHARGED
    if operation.is_session and (name in TIMED_SESSIONS or book.is_free(name)):
        return Verdict.SESSION
    if operation.makes:
        return Verdict.DEFERRED
    if book.is_free(name):
        return Verdict.FREE
    has_reason = name in UNPRICED or name in MEDIA_ELSEWHERE
    return Verdict.UNPRICED if has_reason else Verdict.UNDECIDED


def surfaces(book: PriceBook) -> Iterator[Surface]:
    """Yield every line of the registry, families last."""
    for (method, _), entries in REGISTRY.items():
        for pattern, operation in entries.items():
            yield _surface(method, "/".join(pattern), operation, book)
    for family in FAMILIES:
        yield _surface("any", f"{family}/…", Operation(name=family, api_type=family), book)


def _surface(method: str, path: str, operation: Operation, book: PriceBook) -> Surface:
    verdict = verdict_of(operation, book)
    return Surface(method=method, path=path, operation=operation, verdict=verdict)


def page(book: PriceBook) -> str:
    """Return docs/surfaces.md."""
    found = sorted(surfaces(book), key=lambda s: (s.operation.api_type, s.path, s.method))
    by = {verdict: [s for s in found if s.verdict is verdict] for verdict in Verdict}
    return "\n".join((HEAD, *_charged(by), *_later(by), *_unpriced(by), *_free(by)))


def _charged(by: dict[Verdict, list[Surface]]) -> Iterator[str]:
    yield "## Charged\n"
    yield "A failed answer is not charged, whatever it says about usage.\n"
    yield from _table(
        ("Call", "Operation", "Where usage is read", "How it is priced", "What is estimated, when"),
        (
            (_call(s), _name(s), _reads(s.operation), _priced(s.operation), _guess(s.operation))
            for s in by[Verdict.CHARGED]
        ),
    )
    yield "## Sessions over WebSocket\n"
    yield "Each response and each transcription in a session has a row of its own.\n"
    yield from _table(
        ("Upgrade", "Operation", "How it is priced"),
        ((_call(s), _name(s), _session(s.operation)) for s in by[Verdict.SESSION]),
    )


def _later(by: dict[Verdict, list[Surface]]) -> Iterator[str]:
    watching: dict[str, list[str]] = {}
    for surface in (s for group in by.values() for s in group):
        operation = surface.operation
        if operation.shows and not operation.makes and not operation.reads_usage:
            watching.setdefault(operation.shows, []).append(_call(surface))
    yield "## Billed when it is done\n"
    yield "The call that makes an object is charged once, when any call shows that it is over.\n"
    yield from _table(
        ("Call", "Operation", "What is charged"),
        ((_call(s), _name(s), _plan(s.operation)) for s in by[Verdict.DEFERRED]),
    )
    yield "Where the end of an object is seen:\n"
    rows = ((kind, _PLANS[kind], "<br>".join(calls)) for kind, calls in sorted(watching.items()))
    yield from _table(("Object", "What is charged", "Calls"), rows)


def _unpriced(by: dict[Verdict, list[Surface]]) -> Iterator[str]:
    unknown = Surface(method="any", path="…", operation=UNKNOWN, verdict=Verdict.UNPRICED)
    yield "## No price, and why\n"
    yield "The cost of these rows is NULL, and `usage_problem` says the word.\n"
    yield from _table(
        ("Call", "Operation", "`usage_problem`", "Why"),
        ((_call(s), _name(s), *_reason(s.operation)) for s in (*by[Verdict.UNPRICED], unknown)),
    )


def _free(by: dict[Verdict, list[Surface]]) -> Iterator[str]:
    free: dict[str, list[str]] = {}
    for surface in by[Verdict.FREE]:
        free.setdefault(surface.operation.api_type, []).append(_call(surface))
    yield "## Free\n"
    yield "Rows with cost 0 and `price_id` = `free`, because `pricing.yaml` lists their kinds.\n"
    yield from _table(("API", "Calls"), ((api, "<br>".join(free[api])) for api in sorted(free)))


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _call(surface: Surface) -> str:
    return f"`{surface.method} {surface.path}`"


def _name(surface: Surface) -> str:
    return f"`{surface.operation.name}`"


def _reads(operation: Operation) -> str:
    if operation.name == CONTAINER_MAKER:
        return "its size (`memory_limit`)"
    where = "`usage` of the answer"
    if operation.splices:
        where += "; of a stream: in its last chunk, which is asked for"
    elif operation.api_type not in {"embeddings", "decisions"}:
        where += ", or of the event that ends its stream"
    if operation.shows:
        where += "; in the background: of the answer that shows it done"
    return where


def _priced(operation: Operation) -> str:
    if operation.name == CONTAINER_MAKER:
        return "five minutes of its size; answers that use it longer pay for the minutes they add"
    if operation.name in BILLED_BY_UNITS:
        return "tokens by kind; without tokens by the unit that the model has a price for"
    if COUNTERS.get(operation.name) is tools_used:
        return (
            "tokens by kind and tier, and fees of hosted tools (`tool_usage`, else its calls);"
            " containers by the minute, once for all answers that share one"
        )
    if operation.name == "chat":
        return "tokens by kind and tier, and the search of models that search"
    return "tokens by kind and tier"


def _guess(operation: Operation) -> str:
    if operation.name == CONTAINER_MAKER:
        return "its time: always"
    name, guesses = operation.name, []
    if name in IMAGE_MAKERS:
        guesses.append("images of a size and quality")
        if name in ESTIMABLE:
            guesses.append("tokens of the request and of such images")
    if name in HEARERS:
        guesses.append("seconds of audio")
    if name == SPEAKER:
        guesses.append("characters")
    if name in WITHOUT_OUTPUT:
        guesses.append("tokens of the request")
    elif name in ESTIMABLE - IMAGE_MAKERS:
        guesses.append("tokens of the request and of what came of the answer")
    return f"{', or '.join(guesses)}: where no usage comes" if guesses else "nothing"


def _plan(operation: Operation) -> str:
    if operation.name == EXTENSION:
        return "`seconds` of its request, not of the whole, at the price of model and `size`"
    return _PLANS[operation.shows or ""]


def _session(operation: Operation) -> str:
    if operation.name in TIMED_SESSIONS:
        return "by its time: the seconds it tells, else as long as it lasted (estimated)"
    return "0 by itself; what is billed in it by the `usage` of its events"


def _reason(operation: Operation) -> tuple[str, str]:
    if operation.name in MEDIA_ELSEWHERE:
        return "`media_passes_elsewhere`", "what is spoken goes over WebRTC or a telephone line"
    word, why = UNPRICED[operation.name]
    return f"`{word}`", why

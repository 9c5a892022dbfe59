"""Hold the ledger against what the upstream counted and what the clients got."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from prove.calls import Call, Kind, call, poll
from prove.clients import Clients, Fate
from prove.upstream import Upstream

ROWS = """
SELECT
    metadata ->> 'call' AS call, settles IS NOT NULL AS settles, outcome, usage_source, status,
    prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, total_tokens, cost_usd,
    user_id, response_id
FROM user_api_usage
WHERE corrects IS NULL
"""
SUMS = """
SELECT
    count(*) FILTER (WHERE settles IS NULL) AS calls,
    sum(total_tokens) AS total_tokens,
    sum(cost_usd) AS cost_usd
FROM user_api_usage
"""
ROLLED = """
SELECT sum(calls) AS calls, sum(total_tokens) AS total_tokens, sum(cost_usd) AS cost_usd FROM
"""
ROLLUPS = ("usage_by_quarter_hour", "usage_by_day", "usage_by_user_day", "usage_by_month")
_COLUMNS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
_UNFINISHED = {"interrupted", "upstream_error", "client_disconnected", "timeout"}
Row = Mapping[str, Any]


@dataclass(slots=True)
class Verdict:
    """What was found; `wrong` holds a sentence for each thing that is not as it should be."""

    seen: int = 0  # calls that the upstream saw
    rows: int = 0
    charges: int = 0  # of background responses
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong_tokens: list[str] = field(default_factory=list)
    wrong_rollups: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)  # faults that did not go as they should
    outcomes: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    unsent: int = 0  # rows of calls that were noted and never reached the upstream
    torn: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Return what has to be 0."""
        return {
            "lost": len(self.lost),
            "doubled": len(self.doubled),
            "wrong tokens, costs or outcomes": len(self.wrong_tokens),
            "wrong rollups or seals": len(self.wrong_rollups),
            "client-visible failures caused by us": len(self.failures),
            "faults that did not go as they should": len(self.troubles),
        }

    @property
    def holds(self) -> bool:
        """Tell whether all of that is 0."""
        return not any(self.counts.values())

    def findings(self) -> list[str]:
        """Return all that is wrong, in words."""
        found = {
            "lost": self.lost,
            "doubled": self.doubled,
            "wrong": self.wrong_tokens,
            "rollups": self.wrong_rollups,
            "failure": self.failures,
            "fault": self.troubles,
        }
        return [f"{name}: {text}" for name, texts in found.items() for text in texts]


def judge(
    rows: Sequence[Row], upstream: Upstream, clients: Clients, torn: Iterable[int]
) -> Verdict:
    """Return what the rows of the ledger are worth."""
    torn = set(torn)
    asked = Counter(upstream.asked)
    verdict = Verdict(seen=len(asked), torn=len(torn), failures=list(clients.troubles))
    verdict.doubled += [f"call {number}: sent twice" for number in asked if asked[number] > 1]
    own, charges = _by_call(rows, settles=False), _by_call(rows, settles=True)
    verdict.rows = sum(map(len, own.values()))
    verdict.charges = sum(map(len, charges.values()))
    verdict.outcomes.update(row["outcome"] for row in rows)
    verdict.sources.update(row["usage_source"] for row in rows)
    verdict.lost += [f"call {number}: no row" for number in asked if number not in own]
    for number, found in own.items():
        if len(found) > 1:
            verdict.doubled.append(f"call {number}: {len(found)} rows")
        made = _call(clients, number)
        if number in asked:
            fate = clients.fates.get(number)
            problems = _problems(made, found[0], fate, is_torn=number in torn)
            if number in upstream.answered - upstream.cut:
                problems = chain(problems, _problems_of_drained(made, found[0], fate))
        else:
            verdict.unsent += 1
            problems = _problems_of_unsent(found[0], clients.fates.get(number))
        verdict.wrong_tokens += [f"call {number} ({made.kind}): {text}" for text in problems]
    _judge_charges(verdict, charges, upstream, clients, torn)
    return verdict


def judge_sums(raw: Row, rolled: Mapping[str, Row]) -> Iterator[str]:
    """Yield each rollup whose sums are not those of the rows."""
    for name, sums in rolled.items():
        if dict(sums) != dict(raw):
            yield f"{name}: {dict(sums)}, the rows: {dict(raw)}"


def _by_call(rows: Sequence[Row], *, settles: bool) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        if row["settles"] == settles:
            found.setdefault(int(row["call"]), []).append(row)
    return found


def _call(clients: Clients, number: int) -> Call:
    if number in clients.polls:
        return poll(call(clients.seed, clients.polls[number]), number)
    return call(clients.seed, number)


def _problems(made: Call, row: Row, fate: Fate | None, *, is_torn: bool) -> Iterator[str]:
    """Yield what is wrong in the row of a call that the upstream saw."""
    if row["user_id"] != made.user:
        yield f"it is {row['user_id']}'s, not {made.user}'s"
    if row["usage_source"] == "reported":
        yield from _wrong_numbers(made, row)
        if not made.has_usage:
            yield "nobody has reported its usage"
    elif fate is Fate.ANSWERED and made.has_usage and not is_torn:
        yield f"its usage is {row['usage_source']}, and its client got all of its answer"
    wanted = {"interrupted"} if is_torn else set()
    if fate is Fate.ANSWERED:
        wanted |= {"upstream_error" if made.kind is Kind.ERROR else "ok"}
        if row["outcome"] not in wanted:
            yield f"its outcome is {row['outcome']}"
    elif made.kind is not Kind.ERROR and row["outcome"] not in _UNFINISHED | {"ok"}:
        yield f"its outcome is {row['outcome']}"


def _problems_of_drained(made: Call, row: Row, fate: Fate | None) -> Iterator[str]:
    """Yield what is wrong in the row of a call whose client left, and whose answer was whole."""
    is_left = fate is Fate.OWN and row["outcome"] == "client_disconnected"
    if is_left and made.has_usage and row["usage_source"] != "reported":
        yield f"its usage is {row['usage_source']}, and the upstream has told all of it"


def _problems_of_unsent(row: Row, fate: Fate | None) -> Iterator[str]:
    if fate is Fate.ANSWERED:
        yield "its client has an answer, and the upstream has never seen it"
    if row["outcome"] not in _UNFINISHED or row["usage_source"] == "reported":
        yield f"never sent, and {row['outcome']}, {row['usage_source']}"


def _wrong_numbers(made: Call, row: Row) -> Iterator[str]:
    used = made.tokens
    told = (used.prompt, used.cached, used.completion, used.reasoning)
    found = tuple(row[name] or 0 for name in _COLUMNS)
    if found != told or row["total_tokens"] != used.total:
        yield f"tokens {found}, not {told}"
    if row["cost_usd"] != made.cost:
        yield f"it costs {row['cost_usd']}, not {made.cost}"


def _judge_charges(
    verdict: Verdict,
    charges: Mapping[int, list[Row]],
    upstream: Upstream,
    clients: Clients,
    torn: set[int],
) -> None:
    """Look whether what was done in the background is charged once, with what it used."""
    unsure = torn | {clients.polls[number] for number in torn & clients.polls.keys()}
    for number in clients.told - charges.keys() - unsure:
        verdict.lost.append(f"background response {number}: not charged")
    for number, found in charges.items():
        made = call(clients.seed, number)
        if len(found) > 1:
            verdict.doubled.append(f"background response {number}: {len(found)} charges")
        if number not in upstream.told:
            verdict.wrong_tokens.append(f"background response {number}: charged before its end")
        verdict.wrong_tokens += [
            f"background response {number}: {text}" for text in _wrong_numbers(made, found[0])
        ]

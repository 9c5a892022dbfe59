"""Where one can go from a page: other pages, other days, fewer filters, files. Pure.

Every link is an address that holds all of the state, so that going back works, and sending it too.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

from dashboard import formatting
from dashboard.filters import OUTCOMES, Filter
from dashboard.layout import BY_CALL, address
from dashboard.report import Report

PAGES = (
    ("overview", "Overview", "overview"),
    ("users", "Users", "users"),
    ("endpoints", "Endpoints", "endpoints"),
    ("models", "Models", "models"),
    ("daily", "Days", "days"),
    ("calls", "Calls", "calls"),
    ("pricing", "Pricing", "pricing"),
    ("exports", "Exports", "exports"),
)
PARENTS = {"user": "users", "endpoint": "endpoints", "call": "calls"}
STREAMED = frozenset({"users", "calls"})
UNRANGED = frozenset({"call", "pricing"})

_PRESETS = (
    ("today", "Today"),
    ("yesterday", "Yesterday"),
    ("7d", "7 days"),
    ("30d", "30 days"),
    ("90d", "90 days"),
    ("this_month", "This month"),
    ("last_month", "Last month"),
    ("this_year", "This year"),
    ("all", "All"),
)
_COMPARISONS = (
    ("none", "nothing"),
    ("previous", "the days before"),
    ("year", "the year before"),
)
_FIELDS = (
    ("user", "User", "u-17"),
    ("endpoint", "Endpoint", "generate_hint"),
    ("model", "Model", "gpt-5.4-mini"),
    ("tier", "Service tier", "default"),
    ("metadata", "Metadata", "course=algebra-1"),
)
_NOT_OF_ENDPOINT = frozenset({"user", "model", "tier"})  # how its calls ended is known of all alone


def carried(report: Report, page: str) -> Filter:
    """Return the filter as another page may have it: less what that page does not know."""
    wanted = report.filter.with_(sort=None, size=50, search=None)
    if page not in BY_CALL:
        wanted = wanted.with_(outcomes=(), metadata=())
    if report.name in PARENTS and page == PARENTS[report.name]:
        wanted = wanted.with_(users=(), endpoints=(), without=())
    return wanted.with_(compare="none") if page in BY_CALL else wanted


def pages(report: Report) -> list[dict[str, Any]]:
    """Return the pages, the one that is shown marked."""
    current = PARENTS.get(report.name, report.name)
    return [
        {
            "title": title,
            "icon": icon,
            "current": name == current,
            "href": address(
                "" if name == "overview" else name,
                carried(report, name).with_(users=(), endpoints=(), without=())
                if report.name in {"user", "endpoint"}
                else carried(report, name),
            )
            if name != "pricing"
            else "/admin/pricing",
        }
        for name, title, icon in PAGES
    ]


def presets(report: Report) -> list[dict[str, Any]]:
    """Return the ranges of days that one click chooses."""
    wanted, page = report.filter, path(report)
    return [
        {
            "title": title,
            "current": wanted.range == name,
            "href": f"{page}?{urlencode([('range', name), *_without_range(wanted)])}",
        }
        for name, title in _PRESETS
    ]


def steps(report: Report) -> dict[str, str | None] | None:
    """Return the same number of days before and after; None: the range has no beginning."""
    wanted = report.filter
    if wanted.first is None:
        return None
    today = report.freshness.as_of.astimezone(wanted.zone).date()
    length = wanted.last - wanted.first + timedelta(days=1)
    forward = wanted.last < today
    return {
        "back": _shifted(report, wanted.first - length, wanted.last - length),
        "forward": _shifted(report, wanted.first + length, wanted.last + length)
        if forward
        else None,
    }


def chips(report: Report) -> list[dict[str, str]]:
    """Return the filters in force, each with the address without it."""
    fixed = {"user": {"user"}, "endpoint": {"endpoint"}}.get(report.name, set())
    found = []
    for parameter, value, query in report.filter.chips():
        if parameter in fixed or (parameter == "without" and value in fixed):
            continue
        shown = f"no {value}" if parameter == "without" else formatting.text(value)
        name = "" if parameter == "without" else parameter
        found.append({"name": name, "value": shown, "href": f"{path(report)}?{query}"})
    if report.filter.compare != "none":
        query = report.filter.with_(compare="none").query()
        words = dict(_COMPARISONS)[report.filter.compare]
        found.append({"name": "against", "value": words, "href": f"{path(report)}?{query}"})
    return found


def form(report: Report, options: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return what the form for filters shows; its fields add to the filters in force."""
    wanted = report.filter
    by_call = report.name in BY_CALL
    hidden = {"user", "metadata"} if report.blind else set()
    fixed = {"user": "user", "endpoint": "endpoint"}.get(report.name)
    subject = [
        pair
        for pair in wanted.pairs()
        if fixed is not None and (pair[0] == fixed or pair == ("without", fixed))
    ]
    return {
        "path": path(report),
        "cleared": f"{path(report)}{'?' if subject else ''}{urlencode(subject)}",
        "kept": _kept(wanted, less={"from", "to", "tz", "range", "compare", "after"}),
        "first": wanted.first.isoformat() if wanted.first and wanted.range == "custom" else "",
        "last": wanted.last.isoformat() if wanted.range == "custom" else "",
        "tz": "" if wanted.in_report_zone else wanted.zone.key,
        "fields": [
            {
                "name": name,
                "title": title,
                "placeholder": placeholder,
                "options": options.get(name, ()),
            }
            for name, title, placeholder in _FIELDS
            if (by_call or name != "metadata")
            and name != fixed
            and name not in hidden
            and not (report.name == "endpoint" and name in _NOT_OF_ENDPOINT)
        ],
        "outcomes": OUTCOMES if by_call else (),
        "comparisons": () if by_call else _COMPARISONS,
        "compare": wanted.compare,
    }


def kept_for_search(report: Report) -> list[tuple[str, str]]:
    """Return what a search keeps of the address."""
    return _kept(report.filter, less={"search", "after"})


def downloads(report: Report, *, may_export: bool) -> list[dict[str, str]]:
    """Return the files that hold what this page shows."""
    if report.name in {"exports", "call"} or not report.tables:
        return []
    if report.name in STREAMED and not may_export:
        return []
    wanted = report.filter.with_(after=None)
    if report.name in STREAMED:  # a file of these has one range
        wanted = wanted.with_(compare="none")
    query = wanted.query()
    page = "/admin.csv" if report.name == "overview" else f"/admin/{report.name}.csv"
    offers = [("CSV for Excel", "what this page lists", page, query)]
    if report.name == "overview":
        offers = [
            (f"{table.title}: CSV", "for Excel", page, _joined(query, ("table", table.name)))
            for table in report.tables
            if table.name in {"days", "endpoints", "users"}
        ]
    offers.append(
        ("Raw CSV", "untouched values, for machines", page, _joined(query, ("dialect", "raw")))
    )
    return [
        {"title": title, "words": words, "href": f"{where}{text and '?'}{text}"}
        for title, words, where, text in offers
    ]


def offers(report: Report, *, may_export: bool) -> list[dict[str, Any]]:
    """Return the files that can be had of the calls that the filter wants, and by this account."""
    query = carried(report, "exports").query()
    raw = _joined(query, ("dialect", "raw"))
    return [
        {
            "title": title,
            "words": words,
            "links": [
                {"title": name, "href": f"{where}{text and '?'}{text}"}
                for name, where, text in links
            ],
        }
        for title, words, links in (
            (
                "By user",
                "One line for each user: calls, tokens by kind, cost, first and last call.",
                (
                    ("For Excel", "/api/usage/export/summary", query),
                    ("Raw", "/api/usage/export/summary", raw),
                ),
            ),
            (
                "Every call",
                "One line for each call with all that is known of it, however many there are.",
                (("For Excel", "/api/usage/export", query), ("Raw", "/api/usage/export", raw)),
            ),
            (
                "FOCUS 1.2",
                "For FinOps tools: a line for each UTC day, user, endpoint, model and component.",
                (("For machines", "/api/usage/export", _of_focus(report)),),
            ),
            ("By day", "One line for each day.", _sums(report, "daily")),
            ("By endpoint", "One line for each feature of yours.", _sums(report, "endpoints")),
            ("By model", "One line for each model and service tier.", _sums(report, "models")),
        )
        if may_export or all(where.startswith("/admin/") for _, where, _ in links)
    ]


def _of_focus(report: Report) -> str:
    """Return the query for FOCUS, whose days are those of UTC."""
    wanted = carried(report, "exports")
    plain = urlencode([pair for pair in wanted.pairs() if pair[0] != "tz"])
    return _joined(plain, ("format", "focus-1.2"), ("dialect", "raw"))


def _sums(report: Report, page: str) -> tuple[tuple[str, str, str], ...]:
    """Return the links to the sums of a page, which whoever sees the page may have."""
    query = carried(report, page).query()
    where = f"/admin/{page}.csv"
    return ("For Excel", where, query), ("Raw", where, _joined(query, ("dialect", "raw")))


def json_twin(report: Report) -> str:
    """Return the address of the same report as JSON."""
    page = "/admin.json" if report.name == "overview" else f"/admin/{report.name}.json"
    query = report.filter.query()
    return f"{page}{query and '?'}{query}"


def path(report: Report) -> str:
    """Return the address of this page without its state."""
    return "/admin" if report.name == "overview" else f"/admin/{report.name}"


def _shifted(report: Report, first: date, last: date) -> str:
    wanted = report.filter.with_(range="custom", first=first, last=last)
    return f"{path(report)}?{wanted.query()}"


def _without_range(wanted: Filter) -> list[tuple[str, str]]:
    return _kept(wanted, less={"from", "to", "range", "after"})


def _kept(wanted: Filter, *, less: set[str]) -> list[tuple[str, str]]:
    return [pair for pair in wanted.pairs() if pair[0] not in less]


def _joined(query: str, *pairs: tuple[str, str]) -> str:
    return "&".join(filter(None, (query, urlencode(pairs))))

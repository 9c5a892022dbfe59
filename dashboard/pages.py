"""Reports as pages: templates, and what each is told. Everything that is put into one is escaped.

Templates are read once, when this is imported; whoever changes one starts the dashboard again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from dashboard import deriving, formatting, glance, navigation, notices, pricetable
from dashboard.charts import HEIGHT, Chart, chart
from dashboard.filters import OUTCOMES
from dashboard.layout import NAMELESS, UNKNOWN, address, cell, grid
from dashboard.report import Report, Value
from dashboard.roles import Viewer
from dashboard.statics import asset

NO_OPTIONS: Mapping[str, Sequence[str]] = {}
_LISTS = {"users": "users", "endpoints": "endpoints", "models": "models", "daily": "days"}
_NOTHING = {
    "users": "No user made a call in these days.",
    "calls": "No call of these days matches. Take a filter away, or choose more days.",
    "narrowed": "Nothing of these days matches. Take a filter away, or choose more days.",
}
_SEARCHES = {
    "users": ("User contains…", "Search users"),
    "endpoints": ("Endpoint contains…", "Search endpoints"),
    "models": ("Model contains…", "Search models"),
    "calls": ("User, endpoint, model or request id contains…", "Search calls"),
}


def page(report: Report, viewer: Viewer, options: Mapping[str, Sequence[str]] = NO_OPTIONS) -> str:
    """Return a report as HTML; `options` are what the fields of its filter suggest."""
    name = f"{report.name}.html" if report.name in _OWN else "listing.html"
    if report.name in {"user", "endpoint"}:
        name = "one.html"
    context = _frame(report, viewer, options) | _CONTEXTS.get(report.name, _of_list)(report)
    return _templates.get_template(name).render(context)


def own_page(report: Report) -> str:
    """Return what users see of their own numbers, small enough for a frame in another page."""
    wanted = ("day", "endpoint", "calls", "total_tokens", "cost_usd")
    tables = []
    for table in report.tables:
        columns = [column for column in table.columns if column.name in wanted]
        total = table.total() | {"day": "Total", "endpoint": "Total"}
        *shown, foot = (
            [_told(row[column.name]) for column in columns] for row in (*table.records(), total)
        )
        tables.append({"title": table.title, "columns": columns, "rows": shown, "foot": foot})
    asked = report.filter
    return _templates.get_template("own.html").render(
        {"title": report.title, "tables": tables, "style": asset("dashboard.css")}
        | {"items": glance.strip(report, "days")[:4], "chart": _chart(report, by=None)}
        | {"zone": asked.zone.key, "span": formatting.span(asked.first, asked.last)}
    )


def _told(value: Value) -> str:
    """Return a value of a small page: every digit of money, and a dash for what is unknown."""
    match value:
        case None:
            return "–"
        case Decimal():
            return formatting.exact(value)
        case int():
            return f"{value:,}"
        case _:
            return formatting.text(str(value))


def login_page(
    *, hidden: Mapping[str, str], problem: str = "", single_sign_on: bool = False
) -> str:
    """Return the page on which one logs in; `hidden` are fields that go with the form."""
    return _templates.get_template("login.html").render(
        {"title": "Log in", "scripts": False, "live": False, "single_sign_on": single_sign_on}
        | {"problem": problem, "hidden": list(hidden.items())}
        | {"following": urlencode({"next": hidden.get("next", "")})}
    )


def message_page(message: str, *, heading: str = "This cannot be shown") -> str:
    """Return a page that says one thing."""
    return _templates.get_template("message.html").render(
        {"title": heading, "heading": heading, "message": formatting.text(message, longest=2000)}
        | {"scripts": False, "live": False}
    )


def _frame(report: Report, viewer: Viewer, options: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return what every page is told."""
    wanted, fresh = report.filter, report.freshness
    newest = fresh.newest_call
    parent = navigation.PARENTS.get(report.name)
    ranged = report.name not in navigation.UNRANGED
    page_name = next((item for item in navigation.PAGES if item[0] == parent), None)
    return {
        "title": formatting.text(report.title),
        "heading": formatting.text(report.title),
        "report": report,
        "viewer": viewer,
        "scripts": True,
        "live": report.name not in {"pricing", "exports"},
        "unknown": UNKNOWN,
        "badges": OUTCOMES,
        "nav": navigation.pages(report),
        "crumb": page_name
        and {
            "title": page_name[1],
            "href": address(page_name[0], navigation.carried(report, page_name[0])),
        },
        "ranged": ranged,
        "span": formatting.span(wanted.first, wanted.last),
        "zone": wanted.zone.key,
        "presets": navigation.presets(report),
        "steps": navigation.steps(report),
        "chips": navigation.chips(report),
        "downloads": navigation.downloads(report, may_export=viewer.may_export),
        "json": navigation.json_twin(report),
        "newest": newest
        and {"machine": newest.isoformat(), "text": formatting.moment(newest, wanted.zone)},
        "as_of": {
            "machine": fresh.as_of.isoformat(),
            "text": formatting.moment(fresh.as_of, wanted.zone),
        },
        "offers": navigation.offers(report, may_export=viewer.may_export)
        if report.name == "exports"
        else [],
        **navigation.form(report, options),
    }


def _of_overview(report: Report) -> dict[str, Any]:
    has_calls = any(table.name == "calls" for table in report.tables)
    return {
        "cards": glance.cards(report),
        "notices": notices.notices(report),
        "projection": glance.projection(report),
        "latest": glance.latest(report) if has_calls else [],
        "chart": _chart(report, by="endpoint"),
        "strip_items": glance.strip(report, "endpoints"),
        "endpoints": grid(report, "endpoints"),
        "users": grid(report, "users"),
        "links": {
            page: address(page, navigation.carried(report, page)) for page in ("calls", "users")
        },
    }


def _of_list(report: Report) -> dict[str, Any]:
    name = report.tables[0].name
    hides = report.blind and report.name in navigation.STREAMED
    words = None if hides else _SEARCHES.get(report.name)
    searched = words and {"words": words[0], "title": words[1], "value": report.filter.search or ""}
    return {
        "main": grid(report, name),
        "nothing": _NOTHING["narrowed"] if report.filter.chips() else _NOTHING.get(name, ""),
        "searched": searched,
        "kept_search": navigation.kept_for_search(report),
        "strip_items": glance.strip(report, name) if report.name in _LISTS else [],
        "first_page": address(report.name, report.filter.with_(after=None))
        if report.filter.after
        else None,
    }


def _of_models(report: Report) -> dict[str, Any]:
    unpriced = report.table("models").total().get("unpriced_calls")
    columns = {column.name: column for column in report.table("models").columns}
    shown = cell(columns["unpriced_calls"], report.table("models").total(), report)
    return _of_list(report) | {
        "prices": pricetable.in_force(report),
        "unpriced": f"{shown.text} calls" if unpriced else None,
    }


def _of_one(report: Report) -> dict[str, Any]:
    return {
        "strip_items": glance.strip(report, "days"),
        "chart": _chart(report, by=None),
        "grids": [
            grid(report, table.name)
            for table in sorted(report.tables, key=lambda table: table.name == "users")
            if table.name != "days"
        ],
        "links": {"calls": address("calls", report.filter.with_(compare="none"))},
    }


def _of_pricing(report: Report) -> dict[str, Any]:
    shown = report.filter.tiers[0] if report.filter.tiers else pricetable.DEFAULT
    return {
        "prices": pricetable.priced(report, tier=shown),
        "tiers": [
            {"name": tier, "current": tier == shown}
            | {"href": "/admin/pricing" + ("" if tier == pricetable.DEFAULT else f"?tier={tier}")}
            for tier in pricetable.tiers(report)
        ],
        "versions": pricetable.versions(report),
    }


_OWN = frozenset({"overview", "models", "pricing", "call", "exports"})
_CONTEXTS: Mapping[str, Callable[[Report], dict[str, Any]]] = {
    "overview": _of_overview,
    "models": _of_models,
    "user": _of_one,
    "endpoint": _of_one,
    "pricing": _of_pricing,
    "exports": lambda _: {},
    "call": deriving.story,
}


def _chart(report: Report, *, by: str | None) -> dict[str, Any] | None:
    """Return the chart of a report's days as its template draws it."""
    wanted = report.filter
    found = chart(
        report.table("days").records(),
        first=wanted.first,
        last=min(wanted.last, report.freshness.as_of.astimezone(wanted.zone).date()),
        by=by,
    )
    return None if found is None else _drawn(found, report, by=by)


def _drawn(found: Chart, report: Report, *, by: str | None) -> dict[str, Any]:
    colours = [6 if series.other else number for number, series in enumerate(found.series)]
    step = HEIGHT / (len(found.lines) - 1)
    wanted = report.filter.with_(sort=None)
    return {
        "named": by is not None,
        "monthly": found.monthly,
        "height": HEIGHT,
        "ticks": formatting.ticks(found.lines),
        "grid": [f"{step * number:.2f}" for number in range(len(found.lines))],
        "labels": [_label(day, monthly=found.monthly) for day in found.labels],
        "bars": [
            {"colour": colours[bar.series], "x": bar.x, "y": bar.y}
            | {"width": bar.width, "height": bar.height}
            for bar in found.bars
        ],
        "legend": [
            {
                "colour": colour,
                "name": "Cost" if by is None else _named(series.name, by),
                "total": formatting.money(series.total),
                "href": None
                if by is None or series.other or series.name is None
                else address("endpoint", wanted.with_(endpoints=(series.name,))),
            }
            for colour, series in zip(colours, found.series, strict=True)
        ],
        "rows": [
            {
                "name": _label(start, monthly=found.monthly),
                "href": None,
                "texts": [
                    formatting.money(Decimal(series.exact[index])) for series in found.series
                ],
            }
            for index, start in enumerate(found.starts)
        ],
        "data": found.data | {"colours": colours},
    }


def _named(name: str | None, by: str) -> str:
    return NAMELESS[by] if name is None else formatting.text(name)


def _label(day: Any, *, monthly: bool) -> str:  # noqa: ANN401 - a date
    return f"{day:%b %Y}" if monthly else formatting.day(day)


def _to_json(value: object) -> Markup:
    """Return JSON that cannot end the element in which it stands."""
    text = json.dumps(value, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - nothing in it can be markup any more


def _environment() -> Environment:
    found = {
        path.name: path.read_text(encoding="utf-8")
        for path in (files("dashboard") / "templates").iterdir()
        if path.name.endswith(".html")
    }
    made = Environment(
        loader=DictLoader(found),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["asset"] = asset
    made.globals["badges"] = OUTCOMES
    made.filters["tojson"] = _to_json
    for name in found:
        made.get_template(name)  # a mistake in one is found here, and not by a reader
    return made


_templates = _environment()

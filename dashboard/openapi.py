"""The usage API in the words of OpenAPI 3.1: what can be asked, with which parameters. Pure."""

import json
from typing import Any, get_args

from dashboard.exports import DIALECTS
from dashboard.filters import OUTCOMES, PRESETS, SIZES, Compare, Named
from dashboard.roles import ROLES

_TEXT = {"type": "string", "maxLength": 1024}
_DAY = {"type": "string", "format": "date"}
_FILTER: dict[str, tuple[str, dict[str, Any]]] = {
    "range": ("Days by name; else `from` and `to`.", {"type": "string", "enum": list(PRESETS)}),
    "from": ("First day.", _DAY),
    "to": ("Last day, included.", _DAY),
    "tz": ("Time zone in which days begin; default: the report's.", _TEXT),
    "user": ("Only calls of this user; may be repeated.", _TEXT),
    "endpoint": ("Only calls of this endpoint; may be repeated.", _TEXT),
    "model": ("Only calls of this model; may be repeated.", _TEXT),
    "tier": ("Only calls of this service tier; may be repeated.", _TEXT),
    "without": ("Only calls that name none.", {"type": "string", "enum": list(get_args(Named))}),
    "sort": ("A column; with a minus before it, the largest first.", _TEXT),
    "compare": ("Days to compare with.", {"type": "string", "enum": list(get_args(Compare))}),
}
_OF_FILES = {name: told for name, told in _FILTER.items() if name != "compare"}
_OF_USER = {name: told for name, told in _FILTER.items() if name not in {"user", "sort"}} | {
    "without": ("Only calls that name none.", {"type": "string", "enum": ["endpoint", "model"]}),
}
_SEARCH: dict[str, tuple[str, dict[str, Any]]] = {
    "search": ("Only names in which this occurs, whatever its case.", _TEXT),
}
_PAGING: dict[str, tuple[str, dict[str, Any]]] = {
    "size": ("Rows of a page.", {"type": "integer", "enum": list(SIZES)}),
    "after": ("Where the page begins: from `next` of the page before.", _TEXT),
}
_CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "outcome": ("Only calls that ended so.", {"type": "string", "enum": list(OUTCOMES)}),
    "metadata": (
        '`key=value` or `{"key": "value"}` that calls were sent with; may be repeated.',
        {"type": "string", "maxLength": 8192},
    ),
}
_DIALECT = {
    "dialect": (
        "`excel`: safe in a spreadsheet; `raw`: for machines.",
        {"type": "string", "enum": list(DIALECTS)},
    )
}
_FORMAT = {"format": ("Which file.", {"type": "string", "enum": ["calls", "focus-1.2"]})}
_USER = {
    "name": "user_id",
    "in": "path",
    "required": True,
    "description": "The user, percent-encoded.",
    "schema": _TEXT,
}
_REPORTS = (
    ("/api/usage/endpoint", "Sums of each endpoint", _FILTER | _SEARCH),
    ("/api/usage/daily", "Sums of each day", _FILTER),
    ("/api/usage/model", "Sums of each model and service tier", _FILTER | _SEARCH),
)
_ADMIN = (
    ("get", "/api/admin/tokens", "All tokens, without themselves"),
    ("post", "/api/admin/tokens", "Make a token: name, role, scopes, days"),
    ("delete", "/api/admin/tokens/{id}", "Revoke a token"),
    ("post", "/api/admin/links", "Sign a link that opens one user's numbers: user, days"),
    ("get", "/api/admin/audit", "The newest lines of the audit log"),
    ("post", "/api/admin/migrate-usage-tracking", "Bring the schema up to date"),
)
_SOME_DAYS = {"type": "integer", "minimum": 1, "description": "How long it is good."}
_BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/api/admin/tokens"): {
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "maxLength": 100},
            "role": {"type": "string", "enum": list(ROLES), "default": "finance"},
            "scopes": {
                "type": "array",
                "items": {"type": "string"},
                "description": "`usage:read`, `exports:read`, `user:ID`; none: all of its role.",
            },
            "days": _SOME_DAYS,
        },
    },
    ("post", "/api/admin/links"): {
        "required": ["user"],
        "properties": {"user": _TEXT, "days": _SOME_DAYS},
    },
}


def document(*, version: str) -> str:
    """Return the whole document as JSON."""
    paths: dict[str, dict[str, Any]] = {
        "/api/usage/stats": {"get": _operation("Sums of today, this month and all time", {})}
    }
    listed = _FILTER | _SEARCH | _PAGING
    paths["/api/usage/summary"] = {"get": _operation("Sums of each user", listed)}
    for path, words, parameters in _REPORTS:
        paths[path] = {"get": _operation(words, parameters)}
        paths[f"{path}.csv"] = {"get": _operation(words, parameters | _DIALECT, form="text/csv")}
    one = _operation("Everything of one user", _OF_USER)
    one["parameters"].insert(0, _USER)
    paths["/api/usage/user/{user_id}"] = {"get": one}
    files = _OF_FILES | _SEARCH | _CALLS | _DIALECT
    paths["/api/usage/export"] = {
        "get": _operation("Every call, or FOCUS 1.2", files | _FORMAT, form="text/csv")
    }
    for path in ("/api/usage/export/summary", "/api/usage/summary.csv"):
        paths[path] = {"get": _operation("Sums of each user", files, form="text/csv")}
    for method, path, words in _ADMIN:
        operation = _operation(words, {})
        if (method, path) in _BODIES:
            operation["requestBody"] = _body(_BODIES[method, path])
            operation["responses"]["201"] = operation["responses"].pop("200")
        if "{id}" in path:
            operation["parameters"] = [_USER | {"name": "id", "description": "Its id."}]
            del operation["responses"]["200"]
            operation["responses"]["204"] = {"description": "It opens nothing any more."}
            operation["responses"]["404"] = {"description": "There is none of this id."}
        paths.setdefault(path, {})[method] = operation
    return json.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "openai-meter usage API", "version": version},
            "paths": paths,
            "components": {
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "basic": {"type": "http", "scheme": "basic"},
                },
                "schemas": {"Error": _ERROR},
            },
            "security": [{"bearer": []}, {"basic": []}],
        }
    )


_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": "string", "description": "The parameter that is wrong."},
            },
        }
    },
}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"} | schema}}
    return {"required": True, "content": content}


def _operation(
    words: str, parameters: dict[str, tuple[str, dict[str, Any]]], *, form: str = "application/json"
) -> dict[str, Any]:
    failed = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    return {
        "summary": words,
        "parameters": [
            {"name": name, "in": "query", "description": description, "schema": schema}
            for name, (description, schema) in parameters.items()
        ],
        "responses": {
            "200": {"description": words, "content": {form: {}}},
            "400": {"description": "A parameter is wrong, and named."} | failed,
            "401": {"description": "Nobody we know."} | failed,
            "403": {"description": "Not with this role."} | failed,
        },
    }

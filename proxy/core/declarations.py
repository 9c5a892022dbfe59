"""Write tools as the model reads them: declarations of functions in a namespace.

OpenAI does not publish this form. It was found by comparing reported usage with the number of
tokens of such texts; for a usual set of functions they are equal or differ by one or two.
"""

import json
from collections.abc import Iterable, Iterator

from proxy.core import loose

HEADER = "# Tools\n\n## functions\n\nnamespace functions {\n\n"
FOOTER = "} // namespace functions"
INDENT = 2
MAX_DEPTH = 40
UNWRITTEN = frozenset(  # of a schema that an answer must have; the model does not see them
    (
        "additionalProperties",
        "required",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
        "uniqueItems",
        "pattern",
        "format",
    )
)
BY_NAME = frozenset(("properties", "$defs", "definitions"))  # their members are schemas by name
NAMES = {
    "number": "number",
    "integer": "number",
    "string": "string",
    "boolean": "boolean",
    "object": "object",
}


def declared(functions: Iterable[object]) -> str:
    """Return the declarations of functions, empty where there are none."""
    written = "".join(map(_function, functions))
    return HEADER + written + FOOTER if written else ""


def compact(schema: object) -> str:
    """Return a JSON schema on one line, as the format of an answer is described."""
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def shape(schema: object, depth: int = 0) -> object:
    """Return of the schema of an answer what the model is shown: its fields, not their bounds."""
    if depth > MAX_DEPTH:
        return None
    if isinstance(schema, list):
        return [shape(item, depth + 1) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: {key: shape(inner, depth + 1) for key, inner in value.items()}
        if name in BY_NAME and isinstance(value, dict)
        else shape(value, depth + 1)
        for name, value in schema.items()
        if name not in UNWRITTEN
    }


def _function(function: object) -> str:
    comment = "".join(_comment(loose.text(function, "description"), 0))
    name, parameters = loose.text(function, "name"), loose.at(function, "parameters")
    fields = "\n".join(_fields(parameters, 0, 0))
    if not fields:
        return f"{comment}type {name} = () => any;\n\n"
    return f"{comment}type {name} = (_: {{\n{fields}\n}}) => any;\n\n"


def _comment(text: str, indent: int) -> Iterator[str]:
    for line in text.strip().split("\n") if text else ():
        yield f"{' ' * indent}// {line.strip()}\n"


def _fields(schema: object, indent: int, depth: int) -> Iterator[str]:
    required = loose.items(schema, "required")
    for name, field in loose.members(schema, "properties").items():
        comment = "".join(
            line
            for member in ("title", "description")
            for line in _comment(loose.text(field, member), indent)
        )
        mark = "" if name in required else "?"
        default = loose.at(field, "default")
        told = "" if default is None else f" // default: {_plain(default)}"
        yield f"{comment}{' ' * indent}{name}{mark}: {_type(field, indent, depth)},{told}"


def _type(schema: object, indent: int, depth: int) -> str:
    """Return the name of a type, or its fields."""
    kind = loose.at(schema, "type")
    options = loose.items(schema, "enum")
    either = loose.items(schema, "anyOf") or loose.items(schema, "oneOf")
    if depth > MAX_DEPTH:
        return "any"
    if options:
        return " | ".join(compact(option) for option in options)
    if either:
        return " | ".join(_type(option, indent, depth + 1) for option in either)
    if isinstance(kind, list):
        return " | ".join(NAMES.get(str(name), str(name)) for name in kind)
    if kind == "array":
        return _type(loose.at(schema, "items"), indent, depth + 1) + "[]"
    return _object(schema, indent, depth) or NAMES.get(str(kind), "any")


def _object(schema: object, indent: int, depth: int) -> str:
    """Return the fields of an object, or the name of one that is described elsewhere."""
    fields = "\n".join(_fields(schema, indent + INDENT, depth + 1))
    if fields:
        return f"{{\n{fields}\n{' ' * indent}}}"
    return loose.text(schema, "$ref").rpartition("/")[2]


def _plain(value: object) -> str:
    return value if isinstance(value, str) else compact(value)

"""Tools are written as the model reads them."""

from proxy.core.declarations import MAX_DEPTH, compact, declared, shape

WEATHER = {
    "name": "get_weather",
    "description": "Tell the weather.\n    Anywhere.",
    "parameters": {
        "type": "object",
        "required": ["place"],
        "properties": {
            "place": {"type": "string", "title": "Place", "description": "A city"},
            "unit": {"enum": ["c", "f"], "default": "c"},
            "days": {"type": ["integer", "null"], "default": 3},
            "at": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Moment"}]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "options": {
                "type": "object",
                "properties": {"exact": {"type": "boolean"}, "more": {"type": "object"}},
            },
            "rest": True,
        },
    },
}
WRITTEN = """# Tools

## functions

namespace functions {

// Tell the weather.
// Anywhere.
type get_weather = (_: {
// Place
// A city
place: string,
unit?: "c" | "f", // default: c
days?: number | null, // default: 3
at?: string | Moment,
tags?: string[],
options?: {
  exact?: boolean,
  more?: object,
},
rest?: any,
}) => any;

type now = () => any;

} // namespace functions"""


def test_functions_are_declared_with_their_fields() -> None:
    """Titles, descriptions and defaults are comments; what is not required has a question mark."""
    assert declared([WEATHER, {"name": "now"}]) == WRITTEN


def test_no_functions_make_no_text() -> None:
    """Not even a namespace."""
    assert declared([]) == ""


def test_depth_has_a_bound() -> None:
    """A schema may be nested as deep as a client likes."""
    schema: dict[str, object] = {"type": "string"}
    for _ in range(2 * MAX_DEPTH):
        schema = {"type": "array", "items": schema}
    text = declared([{"name": "f", "parameters": {"properties": {"deep": schema}}}])
    assert "deep?: any" + "[]" * (MAX_DEPTH + 1) in text


def test_a_schema_is_written_on_one_line() -> None:
    """As it is described to the model."""
    assert compact({"type": "string", "enum": ["é"]}) == '{"type":"string","enum":["é"]}'


def test_of_the_schema_of_an_answer_its_fields_are_shown() -> None:
    """Not what must hold of them; a field may be called like such a rule."""
    schema = {
        "type": "object",
        "title": "A",
        "properties": {"format": {"type": "string", "format": "email", "minLength": 2}},
        "required": ["format"],
        "additionalProperties": False,
        "$defs": {"pattern": {"anyOf": [{"type": "integer", "minimum": 1}, True]}},
    }
    assert shape(schema) == {
        "type": "object",
        "title": "A",
        "properties": {"format": {"type": "string"}},
        "$defs": {"pattern": {"anyOf": [{"type": "integer"}, True]}},
    }
    assert shape({"properties": ["odd"]}) == {"properties": ["odd"]}


def test_a_schema_without_end_is_cut() -> None:
    """Nothing raises."""
    deep: object = {}
    for _ in range(MAX_DEPTH + 2):
        deep = {"items": deep}
    assert compact(shape(deep)).count("items") == MAX_DEPTH + 1

"""Schemas as CAMARA's design guide wants them (2.2): what the types of documents cannot say by themselves.

An integer names its format, an instant its grammar, an optional property keeps the description of what it may be, and
the body of every error is called `ErrorInfo`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aipaging.runtime.http.faults import Fault

REF: Final = "#/components/schemas/{name}"

ERROR_INFO: Final = "ErrorInfo"
"""What CAMARA calls the body of an error."""

INSTANT_GRAMMAR: Final = (
    "It must follow [RFC 3339](https://datatracker.ietf.org/doc/html/rfc3339#section-5.6) and must have time zone."
)
"""The sentence that the guide demands of every instant, word for word."""

_INT32_MAX: Final = 2**31 - 1
_VALUES: Final = frozenset({"example", "examples", "default", "enum", "const"})
"""Members that hold values and not schemas."""


def ref(name: str) -> dict[str, str]:
    """Return a reference to a component's schema."""
    return {"$ref": REF.format(name=ERROR_INFO if name == Fault.__name__ else name)}


def finished(components: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schemas of all components, finished."""
    return {ERROR_INFO if name == Fault.__name__ else name: _finished(schema) for name, schema in components.items()}


def finished_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return one schema that is no component, such as that of a parameter."""
    return dict(_finished(schema))


def _finished(node: Any) -> Any:
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [_finished(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    schema = {key: value if key in _VALUES else _finished(value) for key, value in node.items()}
    if schema.get("$ref") == REF.format(name=Fault.__name__):
        schema["$ref"] = REF.format(name=ERROR_INFO)
    _say_format(schema)
    _say_description(schema)
    return schema


def _say_format(schema: dict[str, Any]) -> None:
    if schema.get("type") == "integer":
        schema["format"] = "int32" if schema.get("maximum", _INT32_MAX + 1) <= _INT32_MAX else "int64"
    if schema.get("format") == "date-time":
        schema["description"] = f"{schema.get('description', '')} {INSTANT_GRAMMAR}".strip()


def _say_description(schema: dict[str, Any]) -> None:
    if "description" not in schema:
        inner = [str(each["description"]) for each in schema.get("anyOf", ()) if "description" in each]
        if inner:
            schema["description"] = inner[0]
    items = schema.get("items")
    if isinstance(items, dict) and not {"description", "$ref"} & items.keys():
        items["description"] = f"{schema.get('description', '')} One of them.".strip()

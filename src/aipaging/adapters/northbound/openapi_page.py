"""The OpenAPI document as one page for people: made here, no script, nothing from anywhere else.

A renderer of the usual kind is a megabyte of JavaScript that runs where an operator's credential is typed. This page is
text: operations fold by `<details>`, and its policy allows the one style sheet by its digest and nothing else, so that
no text of the document, whoever wrote it, can run or fetch anything.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

STYLE: Final = (Path(__file__).with_name("openapi_page.css")).read_text()

_DIGEST: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Document = Mapping[str, Any]


def openapi_page(document: Document) -> bytes:
    """Return the page of a document, in UTF-8."""
    info = document["info"]
    groups = _groups(document)
    title = escape(f"{info['title']} {info['version']}")
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>{title}</title><style>{STYLE}</style>",
        f"<nav aria-label=Operations><p class=title>{title}</p>",
        *(_contents(tag, found) for tag, found in groups.items()),
        "<h2>Documents</h2><ul>",
        *(f"<li><a href='#{escape(name)}'>{escape(name)}</a>" for name in sorted(_schemas(document))),
        "</ul></nav><main>",
        f"<h1>{title}</h1><p>{escape(info['summary'])}</p><p>{_prose(info['description'])}</p>",
        "<p>Programs read <a href=/openapi.json><code>/openapi.json</code></a>, which says the same.</p>",
    ]
    for tag, found in groups.items():
        parts += [f"<section><h2 id='{escape(tag)}'>{escape(tag)}</h2>"]
        parts += [_operation(document, path, method, operation) for path, method, operation in found]
        parts += ["</section>"]
    parts += ["<section><h2>Documents</h2>"]
    parts += [_schema(name, schema) for name, schema in sorted(_schemas(document).items())]
    parts += ["</section></main></html>"]
    return "".join(parts).encode()


def _schemas(document: Document) -> dict[str, Any]:
    return dict(document["components"]["schemas"])


def _groups(document: Document) -> dict[str, list[tuple[str, str, Document]]]:
    groups: dict[str, list[tuple[str, str, Document]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups.setdefault(operation["tags"][0], []).append((path, method.upper(), operation))
    return groups


def _contents(tag: str, found: Sequence[tuple[str, str, Document]]) -> str:
    items = "".join(
        f"<li><a href='#{escape(operation['operationId'])}'>{escape(operation['summary'])}</a>"
        for _, _, operation in found
    )
    return f"<h2><a href='#{escape(tag)}'>{escape(tag)}</a></h2><ul>{items}</ul>"


def _operation(document: Document, path: str, method: str, operation: Document) -> str:
    scopes = [scope for requirement in operation["security"] for found in requirement.values() for scope in found]
    needs = f"<p>Needs the scope <code>{escape(scopes[0])}</code>.</p>" if scopes else "<p>Needs no credential.</p>"
    name = escape(operation["operationId"])
    return "".join(
        (
            f"<details class=operation><summary><b class={method.lower()}>{method}</b>",
            f"<code>{escape(path)}</code><span>{escape(operation['summary'])}</span></summary>",
            # Within: a link into a closed operation opens it, with no script.
            f"<p id='{name}'>{_prose(operation['description'])}</p>{needs}",
            _parameters([_resolved(document, parameter) for parameter in operation["parameters"]]),
            _body("Request", operation["requestBody"]) if "requestBody" in operation else "",
            *(
                _body(f"Answer {status}", _resolved(document, answer), failure=int(status) >= 400)
                for status, answer in operation["responses"].items()
            ),
            "</details>",
        )
    )


def _parameters(parameters: Sequence[Document]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(each['name'])}</code>{' *' if each.get('required') else ''}<td>{escape(each['in'])}"
        f"<td>{_kind(each['schema'])}<td>{_prose(each['description'])}"
        for each in parameters
    )
    return f"<h4>Parameters</h4><table><tr><th>Name<th>In<th>Type<th>Meaning{rows}</table>"


def _body(title: str, body: Document, *, failure: bool = False) -> str:
    lines = [f"<h4>{title}</h4><p>{_prose(body.get('description', ''))}</p>"]
    for kind, media in body.get("content", {}).items():
        lines.append(f"<p class=kind>{escape(kind)}: {_kind(media['schema'])}</p>")
        for name, example in _examples(media):
            shown = example if isinstance(example, str) else json.dumps(example, indent=2, ensure_ascii=False)
            about = escape(name or "Example")
            opened = "" if failure else " open"
            lines.append(
                f"<details class=example{opened}><summary>{about}</summary><pre>{escape(shown)}</pre></details>"
            )
    return "".join(lines)


def _examples(media: Document) -> Iterator[tuple[str, Any]]:
    if "example" in media:
        yield "", media["example"]
    for name, example in media.get("examples", {}).items():
        yield name, example["value"]


def _schema(name: str, schema: Document) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(key)}</code>{' *' if key in required else ''}<td>{_kind(value)}<td>{_about(value)}"
        for key, value in schema.get("properties", {}).items()
    )
    table = f"<table><tr><th>Property<th>Type<th>Meaning{rows}</table>" if rows else f"<p>{_kind(schema)}</p>"
    return f"<h3 id='{escape(name)}'>{escape(name)}</h3><p>{_prose(schema.get('description', ''))}</p>{table}"


def _about(schema: Document) -> str:
    said = _prose(schema.get("description", ""))
    default = schema.get("default")
    return said if default in (None, "", [], {}) else f"{said} Default: <code>{escape(json.dumps(default))}</code>."


def _kind(schema: Document) -> str:
    """Return what a schema allows, in a few words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    for joint, word in (("anyOf", " or "), ("allOf", ", ")):
        if joint in schema:
            return word.join(filter(None, map(_kind, schema[joint])))
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}, at most {schema.get('maxItems', '')}"
    if schema.get("type") == "object" and "properties" in schema:
        return ""  # the exact codes of an error: its examples say them
    words = [schema.get("format") or schema.get("type") or "anything", *_limits(schema)]
    return escape(" ".join(map(str, words)))


def _limits(schema: Document) -> Iterator[str]:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is not None:
        above = ">" if "exclusiveMinimum" in schema else "≥"
        yield f"{above} {low:g}"
    if high is not None:
        yield f"≤ {high:g}"
    if "maxLength" in schema:
        yield f"≤ {schema['maxLength']} characters"


def _prose(text: str) -> str:
    """Return a text in which what stands between backticks is code."""
    pieces = escape(text).split("`")
    if len(pieces) % 2 == 0:
        return escape(text)
    return "".join(f"<code>{piece}</code>" if place % 2 else piece for place, piece in enumerate(pieces))


def _resolved(document: Document, node: Document) -> Document:
    found: Any = node
    if "$ref" in node:
        found = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
    return dict(found)

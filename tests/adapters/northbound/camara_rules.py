"""The rules of CAMARA's API design guide that a machine can check on a description of an interface.

Each rule is named by its section in the guide and a word, and yields the places that break it. What the guide asks of
files, repositories and people (where a specification lies, who reviews it) has no rule here.
"""

import keyword
import re
from collections.abc import Callable, Iterator
from typing import Any

Document = dict[str, Any]
Rule = Callable[[Document], Iterator[str]]

KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LOWER_CAMEL = re.compile(r"[a-z][a-zA-Z0-9]*")
UPPER_CAMEL = re.compile(r"[A-Z][a-zA-Z0-9]*")
SCREAMING = re.compile(r"([A-Z][A-Z0-9_]*\.)?[A-Z][A-Z0-9_]*")
RESERVED = {
    *(word.lower() for word in keyword.kwlist),
    *re.findall(
        r"\w+",
        """
        abstract break case char const continue default do double enum extends final float goto if implements
        instanceof int interface long native new package private protected public short static super switch
        synchronized this throw throws transient void volatile chan defer fallthrough func map range select
        struct type var object typealias val when fun let guard init inout internal operator subscript
        """,
    ),
}
"""Keywords of Python, Java, Go, Kotlin and Swift, whose generators the guide names."""

COMMON_CODES = {
    "INVALID_ARGUMENT": 400, "OUT_OF_RANGE": 400, "INVALID_SINK": 400, "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403, "NOT_FOUND": 404, "METHOD_NOT_ALLOWED": 405, "NOT_ACCEPTABLE": 406, "ABORTED": 409,
    "ALREADY_EXISTS": 409, "INCOMPATIBLE_STATE": 409, "GONE": 410, "FAILED_PRECONDITION": 412,
    "UNSUPPORTED_MEDIA_TYPE": 415, "SERVICE_NOT_APPLICABLE": 422, "QUOTA_EXCEEDED": 429, "TOO_MANY_REQUESTS": 429,
    "INTERNAL": 500, "NOT_IMPLEMENTED": 501, "BAD_GATEWAY": 502, "UNAVAILABLE": 503, "TIMEOUT": 504,
}  # fmt: skip
COMMON_STATUSES = {*COMMON_CODES.values(), 422}


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Yield every operation with its path and its method."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def resolved(document: Document, node: Document) -> Document:
    """Return what a reference points to, or the node itself."""
    if "$ref" not in node:
        return node
    found: Any = document
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/")]
    return dict(found)


def schemas(node: Any, where: str) -> Iterator[tuple[str, Document]]:
    """Yield every schema below a place, with its place."""
    if isinstance(node, dict):
        if "type" in node or "properties" in node:
            yield where, node
        for name, inner in node.items():
            if name not in {"example", "examples", "default", "enum", "const", "required"}:
                yield from schemas(inner, f"{where}.{name}" if where else name)
    elif isinstance(node, list):
        for inner in node:
            yield from schemas(inner, where)


def described(document: Document, schema: Document) -> bool:
    """Tell whether a schema says what it is for, itself or in what it refers to."""
    if "description" in schema:
        return True
    inner = [schema, *schema.get("anyOf", ()), *schema.get("allOf", ())]
    return any("description" in resolved(document, each) for each in inner if "$ref" in each)


def properties(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Yield every property of every component: the component, its name, its schema."""
    for name, schema in document["components"]["schemas"].items():
        for key, value in schema.get("properties", {}).items():
            yield name, key, value


def parameters(document: Document) -> Iterator[tuple[str, Document]]:
    """Yield every parameter with the operation that takes it."""
    for _, _, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            yield operation["operationId"], resolved(document, parameter)


def answers(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Yield every answer: the operation, the status, the answer."""
    for _, _, operation in operations(document):
        for status, answer in operation["responses"].items():
            yield operation["operationId"], status, resolved(document, answer)


def shown(answer: Document) -> Iterator[Any]:
    """Yield the examples of an answer or a request."""
    for media in answer.get("content", {}).values():
        if "example" in media:
            yield media["example"]
        for example in media.get("examples", {}).values():
            yield example["value"]


def bounded_strings(document: Document) -> Iterator[str]:
    """A string has maxLength or enum."""
    for where, schema in schemas(document, ""):
        if schema.get("type") == "string" and not {"maxLength", "enum", "const"} & schema.keys():
            yield where


def bounded_arrays(document: Document) -> Iterator[str]:
    """An array has maxItems."""
    for where, schema in schemas(document, ""):
        if schema.get("type") == "array" and "maxItems" not in schema:
            yield where


def bounded_integers(document: Document) -> Iterator[str]:
    """An integer has a format and a range."""
    for where, schema in schemas(document, ""):
        low, high = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}
        ranged = low & schema.keys() and high & schema.keys()
        if schema.get("type") == "integer" and not (ranged and schema.get("format") in {"int32", "int64"}):
            yield where


def instants(document: Document) -> Iterator[str]:
    """A date-time says the guide's sentence."""
    sentence = "RFC 3339](https://datatracker.ietf.org/doc/html/rfc3339#section-5.6) and must have time zone."
    for where, schema in schemas(document, ""):
        if schema.get("format") == "date-time" and sentence not in schema.get("description", ""):
            yield where


def described_properties(document: Document) -> Iterator[str]:
    """Every property has a description."""
    for name, key, schema in properties(document):
        if not described(document, schema):
            yield f"{name}.{key}"


def described_items(document: Document) -> Iterator[str]:
    """What an array holds has a description."""
    for where, schema in schemas(document, ""):
        items = schema.get("items")
        if schema.get("type") == "array" and items and not described(document, items):
            yield where


def error_fields(document: Document) -> Iterator[str]:
    """Every error is ErrorInfo: status, code and message are required."""
    for name, status, answer in answers(document):
        if int(status) < 400:
            continue
        for example in shown(answer):
            if not (isinstance(example, dict) and {"status", "code", "message"} <= example.keys()):
                yield f"{name} {status}"


def error_values(document: Document) -> Iterator[str]:
    """The status in an error is that of the answer, its code is the guide's for that status, or ours with our name."""
    for name, status, answer in answers(document):
        for example in shown(answer) if int(status) >= 400 else ():
            if not isinstance(example, dict) or "code" not in example:
                continue
            code = str(example["code"])
            own = code.startswith("AI_PAGING.") and SCREAMING.fullmatch(code) is not None
            if example["status"] != int(status) or not (own or COMMON_CODES.get(code) == int(status)):
                yield f"{name} {status} {code}"


def error_statuses(document: Document) -> Iterator[str]:
    """Errors have the statuses that the guide lists."""
    yield from sorted(
        {status for _, status, _ in answers(document) if int(status) >= 400} - set(map(str, COMMON_STATUSES))
    )


def mandatory_errors(document: Document) -> Iterator[str]:
    """401 and 403 are documented."""
    for _, _, operation in operations(document):
        if not {"401", "403"} <= operation["responses"].keys():
            yield operation["operationId"]


def examples_of_errors(document: Document) -> Iterator[str]:
    """Every code that an error may have has an example."""
    for name, status, answer in answers(document):
        codes: set[str] = set()
        for _, schema in schemas(answer.get("content", {}), ""):
            codes |= set(schema.get("properties", {}).get("code", {}).get("enum", ()))
        given = {str(example.get("code")) for example in shown(answer) if isinstance(example, dict)}
        if int(status) >= 400 and codes - given:
            yield f"{name} {status}"


def examples_of_success(document: Document) -> Iterator[str]:
    """Every body, asked or answered, has an example."""
    for _, _, operation in operations(document):
        bodies = [("request", operation.get("requestBody", {})), *operation["responses"].items()]
        for which, body in bodies:
            found = resolved(document, body)
            if found.get("content") and not list(shown(found)):
                yield f"{operation['operationId']} {which}"


def page_parameters(document: Document) -> Iterator[str]:
    """A list that comes in pages is asked for by page and perPage, from 1 on, 20 by default, 100 at most."""
    for name, parameter in parameters(document):
        schema = parameter["schema"]
        if parameter["name"] == "perPage" and (schema.get("default"), schema.get("maximum")) != (20, 100):
            yield name
        if parameter["name"] == "page" and (schema.get("default"), schema.get("minimum")) != (1, 1):
            yield name


def page_body(document: Document) -> Iterator[str]:
    """A page says which it is: pagination with page, perPage, totalCount, totalPages."""
    for name, schema in document["components"]["schemas"].items():
        if "pagination" in schema.get("properties", {}) and "pagination" not in schema["required"]:
            yield name
    if document["components"]["schemas"]["Pagination"]["properties"].keys() != {
        "page", "perPage", "totalCount", "totalPages",
    }:  # fmt: skip
        yield "Pagination"


def reserved_words(document: Document) -> Iterator[str]:
    """No name is a keyword of a language that code is generated for."""
    for name, key, _ in properties(document):
        if key.lower() in RESERVED:
            yield f"{name}.{key}"
    for name, parameter in parameters(document):
        if parameter["name"].lower() in RESERVED:
            yield f"{name}.{parameter['name']}"
    names = [operation["operationId"] for _, _, operation in operations(document)]
    yield from (name for name in [*names, *document["components"]["schemas"]] if name.lower() in RESERVED)


def openapi_version(document: Document) -> Iterator[str]:
    """The description is of OpenAPI 3.0.3."""
    if document["openapi"] != "3.0.3":
        yield document["openapi"]


def info(document: Document) -> Iterator[str]:
    """Title without API, licence with its URL, a version, the Commonalities' version in full, no contact, no terms."""
    found = document["info"]
    if "API" in found["title"]:
        yield "title"
    if found["license"] != {"name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0.html"}:
        yield "license"
    yield from (key for key in ("contact", "termsOfService") if key in found)
    yield from (
        key for key in ("version", "x-camara-commonalities") if not re.fullmatch(r"\d+\.\d+\.\d+", found.get(key, ""))
    )


def info_templates(document: Document) -> Iterator[str]:
    """The description holds the guide's texts on authorization and on further errors."""
    for heading in ("### Authorization and authentication", "# Additional CAMARA error responses"):
        if heading not in document["info"]["description"]:
            yield heading.lstrip("# ")


def external_docs(document: Document) -> Iterator[str]:
    """externalDocs leads to the repository at CAMARA."""
    if "externalDocs" not in document:
        yield "externalDocs"


def servers(document: Document) -> Iterator[str]:
    """A server's URL ends in the name and the version of the interface."""
    for server in document["servers"]:
        if not re.fullmatch(r"\{apiRoot\}/[a-z0-9-]+/v(0\.)?\d+", server["url"]):
            yield "servers"


def url_version(document: Document) -> Iterator[str]:
    """The version in paths is that of the interface: v0.y before it is stable."""
    major, minor, _ = document["info"]["version"].split(".")
    expected = f"v0.{minor}" if major == "0" else f"v{major}"
    for path in document["paths"]:
        found = re.match(r"/ai-paging/([^/]+)/", path)
        if found and found[1] != expected:
            yield path


def global_tags(document: Document) -> Iterator[str]:
    """Tags of operations are declared, and written in title case."""
    declared = {tag["name"] for tag in document["tags"]}
    for _, _, operation in operations(document):
        yield from (tag for tag in operation["tags"] if tag not in declared or not tag[0].isupper())


def _own(path: str) -> bool:
    return path.startswith("/ai-paging/")


def kebab_paths(document: Document) -> Iterator[str]:
    """Paths are lower-case words with hyphens."""
    for path in document["paths"]:
        parts = path.split("/")[3:] if _own(path) else path.split("/")[1:]
        if not all(part.startswith("{") or KEBAB.fullmatch(part) for part in parts):
            yield path


def identifiers(document: Document) -> Iterator[str]:
    """A part of a path that identifies says what: sessionId, never id."""
    for path in document["paths"]:
        yield from (part for part in re.findall(r"\{(\w+)\}", path) if not part.endswith("Id"))


def hierarchy(document: Document) -> Iterator[str]:
    """At most entity and sub-entity."""
    for path in document["paths"]:
        parts = [part for part in path.split("/")[3:] if not part.startswith("{")] if _own(path) else []
        if len(parts) > 2:
            yield path


def methods_in_paths(document: Document) -> Iterator[str]:
    """No resource is named after a method."""
    for path in document["paths"]:
        if re.search(r"\b(get|put|post|patch|delete)\b", path):
            yield path


def summaries(document: Document) -> Iterator[str]:
    """Every operation has a summary, a description and an operationId in lowerCamelCase."""
    for path, method, operation in operations(document):
        if not (operation.get("summary") and operation.get("description")):
            yield f"{method} {path}"
        if not LOWER_CAMEL.fullmatch(operation["operationId"]):
            yield operation["operationId"]


def parameter_names(document: Document) -> Iterator[str]:
    """Parameters are in lowerCamelCase; headers are as HTTP writes them."""
    for name, parameter in parameters(document):
        if parameter["in"] != "header" and not LOWER_CAMEL.fullmatch(parameter["name"]):
            yield f"{name}.{parameter['name']}"


def property_names(document: Document) -> Iterator[str]:
    """Properties are in lowerCamelCase."""
    yield from sorted({f"{name}.{key}" for name, key, _ in properties(document) if not LOWER_CAMEL.fullmatch(key)})


def described_parameters(document: Document) -> Iterator[str]:
    """Every parameter has a description."""
    for name, parameter in parameters(document):
        if not parameter.get("description"):
            yield f"{name}.{parameter['name']}"


def bodies(document: Document) -> Iterator[str]:
    """A request body has a description; GET and DELETE have none."""
    for _, method, operation in operations(document):
        body = operation.get("requestBody")
        if body is not None and (method in {"get", "delete"} or not body.get("description")):
            yield operation["operationId"]


def described_answers(document: Document) -> Iterator[str]:
    """Every answer has a description, and errors are described once, among the components."""
    for _, _, operation in operations(document):
        for status, answer in operation["responses"].items():
            if not resolved(document, answer).get("description") or (int(status) >= 400 and "$ref" not in answer):
                yield f"{operation['operationId']} {status}"


def component_names(document: Document) -> Iterator[str]:
    """Schemas and answers are in UpperCamelCase."""
    for kind in ("schemas", "responses"):
        yield from (name for name in document["components"][kind] if not UPPER_CAMEL.fullmatch(name))


def correlator(document: Document) -> Iterator[str]:
    """Every operation takes x-correlator, and every answer carries it."""
    for _, _, operation in operations(document):
        taken = {resolved(document, parameter)["name"] for parameter in operation["parameters"]}
        if "x-correlator" not in taken:
            yield operation["operationId"]
    for name, status, answer in answers(document):
        if "x-correlator" not in answer.get("headers", {}):
            yield f"{name} {status}"


def security_scheme(document: Document) -> Iterator[str]:
    """There is a security scheme openId of type openIdConnect."""
    found = document["components"]["securitySchemes"]
    if found.get("openId", {}).get("type") != "openIdConnect":
        yield "securitySchemes"


def secured(document: Document) -> Iterator[str]:
    """Every operation names a scope."""
    for _, _, operation in operations(document):
        if not operation.get("security"):
            yield operation["operationId"]


def scopes(document: Document) -> Iterator[str]:
    """Scopes are <api-name>:<resource>:<action>, in kebab-case."""
    for _, _, operation in operations(document):
        for requirement in operation["security"]:
            for scope in (scope for found in requirement.values() for scope in found):
                parts = scope.split(":")
                if parts[0] != "ai-paging" or not 2 <= len(parts) <= 3 or not all(map(KEBAB.fullmatch, parts)):
                    yield scope


def unknown_properties(document: Document) -> Iterator[str]:
    """What is sent is closed: unknown properties are refused. Our own rule; the guide leaves it open."""
    for _, _, operation in operations(document):
        for kind, media in operation.get("requestBody", {}).get("content", {}).items():
            schema = resolved(document, media["schema"])
            if kind == "application/json" and schema.get("additionalProperties") is not False:
                yield operation["operationId"]


RULES: dict[str, Rule] = {
    "2.2 bounded strings": bounded_strings,
    "2.2 bounded arrays": bounded_arrays,
    "2.2 bounded integers": bounded_integers,
    "2.2 instants": instants,
    "2.2 described properties": described_properties,
    "5.7.6 described items": described_items,
    "3.2 error fields": error_fields,
    "3.2.1 error codes": error_values,
    "3.2.1 error statuses": error_statuses,
    "3.2.1 mandatory errors": mandatory_errors,
    "3.2.2 examples of errors": examples_of_errors,
    "3.2.2 examples of bodies": examples_of_success,
    "4.1.1 page parameters": page_parameters,
    "4.1.3 page body": page_body,
    "5.1 reserved words": reserved_words,
    "5.2 OpenAPI version": openapi_version,
    "5.3 info": info,
    "5.3.2 info templates": info_templates,
    "5.4 external documents": external_docs,
    "5.5 servers": servers,
    "5.6 tags": global_tags,
    "5.7.1 paths": kebab_paths,
    "5.7.1 identifiers": identifiers,
    "5.7.1 hierarchy": hierarchy,
    "5.7.1 methods in paths": methods_in_paths,
    "5.7.2 operations": summaries,
    "5.7.4 parameter names": parameter_names,
    "5.7.4 described parameters": described_parameters,
    "5.7.5 bodies": bodies,
    "5.7.6 answers": described_answers,
    "5.8.1 component names": component_names,
    "1.2 property names": property_names,
    "5.8.5 x-correlator": correlator,
    "5.8.6 security scheme": security_scheme,
    "6.3 secured": secured,
    "6.6 scopes": scopes,
    "7.2 version in URL": url_version,
    "closed requests": unknown_properties,
}


def findings(document: Document) -> set[tuple[str, str]]:
    """Return every place that breaks a rule: the rule and the place."""
    return {(name, place) for name, rule in RULES.items() for place in rule(document)}

"""The OpenAPI 3.1 document, made of the table of operations and the types of their documents.

3.1 because its schemas are JSON Schema 2020-12, which is what the types are; CAMARA's 3.0.3 has another dialect.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from aipaging.adapters.northbound.credentials import OPERATOR_SCOPES
from aipaging.adapters.northbound.documents import words
from aipaging.adapters.northbound.fault_examples import fault_example, status_of_code
from aipaging.adapters.northbound.openapi_schemas import ERROR_INFO, REF, finished, finished_schema, ref
from aipaging.adapters.northbound.operation import Operation, Reply
from aipaging.adapters.northbound.pages import PER_PAGE_DEFAULT
from aipaging.runtime.http.exchange import JSON
from aipaging.runtime.http.faults import Fault

VERSION: Final = "0.1.0"

_EVERY: Final = (
    "INVALID_ARGUMENT", "INTERNAL", "UNAVAILABLE", "AI_PAGING.OVERLOADED", "AI_PAGING.JOURNAL_UNAVAILABLE",
)  # fmt: skip
"""INVALID_ARGUMENT: a malformed `x-correlator` is refused everywhere."""

_GUARDED: Final = ("UNAUTHENTICATED", "PERMISSION_DENIED", "TOO_MANY_REQUESTS")
_WITH_BODY: Final = ("AI_PAGING.REQUEST_TIMEOUT",)

_NAME: Final = {"type": "string", "maxLength": 64, "pattern": words.NAME_PATTERN}
_PATH_PARAMETERS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "sessionId": (
        "A session.",
        {"type": "string", "format": "uuid", "maxLength": 36, "pattern": words.SESSION_PATTERN},
    ),
    "anchorId": ("An anchor.", _NAME),
    "digest": ("Hex SHA-256 of a signed envelope.", {"type": "string", "maxLength": 64, "pattern": "^[0-9a-f]{64}$"}),
    "tenant": ("A tenant.", _NAME),
    "domain": ("An administrative domain.", _NAME),
    "clientId": ("A client.", _NAME),
    "keyId": ("RFC 7638 thumbprint of a key.", {"type": "string", "maxLength": 64, "pattern": "^[A-Za-z0-9_-]{43}$"}),
    "auditId": (
        "A finding of the continuous audit.",
        {"type": "string", "maxLength": 64, "pattern": "^[0-9a-f-]{1,64}$"},
    ),
    "path": (
        "A file of the log, as C2SP tlog-tiles names them.",
        {"type": "string", "maxLength": 256, "pattern": "^(checkpoint|verifier-keys|tile/.+|leaves/[0-9a-f]{64})$"},
    ),
}
_QUERY: Final = {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**53 - 1}
_QUERY_WORDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "page": {"type": "integer", "format": "int32", "minimum": 1, "maximum": words.PAGE_MAX, "default": 1},
    "perPage": {
        "type": "integer",
        "format": "int32",
        "minimum": 1,
        "maximum": words.PER_PAGE_MAX,
        "default": PER_PAGE_DEFAULT,
    },
    "domain": _NAME,
    "tenant": _NAME,
    "sessionId": {"type": "string", "format": "uuid", "maxLength": 36, "pattern": words.SESSION_PATTERN},
    "lastEventId": {"type": "string", "maxLength": 32, "pattern": "^[0-9.-]{1,32}$"},
    "follow": {"type": "string", "enum": ["true", "false"], "default": "true"},
    "verdict": {"type": "string", "enum": ["compliant", "violated", "insufficient_evidence"]},
    "kind": {"type": "string", "enum": ["ALARM", "VERDICT"]},
}
"""Query parameters with a grammar of their own; all others are places and sizes of the log."""


def openapi_document(operations: Sequence[Operation], *, server_url: str) -> dict[str, Any]:
    """Return the document."""
    documents = [operation.request for operation in operations if operation.request is not None]
    replies = [reply.document for operation in operations for reply in operation.replies.values()]
    types = [Fault, *documents, *(document for document in replies if document not in {None, dict})]
    _, components = msgspec.json.schema_components(_unique(types), ref_template=REF)
    failures = _Failures(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = operation.path.replace("*}", "}")
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, failures)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AI-Paging",
            "version": VERSION,
            "summary": "AI as a managed network service: intents, sessions under admission leases, proven tail delays.",
            "description": _DESCRIPTION,
            "license": {"name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0.html"},
            "x-camara-commonalities": "0.6.0",
        },
        "servers": [{"url": server_url}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "paths": paths,
        "components": {
            "schemas": finished(components),
            "responses": failures.components,
            "headers": {
                "x-correlator": {"description": "The one of the request, or a new one.", "schema": _CORRELATOR},
            },
            "parameters": {
                "x-correlator": {
                    "name": "x-correlator",
                    "in": "header",
                    "description": "Follows a request through every log; echoed in the answer.",
                    "schema": _CORRELATOR,
                    "example": "b4333c46-49c0-4f62-80d7-f0ef930f1c46",
                }
            },
            "securitySchemes": {
                "client": {"type": "http", "scheme": "bearer", "description": _SECURITY},
            },
        },
    }


_CORRELATOR: Final = {"type": "string", "maxLength": 256, "pattern": "^[a-zA-Z0-9-_:;./<>{}]{0,256}$"}
_HEADER: Final = {"type": "string", "maxLength": 255, "pattern": "^[ -~]{0,255}$"}
_SECURITY: Final = (
    "An access token of `/oauth2/token` or of another issuer, or the client's secret. Scopes come with its role: "
    + ", ".join(sorted(OPERATOR_SCOPES))
    + "."
)
_DESCRIPTION: Final = (
    "A client says what it needs (an intent); the network finds which model serves it and where, and bounds the tail "
    "of its end-to-end delay. Errors are `{status, code, message}` extended by `who` must act and, where there is one, "
    "the `field`. Unknown and repeated properties are refused. A refused admission is 422, extended by the reason of "
    "every candidate."
)


def _unique(types: Sequence[Any]) -> list[Any]:
    return list({id(kind): kind for kind in types}.values())


def _operation(operation: Operation, failures: "_Failures") -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": operation.description or f"{operation.summary}.",
        "tags": [operation.tag],
        "parameters": _parameters(operation),
        "responses": _responses(operation, failures),
        "security": [] if operation.scope is None else [{"client": [operation.scope]}],
    }
    if operation.request is not None:
        media: dict[str, Any] = {"schema": ref(operation.request.__name__)}
        if operation.request_example is not None:
            media["example"] = operation.request_example
        described["requestBody"] = {
            "description": _first_line(operation.request),
            "required": not operation.request_optional,
            "content": {operation.request_media: media},
        }
    return described


def _first_line(document: type) -> str:
    return (document.__doc__ or "").partition("\n")[0]


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    names = [part.split("}")[0].rstrip("*") for part in operation.path.split("{")[1:]]
    parameters: list[dict[str, Any]] = [{"$ref": "#/components/parameters/x-correlator"}]
    parameters += [
        {"name": name, "in": "path", "required": True, "description": meaning, "schema": finished_schema(schema)}
        for name, (meaning, schema) in ((name, _PATH_PARAMETERS[name]) for name in names)
    ]
    parameters += [
        {"name": name, "in": "header", "description": meaning, "schema": _HEADER}
        for name, meaning in operation.headers.items()
    ]
    parameters += [
        {"name": name, "in": "query", "description": meaning, "schema": dict(_QUERY_WORDS.get(name, _QUERY))}
        for name, meaning in operation.query.items()
    ]
    return parameters


def _responses(operation: Operation, failures: "_Failures") -> dict[str, Any]:
    responses = {str(status): _reply(reply) for status, reply in operation.replies.items()}
    for status, codes in codes_by_status(operation).items():
        if str(status) not in responses:
            responses[str(status)] = {"$ref": f"#/components/responses/{failures.name_of(operation, status)}"}
            continue
        # A status that is an answer of its own kind here, and an ordinary error in another case.
        media = responses[str(status)]["content"][JSON]
        media["schema"] = {"anyOf": [media["schema"], _failure_schema(status, codes)]}
        own = media.pop("example", None)
        shown = {} if own is None else {str(own.get("code", "refusal")): {"value": own}}
        media["examples"] = shown | _examples(codes)
    return dict(sorted(responses.items()))


def codes_by_status(operation: Operation) -> dict[int, tuple[str, ...]]:
    """Return every code with which an operation may fail, by status."""
    guarded = _GUARDED if operation.scope is not None else ()
    with_body = _WITH_BODY if operation.request is not None else ()
    by_status: dict[int, tuple[str, ...]] = {}
    for code in dict.fromkeys((*operation.errors, *guarded, *with_body, *_EVERY)):
        status = status_of_code(code)
        by_status[status] = (*by_status.get(status, ()), code)
    return dict(sorted(by_status.items()))


class _Failures:
    """The answers for errors, each described once: `Generic401`, or `CreateSession403` where an operation differs."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        counted = Counter(each for operation in operations for each in codes_by_status(operation).items())
        generic = {status: codes for (status, codes), _ in reversed(counted.most_common())}
        self._names: dict[tuple[str, int], str] = {}
        self.components: dict[str, Any] = {}
        for operation in operations:
            for status, codes in codes_by_status(operation).items():
                kind = "Generic" if generic[status] == codes else operation.name[0].upper() + operation.name[1:]
                name = f"{kind}{status}"
                self._names[operation.name, status] = name
                if status not in operation.replies:
                    self.components.setdefault(name, _failure(status, codes))

    def name_of(self, operation: Operation, status: int) -> str:
        """Return the name of the answer of an operation that fails with a status."""
        return self._names[operation.name, status]


def _reply(reply: Reply) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": reply.meaning,
        "headers": {"x-correlator": {"$ref": "#/components/headers/x-correlator"}},
    }
    if reply.document is None and reply.media_type == JSON:
        return described
    if reply.document is None:
        schema: dict[str, Any] = {"type": "string", "format": "binary", "maxLength": 2**24}
    elif reply.document is dict:
        schema = {"type": "object"}
    else:
        schema = ref(reply.document.__name__)
    media: dict[str, Any] = {"schema": schema}
    if reply.example is not None:
        media["example"] = reply.example
    described["content"] = {kind: dict(media) for kind in (reply.media_type, *reply.media_types_also)}
    return described


def _failure(status: int, codes: Sequence[str]) -> dict[str, Any]:
    return {
        "description": " | ".join(codes),
        "headers": {"x-correlator": {"$ref": "#/components/headers/x-correlator"}},
        "content": {JSON: {"schema": _failure_schema(status, codes), "examples": _examples(codes)}},
    }


def _failure_schema(status: int, codes: Sequence[str]) -> dict[str, Any]:
    exact = {"status": {"enum": [status]}, "code": {"enum": list(codes)}}
    return {"allOf": [ref(ERROR_INFO), {"type": "object", "properties": exact}]}


def _examples(codes: Sequence[str]) -> dict[str, Any]:
    return {code: {"value": fault_example(code)} for code in codes}

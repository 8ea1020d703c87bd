"""The OpenAPI 3.1 document, made of the table of operations and the types of their documents.

3.1 because its schemas are JSON Schema 2020-12, which is what the types are; CAMARA's 3.0.3 has another dialect.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from aipaging.adapters.northbound.credentials import OPERATOR_SCOPES
from aipaging.adapters.northbound.documents import words
from aipaging.adapters.northbound.operation import Operation, Reply
from aipaging.runtime.http.exchange import JSON
from aipaging.runtime.http.faults import API_PREFIX, STATUS_BY_CODE, STATUS_BY_OWN_CODE, Fault

VERSION: Final = "0.1.0"
REF: Final = "#/components/schemas/{name}"

_EVERY: Final = ("INTERNAL", "UNAVAILABLE", "AI_PAGING.OVERLOADED", "AI_PAGING.JOURNAL_UNAVAILABLE")
_GUARDED: Final = ("UNAUTHENTICATED", "PERMISSION_DENIED", "TOO_MANY_REQUESTS")
_WITH_BODY: Final = ("AI_PAGING.REQUEST_TIMEOUT",)

_PATH_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "sessionId": {"type": "string", "format": "uuid", "maxLength": 36, "pattern": words.SESSION_PATTERN},
    "anchorId": {"type": "string", "maxLength": 64, "pattern": words.NAME_PATTERN},
    "digest": {"type": "string", "maxLength": 64, "pattern": "^[0-9a-f]{64}$"},
    "tenant": {"type": "string", "maxLength": 64, "pattern": words.NAME_PATTERN},
    "domain": {"type": "string", "maxLength": 64, "pattern": words.NAME_PATTERN},
    "clientId": {"type": "string", "maxLength": 64, "pattern": words.NAME_PATTERN},
    "keyId": {"type": "string", "maxLength": 64, "pattern": "^[A-Za-z0-9_-]{43}$"},
    "auditId": {"type": "string", "maxLength": 64, "pattern": "^[0-9a-f-]{1,64}$"},
    "path": {"type": "string", "maxLength": 256, "pattern": "^(checkpoint|verifier-keys|tile/.+|leaves/[0-9a-f]{64})$"},
}
_QUERY: Final = {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**53 - 1}
_QUERY_WORDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "domain": {"type": "string", "maxLength": 64, "pattern": words.NAME_PATTERN},
    "tenant": {"type": "string", "maxLength": 64, "pattern": words.NAME_PATTERN},
    "verdict": {"type": "string", "enum": ["compliant", "violated", "insufficient_evidence"]},
    "kind": {"type": "string", "enum": ["ALARM", "VERDICT"]},
}
"""Query parameters that are words; all others are integers."""


def openapi_document(operations: Sequence[Operation], *, server_url: str) -> dict[str, Any]:
    """Return the document."""
    documents = [operation.request for operation in operations if operation.request is not None]
    replies = [reply.document for operation in operations for reply in operation.replies.values()]
    types = [Fault, *documents, *(document for document in replies if document not in {None, dict})]
    _, components = msgspec.json.schema_components(_unique(types), ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = operation.path.replace("*}", "}")
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AI-Paging",
            "version": VERSION,
            "summary": "AI as a managed network service: intents, sessions under admission leases, proven tail delays.",
            "description": _DESCRIPTION,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
            "x-camara-commonalities": "0.6",
        },
        "servers": [{"url": server_url}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "paths": paths,
        "components": {
            "schemas": components,
            "headers": {"x-correlator": {"description": "Echoed, or made.", "schema": _CORRELATOR}},
            "parameters": {
                "x-correlator": {
                    "name": "x-correlator",
                    "in": "header",
                    "description": "Follows a request through every log.",
                    "schema": _CORRELATOR,
                }
            },
            "securitySchemes": {
                "client": {"type": "http", "scheme": "bearer", "description": _SECURITY},
            },
        },
    }


_CORRELATOR: Final = {"type": "string", "maxLength": 256, "pattern": "^[a-zA-Z0-9-_:;./<>{}]{0,256}$"}
_SECURITY: Final = (
    "An access token of `/oauth2/token` or of another issuer, or the client's secret. Scopes come with its role: "
    + ", ".join(sorted(OPERATOR_SCOPES))
    + "."
)
_DESCRIPTION: Final = (
    "A client says what it needs (an intent); the network finds which model serves it and where, and bounds the tail "
    "of its end-to-end delay. Errors are `{status, code, message}` extended by `who` must act and, where there is one, "
    "the `field`. Unknown properties are refused. A refused admission is 422, extended by the reason of every "
    "candidate."
)


def _unique(types: Sequence[Any]) -> list[Any]:
    return list({id(kind): kind for kind in types}.values())


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": _parameters(operation),
        "responses": _responses(operation),
        "security": [] if operation.scope is None else [{"client": [operation.scope]}],
    }
    if operation.description:
        described["description"] = operation.description
    if operation.request is not None:
        media: dict[str, Any] = {"schema": {"$ref": REF.format(name=operation.request.__name__)}}
        if operation.request_example is not None:
            media["example"] = operation.request_example
        described["requestBody"] = {
            "required": not operation.request_optional,
            "content": {operation.request_media: media},
        }
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    names = [part.split("}")[0].rstrip("*") for part in operation.path.split("{")[1:]]
    parameters: list[dict[str, Any]] = [{"$ref": "#/components/parameters/x-correlator"}]
    parameters += [
        {"name": name, "in": "path", "required": True, "schema": dict(_PATH_PARAMETERS[name])} for name in names
    ]
    parameters += [
        {"name": name, "in": "query", "description": meaning, "schema": dict(_QUERY_WORDS.get(name, _QUERY))}
        for name, meaning in operation.query.items()
    ]
    return parameters


def _responses(operation: Operation) -> dict[str, Any]:
    responses = {str(status): _reply(reply) for status, reply in operation.replies.items()}
    guarded = _GUARDED if operation.scope is not None else ()
    with_body = _WITH_BODY if operation.request is not None else ()
    codes = dict.fromkeys((*operation.errors, *guarded, *with_body, *_EVERY))
    by_status: dict[str, list[str]] = {}
    for code in codes:
        by_status.setdefault(str(_status_of(code)), []).append(code)
    for status, found in sorted(by_status.items()):
        if status not in responses:
            responses[status] = _failure(int(status), found)
    return responses


def _status_of(code: str) -> int:
    own = code.removeprefix(API_PREFIX)
    return STATUS_BY_CODE[code] if code in STATUS_BY_CODE else STATUS_BY_OWN_CODE[own]


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
        schema = {"$ref": REF.format(name=reply.document.__name__)}
    media: dict[str, Any] = {"schema": schema}
    if reply.example is not None:
        media["example"] = reply.example
    described["content"] = dict.fromkeys((reply.media_type, *reply.media_types_also), media)
    return described


def _failure(status: int, codes: Sequence[str]) -> dict[str, Any]:
    return {
        "description": " | ".join(codes),
        "headers": {"x-correlator": {"$ref": "#/components/headers/x-correlator"}},
        "content": {
            JSON: {
                "schema": {"$ref": REF.format(name=Fault.__name__)},
                "examples": {
                    code: {"value": {"status": status, "code": code, "message": "What was wrong.", "who": _who(status)}}
                    for code in codes
                },
            }
        },
    }


def _who(status: int) -> str:
    return "caller" if status < 500 else "operator"

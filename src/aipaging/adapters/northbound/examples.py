"""Examples in the description of the interface; a test decodes each as the document that it stands for."""

from typing import Any, Final, TypeAlias

Example: TypeAlias = dict[str, Any]

SESSION_ID: Final = "3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11"
AISI: Final = "aisi://operator.example/embeddings/minilm-l6"
_HASH: Final = "9f" * 32

INTENT: Final[Example] = {
    "task": "embeddings",
    "place": "access-north",
    "delayMs": 250,
    "ratePerSecond": 20,
    "epsilon": 0.001,
    "burst": 4,
    "durationS": 600,
    "jurisdictions": ["eu"],
    "dataClass": "INTERNAL",
}
_WHOLE_INTENT: Final[Example] = {
    **INTENT,
    "modality": "text",
    "delayScope": "RESPONSE",
    "quality": None,
    "language": None,
    "regions": [],
    "trustMin": 0,
    "licences": [],
    "costMax": None,
    "prefer": "COST",
}
INTENT_REQUEST: Final[Example] = {"intent": INTENT}
PAGE_REQUEST: Final[Example] = {"intent": INTENT, "sink": "https://events.client.example/ai-paging"}
BOUND: Final[Example] = {
    "delayMs": 250,
    "epsilon": 0.001,
    "epsilonBound": 0.00042,
    "rung": "union-any-dependence",
    "assumptions": ["delay-contracts-hold", "any-dependence", "losses and errors added (union)"],
    "budget": [
        {"domain": "access-north", "delayMs": 71.5, "epsilon": 0.0001, "failure": 1e-05},
        {"domain": "edge-one", "delayMs": 178.5, "epsilon": 0.0003, "failure": 1e-05},
    ],
}
CANDIDATE: Final[Example] = {
    "anchorId": "edge-one-a",
    "aisi": AISI,
    "eligible": True,
    "path": ["access-north", "edge-one"],
    "bound": BOUND,
}
REJECTED: Final[Example] = {
    "anchorId": "far-b",
    "aisi": AISI,
    "eligible": False,
    "path": ["access-north", "transit", "far"],
    "rejection": {"constraint": "PLACE", "message": "jurisdiction US is not among EU"},
}
RESOLUTION: Final[Example] = {"intent": _WHOLE_INTENT, "candidates": [CANDIDATE, REJECTED]}
SESSION: Final[Example] = {
    "sessionId": SESSION_ID,
    "status": "AVAILABLE",
    "tenant": "acme",
    "clientId": "acme-app",
    "aisi": AISI,
    "anchorId": "edge-one-a",
    "gatewayUrl": "https://gateway.operator.example:8443",
    "commit": {
        "epoch": {"term": 3, "n": 1},
        "leaseMs": 10000,
        "remainingMs": 9998,
        "ratePerSecond": 20,
        "burst": 4,
        "receipt": "eyJ...",
    },
    "bound": BOUND,
    "intent": _WHOLE_INTENT,
    "durationS": 600,
    "startedAt": "2026-11-22T16:00:00Z",
    "expiresAt": "2026-11-22T16:10:00Z",
}
CREATED: Final[Example] = {**SESSION, "aist": "eyJ..."}
REFUSAL: Final[Example] = {
    "status": 422,
    "code": "AI_PAGING.ADMISSION_REFUSED",
    "message": "no candidate was admitted; the one that came furthest failed PLACE: jurisdiction US is not among EU",
    "who": "caller",
    "sessionId": SESSION_ID,
    "constraint": "PLACE",
    "candidates": [REJECTED],
}
RETRIEVE: Final[Example] = {"page": 1, "perPage": 20, "filter": {"status": "AVAILABLE"}}
PAGINATION: Final[Example] = {"page": 1, "perPage": 20, "totalCount": 1, "totalPages": 1}
LONG_PAGE: Final[Example] = {"page": 1, "perPage": 100, "totalCount": 1, "totalPages": 1}
SESSION_LIST: Final[Example] = {"sessions": [SESSION], "pagination": PAGINATION}
EXTEND: Final[Example] = {"additionalDurationS": 300}
RELOCATE: Final[Example] = {"targetAnchorId": "edge-two-a"}
MOVE: Final[Example] = {"place": "access-south"}
SERVICES: Final[Example] = {
    "services": [
        {
            "aisi": AISI,
            "task": "embeddings",
            "modality": "text",
            "model": "all-MiniLM-L6-v2",
            "languages": ["en"],
            "scores": [{"benchmark": "MTEB", "score": 56.3}],
            "licence": "Apache-2.0",
            "price": 1500,
        }
    ]
}
DOMAINS: Final[Example] = {
    "domains": [
        {
            "name": "access-north",
            "kind": "ACCESS",
            "region": "eu-north",
            "jurisdiction": "eu",
            "trust": 3,
            "dataClassMax": "CONFIDENTIAL",
            "capacityPerSecond": 500,
            "reservedPerSecond": 20,
        }
    ]
}
ANCHOR_REQUEST: Final[Example] = {
    "anchorId": "edge-one-a",
    "domain": "edge-one",
    "aisi": AISI,
    "host": "10.0.0.12",
    "port": 9443,
    "tls": True,
    "capacityPerSecond": 100,
    "inFlightMax": 64,
}
ANCHOR: Final[Example] = {**ANCHOR_REQUEST, "state": "READY", "reservedPerSecond": 20, "sessions": 1}
ANCHORS: Final[Example] = {"anchors": [ANCHOR]}
ENVELOPE_REQUEST: Final[Example] = {
    "domain": "edge-one",
    "sequence": 7,
    "contract": {"offsetMs": 40, "prefactor": 1.2, "decayPerMs": 0.06},
    "loss": 1e-06,
    "error": 1e-05,
    "ratePerSecondMax": 50,
    "burstMax": 8,
    "capacityPerSecond": 400,
    "validFrom": "2026-11-22T00:00:00Z",
    "validUntil": "2026-11-29T00:00:00Z",
    "dependence": "ANY",
}
ENVELOPE: Final[Example] = {**ENVELOPE_REQUEST, "digest": _HASH, "state": "IN_FORCE", "keyId": "6dq0Xk...c3A"}
ORIGINAL: Final[Example] = {
    "domain": "edge-one",
    "segment": "",
    "sequence": 7,
    "digest": _HASH,
    "keyId": "6dq0Xk...c3A",
    "acceptedAt": "2026-11-22T09:00:00Z",
    "newest": True,
    "signed": "eyJhbGciOi...",
    "document": {"version": 1, "domain": "edge-one", "sequence": 7},
    "state": "IN_FORCE",
}
DOMAIN_KEYS: Final[Example] = {
    "domain": "edge-one",
    "keyIds": ["6dq0Xk...c3A"],
    "digest": _HASH,
    "source": "API",
    "keys": [{"kty": "EC", "crv": "P-256", "x": "...", "y": "...", "kid": "6dq0Xk...c3A"}],
}
ENVELOPES: Final[Example] = {"envelopes": [ENVELOPE]}
CHECKPOINT: Final = "operator.example/log\n42\nq83v...=\n\n- operator.example/log ...\n"
EVIDENCE: Final[Example] = {
    "sessionId": SESSION_ID,
    "checkpoint": CHECKPOINT,
    "records": [
        {
            "seq": 17,
            "record": {"v": 1, "seq": 17, "type": "SESSION_EXTENDED", "session": SESSION_ID, "duration_ms": 900000},
            "proof": [_HASH],
        }
    ],
    "pagination": PAGINATION,
}
INCLUSION: Final[Example] = {"seq": 17, "size": 42, "proof": [_HASH]}
CONSISTENCY: Final[Example] = {"from": 17, "to": 42, "proof": [_HASH]}
NOT_READY: Final[Example] = {"status": "NOT_READY", "reasons": ["no gateway is connected"]}
JWK: Final[Example] = {"kty": "EC", "crv": "P-256", "x": "...", "y": "...", "kid": "...", "alg": "ES256", "use": "sig"}
DISCOVERY: Final[Example] = {
    "issuer": "https://control.operator.example",
    "apiBaseUrl": "https://control.operator.example/ai-paging/v0.1",
    "gatewayUrl": "https://gateway.operator.example:8443",
    "jwksUri": "https://control.operator.example/.well-known/jwks.json",
    "openapiUrl": "https://control.operator.example/openapi.json",
    "evidenceBaseUrl": "https://control.operator.example/ai-paging/v0.1/evidence",
    "software": "aipaging 0.1.0",
}
INTERPRET_REQUEST: Final[Example] = {
    "text": "embed English text, EU only, p99.9 under 250 ms, 20 requests/s",
    "intent": {"place": "access-north"},
}
INTERPRETATION: Final[Example] = {
    "status": "resolved",
    "fields": [
        {"field": "task", "value": "embeddings", "source": "TEXT", "span": {"start": 0, "end": 5}, "quote": "embed"},
        {"field": "place", "value": "access-north", "source": "REQUEST"},
        {"field": "delayMs", "value": 250.0, "source": "TEXT", "span": {"start": 40, "end": 46}, "quote": "250 ms"},
        {"field": "burst", "value": 1, "source": "DEFAULT"},
    ],
    "questions": [],
    "taskConfidence": 1.0,
    "intent": _WHOLE_INTENT,
}

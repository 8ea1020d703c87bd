"""Names of OpenTelemetry's GenAI semantic conventions, and ours beside them: the one place that knows them.

The GenAI conventions are in development and moved to a repository of their own; the names in the packages of
OpenTelemetry are marked deprecated. So they stand here, as read there, and change here.
"""

from typing import Final

SERVER_REQUEST_DURATION: Final = "gen_ai.server.request.duration"
SERVER_TIME_TO_FIRST_TOKEN: Final = "gen_ai.server.time_to_first_token"  # noqa: S105 - a metric's name
SERVER_TIME_PER_OUTPUT_TOKEN: Final = "gen_ai.server.time_per_output_token"  # noqa: S105 - a metric's name
CLIENT_OPERATION_DURATION: Final = "gen_ai.client.operation.duration"

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
ERROR_TYPE: Final = "error.type"

CLIENT: Final = "client"
"""Ours, as a value of `error.type`: the client went away, or may have brought the failure about itself."""

DOMAIN_DURATION: Final = "aipaging.domain.duration"
"""Ours: the delay of requests in one domain."""

DOMAIN: Final = "aipaging.domain"
TENANT: Final = "aipaging.tenant"

SESSION: Final = "aipaging.session"
SERVICE: Final = "aipaging.service"
ANCHOR: Final = "aipaging.anchor"
EXCEEDED: Final = "aipaging.exceeded"
"""Domains whose contract a request exceeded, with commas."""
PROMISED_MS: Final = "aipaging.delay_ms"
"""The delay that its session was promised."""

OPERATIONS: Final = {
    "chat": "chat", "embeddings": "embeddings", "text-generation": "text_completion", "completions": "text_completion",
}  # fmt: skip
"""`gen_ai.operation.name` by the task of an intent; other tasks stand as they are."""

UNITS_US: Final = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
"""UCUM units of time, in microseconds."""

REQUEST_DURATIONS: Final = frozenset({SERVER_REQUEST_DURATION, CLIENT_OPERATION_DURATION})
"""Metrics that are about whole requests. Those of tokens are of successful answers alone, and tell no failures."""

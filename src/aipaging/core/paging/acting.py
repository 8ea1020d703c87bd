"""What operators do, as evidence: every use of their interface leaves a record beside what it changed.

The record says who, what and how it ended. It holds no body and no secret: what was changed has records of its own.
"""

from dataclasses import dataclass

from aipaging.core.foundation.names import ClientId, TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorActed:
    """An operator's client did something, or was refused. It changes nothing: the record is all there is.

    Attributes:
        client: Who.
        tenant: Of the client.
        operation: What, by its operationId.
        status: HTTP status of the answer.
        correlator: Follows the request through every log.
    """

    client: ClientId
    tenant: TenantId
    operation: str
    status: int
    correlator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordAction:
    """Put an operator's action on record."""

    acted: OperatorActed

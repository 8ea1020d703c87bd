"""What operators do, as evidence: every use of their interface leaves a record beside what it changed.

The record says who, what and how it ended. It holds no body and no secret: what was changed has records of its own.
That a session was erased is one of these: nothing else can tell of it.
"""

from dataclasses import dataclass

from aipaging.core.evidence.record import Fields
from aipaging.core.foundation.names import ClientId, SessionId, TenantId


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionErased:
    """What was private of a session is gone from the journal. It changes nothing: the state had forgotten the session.

    Attributes:
        for_session: Which; not `session`, under whose key nothing is kept any more.
    """

    for_session: SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordErasure:
    """Put on record that a session was erased."""

    session: SessionId


def action_fields(event: OperatorActed, _state: object) -> Fields:
    """Return the fields of its record."""
    return {
        "client": event.client,
        "tenant": event.tenant,
        "operation": event.operation,
        "status": event.status,
        "correlator": event.correlator,
    }


def erasure_fields(event: SessionErased, _state: object) -> Fields:
    """Return the fields of its record."""
    return {"for_session": event.for_session}

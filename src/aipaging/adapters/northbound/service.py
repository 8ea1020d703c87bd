"""What the public interface works with: the engine, tokens, evidence, and what the composition root knows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from aipaging.adapters.northbound.configuration import Configuration
from aipaging.adapters.northbound.credentials import Authenticator
from aipaging.adapters.northbound.documents.policies import PolicyStatus
from aipaging.adapters.northbound.evidence_desk import EvidenceDesk
from aipaging.adapters.northbound.metrics import Metrics
from aipaging.adapters.northbound.oauth.access import Access
from aipaging.adapters.northbound.rate_limits import OperatorRates
from aipaging.adapters.northbound.usage_desk import UsageDesk
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.lease.machine import Lease
from aipaging.core.paging.state import Session
from aipaging.core.wording.reading import Value
from aipaging.core.wording.tasks import TaskReader, keyword_reader
from aipaging.ports.control import ControlPlane
from aipaging.ports.notification import DeadLetter, Notifications
from aipaging.runtime.envelopes import EnvelopeIntake
from aipaging.runtime.events.hub import EventHub
from aipaging.runtime.http.rates import CallerRates, RateLimit
from aipaging.runtime.tracing import Tracer


class Tokens(Protocol):
    """Signs what a session is handed."""

    def aist(self, session: Session) -> str:
        """Return the session's AIST."""
        ...

    def receipt(self, session: Session, lease: Lease) -> str:
        """Return the COMMIT receipt of an epoch."""
        ...


RATE_LIMIT: Final = RateLimit(per_second=0.0, burst=1)
"""No limit but the operator's: the configuration sets one."""


class NoNotifications:
    """A controller that pushes nothing."""

    def check(self, url: str) -> None:  # noqa: ARG002 - the port's
        """Refuse every sink."""
        raise InvalidInputError("this controller notifies no sinks", code="INVALID_SINK", field="sink")

    async def dead_letters(self, first: int, count: int) -> tuple[int, Sequence[DeadLetter]]:  # noqa: ARG002
        """Return nothing."""
        return 0, ()


def _no_policies() -> PolicyStatus:
    return PolicyStatus(digest="", file="", policies=[])


def _connected() -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Northbound:
    """What the routes need.

    Attributes:
        control: The engine.
        authenticator: Who may ask.
        tokens: Signs AISTs and receipts.
        evidence: The log, for reading.
        usage: What tenants used, summed from it.
        hub: What tells durable records as events.
        metrics: What is counted and measured.
        notifications: Where events are pushed.
        tracer: Makes traces, or None.
        gateway_url: Where clients send their requests.
        public_url: Where clients reach this interface, without the path.
        issuer: Of the tokens.
        jwks: The public token keys.
        gateway_connected: Whether the user plane is there.
        envelopes: Where envelopes and key sets come in.
        task_reader: Makes what tells tasks in free text; called when the first text comes, in a thread.
        unsaid: What the operator sets for fields of which a sentence says nothing.
        software: Name and version.
        policies: Which policies are in force.
        rates: How often each client may ask.
        operator_rates: How often each operator may do what leaves evidence.
        configuration: The configuration that can be read anew, or None.
        access: Access tokens, clients and token keys; None where only static secrets are known.
    """

    control: ControlPlane
    authenticator: Authenticator
    tokens: Tokens
    evidence: EvidenceDesk
    usage: UsageDesk
    hub: EventHub
    gateway_url: str
    public_url: str
    issuer: str
    envelopes: EnvelopeIntake
    jwks: Callable[[], Mapping[str, object]]
    gateway_connected: Callable[[], bool] = _connected
    task_reader: Callable[[], TaskReader] = keyword_reader
    unsaid: Mapping[str, Value] = field(default_factory=dict[str, Value])
    software: str = "aipaging"
    access: Access | None = None
    configuration: Configuration | None = None
    metrics: Metrics = field(default_factory=Metrics)
    notifications: Notifications = field(default_factory=NoNotifications)
    tracer: Tracer | None = None
    policies: Callable[[], PolicyStatus] = _no_policies
    rates: CallerRates = field(default_factory=lambda: CallerRates(RATE_LIMIT))
    operator_rates: OperatorRates = field(default_factory=OperatorRates)

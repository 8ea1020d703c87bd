"""What live sessions tolerate of the queues that they share with others; derived, never stored.

A session's target leaves so much for its shared queues: the target, less the least delay in which the rest of the path
can be promised at the session's epsilon. That is the whole-path bound, solved for the queues. Where the bound that
admitted the session rests on the envelopes in force and proves more (a sharper rung), its own split counts.
"""

import math
from dataclasses import replace
from typing import Final

from aipaging.core.envelope.admission import session_delay_ms
from aipaging.core.envelope.path_delay import Hop, path_delay
from aipaging.core.envelope.service import Traffic, queue_curve
from aipaging.core.foundation.names import DomainName, SessionId
from aipaging.core.lease.machine import Lease
from aipaging.core.lease.queues import EVERYBODY, SharedQueue
from aipaging.core.paging.state import Session, State

MARGIN: Final = 1e-9
"""Relative allowance for sums in another order than the bound's own."""


def protect(state: State, session_id: SessionId) -> None:
    """Work out what every live COMMIT of a session tolerates."""
    session = state.sessions[session_id]
    for lease in session.leases:
        if lease.live and state.ledger.of(session_id, lease.epoch) is not None:
            _protect(state, session, lease)


def protect_all(state: State, domain: DomainName | None = None) -> None:
    """The same for every session, or for those that cross a domain."""
    for session in state.sessions.values():
        if domain is None or any(domain in lease.domains for lease in session.leases):
            protect(state, session.session)


def _protect(state: State, session: Session, lease: Lease) -> None:
    intent, tolerances = session.intent, state.ledger.tolerances
    tolerances.forget(session.session, lease.epoch)
    found = [state.catalogue.envelope_of(domain, session.aisi) for domain in lease.domains]
    envelopes = [envelope for envelope in found if envelope is not None]
    queues: dict[int, SharedQueue] = {}
    for i, envelope in enumerate(envelopes):
        curve = queue_curve(envelope.service)
        if curve is not None:
            owner = session.tenant if curve.per_tenant else EVERYBODY
            queues[i] = SharedQueue(key=(envelope.domain, owner), curve=curve)
    if not queues or len(envelopes) < len(found):
        return
    path = path_delay(
        [Hop(envelope=envelope) for envelope in envelopes], Traffic.of(lease.rate_mrps, intent.burst), intent.epsilon
    )
    tolerated_ms = -math.inf
    if path is not None:
        rest = replace(path, fixed_ms=tuple(0.0 if i in queues else fixed for i, fixed in enumerate(path.fixed_ms)))
        rest_ms = session_delay_ms(rest, intent.epsilon)
        if rest_ms is not None:
            tolerated_ms = (intent.delay_ms - rest_ms) - MARGIN * intent.delay_ms
    if lease.bound.budget and lease.envelopes == tuple(envelope.digest for envelope in envelopes):
        tolerated_ms = max(tolerated_ms, math.fsum(lease.bound.budget[i].delay_ms for i in queues))
    tolerances.protect(session.session, lease.epoch, tuple(queues.values()), tolerated_ms)

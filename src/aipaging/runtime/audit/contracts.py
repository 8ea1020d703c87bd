"""Which contracts a request is held to, and what it says about each: read from the state, changed nowhere.

* End to end: the session's own target (delay, epsilon), of its tenant. The gateway cannot see the access network, so
  what it measures is a lower bound: late behind the gateway is late for certain; in time is in time only if access kept
  to its part of the session's budget. Failures are late.
* What a client may have brought about itself is late for nobody: where a delay has a least value, only that is held
  against a service, and the whole stands in the way of `compliant`.
* The compute domain: its envelope's tail at the session's epsilon rounded up to 1, 2 or 5 times a power of ten, plus
  what the envelope allows to be lost and to fail. Measured by the anchor's sidecar until the first byte; the rest of an
  answer may be its own or the way's, and so may failures.
* Each transport domain: likewise. What the anchor does not explain (`remainder`) is an upper bound of all transport
  together, gateway and sidecar included: such a domain can be found compliant, and never violated.
* Access is not seen, and not judged.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from aipaging.core.anchor.intent import DelayScope
from aipaging.core.audit.account import Row
from aipaging.core.audit.contract import END_TO_END, Contract, EnvelopeTail
from aipaging.core.audit.delays import Series
from aipaging.core.audit.telemetry import DELAY_US_MAX, Status
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.paging.state import Session, State
from aipaging.ports.telemetry import LateRequest, SeenRequest

STEPS: Final = (1, 2, 5, 10)
"""Within a power of ten: few points of one envelope are watched, whatever clients ask for."""

EPSILON_MAX: Final = 0.5
"""A contract that more than half may miss is none."""

REMAINDER: Final = "remainder"
"""What the anchor does not explain, as a domain of histograms; no contract is about it."""

ERROR_WORDS: Final[Mapping[int, str]] = {
    Status.ERROR: "error", Status.TIMEOUT: "timeout", Status.LOST: "lost", Status.UNKNOWN: "client",
}  # fmt: skip
"""How requests failed, in the histograms; `client` are those that their client may have ended itself."""

POINTS_CACHED: Final = 8_192


@dataclass(frozen=True, slots=True)
class Watched:
    """What names a watched contract: hashed for every request, so it is small.

    Attributes:
        tenant: Whose requests.
        domain: The domain, or `end-to-end`.
        envelope: Digest of the envelope that promises, "" end to end.
        delay_ms: The contracted delay.
        epsilon: What may miss it.
    """

    tenant: str
    domain: str
    envelope: str
    delay_ms: float
    epsilon: float


@dataclass(frozen=True, slots=True)
class Said:
    """What a request says about one contract."""

    watched: Watched
    certain: bool
    possible: bool


def rounded_up(epsilon: float) -> float:
    """Return the least of 1, 2 and 5 times a power of ten that is not below."""
    power = math.floor(math.log10(epsilon) + 1e-12)
    for step in STEPS:
        value = float(f"{step}e{power}")
        if value >= epsilon * (1 - 1e-9):
            return value
    return float(f"1e{power + 1}")


@lru_cache(maxsize=POINTS_CACHED)
def promised_point(envelope: Envelope, epsilon: float) -> tuple[float, float]:
    """Return (delay in ms, epsilon) that an envelope promises at a point of its tail, failures included."""
    point = rounded_up(epsilon)
    contract = envelope.contract
    beyond_ms = math.log(contract.prefactor / point) / contract.decay_per_ms if contract.prefactor > 0 else 0.0
    delay_ms = max(contract.offset_ms + max(beyond_ms, 0.0), 0.001)
    return math.ceil(delay_ms * 1000) / 1000, min(float(f"{point + envelope.loss + envelope.error:.9g}"), EPSILON_MAX)


def contract_of(watched: Watched, envelope: Envelope | None) -> Contract:
    """Return the contract that is audited."""
    tail = None
    if envelope is not None and envelope.contract.prefactor > 0:
        promise = envelope.contract
        tail = EnvelopeTail(offset_ms=promise.offset_ms, prefactor=promise.prefactor, decay_per_ms=promise.decay_per_ms)
    return Contract(
        domain=watched.domain, delay_ms=watched.delay_ms, epsilon=watched.epsilon, tenant=watched.tenant, tail=tail
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """What one request says.

    Attributes:
        said: About every contract, domains first.
        row: As a row of its path.
        delays_us: As the delays that were measured, each for its histogram.
        late: As a request whose trace is kept, None where it kept every contract or that is not certain.
    """

    said: tuple[Said, ...]
    row: Row
    delays_us: tuple[tuple[Series, int], ...]
    late: LateRequest | None


def reading(state: State, seen: SeenRequest) -> Reading | None:
    """Return what a request says, None where its session or its anchor is not known."""
    session = state.sessions.get(SessionId(seen.session))
    if session is None or session.lease is None:
        return None
    anchor = state.catalogue.anchors.get(AnchorId(seen.anchor or session.lease.anchor))
    path = None if anchor is None else state.catalogue.path_to(session.intent.place, anchor.domain)
    if anchor is None or path is None:
        return None
    first = session.intent.delay_scope is DelayScope.FIRST_TOKEN
    delay_us = _known(seen.first_us if first else seen.total_us)
    least_us = min(_known(seen.least_first_us if first else seen.least_total_us), delay_us)
    compute = state.catalogue.envelope_of(anchor.domain, session.aisi)
    said: list[Said] = []
    if compute is not None:
        body_us = 0 if first else seen.body_us
        said.append(_compute(session, compute, seen, body_us))
    remainder_us = delay_us - seen.anchor_us if delay_us >= 0 and seen.anchor_us >= 0 else -1
    envelopes = (state.catalogue.envelope_of(name, session.aisi) for name in path.transport)
    said += _transport(session, envelopes, remainder_us, failed=seen.status != Status.OK)
    said.append(_end_to_end(session, delay_us, least_us, seen.status))
    row = Row(
        start_us=seen.start_us,
        status=seen.status,
        total_us=least_us,
        domain=anchor.domain,
        domain_us=_known(seen.least_anchor_us),
    )
    return Reading(
        tuple(said), row, _delays(session, seen, anchor.domain, least_us), _late(session, seen, anchor.domain, said)
    )


def _delays(session: Session, seen: SeenRequest, domain: str, delay_us: int) -> tuple[tuple[Series, int], ...]:
    """Return what the service took, and who of it: the client's own part would convict somebody in a histogram."""
    error = ERROR_WORDS.get(seen.status, "")
    found = [(Series(session.tenant, END_TO_END, error), delay_us)]
    anchor_us = _known(seen.least_anchor_us if seen.anchor_us >= 0 else -1)
    if not error:
        remainder_us = delay_us - anchor_us if 0 <= anchor_us <= delay_us else -1
        found += [(Series(session.tenant, domain), anchor_us), (Series(session.tenant, REMAINDER), remainder_us)]
    return tuple((series, value) for series, value in found if value >= 0)


def _late(session: Session, seen: SeenRequest, domain: str, said: Iterable[Said]) -> LateRequest | None:
    exceeded = tuple(one.watched.domain for one in said if one.certain)
    if not exceeded:
        return None
    intent = session.intent
    return LateRequest(seen, session.tenant, intent.task, session.aisi, domain, exceeded, intent.delay_ms)


def _known(delay_us: int) -> int:
    return delay_us if 0 <= delay_us <= DELAY_US_MAX else -1


def _compute(session: Session, envelope: Envelope, seen: SeenRequest, body_us: int) -> Said:
    delay_ms, epsilon = promised_point(envelope, session.intent.epsilon)
    watched = Watched(session.tenant, envelope.domain, envelope.digest, delay_ms, epsilon)
    delay_us = _known(seen.anchor_us)
    late = delay_us >= 0 and min(seen.least_anchor_us, delay_us) > delay_ms * 1000
    return Said(watched, late, delay_us < 0 or delay_us + body_us > delay_ms * 1000)


def _transport(
    session: Session, envelopes: Iterable[Envelope | None], remainder_us: int, *, failed: bool
) -> Iterable[Said]:
    for envelope in envelopes:
        if envelope is not None:
            delay_ms, epsilon = promised_point(envelope, session.intent.epsilon)
            watched = Watched(session.tenant, envelope.domain, envelope.digest, delay_ms, epsilon)
            yield Said(watched, certain=False, possible=failed or not 0 <= remainder_us <= delay_ms * 1000)


def _end_to_end(session: Session, delay_us: int, least_us: int, status: int) -> Said:
    intent = session.intent
    watched = Watched(session.tenant, END_TO_END, "", intent.delay_ms, intent.epsilon)
    budget = session.lease.bound.budget if session.lease is not None else ()
    access_ms = sum(part.delay_ms for part in budget if part.domain == intent.place)
    late = least_us > intent.delay_ms * 1000
    if status in {Status.ERROR, Status.TIMEOUT, Status.LOST}:
        late = True
    unknown = status == Status.UNKNOWN or delay_us < 0
    return Said(watched, late, late or unknown or delay_us > (intent.delay_ms - access_ms) * 1000)

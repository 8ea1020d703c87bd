"""Envelopes in series: the parts kept in order, and the one envelope that an operator may publish in their place.

Whoever holds the parts computes bounds from the parts (`Composite.contracts`), so nothing is lost. What is published
instead is the *union form*: with w = sum 1/eta_i and every M_i >= 1,

    T = sum T_i,   eta = 1 / w,   ln M = ln w + (1 / w) sum ln(M_i eta_i) / eta_i

which is the least union bound over all splits of the delay, as a function of the delay. It is again a delay contract
with M >= 1, and composing composites gives what composing all parts gives, up to rounding, which is towards safety:
T up by 1e-14, M up by 1e-9 and eta down by 1e-12 per composition, relatively.

Why M_i < 1 is raised to 1 first: the unclipped optimum may give such a part a negative excess, where its contract says
nothing. With M_i >= 1 a negative excess costs at least 1, so the form is above 1 there and claims nothing.
A deterministic part (M = 0) adds its T and has no tail.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import Final, TypeVar

from aipaging.core.calculus.risk_budget import DelayContract, combined_failure
from aipaging.core.envelope.decimals import at_least, at_most, decimal_down, decimal_up
from aipaging.core.envelope.document import (
    COMMON_CAUSES_MAX,
    EPSILON_TIGHT,
    PARTS_MAX,
    REGIONS_MAX,
    SCHEMA_VERSION,
    Calibration,
    Clause,
    DelayContractModel,
    DependenceClause,
    EnvelopeDocument,
    Guardrails,
    Impairment,
    Part,
    Reservation,
    instant_of,
)
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.envelope.path_delay import Hop, path_delay
from aipaging.core.envelope.service import Traffic, queue_curve
from aipaging.core.envelope.trust import VerifiedEnvelope
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import DomainName
from aipaging.core.foundation.time import WallUs

OFFSET_UP: Final = 1e-14
"""Relative rounding of T in a composition: covers the sum, and that whoever splits a delay loses as much."""

PREFACTOR_UP: Final = 1e-9
"""Relative rounding of M: covers the logarithms, and ten times that of the tails of `risk_budget`."""

DECAY_DOWN: Final = 1e-12
"""Relative rounding of eta; at the smallest double the exponent is 745, so it moves a tail by less than 1e-9."""

WEAKEST_FIRST: Final[tuple[Clause, ...]] = ("none", "conditional", "independent")

_MS_PER_S: Final = 1000.0
_CONFIDENCE_STEP: Final = Decimal("1e-6")

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One envelope of a path, and the re-shaper before it.

    Attributes:
        verified: The envelope.
        reshaper_delay_ms: The delay of the re-shaper at its entrance, which is charged; 0 without one.
    """

    verified: VerifiedEnvelope
    reshaper_delay_ms: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.reshaper_delay_ms < math.inf:
            raise InvalidInputError("the delay of a re-shaper is finite and at least 0", field="reshaper_delay_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Composite:
    """Envelopes in the order of the path.

    Attributes:
        stages: At least one.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.stages) <= PARTS_MAX:
            raise InvalidInputError(f"a composite has 1 to {PARTS_MAX} parts", field="parts")

    @property
    def envelopes(self) -> tuple[Envelope, ...]:
        """The values that bounds are computed from."""
        return tuple(stage.verified.envelope for stage in self.stages)

    @property
    def contracts(self) -> tuple[DelayContract, ...]:
        """The contracts of the parts in series, each charged for the re-shaper before it.

        Where parts say how they serve, these are of the largest session that all guardrails let in, along the path.

        Raises:
            InvalidInputError: Such a session overloads a part, or a part has a queue that sessions share: how full it
                is cannot be known from the composite.
        """
        envelopes = self.envelopes
        shared = [one.domain for one in envelopes if queue_curve(one.service) is not None]
        if shared and len(envelopes) > 1:
            raise InvalidInputError(
                f"sessions share a queue in {shared[0]}: its envelope cannot be composed, offer it beside the others",
                field="parts",
            )
        largest = Traffic.of(min(one.rate_mrps_max for one in envelopes), min(one.burst_max for one in envelopes))
        path = path_delay([Hop(envelope=one) for one in envelopes], largest, EPSILON_TIGHT)
        if path is None:
            raise InvalidInputError("the parts do not serve what their guardrails let in", field="parts")
        tails = {tail.hop: tail.contract for tail in path.tails}
        return tuple(
            _shifted(
                tails.get(i, DelayContract(offset_ms=path.fixed_ms[i], prefactor=0.0, decay_per_ms=1.0)),
                stage.reshaper_delay_ms,
            )
            for i, stage in enumerate(self.stages)
        )

    def failure(self) -> tuple[float, float]:
        """Return loss and error of the path: sums, for nothing is known of how they depend on each other."""
        return (
            combined_failure([envelope.loss for envelope in self.envelopes], independent=False),
            combined_failure([envelope.error for envelope in self.envelopes], independent=False),
        )


def union_form(contracts: Sequence[DelayContract]) -> DelayContract:
    """Return one contract that promises no more than the union bound over the given ones, at any delay.

    Raises:
        InvalidInputError: There is no contract.
    """
    if not contracts:
        raise InvalidInputError("a composition needs at least one contract", field="contracts")
    offset_ms = math.fsum(contract.offset_ms for contract in contracts) * (1.0 + OFFSET_UP * len(contracts))
    tails = [contract for contract in contracts if contract.prefactor > 0.0]
    if not tails:
        return DelayContract(offset_ms=offset_ms, prefactor=0.0, decay_per_ms=min(c.decay_per_ms for c in contracts))
    # In units of the slowest decay, so that the sums do not depend on the unit of time.
    unit = min(contract.decay_per_ms for contract in tails)
    weights = [unit / contract.decay_per_ms for contract in tails]
    total = math.fsum(weights)
    log_prefactor = (
        math.log(total)
        + math.fsum(
            weight * (math.log(max(1.0, contract.prefactor)) - math.log(weight))
            for contract, weight in zip(tails, weights, strict=True)
        )
        / total
    )
    return DelayContract(
        offset_ms=offset_ms,
        prefactor=max(1.0, math.exp(log_prefactor)) * (1.0 + PREFACTOR_UP),
        decay_per_ms=unit / total * (1.0 - DECAY_DOWN),
    )


def reshaper_delay_ms(*, burst_before: int, burst_after: int, rate_rps: float) -> float:
    """Return the greatest delay of a greedy leaky-bucket shaper for traffic of the same rate and a larger burst.

    The horizontal distance between the two arrival curves is (b_before - b_after) / r [LeBoudecThiran2001, 1.5].

    Args:
        burst_before: Burst at its entrance.
        burst_after: Burst that it lets through.
        rate_rps: Sustained rate of both.

    Raises:
        InvalidInputError: The rate is not positive.
    """
    if not rate_rps > 0.0:
        raise InvalidInputError("the rate of a re-shaper must be above 0", field="rate_rps")
    return max(0, burst_before - burst_after) * _MS_PER_S / rate_rps * (1.0 + 1e-15)


def published(composite: Composite, *, domain: DomainName, sequence: int, segment: str = "") -> EnvelopeDocument:
    """Return the unsigned document that stands in place of the parts.

    Of guardrails, capacity and validity the narrowest; of dependence the weakest clause and every common cause; loss
    and error added, the parts' calibration floors among the error; regions together, or none said if one part says
    none; prices added where all are given in one currency, otherwise none.

    Args:
        composite: The parts.
        domain: Who publishes it, and will sign.
        sequence: Its sequence number.
        segment: The AISI that it is about; empty: all traffic.

    Raises:
        InvalidInputError: The parts are never valid together, or one document cannot hold what they say.
    """
    contract = union_form(composite.contracts)
    start = max(envelope.valid_from_us for envelope in composite.envelopes)
    end = min(envelope.valid_until_us for envelope in composite.envelopes)
    if start >= end:
        raise InvalidInputError("the parts are never valid at the same time", field="notAfter")
    loss, error = composite.failure()
    return EnvelopeDocument(
        version=SCHEMA_VERSION,
        domain=domain,
        segment=segment,
        sequence=sequence,
        not_before=_instant_up(start),
        not_after=instant_of(end),
        guardrails=_guardrails(composite),
        model=DelayContractModel(
            offset_ms=decimal_up(contract.offset_ms),
            prefactor=decimal_up(contract.prefactor),
            decay_per_ms=decimal_down(contract.decay_per_ms),
        ),
        impairment=Impairment(loss=decimal_up(loss), error=decimal_up(error)),
        dependence=_dependence(composite),
        calibration=_calibration(composite),
        reservation=_reservation(composite),
        parts=tuple(
            Part(
                domain=stage.verified.document.domain,
                sequence=stage.verified.document.sequence,
                digest=stage.verified.digest,
                reshaper_delay_ms=decimal_up(stage.reshaper_delay_ms),
            )
            for stage in composite.stages
        ),
    )


def _shifted(contract: DelayContract, delay_ms: float) -> DelayContract:
    return DelayContract(
        offset_ms=contract.offset_ms + at_least(decimal_up(delay_ms)),
        prefactor=contract.prefactor,
        decay_per_ms=contract.decay_per_ms,
    )


def _instant_up(wall_us: WallUs) -> str:
    return instant_of(WallUs(wall_us + 999_999))


def _documents(composite: Composite) -> list[EnvelopeDocument]:
    return [stage.verified.document for stage in composite.stages]


def _guardrails(composite: Composite) -> Guardrails:
    guardrails = [document.guardrails for document in _documents(composite)]
    regions = sorted({region for each in guardrails for region in each.regions})
    if not all(each.regions for each in guardrails) or len(regions) > REGIONS_MAX:
        regions = []
    return Guardrails(
        rate_rps=min((each.rate_rps for each in guardrails), key=at_most),
        burst=min(each.burst for each in guardrails),
        max_tokens=_least_limit(each.max_tokens for each in guardrails),
        concurrency=_least_limit(each.concurrency for each in guardrails),
        regions=tuple(regions),
    )


def _least_limit(limits: Iterable[int]) -> int:
    """Return the least of limits of which 0 means none."""
    return min((limit for limit in limits if limit), default=0)


def _dependence(composite: Composite) -> DependenceClause:
    clauses = [document.dependence for document in _documents(composite)]
    causes = sorted({cause for clause in clauses for cause in clause.common_causes})
    if len(causes) > COMMON_CAUSES_MAX:
        return DependenceClause()
    claimed: set[Clause] = {clause.clause for clause in clauses}
    weakest: Clause = next(word for word in WEAKEST_FIRST if word in claimed)
    return DependenceClause(clause=weakest, common_causes=tuple(causes))


def _calibration(composite: Composite) -> Calibration | None:
    """Return what the evidence of the parts amounts to; none if a part is an assertion.

    The floor is 0: those of the parts are in the error. All models hold together with at least
    1 - sum (1 - confidence_i).
    """
    found = [document.calibration for document in _documents(composite)]
    each = [calibration for calibration in found if calibration is not None]
    if len(each) < len(found):
        return None
    doubt = sum((1 - Decimal(calibration.confidence) for calibration in each), Decimal(0))
    return Calibration(
        window_start=min(calibration.window_start for calibration in each),
        window_end=max(calibration.window_end for calibration in each),
        samples=min(calibration.samples for calibration in each),
        effective_samples=min(calibration.effective_samples for calibration in each),
        method="union form of the parts; confidence by the union of their doubts",
        confidence=str(max(Decimal(0), 1 - doubt).quantize(_CONFIDENCE_STEP, rounding=ROUND_FLOOR)),
        epsilon_floor="0",
    )


def _reservation(composite: Composite) -> Reservation:
    each = [document.reservation for document in _documents(composite)]
    capacity_rps = min((one.capacity_rps for one in each if at_most(one.capacity_rps) > 0.0), key=at_most, default="0")
    currency = _the_same([one.currency for one in each], "")
    price = sum(one.price_micros_per_rps_hour for one in each) if currency else 0
    tenant_rps = min(
        (one.tenant_capacity_rps for one in each if at_most(one.tenant_capacity_rps) > 0.0), key=at_most, default="0"
    )
    return Reservation(
        capacity_rps=capacity_rps,
        tenant_capacity_rps=tenant_rps,
        price_micros_per_rps_hour=price,
        currency=currency,
    )


def _the_same(values: Sequence[Value], otherwise: Value) -> Value:
    return values[0] if all(value == values[0] for value in values) else otherwise

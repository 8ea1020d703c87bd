"""From a telemetry file to an unsigned draft."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aipaging.apps.envelope.telemetry import Measured, measured
from aipaging.core.envelope.calibration import Fit, fitted
from aipaging.core.envelope.decimals import decimal_down, decimal_up
from aipaging.core.envelope.document import (
    SCHEMA_VERSION,
    Calibration,
    DelayContractModel,
    EnvelopeDocument,
    Guardrails,
    Impairment,
    Reservation,
    instant_of,
    require_consistent,
)
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import checked_name
from aipaging.core.foundation.time import SECOND, WallUs

_DAY_S: Final = 86_400
_RATE_RPS_MIN: Final = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRequest:
    """What is asked of a fit; the names are those of the options."""

    telemetry: Path
    domain: str | None
    segment: str
    sequence: int
    confidence: float
    rate: float | None
    burst: int
    capacity: float | None
    days: int
    start: WallUs


def draft_of(asked: FitRequest) -> tuple[EnvelopeDocument, Fit, Measured]:
    """Return the draft, what it was fitted to, and what the file holds.

    The promise holds for the load that was seen, and for no more. So, unless they are given, the capacity is the
    mean rate of all requests, and the rate of a session the mean rate of a tenant.

    Raises:
        InvalidInputError: The file or an option does not do.
    """
    found = measured(asked.telemetry, asked.domain)
    fit = fitted(found.delays_ms, lost=found.lost, failed=found.failed, confidence=asked.confidence)
    capacity_rps = found.rate_rps if asked.capacity is None else asked.capacity
    rate_rps = found.rate_rps / found.tenants if asked.rate is None else asked.rate
    if rate_rps < _RATE_RPS_MIN or capacity_rps < _RATE_RPS_MIN:
        raise InvalidInputError("the rate cannot be told from the file: give --rate and --capacity", field="rate")
    document = EnvelopeDocument(
        version=SCHEMA_VERSION,
        domain=checked_name(found.domain, field="domain"),
        segment=asked.segment,
        sequence=asked.sequence,
        not_before=instant_of(asked.start),
        not_after=instant_of(WallUs(asked.start + asked.days * _DAY_S * SECOND)),
        guardrails=Guardrails(rate_rps=decimal_down(rate_rps), burst=asked.burst),
        model=DelayContractModel(
            offset_ms=decimal_up(fit.contract.offset_ms),
            prefactor=decimal_up(fit.contract.prefactor),
            decay_per_ms=decimal_down(fit.contract.decay_per_ms),
        ),
        impairment=Impairment(loss=decimal_up(fit.loss), error=decimal_up(fit.error)),
        calibration=Calibration(
            window_start=instant_of(WallUs(found.first_us)),
            window_end=instant_of(WallUs(found.last_us)),
            samples=fit.samples,
            effective_samples=fit.effective_samples,
            method=fit.method,
            confidence=repr(fit.confidence),
            epsilon_floor=decimal_up(fit.epsilon_floor),
        ),
        reservation=Reservation(capacity_rps=decimal_down(capacity_rps)),
    )
    require_consistent(document)
    return document, fit, found


def remarks(fit: Fit, found: Measured) -> list[str]:
    """Return what whoever signs the draft should know, in sentences."""
    floor = fit.epsilon_floor + fit.loss + fit.error
    worth = f"{found.requests} requests, worth {fit.effective_samples} independent ones"
    said = [f"{worth}; nothing is promised below P = {floor:.3g}"]
    if fit.block > 1:
        said.append(f"the delays are correlated: blocks of {fit.block} requests were taken")
    if found.unknown:
        said.append(f"{found.unknown} answered requests without a delay in this domain were counted as failed")
    if found.repeated:
        said.append(f"{found.repeated} rows that repeat a request were left out")
    return said

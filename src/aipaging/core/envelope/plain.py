"""Plain statements of a home operator, as the documents that its own key signs.

A domain that has no key set is the operator's own: what it promises stands in a configuration or comes over the
authenticated API as plain numbers. `stated` writes them as a document; the numbers are those that were given, digit
for digit, so that the same statement always has the same digest.
"""

from decimal import Decimal
from typing import Final

from aipaging.core.envelope.decimals import SIGNIFICANT_DIGITS
from aipaging.core.envelope.document import (
    SCHEMA_VERSION,
    VALIDITY_S_MAX,
    Clause,
    DelayContractModel,
    DependenceClause,
    EnvelopeDocument,
    Guardrails,
    Impairment,
    Reservation,
    instant_of,
)
from aipaging.core.envelope.envelope import Dependence, Envelope
from aipaging.core.foundation.time import SECOND, WallUs

PERIOD_US: Final = VALIDITY_S_MAX // 2 * SECOND
"""A statement for longer than a signature may last is signed for a window that moves by half of that."""

_FRACTION_DIGITS_MAX: Final = 17
_EXPONENT_MIN: Final = -99
_CLAUSE_OF: Final[dict[Dependence, Clause]] = {
    Dependence.ANY: "none",
    Dependence.CONDITIONAL: "conditional",
    Dependence.INDEPENDENT: "independent",
}


def stated(envelope: Envelope, now: WallUs) -> EnvelopeDocument:
    """Return the unsigned document of a plain statement.

    Args:
        envelope: The statement; its digest does not count.
        now: A statement that lasts longer than a signature may is put into the window that holds this instant.
    """
    start_us, end_us = _window(envelope, now)
    return EnvelopeDocument(
        version=SCHEMA_VERSION,
        domain=envelope.domain,
        segment=envelope.segment,
        sequence=envelope.sequence,
        not_before=instant_of(start_us),
        not_after=instant_of(end_us),
        guardrails=Guardrails(rate_rps=_thousandths(envelope.rate_mrps_max), burst=envelope.burst_max),
        model=DelayContractModel(
            offset_ms=exact(envelope.contract.offset_ms),
            prefactor=exact(envelope.contract.prefactor),
            decay_per_ms=exact(envelope.contract.decay_per_ms),
        ),
        impairment=Impairment(loss=exact(envelope.loss), error=exact(envelope.error)),
        dependence=DependenceClause(
            clause=_CLAUSE_OF[envelope.dependence],
            common_causes=(envelope.common_cause,) if envelope.common_cause else (),
        ),
        reservation=Reservation(capacity_rps=_thousandths(envelope.capacity_mrps)),
    )


def _window(envelope: Envelope, now: WallUs) -> tuple[WallUs, WallUs]:
    start_us, end_us = envelope.valid_from_us, envelope.valid_until_us
    most_us = VALIDITY_S_MAX * SECOND
    if end_us - start_us > most_us:
        start_us = WallUs(start_us + max(0, now - start_us) // PERIOD_US * PERIOD_US)
        end_us = WallUs(min(end_us, start_us // SECOND * SECOND + most_us))
    return start_us, end_us


def exact(number: float) -> str:
    """Return a number of at least 0 as the decimal that a person would write for it."""
    decimal = Decimal(repr(number)).normalize()
    if not decimal:
        return "0"
    exponent = decimal.adjusted()
    if exponent < _EXPONENT_MIN:
        return f"1e{_EXPONENT_MIN}"
    plain = f"{decimal:f}"
    if -5 <= exponent <= SIGNIFICANT_DIGITS and len(plain.partition(".")[2]) <= _FRACTION_DIGITS_MAX:
        return plain
    digits = "".join(map(str, decimal.as_tuple().digits))
    return f"{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{exponent}"


def _thousandths(count: int) -> str:
    return f"{Decimal(count).scaleb(-3).normalize():f}" if count else "0"


def same_promise(one: EnvelopeDocument, other: EnvelopeDocument) -> bool:
    """Return whether two documents say the same, but for when."""

    def timeless(document: EnvelopeDocument) -> tuple[object, ...]:
        return (
            document.domain, document.segment, document.sequence, document.guardrails, document.model,
            document.impairment, document.dependence, document.calibration, document.reservation, document.parts,
        )  # fmt: skip

    return timeless(one) == timeless(other)

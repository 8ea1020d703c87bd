"""Laws of composition: never less risk than the parts prove, associative, monotone; and what becomes of the clauses."""

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import structs

from aipaging.core.calculus.risk_budget import DelayContract, epsilon_any_dependence
from aipaging.core.envelope.admission import tail_bound
from aipaging.core.envelope.composition import (
    Composite,
    Stage,
    published,
    reshaper_delay_ms,
    union_form,
)
from aipaging.core.envelope.document import (
    Calibration,
    DelayContractModel,
    DependenceClause,
    EnvelopeDocument,
    Guardrails,
    Impairment,
    Reservation,
    canonical_bytes,
    digest_of,
    document_from,
    envelope_of,
)
from aipaging.core.envelope.envelope import Dependence
from aipaging.core.envelope.models import RateLatencyModel, SharedRateModel
from aipaging.core.envelope.trust import VerifiedEnvelope
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import DomainName

OP = DomainName("op")

contracts = st.builds(
    DelayContract,
    offset_ms=st.one_of(st.just(0.0), st.floats(1e-3, 1e4)),
    prefactor=st.one_of(st.just(0.0), st.floats(1e-6, 1.0), st.floats(1.0, 1e6)),
    decay_per_ms=st.floats(1e-4, 1e3),
)
paths = st.lists(contracts, min_size=1, max_size=8)
slacks = st.floats(0.0, 1e5)


@given(paths, slacks)
def test_it_never_promises_less_risk_than_the_parts(parts: list[DelayContract], slack: float) -> None:
    delay_ms = math.fsum(part.offset_ms for part in parts) + slack
    proven = epsilon_any_dependence(parts, delay_ms).epsilon
    # Below it, doubles underflow, and every part is rounded up to the smallest one.
    assume(proven > 1e-290 or proven == 0.0)
    assert union_form(parts).exceedance(delay_ms) >= proven


@given(st.lists(st.builds(replace, contracts, prefactor=st.floats(1.0, 1e6)), min_size=1, max_size=6), slacks)
def test_with_prefactors_from_one_on_nothing_is_lost(parts: list[DelayContract], slack: float) -> None:
    """The form is the union bound itself, not only an upper bound on it."""
    delay_ms = math.fsum(part.offset_ms for part in parts) * (1 + 1e-12) + slack
    proven = epsilon_any_dependence(parts, delay_ms).epsilon
    assume(proven > 1e-290)
    decay_times_delay = union_form(parts).decay_per_ms * delay_ms
    assert union_form(parts).exceedance(delay_ms) <= proven * (1 + 1e-7 + 1e-11 * decay_times_delay)


@given(paths, paths, paths)
def test_it_is_associative_up_to_the_stated_rounding(first, second, third) -> None:
    at_once = union_form([*first, *second, *third])
    left = union_form([union_form([union_form(first), union_form(second)]), union_form(third)])
    right = union_form([union_form(first), union_form([union_form(second), union_form(third)])])
    for nested in (left, right):
        assert nested.offset_ms == pytest.approx(at_once.offset_ms, rel=1e-11)
        assert (nested.prefactor == 0.0) == (at_once.prefactor == 0.0)
        if at_once.prefactor > 0.0:
            # A deterministic composite has no decay worth comparing.
            assert nested.decay_per_ms == pytest.approx(at_once.decay_per_ms, rel=1e-10)
            assert nested.prefactor == pytest.approx(at_once.prefactor, rel=1e-7)
            # Towards safety: rounding more often promises less.
            assert nested.decay_per_ms <= at_once.decay_per_ms * (1 + 1e-13)


@given(paths, contracts, st.floats(1.0, 10.0), slacks)
def test_a_worse_part_makes_no_better_whole(parts: list[DelayContract], part: DelayContract, factor, slack) -> None:
    worse = DelayContract(
        offset_ms=part.offset_ms * factor, prefactor=part.prefactor * factor, decay_per_ms=part.decay_per_ms / factor
    )
    # From the larger offset on: below it the worse contract says nothing at all.
    delay_ms = union_form([*parts, worse]).offset_ms + slack
    whole = union_form([*parts, part]).exceedance(delay_ms)
    assert union_form([*parts, worse]).exceedance(delay_ms) >= whole * (1 - 1e-8) or whole < 1e-290


@given(paths, st.floats(0.01, 100.0))
def test_the_unit_of_time_does_not_matter(parts: list[DelayContract], unit: float) -> None:
    scaled = [
        DelayContract(offset_ms=part.offset_ms * unit, prefactor=part.prefactor, decay_per_ms=part.decay_per_ms / unit)
        for part in parts
    ]
    assert union_form(scaled).prefactor == pytest.approx(union_form(parts).prefactor, rel=1e-9)
    assert union_form(scaled).decay_per_ms * unit == pytest.approx(union_form(parts).decay_per_ms, rel=1e-9)


def document(domain: str = "access", **members: object) -> EnvelopeDocument:
    standard = {
        "version": 1,
        "domain": domain,
        "sequence": 3,
        "not_before": "2026-11-22T00:00:00Z",
        "not_after": "2026-11-30T00:00:00Z",
        "guardrails": Guardrails(rate_rps="10", burst=5),
        "model": DelayContractModel(offset_ms="1", prefactor="2", decay_per_ms="0.5"),
    }
    return EnvelopeDocument(**{**standard, **members})


def stage(content: EnvelopeDocument, reshaper_ms: float = 0.0) -> Stage:
    digest = digest_of(content)
    verified = VerifiedEnvelope(document=content, envelope=envelope_of(content, digest), digest=digest, key_id="k")
    return Stage(verified=verified, reshaper_delay_ms=reshaper_ms)


def composed(*stages: Stage) -> EnvelopeDocument:
    made = published(Composite(stages=stages), domain=OP, sequence=1)
    assert document_from(canonical_bytes(made)) == made, "what is published can be read"
    return made


def test_the_published_document_promises_no_more_than_admission_proves_of_the_parts() -> None:
    calibration = Calibration(
        window_start="2026-11-01T00:00:00Z", window_end="2026-11-02T00:00:00Z", samples=1000, effective_samples=500,
        method="measured", confidence="0.95", epsilon_floor="0.003",
    )  # fmt: skip
    first = document(impairment=Impairment(loss="0.001"), calibration=calibration)
    second = document("compute", impairment=Impairment(error="0.002"), calibration=calibration)
    composite = Composite(stages=(stage(first), stage(second)))
    made = published(composite, domain=OP, sequence=1)
    for delay_ms in (1.0, 2.0, 10.0, 40.0, 400.0):
        of_parts = tail_bound(composite.envelopes, delay_ms).epsilon_bound
        assert tail_bound([envelope_of(made, "")], delay_ms).epsilon_bound >= of_parts
    assert float(made.impairment.error) >= 0.008, "both floors and the error"
    assert made.calibration is not None
    assert float(made.calibration.confidence) == pytest.approx(0.9)
    assert made.calibration.effective_samples == 500


def test_parts_are_named_in_their_order() -> None:
    stages = [stage(document("access")), stage(document("transport")), stage(document("compute"))]
    made = composed(*stages)
    assert [part.domain for part in made.parts] == ["access", "transport", "compute"]
    assert [part.digest for part in made.parts] == [each.verified.digest for each in stages]


def test_a_reshaper_is_charged() -> None:
    delay_ms = reshaper_delay_ms(burst_before=15, burst_after=5, rate_rps=10.0)
    assert delay_ms == pytest.approx(1000.0)
    plain = composed(stage(document()), stage(document("compute")))
    charged = composed(stage(document()), stage(document("compute"), delay_ms))
    assert float(charged.model.offset_ms) >= float(plain.model.offset_ms) + 1000.0
    assert [part.reshaper_delay_ms for part in plain.parts] == ["0", "0"]
    assert float(charged.parts[1].reshaper_delay_ms) >= 1000.0
    assert reshaper_delay_ms(burst_before=1, burst_after=5, rate_rps=10.0) == 0.0
    with pytest.raises(InvalidInputError):
        stage(document(), -1.0)


def test_the_weakest_clause_and_every_cause() -> None:
    independent = DependenceClause(clause="independent", common_causes=("power",))
    conditional = DependenceClause(clause="conditional", common_causes=("fibre",))
    made = composed(stage(document(dependence=independent)), stage(document("compute", dependence=conditional)))
    assert made.dependence == DependenceClause(clause="conditional", common_causes=("fibre", "power"))
    assert envelope_of(made, "").dependence is Dependence.ANY
    with_none = composed(stage(document(dependence=independent)), stage(document("compute")))
    assert with_none.dependence.clause == "none"


def test_the_narrowest_guardrails_and_validity() -> None:
    first = document(
        guardrails=Guardrails(rate_rps="10", burst=5, max_tokens=512, regions=("eu-west",)),
        reservation=Reservation(capacity_rps="100", price_micros_per_rps_hour=5, currency="EUR"),
    )
    second = document(
        "compute",
        not_before="2026-11-23T00:00:00Z",
        not_after="2026-12-30T00:00:00Z",
        guardrails=Guardrails(rate_rps="9.5", burst=50, concurrency=4, regions=("eu-north",)),
        reservation=Reservation(price_micros_per_rps_hour=7, currency="EUR"),
    )
    made = composed(stage(first), stage(second))
    assert made.guardrails == Guardrails(
        rate_rps="9.5", burst=5, max_tokens=512, concurrency=4, regions=("eu-north", "eu-west")
    )
    assert (made.not_before, made.not_after) == ("2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z")
    assert made.reservation == Reservation(capacity_rps="100", price_micros_per_rps_hour=12, currency="EUR")
    dollars = structs.replace(second, reservation=Reservation(price_micros_per_rps_hour=7, currency="USD"))
    assert composed(stage(first), stage(dollars)).reservation == Reservation(capacity_rps="100")
    silent = structs.replace(second, guardrails=Guardrails(rate_rps="9.5", burst=50))
    assert composed(stage(first), stage(silent)).guardrails.regions == ()


def test_parts_that_are_never_valid_together_do_not_compose() -> None:
    later = document("compute", not_before="2026-11-30T00:00:00Z", not_after="2026-12-30T00:00:00Z")
    with pytest.raises(InvalidInputError, match="same time"):
        composed(stage(document()), stage(later))
    with pytest.raises(InvalidInputError):
        Composite(stages=())


def test_deterministic_parts_add_their_delay_and_nothing_else() -> None:
    curve = document("compute", model=RateLatencyModel(service_rate_rps="50", latency_ms="3"))
    made = composed(stage(curve), stage(curve))
    assert isinstance(made.model, DelayContractModel)
    assert made.model.prefactor == "0"
    behind = composed(stage(document()), stage(curve))
    assert isinstance(behind.model, DelayContractModel)
    # What a random delay sends on in a burst, a server further on has to serve.
    assert float(behind.model.prefactor) > 2.0
    mixed = composed(stage(curve), stage(document()))
    assert isinstance(mixed.model, DelayContractModel)
    assert float(mixed.model.prefactor) == pytest.approx(2.0, rel=1e-8)
    assert float(mixed.model.offset_ms) == pytest.approx(104.0)


def test_a_queue_that_sessions_share_cannot_be_composed_away() -> None:
    shared = document("metro", model=SharedRateModel(service_rate_rps="1000", latency_ms="1", burst_total_max=1000))
    with pytest.raises(InvalidInputError, match="share a queue in metro"):
        composed(stage(document()), stage(shared))


def test_parts_that_together_leave_no_room_are_refused() -> None:
    exactly = document("compute", model=RateLatencyModel(service_rate_rps="20", latency_ms="3"))
    tight = structs.replace(exactly, guardrails=structs.replace(exactly.guardrails, rate_rps="20"))
    loose = structs.replace(document(), guardrails=structs.replace(document().guardrails, rate_rps="20"))
    with pytest.raises(InvalidInputError, match="do not serve"):
        composed(stage(loose), stage(tight))


def test_of_tenants_caps_the_least_counts() -> None:
    first = structs.replace(document(), reservation=Reservation(tenant_capacity_rps="7"))
    second = structs.replace(document("metro"), reservation=Reservation(tenant_capacity_rps="5"))
    assert composed(stage(first), stage(second)).reservation.tenant_capacity_rps == "5"

"""Laws of the second guardrail: never limits who conforms at its gateways, and limits everybody else."""

from hypothesis import given, settings
from hypothesis import strategies as st

from aipaging.core.foundation.names import SessionId
from aipaging.core.foundation.time import SECOND, BootUs
from aipaging.core.steering.guardrail import CLUMPING_US, DRIFT_PPM, SWEPT_MIN, Guardrails

SESSION = SessionId("s")

rates_mrps = st.sampled_from([1, 7, 1_000, 33_333, 1_000_000, 250_000_000])
bursts = st.integers(1, 40)
GATEWAY_ALLOWS_US = 10_000
"""What a gateway's guardrail allows beyond the contract."""


class EdgeBucket:
    """A gateway's token bucket, in its other form: tokens that fill up."""

    def __init__(self, rate_mrps: int, burst: int) -> None:
        self.per_us = rate_mrps / 1e9
        self.size = burst + GATEWAY_ALLOWS_US * self.per_us
        self.tokens, self.at_us = self.size, 0.0

    def passes(self, at_us: float) -> bool:
        self.tokens = min(self.size, self.tokens + (at_us - self.at_us) * self.per_us)
        self.at_us = at_us
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@given(
    rate_mrps=rates_mrps,
    burst=bursts,
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=120),
    lags=st.lists(st.integers(0, CLUMPING_US - GATEWAY_ALLOWS_US), min_size=120, max_size=120),
    drift=st.floats(-0.0005, 0.0005),
)
@settings(max_examples=200, deadline=None)
def test_what_a_gateway_let_pass_is_never_limited_here(rate_mrps, burst, gaps, lags, drift) -> None:
    edge, each_us, at_us = EdgeBucket(rate_mrps, burst), 1e9 / rate_mrps, 0.0
    arrivals = []
    for gap, lag in zip(gaps, lags, strict=False):
        at_us += gap * each_us  # the sender tries too soon half of the time
        if edge.passes(at_us):
            arrivals.append(int(at_us * (1 + drift)) + lag)  # by our clock, and late by anything up to the allowance
    here = Guardrails()
    for arrived_us in sorted(arrivals):
        assert here.too_early_us(SESSION, rate_mrps, burst, BootUs(arrived_us)) == 0


@given(
    rate_mrps=st.sampled_from([1_000, 33_333, 100_000]),
    burst=bursts,
    gaps_us=st.lists(st.integers(0, 20_000), min_size=2, max_size=400),
)
@settings(max_examples=150, deadline=None)
def test_no_interval_carries_more_than_the_stated_envelope(rate_mrps, burst, gaps_us) -> None:
    here, at_us, passed = Guardrails(), 10 * SECOND, []
    for gap_us in gaps_us:
        at_us += gap_us
        if here.too_early_us(SESSION, rate_mrps, burst, BootUs(at_us)) == 0:
            passed.append(at_us)
    per_us = rate_mrps * (1 + DRIFT_PPM / 1e6) / 1e9
    for first in range(0, len(passed), 7):
        for last in range(first, len(passed), 5):
            assert last - first + 1 <= burst + (passed[last] - passed[first] + CLUMPING_US) * per_us + 1e-6


def test_who_waits_as_long_as_told_is_let_in_and_a_refusal_costs_nothing() -> None:
    here, now_us = Guardrails(clumping_us=0, drift_ppm=0), BootUs(SECOND)
    assert here.too_early_us(SESSION, 2_000, 2, now_us) == 0
    assert here.too_early_us(SESSION, 2_000, 2, now_us) == 0
    for _ in range(5):
        assert here.too_early_us(SESSION, 2_000, 2, now_us) == 500_000
    assert here.too_early_us(SESSION, 2_000, 2, BootUs(now_us + 499_999)) == 1
    assert here.too_early_us(SESSION, 2_000, 2, BootUs(now_us + 500_000)) == 0


def test_a_rate_of_zero_is_a_rate_and_no_division() -> None:
    here = Guardrails(clumping_us=0)
    assert here.too_early_us(SESSION, 0, 1, BootUs(0)) == 0
    assert here.too_early_us(SESSION, 0, 1, BootUs(0)) > 0


def test_the_idle_are_forgotten_and_the_spent_are_not() -> None:
    here = Guardrails(clumping_us=0)
    assert here.too_early_us(SESSION, 1, 1, BootUs(0)) == 0
    for number in range(5 * SWEPT_MIN):
        here.too_early_us(SessionId(f"s{number}"), 1_000_000, 1, BootUs(number * 2_000))
    assert len(here) <= SWEPT_MIN
    assert here.too_early_us(SESSION, 1, 1, BootUs(SECOND)) > 0

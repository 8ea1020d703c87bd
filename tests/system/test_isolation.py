"""Tenants do not move one another's tails, on the running system; what arrives is counted, nobody is asked."""

import asyncio

import pytest

from aipaging.apps.bench import isolation
from aipaging.apps.bench.command import benchmark_names
from aipaging.apps.bench.isolation import CLUMPING_S, OFFENDER, TIMES_OVER, VICTIM_SENDS_RPS

SECONDS = 1.2
SECONDS_FEW = 0.6
"""Nine of ten requests are beyond the contract, for however short."""


@pytest.mark.real
def test_ten_times_the_contract_gets_no_more_than_the_contract() -> None:
    assert "isolation" in benchmark_names()
    rounds = asyncio.run(isolation.measured(rounds=1, seconds=SECONDS_FEW))
    ((kept, unkept),) = rounds
    assert kept.offender.limited > 0, "it did offend"
    assert kept.offender.requests <= OFFENDER.burst + OFFENDER.rate_rps * (kept.offender.seconds + CLUMPING_S) + 1
    assert unkept.offender.limited == 0, "without reservations nobody is limited"
    assert {result.metric for result in isolation.results(rounds)} >= {
        "victim_alone_p999",
        "victim_beside_offender_p999",
        "bound_of_victim",
        "offender_limited",
    }


@pytest.mark.real
@pytest.mark.soak  # it measures delays, and what a machine can send at all
def test_ten_times_the_contract_moves_nobody_else_s_tail_and_without_reservations_it_does() -> None:
    ((kept, unkept),) = asyncio.run(isolation.measured(rounds=1, seconds=SECONDS))
    assert kept.offender.limited > 0.5 * (TIMES_OVER - 1) * OFFENDER.rate_rps * SECONDS * 0.5, "it did offend"
    assert unkept.offender.requests > kept.offender.requests, "without reservations it gets what it grabs"
    assert kept.beside.failures == kept.alone.failures == 0, "who conforms is not limited"
    assert kept.beside.requests >= 0.8 * VICTIM_SENDS_RPS * SECONDS
    # No number of milliseconds: the worst of one side against the middle of the other.
    assert kept.beside.p999_us < unkept.beside.p50_us

"""Blame: exact sums, faulty domains found, innocent ones spared."""

from itertools import permutations

import numpy as np
import pytest

from aipaging.core.audit import (
    END_TO_END,
    ArrayTable,
    Attribution,
    Batch,
    Contract,
    EnvelopeTail,
    LateRequests,
    Ranks,
    Status,
    accounts,
    attribute,
    audit_period,
    permitted_delays,
    rows,
)

DOMAINS = ("radio", "transport", "compute")
COUNT = 4_000


def healthy(rng: np.random.Generator, count: int = COUNT) -> dict[str, np.ndarray]:
    """Return delays (us) that share a load, so that they depend on one another."""
    load = np.repeat(rng.gamma(20, 1 / 20, count // 50), 50)
    return {
        "radio": 2_000 + 4_000 * load * rng.exponential(1.0, count),
        "transport": 40_000 + 1_000 * rng.exponential(1.0, count),
        "compute": 5_000 + 6_000 * load * rng.exponential(1.0, count),
    }


TAILS = {
    "radio": EnvelopeTail(offset_ms=2.0, prefactor=3.0, decay_per_ms=0.15),
    "transport": EnvelopeTail(offset_ms=40.0, prefactor=2.0, decay_per_ms=0.8),
    "compute": EnvelopeTail(offset_ms=5.0, prefactor=3.0, decay_per_ms=0.1),
}
POINTS = {"radio": 45.0, "transport": 48.0, "compute": 65.0}
EPSILON = 0.01


def contracts() -> list[Contract]:
    domains = [Contract(domain=name, delay_ms=POINTS[name], epsilon=EPSILON, tail=TAILS[name]) for name in DOMAINS]
    return [Contract(domain=END_TO_END, delay_ms=110.0, epsilon=EPSILON), *domains]


FAULTS = {
    "shift": lambda rng, d, place: d + 70_000 * (np.arange(len(d)) > 0.9 * len(d)),
    "jitter": lambda rng, d, place: d + 60_000 * rng.exponential(1.0, len(d)) * (rng.random(len(d)) < 0.2),
    "outage": lambda rng, d, place: d + 500_000 * (np.abs(np.arange(len(d)) - place) < 0.02 * len(d)),
    "drift": lambda rng, d, place: d + np.linspace(0, 90_000, len(d)),
    "heavy tail": lambda rng, d, place: d + 20_000 * rng.pareto(1.2, len(d)) * (rng.random(len(d)) < 0.15),
    "bursts": lambda rng, d, place: d + 100_000 * np.repeat(rng.random(len(d) // 50) < 0.1, 50),
}


def audited(delays: dict[str, np.ndarray], gap: float = 0.0) -> Attribution:
    domains = {name: column.astype(np.int64) for name, column in delays.items()}
    whole = sum(domains.values()) + np.int64(gap)
    count = len(next(iter(domains.values())))
    table = ArrayTable(
        Batch(
            start_us=np.arange(count) * 10_000,
            status=np.zeros(count, np.uint8),
            end_to_end_us=np.asarray(whole),
            domains=domains,
        )
    )
    return accounts(table, audit_period(table, contracts(), alpha=0.05), np.random.default_rng(0))[0]


def total(found: Attribution) -> float:
    return found.permitted + sum(blame.blame for blame in found.domains.values()) + found.unattributed


@pytest.mark.parametrize("fault", FAULTS)
def test_single_faults_are_blamed_on_the_faulty_domain(fault: str) -> None:
    """A hundred seeds of each kind of fault, the domains in turn."""
    for seed in range(100):
        rng = np.random.default_rng(seed)
        delays = healthy(rng)
        guilty = DOMAINS[seed % 3]
        delays[guilty] = FAULTS[fault](rng, delays[guilty], rng.integers(COUNT))
        found = audited(delays)
        assert found.observed == pytest.approx(total(found), abs=1e-9)
        for name, blame in found.domains.items():
            assert blame.may_be_blamed == (name == guilty), (seed, name)
            assert blame.blame == 0 or name == guilty
        guilt = found.domains[guilty].blame
        assert guilt > 0
        assert guilt >= 0.95 * (sum(b.blame for b in found.domains.values()) + found.unattributed)
        assert found.domains[guilty].low <= guilt <= found.domains[guilty].high


def test_nobody_is_blamed_where_everybody_keeps_the_contract() -> None:
    for seed in range(30):
        found = audited(healthy(np.random.default_rng(seed)))
        assert all(blame.blame == 0 for blame in found.domains.values())
        assert found.permitted == found.observed


def test_what_no_domain_reported_is_unattributed() -> None:
    found = audited(healthy(np.random.default_rng(1)), gap=60_000)
    assert found.unattributed > 0.5 * found.observed
    assert all(blame.blame == 0 for blame in found.domains.values())
    assert found.observed == pytest.approx(total(found), abs=1e-9)


def test_unknown_domains_and_fast_failures_are_unattributed() -> None:
    late = LateRequests(
        domains=("a", "b"),
        delays_us=np.asarray([[50, -1], [3, 4], [90, 30]]),
        end_to_end_us=np.asarray([500, 7, 120]),
        window=np.zeros(3, dtype=np.int64),
        requests=np.asarray([10]),
    )
    contract = Contract(domain=END_TO_END, delay_ms=0.1, epsilon=0.01)
    found = attribute(contract, late, {"a": np.full(3, 10.0)}, np.random.default_rng(0))
    assert found.unexplained_requests == 2
    assert found.observed == pytest.approx(0.3)
    assert found.unattributed == pytest.approx(0.2)
    assert found.domains["a"].blame == pytest.approx(0.1)
    assert found.permitted == 0.0


def shapley_by_orders(reductions: np.ndarray, margin: float) -> np.ndarray:
    """Return the values of one request's game by its definition: the mean over all orders of entry."""
    players = len(reductions)
    values = np.zeros(players)
    orders = list(permutations(range(players)))
    for order in orders:
        off = reductions.sum()
        for player in order:
            before = off < margin
            off -= reductions[player]
            values[player] += (off < margin) - int(before)
    return values / len(orders)


def test_values_are_shapley_values() -> None:
    rng = np.random.default_rng(2)
    names = ("a", "b", "c", "d")
    delays = rng.integers(0, 1_000, (40, 4))
    whole = delays.sum(axis=1) + rng.integers(0, 500, 40)
    caps = {name: rng.integers(0, 900, 40).astype(float) for name in names}
    contract = Contract(domain=END_TO_END, delay_ms=1.2, epsilon=0.01)
    late = whole > 1_200
    rows = LateRequests(
        domains=names,
        delays_us=delays[late],
        end_to_end_us=whole[late],
        window=rng.integers(0, 5, int(late.sum())),
        requests=np.full(5, 8),
    )
    found = attribute(contract, rows, {name: cap[late] for name, cap in caps.items()}, rng)
    cut = np.column_stack([np.maximum(delays[:, i] - caps[name], 0) for i, name in enumerate(names)])
    gap = whole - delays.sum(axis=1)
    each = [shapley_by_orders(np.append(cut[row], gap[row]), whole[row] - 1_200) for row in np.flatnonzero(late)]
    expected = np.sum(each, axis=0) / 40
    assert [found.domains[name].blame for name in names] == pytest.approx(expected[:4].tolist())
    assert found.unattributed == pytest.approx(expected[4])


def test_twelve_domains() -> None:
    rng = np.random.default_rng(3)
    names = tuple(f"d{index}" for index in range(12))
    delays = rng.integers(0, 1_000, (500, 12))
    late = LateRequests(
        domains=names,
        delays_us=delays,
        end_to_end_us=delays.sum(axis=1),
        window=np.zeros(500, dtype=np.int64),
        requests=np.asarray([500]),
    )
    contract = Contract(domain=END_TO_END, delay_ms=1.0, epsilon=0.01)
    found = attribute(contract, late, {name: np.full(500, 50.0) for name in names}, rng)
    assert found.observed == pytest.approx(total(found), abs=1e-9)


def test_a_point_contract_permits_its_share_of_a_tie() -> None:
    """Of 50 equal delays at the top of 1,000, a contract of 2 % permits 20."""
    contract = Contract(domain="a", delay_ms=1.0, epsilon=0.02)
    values = np.full(50, 9_000)
    ranks = Ranks(above=np.zeros(50, np.int64), at_least=np.full(50, 50), population=1_000)
    assert np.isinf(permitted_delays(contract, values, ranks)).sum() == 20


def test_permitted_tail_is_the_quantile_function() -> None:
    tail = EnvelopeTail(offset_ms=5.0, prefactor=2.0, decay_per_ms=0.5)
    at = tail.quantile_us(np.asarray([1e-3, 0.5]))
    assert 2.0 * np.exp(-0.5 * (at / 1e3 - 5.0)) == pytest.approx([1e-3, 0.5])
    assert EnvelopeTail(offset_ms=5.0, prefactor=0.1, decay_per_ms=0.5).quantile_us(np.asarray([0.5])) == 5_000.0


def test_blame_does_not_follow_repeated_fast_requests() -> None:
    """Copies of quick requests neither dilute ranks nor change the sum."""
    rng = np.random.default_rng(4)
    delays = healthy(rng)
    delays["compute"] = FAULTS["bursts"](rng, delays["compute"], 0)
    once = audited(delays)
    quick = np.argsort(delays["compute"])[:2_000]
    rows = np.concatenate([np.arange(COUNT), quick])
    domains = {name: column[rows].astype(np.int64) for name, column in delays.items()}
    table = ArrayTable(
        Batch(
            start_us=rows * 10_000,
            status=np.zeros(len(rows), np.uint8),
            end_to_end_us=np.asarray(sum(domains.values())),
            domains=domains,
        ),
        [f"r{row}" for row in rows],
    )
    found = accounts(table, audit_period(table, contracts(), alpha=0.05), np.random.default_rng(0))[0]
    assert found.domains["compute"].blame == once.domains["compute"].blame
    assert found.observed == once.observed


def test_failures_count_as_observed() -> None:
    rng = np.random.default_rng(5)
    delays = {name: column.astype(np.int64) for name, column in healthy(rng).items()}
    status = np.where(rng.random(COUNT) < 0.02, Status.TIMEOUT, Status.OK).astype(np.uint8)
    table = ArrayTable(
        Batch(
            start_us=np.arange(COUNT) * 10_000,
            status=status,
            end_to_end_us=np.asarray(sum(delays.values())),
            domains=delays,
        )
    )
    audit = audit_period(table, contracts(), alpha=0.05)
    found = accounts(table, audit, rng)[0]
    assert found.observed == audit.verdicts[0].exceedances_low / COUNT
    assert found.unattributed > 0
    assert found.observed == pytest.approx(total(found), abs=1e-9)


def test_without_domains_everything_is_unattributed() -> None:
    delays = np.asarray([200_000] * 5 + [1] * 95)
    batch = Batch(start_us=np.arange(100), status=np.zeros(100, np.uint8), end_to_end_us=delays, domains={})
    table = ArrayTable(batch)
    audit = audit_period(table, contracts()[:1], alpha=0.05)
    found = accounts(table, audit, np.random.default_rng(0))[0]
    assert (found.observed, found.permitted, found.unattributed) == (0.05, 0.0, 0.05)


def test_more_late_requests_than_are_kept_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    delays = healthy(rng)
    delays["radio"] = delays["radio"] + 150_000 * (rng.random(COUNT) < 0.5)
    whole = audited(delays)
    monkeypatch.setattr(rows, "EXCEEDING_MAX", 300)
    thinned = audited(delays)
    assert thinned.observed == pytest.approx(whole.observed)
    assert thinned.observed == pytest.approx(total(thinned), abs=1e-9)
    assert thinned.domains["radio"].blame == pytest.approx(whole.domains["radio"].blame, abs=0.05)


def test_tenants_and_periods_choose_who_may_be_blamed() -> None:
    rng = np.random.default_rng(7)
    delays = healthy(rng)
    tenants = (np.arange(COUNT) % 2).astype(np.int64)
    delays["compute"] = delays["compute"] + 120_000 * ((rng.random(COUNT) < 0.2) & (tenants == 1))
    columns = {name: column.astype(np.int64) for name, column in delays.items()}
    batch = Batch(
        start_us=np.arange(COUNT) * 10_000,
        status=np.zeros(COUNT, np.uint8),
        end_to_end_us=np.asarray(sum(columns.values())),
        domains=columns,
        tenants=tenants,
        tenant_names=("calm", "hit"),
    )
    table = ArrayTable(batch)
    wanted = [
        Contract(domain=domain, delay_ms=delay_ms, epsilon=EPSILON, tenant=tenant, period_start_us=start)
        for tenant in ("calm", "hit")
        for domain, delay_ms, start in ((END_TO_END, 110.0, None), ("compute", 65.0, 0))
    ]
    expired = Contract(domain=END_TO_END, delay_ms=110.0, epsilon=EPSILON, period_end_us=-5)
    audit = audit_period(table, [*wanted, expired], alpha=0.05)
    calm, hit, gone = accounts(table, audit, rng)
    assert not calm.domains["compute"].may_be_blamed
    assert hit.domains["compute"].blame > 0.05
    assert (gone.observed, gone.permitted, gone.unattributed) == (0.0, 0.0, 0.0)

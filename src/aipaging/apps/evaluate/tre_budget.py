"""TRE 4: what it is worth to split a risk budget well, under each clause of dependence, in risk and in money.

A path of three domains with delay contracts. A delay is split equally, in proportion to what the domains need at least,
or optimally (`core/calculus/risk_split`, with its certificate); the parts then prove a risk, added where nothing is
known of the dependence, multiplied where every contract holds given the past. Beside them the bounds that split nothing
(dual, joint tail). The other question: what the cheapest rates cost that prove a promise.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from aipaging.adapters.terminal.picture import COLOURS
from aipaging.apps.evaluate.curves import bars
from aipaging.apps.evaluate.experiment import Experiment, Finding, Measured, Setting
from aipaging.apps.evaluate.intervals import least, wider
from aipaging.core.calculus import DelayContract, Dependence, RatedDomain, cheapest_reservation
from aipaging.core.calculus.risk_joint import cheapest_joint_reservation
from aipaging.core.calculus.risk_limits import BudgetDomain
from aipaging.core.calculus.risk_sharp import epsilon_any_dependence_sharp, epsilon_conditional
from aipaging.core.calculus.risk_split import least_risk_split

CONTRACTS: Final = {
    "access": DelayContract(offset_ms=5.0, prefactor=1.0, decay_per_ms=0.5),
    "transport": DelayContract(offset_ms=8.0, prefactor=1.0, decay_per_ms=1.5),
    "compute": DelayContract(offset_ms=40.0, prefactor=3.0, decay_per_ms=0.12),
}
RATED: Final = (
    RatedDomain(name="access", offset=5.0, prefactor=1.0, decay_per_rate=0.02, price=4.0),
    RatedDomain(name="transport", offset=8.0, prefactor=1.0, decay_per_rate=0.05, price=1.0),
    RatedDomain(name="compute", offset=40.0, prefactor=3.0, decay_per_rate=0.004, price=12.0),
)
CLAUSES: Final = {
    "any": Dependence.ANY,
    "conditional": Dependence.CONDITIONAL,
    "independent": Dependence.INDEPENDENT,
}
DELAYS_MS: Final = (80.0, 100.0, 120.0, 140.0, 160.0, 180.0)
COST_DELAY_MS, COST_EPSILON = 150.0, 1e-3
SAMPLES: Final = 2_000_000
SPLITS: Final = ("equal", "proportional", "optimal", "not split")


def risk_of(parts_ms: Sequence[float], clause: Dependence) -> float:
    """Return the risk that given parts of the delay prove."""
    risks = [contract.exceedance(part) for contract, part in zip(CONTRACTS.values(), parts_ms, strict=True)]
    if clause is Dependence.ANY:
        return min(1.0, math.fsum(risks))
    return 1.0 - math.prod(1.0 - min(1.0, risk) for risk in risks)


def risks(delay_ms: float, clause: Dependence) -> dict[str, float]:
    """Return the risk that each split proves."""
    offsets = [contract.offset_ms for contract in CONTRACTS.values()]
    slack = delay_ms - math.fsum(offsets)
    equal = [offset + slack / len(offsets) for offset in offsets]
    proportional = [delay_ms * offset / math.fsum(offsets) for offset in offsets]
    domains = [BudgetDomain(name=name, contract=contract) for name, contract in CONTRACTS.items()]
    sharp = epsilon_any_dependence_sharp if clause is Dependence.ANY else epsilon_conditional
    return {
        "equal": risk_of(equal, clause),
        "proportional": risk_of(proportional, clause),
        "optimal": least_risk_split(domains, delay_ms, dependence=clause).epsilon,
        "not split": sharp(list(CONTRACTS.values()), delay_ms).epsilon,
    }


def cost_of(parts: Sequence[float], shares: Sequence[float]) -> float:
    """Return what rates cost that keep given excesses with given risks."""
    return math.fsum(
        domain.price * max(0.0, math.log(domain.prefactor / share)) / (domain.decay_per_rate * part)
        for domain, part, share in zip(RATED, parts, shares, strict=True)
    )


def costs(clause: Dependence) -> dict[str, float]:
    """Return what the promise costs with each split."""
    count = len(RATED)
    left = COST_DELAY_MS - math.fsum(domain.offset for domain in RATED)
    share = COST_EPSILON / count if clause is Dependence.ANY else 1.0 - (1.0 - COST_EPSILON) ** (1.0 / count)
    offsets = math.fsum(domain.offset for domain in RATED)
    best = cheapest_reservation(RATED, COST_DELAY_MS, COST_EPSILON, dependence=clause)
    joint = best
    if clause is not Dependence.ANY:
        joint = cheapest_joint_reservation(RATED, COST_DELAY_MS, COST_EPSILON)
    return {
        "equal": cost_of([left / count] * count, [share] * count),
        "proportional": cost_of([left * domain.offset / offsets for domain in RATED], [share] * count),
        "optimal": best.cost,
        "not split": joint.cost,
    }


def true_risks(delays_ms: Sequence[float], samples: int, seed: int) -> list[dict[str, float]]:
    """Return how often the sum exceeds each delay if every contract is used up, independently of the others."""
    rng = np.random.default_rng(seed)
    total = np.zeros(samples)
    for contract in CONTRACTS.values():
        shift = math.log(max(1.0, contract.prefactor)) / contract.decay_per_ms
        total += contract.offset_ms + shift + rng.exponential(1.0 / contract.decay_per_ms, samples)
    found: list[dict[str, float]] = []
    for delay_ms in delays_ms:
        value = float(np.count_nonzero(total > delay_ms)) / samples
        half = 1.96 * math.sqrt(max(value, 1.0 / samples) / samples)
        found.append({"value": value, "low": max(0.0, value - half), "high": value + half})
    return found


def measure(setting: Setting) -> Measured:
    """Split every delay in every way."""
    delays = setting.points(DELAYS_MS, tuple(80.0 + 5.0 * step for step in range(21)))
    return {
        "delays_ms": list(delays),
        "risks": {name: [risks(delay, clause) for delay in delays] for name, clause in CLAUSES.items()},
        "costs": {name: costs(clause) for name, clause in CLAUSES.items()},
        "true": true_risks(delays, setting.packets(SAMPLES), setting.seed),
    }


def conclude(measured: Measured) -> Finding:
    """Say what the optimum gains."""
    every = [point for points in measured["risks"].values() for point in points]
    best = all(point["optimal"] <= min(point["equal"], point["proportional"]) * (1 + 1e-9) for point in every)
    middle = len(measured["delays_ms"]) // 2
    delay = measured["delays_ms"][middle]
    at = measured["risks"]["any"][middle]
    gain = min(at["equal"], at["proportional"]) / at["optimal"]
    joint = measured["risks"]["conditional"][middle]
    cost = measured["costs"]
    saved = {name: 1.0 - found["optimal"] / min(found["equal"], found["proportional"]) for name, found in cost.items()}
    cheaper = all(share > 0.0 for share in saved.values())
    factor = wider(len(measured["true"]))
    sound = all(
        least(true, factor) <= point["not split"]
        for true, point in zip(measured["true"], measured["risks"]["independent"], strict=True)
    )
    sentence = (
        f"At {delay:g} ms the optimal split proves a risk of {at['optimal']:.2g} under any dependence, {gain:.3g} "
        f"times less than the better of the equal and the proportional one; where contracts hold given the past, the "
        f"joint tail proves {joint['not split']:.2g}, {joint['optimal'] / joint['not split']:.2g} times less. For "
        f"p99.9 within {COST_DELAY_MS:g} ms the optimal reservation costs {saved['any']:.0%} less under any "
        f"dependence, {saved['conditional']:.0%} less under the conditional clause, and the joint one "
        f"{1 - cost['conditional']['not split'] / cost['conditional']['optimal']:.0%} less again."
    )
    return Finding(
        sentence=sentence,
        confirmed=best and cheaper and sound,
        numbers={"risk_gain": gain, **{f"cost_saved_{name}": share for name, share in saved.items()}},
    )


def draw(figure: Any, measured: Measured) -> None:
    """Draw risks by clause, then costs."""
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
    delays = measured["delays_ms"]
    styles = {"equal": ":", "proportional": "-.", "optimal": "-", "not split": "--"}
    for one, clause, title, sharp in (
        (axes[0], "any", "any dependence: risks add", "not split (dual)"),
        (axes[1], "conditional", "conditional, independent: product", "not split (joint tail)"),
    ):
        for place, split in enumerate(SPLITS):
            values = [point[split] for point in measured["risks"][clause]]
            label = sharp if split == "not split" else split
            one.plot(delays, values, styles[split], color=COLOURS[place], linewidth=1.7, label=label)
        one.set(yscale="log", xlabel="end-to-end delay, ms", ylim=(1e-7, 2.0))
        one.set_title(title, fontsize=9.5)
    seen = [(d, t) for d, t in zip(delays, measured["true"], strict=True) if t["value"] > 0 and t["low"] > 0]
    axes[1].errorbar(
        [delay for delay, _ in seen],
        [true["value"] for _, true in seen],
        yerr=[[t["value"] - t["low"] for _, t in seen], [t["high"] - t["value"] for _, t in seen]],
        fmt="o", color="#0f172a", markersize=3.5, capsize=2.5, label="simulated, independent",
    )  # fmt: skip
    axes[0].set_ylabel("proven P(delay exceeded)")
    for one in axes[:2]:
        one.legend(loc="lower left", fontsize=7.5)
    series = {split: [measured["costs"][clause][split] for clause in CLAUSES] for split in SPLITS}
    bars(axes[2], list(CLAUSES), series, text="{:.0f}")
    for text in axes[2].texts:
        text.set_fontsize(6.5)
    axes[2].tick_params(axis="x", labelsize=8)
    axes[2].set_ylabel(f"cost of p99.9 ≤ {COST_DELAY_MS:g} ms, price units")
    axes[2].set_title("what must be reserved", fontsize=9.5)
    axes[2].margins(y=0.25)
    axes[2].legend(fontsize=7.5, ncols=2, loc="upper right")


TRE4: Final = Experiment(
    name="TRE4",
    title="Decomposition of the risk budget",
    claim="risk-budget decomposition: the optimal split needs less risk, or less money, for the same promise",
    method=(
        "Three domains with delay contracts: access, transport, compute. Parts of the delay are equal, in proportion "
        "to the offsets, or optimal with a certificate; the bounds that assign no parts stand beside them. The dots "
        "are simulated sums of independent delays that use up every contract."
    ),
    measure=measure,
    conclude=conclude,
    draw=draw,
)

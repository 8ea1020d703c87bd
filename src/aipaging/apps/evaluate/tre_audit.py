"""TRE 5: how soon the audit notices a domain that breaks its contract, and whom it blames.

Detection: a domain keeps its contract, then a share of its requests gets slow; the alarm (`core/audit/continuous`,
window betting, valid under dependence and at any time) is fed in windows. Attribution: six kinds of faults are put into
each of three domains, then into two of them at once, and the account of the period says whose they are.
"""

from collections.abc import Sequence
from functools import partial
from itertools import permutations
from typing import Any, Final

import numpy as np

from aipaging.adapters.terminal.picture import COLOURS
from aipaging.apps.evaluate.curves import quantile
from aipaging.apps.evaluate.experiment import WIDE_FROM, Experiment, Finding, Measured, Setting
from aipaging.core.audit import ContinuousAudit, Contract, counted
from aipaging.testing import audit_worlds as worlds

DOMAIN: Final = "compute"
ALPHA: Final = 0.05
WINDOW: Final = 500
ONSET: Final = 20_000
"""Requests before the fault: an audit does not know when to begin, and its wager has lost some capital by then."""

HORIZON: Final = 400_000
SLOW_US: Final = 200_000
SEVERITIES: Final = (2.0, 3.0, 5.0, 10.0, 30.0)
"""How many times epsilon are late after the fault."""

RUNS, RUNS_FULL = 20, 100
PERIOD: Final = 20_000
GUILTY_MIN: Final = 0.9
"""Of the blame: what the guilty domain must carry for the account to count as right."""

AT_ONCE: Final = ("bursts", "heavy_tail")
"""The faults of two domains at once."""


def alarmed_after(severity: float, seed: int, *, independent: bool) -> int:
    """Return after how many requests of a fault the alarm is raised; the horizon if it is not, -1 if it was before."""
    rng = np.random.default_rng([seed, round(severity * 10)])
    contract = Contract(
        domain=DOMAIN, delay_ms=worlds.POINTS_MS[DOMAIN], epsilon=worlds.EPSILON, independent=independent
    )
    state = ContinuousAudit.begun(contract, alpha=ALPHA, window_requests=WINDOW)
    at = 0
    while at < ONSET + HORIZON:
        delays = worlds.healthy(rng, WINDOW)[DOMAIN]
        if at >= ONSET:
            delays = delays + SLOW_US * (rng.random(WINDOW) < severity * worlds.EPSILON)
        state, _ = state.fed(counted(contract, delays.astype(np.int64)))
        at += WINDOW
        if state.alarmed:
            return max(-1, at - ONSET)
    return HORIZON


def blame_of_guilty(fault: str, guilty: str, seed: int) -> dict[str, float]:
    """Return the share of all blame that the guilty domain gets, and whether most of it."""
    account = worlds.blamed(worlds.faulty(fault, guilty, seed, PERIOD))
    blames = {name: one.blame for name, one in account.domains.items()}
    whole = sum(blames.values()) + abs(account.unattributed)
    return {
        "share": blames[guilty] / whole if whole > 0 else 0.0,
        "first": float(max(blames, key=lambda n: blames[n]) == guilty),
    }


def blame_of_pair(pair: Sequence[str], seed: int) -> dict[str, float]:
    """Return the shares of all blame that two guilty domains get, the less blamed of them, and the innocent one."""
    rng = np.random.default_rng(seed)
    delays = worlds.healthy(rng, PERIOD)
    for name, fault in zip(pair, AT_ONCE, strict=True):
        delays[name] = np.asarray(worlds.FAULTS[fault](rng, delays[name]), dtype=np.float64)
    account = worlds.blamed(delays)
    blames = {name: one.blame for name, one in account.domains.items()}
    whole = sum(blames.values()) + abs(account.unattributed)
    guilty = [blames[name] / whole if whole > 0 else 0.0 for name in pair]
    innocent = sum(blame for name, blame in blames.items() if name not in pair)
    return {"share": sum(guilty), "less": min(guilty), "innocent": innocent / whole if whole > 0 else 0.0}


def measure(setting: Setting) -> Measured:
    """Inject faults."""
    runs = setting.count(RUNS, RUNS_FULL, 2)
    severities = setting.points(SEVERITIES)
    healthy = false_alarms(setting, runs)
    faults = list(worlds.FAULTS) if setting.scale >= WIDE_FROM else ["shift"]

    def delays(severity: float, *, independent: bool) -> list[int]:
        return [alarmed_after(severity, setting.seed + run, independent=independent) for run in range(runs)]

    def blames(fault: str, guilty: str) -> list[dict[str, float]]:
        return [blame_of_guilty(fault, guilty, setting.seed + run) for run in range(max(2, runs // 5))]

    def pairs(*pair: str) -> list[dict[str, float]]:
        return [blame_of_pair(pair, setting.seed + run) for run in range(max(2, runs // 5))]

    return {
        "runs": runs,
        "severities": list(severities),
        "delays": {
            name: [
                setting.part(f"delay-{name}-{severity:g}", partial(delays, severity, independent=independent))
                for severity in severities
            ]
            for name, independent in (("any dependence", False), ("independence attested", True))
        },
        "false_alarms": healthy,
        "blame": {
            fault: {
                guilty: setting.part(f"blame-{fault}-{guilty}", partial(blames, fault, guilty))
                for guilty in worlds.DOMAINS
            }
            for fault in faults
        },
        "pairs": {
            f"{one} and {other}": setting.part(f"pair-{one}-{other}", partial(pairs, one, other))
            for one, other in permutations(worlds.DOMAINS, 2)
        },
    }


def false_alarms(setting: Setting, runs: int) -> int:
    """Return in how many runs without a fault an alarm is raised, at exactly epsilon late requests."""

    def alarms() -> int:
        contract = Contract(domain=DOMAIN, delay_ms=1.0, epsilon=worlds.EPSILON)
        found = 0
        for run in range(runs):
            rng = np.random.default_rng([setting.seed, 77, run])
            state = ContinuousAudit.begun(contract, alpha=ALPHA, window_requests=WINDOW)
            for late in rng.binomial(WINDOW, worlds.EPSILON, HORIZON // WINDOW // 4):
                delays = np.where(np.arange(WINDOW) < late, 2_000, 500)
                state, _ = state.fed(counted(contract, delays))
            found += state.alarmed
        return found

    return int(setting.part("false-alarms", alarms))


def _blames(measured: Measured) -> list[dict[str, float]]:
    return [one for by in measured["blame"].values() for runs in by.values() for one in runs]


def conclude(measured: Measured) -> Finding:
    """Say how soon, and how often right."""
    sure: list[Sequence[int]] = measured["delays"]["any dependence"]
    medians = [quantile([float(v) for v in runs], 0.5) for runs in sure]
    found = sum(0 <= value < HORIZON for runs in sure for value in runs)
    blames = _blames(measured)
    right = sum(one["first"] > 0 for one in blames)
    share = float(np.mean([one["share"] for one in blames]))
    pairs = [one for runs in measured["pairs"].values() for one in runs]
    innocent = max(one["innocent"] for one in pairs)
    both = sum(one["less"] > 0 for one in pairs)
    first, last = measured["severities"][0], measured["severities"][-1]
    sentence = (
        f"A domain that is late {first:g} times as often as promised is found after {medians[0]:,.0f} requests "
        f"(median), one that is late {last:g} times as often after {medians[-1]:,.0f}; {found} of "
        f"{sum(map(len, sure))} faults were found within {HORIZON:,} requests, with {measured['false_alarms']} false "
        f"alarms in {measured['runs']} runs at exactly the promise (up to {ALPHA:.0%} are allowed); the guilty domain "
        f"is blamed most in {right} of {len(blames)} periods and carries {share:.1%} of the blame on average; where "
        f"two domains fail at once, both are blamed in {both} of {len(pairs)} periods, and the third carries "
        f"{innocent:.1%} of the blame at most."
    )
    allowed = max(1, round(2 * ALPHA * measured["runs"]))
    return Finding(
        sentence=sentence,
        confirmed=found == sum(map(len, sure))
        and right == len(blames)
        and share >= GUILTY_MIN
        and innocent <= 1.0 - GUILTY_MIN
        and both == len(pairs)
        and measured["false_alarms"] <= allowed,
        numbers={
            "requests_to_alarm_worst": medians[0],
            "blame_share": share,
            "innocent_share_max": innocent,
            "false_alarms": measured["false_alarms"],
        },
    )


def draw(figure: Any, measured: Measured) -> None:
    """Draw detection delays, then blame."""
    left, right = figure.subplots(1, 2)
    for place, (name, by) in enumerate(measured["delays"].items()):
        runs = [[max(1.0, float(value)) for value in one] for one in by]
        middle = [quantile(one, 0.5) for one in runs]
        spread = [
            [mid - quantile(one, 0.05) for mid, one in zip(middle, runs, strict=True)],
            [quantile(one, 0.95) - mid for mid, one in zip(middle, runs, strict=True)],
        ]
        left.errorbar(
            measured["severities"], middle, yerr=spread, color=COLOURS[place], marker="os"[place], capsize=3,
            linewidth=1.5, markersize=4.5, label=name,
        )  # fmt: skip
    left.set(xscale="log", yscale="log", xlabel="late requests / promised", ylabel="requests until the alarm")
    left.set_xticks(measured["severities"], [f"{value:g}" for value in measured["severities"]])
    left.minorticks_off()
    left.set_title("median, 5 % to 95 % of runs", fontsize=9.5)
    left.legend(title="alarm under")
    faults = list(measured["blame"])
    table = [
        [float(np.mean([one["share"] for one in measured["blame"][f][d]])) for f in faults] for d in worlds.DOMAINS
    ]
    names = [name.replace("_", "\n") for name in faults]
    for shares, guilty in zip(table, worlds.DOMAINS, strict=True):
        with_it = [one for pair, runs in measured["pairs"].items() if guilty in pair for one in runs]
        shares.append(float(np.mean([one["share"] for one in with_it])))
    names.append("two at\nonce")
    right.imshow(table, cmap="Blues", vmin=0.0, vmax=2.5, aspect="auto")
    for row, values in enumerate(table):
        for column, value in enumerate(values):
            right.text(column, row, f"{value:.0%}", ha="center", va="center", fontsize=9)
    right.set_xticks(range(len(names)), names, fontsize=8)
    right.set_yticks(range(len(worlds.DOMAINS)), worlds.DOMAINS)
    right.set_xlabel("injected fault")
    right.set_ylabel("domain with the fault")
    right.grid(visible=False)
    right.set_title("share of the blame that the guilty get", fontsize=9.5)


TRE5: Final = Experiment(
    name="TRE5",
    revision=2,
    title="Audit: detection and attribution",
    claim="tail-risk auditing: violations are detected and attributed to the domain that caused them",
    method=(
        f"Delays of three domains under a common load. After {ONSET:,} sound requests a share of one domain's requests "
        f"gets slow; false alarms have a probability of {ALPHA:g} over all time. Periods of {PERIOD:,} requests "
        "with one of six faults in one domain, or two faults in two, are accounted for by capped Shapley values."
    ),
    measure=measure,
    conclude=conclude,
    draw=draw,
)

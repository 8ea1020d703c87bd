"""Rows of every family with parameters drawn at random: finite, quick, above the truth, below what peers return."""

import json
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aipaging.apps.calculus.cases import answer_row
from aipaging.core.calculus.bound import RungClass

Row = dict[str, Any]
DRAWS = 6


def row(case: str, delay: float | None, **params: Any) -> Row:
    return {"case": case, "params": params, "delay": delay, "probability": 1e-3}


def onoff(draw: random.Random) -> dict[str, float]:
    return {"stay_off": draw.uniform(0.02, 0.99), "stay_on": draw.uniform(0.02, 0.99), "peak": 1.0}


def on_share(flow: dict[str, float]) -> float:
    return (1 - flow["stay_off"]) / (2 - flow["stay_off"] - flow["stay_on"])


def c1(draw: random.Random) -> Row:
    mu, capacity, load = 10 ** draw.uniform(-3, 3), 10 ** draw.uniform(-2, 2), draw.uniform(0.01, 0.999)
    return row("C1_MM1", draw.uniform(0, 60) / mu / capacity, lam=load * mu * capacity, mu=mu, C=capacity)


def c2(draw: random.Random) -> Row:
    size, load = 10 ** draw.uniform(-3, 3), draw.uniform(0.01, 0.99)
    return row("C2_MD1", draw.choice([0.0, 0.7, 9.3, 80.0, 1000.0]) * size, lam=load / size, size=size, C=1.0)


def c3(draw: random.Random) -> Row:
    return row("C3_DM1", float(draw.randint(0, 60)), lamb=2.0, C=0.5 / draw.uniform(0.05, 0.99))


def c4(draw: random.Random) -> Row:
    n, flow = draw.choice([1, 3, 10, 30]), onoff(draw)
    capacity = n * on_share(flow) / draw.uniform(0.2, 0.97)
    return row("C4_MMOO_disc", draw.choice([0.0, 1.0, 10.0, 100.0]), n=n, C=capacity, **flow)


def c5(draw: random.Random) -> Row:
    n, up, down = draw.choice([1, 10, 50]), 10 ** draw.uniform(-2, 1), 10 ** draw.uniform(-2, 1)
    capacity = n * up / (up + down) / draw.uniform(0.1, 0.99)
    return row("C5_MMOO_fluid", draw.choice([0.0, 1.0, 30.0]), n=n, off_to_on=up, on_to_off=down, peak=1.0, C=capacity)


def c6(draw: random.Random) -> Row:
    hops, own, cross = draw.choice([1, 2, 3, 10]), draw.uniform(0.3, 5), draw.uniform(0.3, 5)
    least = (1 / own + 1 / cross) / draw.uniform(0.1, 0.95)
    rates = [least * draw.choice([1.0, draw.uniform(1, 1.3)]) for _ in range(hops)]
    return row("C6b_tandem_distinct", draw.choice([0.0, 3.0, 20.0, 60.0]), H=hops, C=rates, lam_foi=own, lam_x=cross)


def c7(draw: random.Random) -> Row:
    servers = [{"R": draw.uniform(1.01, 3), "T": draw.choice([0.0, 1.0, 2.5])} for _ in range(draw.randint(1, 4))]
    return row("C7_rate_latency_tandem", float(draw.randint(0, 60)), arrival="iid Exp(1) per slot", servers=servers)


def c8(draw: random.Random) -> Row:
    n, sigma, rho = draw.choice([1, 10, 200]), 10 ** draw.uniform(-1, 2), 10 ** draw.uniform(-2, 1)
    capacity = n * rho / draw.uniform(0.1, 0.99)
    return row("C8_leaky_bucket", draw.choice([0.0, 0.5, 2.0, 50.0]), n=n, sigma=sigma, rho=rho, C=capacity)


def c9(draw: random.Random) -> Row:
    own, cross = draw.uniform(0.3, 5), draw.uniform(0.3, 5)
    capacity = (1 / own + 1 / cross) / draw.uniform(0.1, 0.95)
    return row("C9_hoelder", draw.choice([0.0, 5.0, 60.0]), lam_foi=own, lam_x=cross, C=capacity)


def c10(draw: random.Random) -> Row:
    rho = 10 ** draw.uniform(-2, 1)
    capacity, prefactor = rho / draw.uniform(0.1, 0.98), 10 ** draw.uniform(-2, 2)
    return row("C10_EBB", draw.choice([0.0, 2.0, 40.0]), C=capacity, M=prefactor, decay=draw.uniform(0.1, 5), rho=rho)


def c11(draw: random.Random) -> Row:
    cap = draw.choice([1024, 4096, 8192])
    dist = draw.choice(
        [
            f"Pareto(alpha {draw.uniform(1.05, 3)}, xm 100 tok)*20ms, max {cap} tok",
            f"lognormal(median 200 tok, sigma {draw.uniform(0.3, 1.8)})*20ms, max {cap} tok",
        ]
    )
    # No job is longer than the cap, so this rate keeps the load below 1 whatever the law.
    delay, longest = draw.choice([0.0, 1.0, 50.0, 2000.0]), cap * 0.02
    return row("C11_LLM_MG1_truncated", delay, dist=dist, lam=0.5 / longest, smax=longest)


def c12(draw: random.Random) -> Row:
    hops, load = draw.choice([1, 5, 50]), draw.uniform(0.05, 0.97)
    return row("C12_MM1_tandem_units", draw.uniform(0, 200), H=hops, lam=load, mu=1.0, time_unit_scale=1e3)


def c13(draw: random.Random) -> Row:
    cross = draw.choice([None, {"b": draw.uniform(0, 20), "r": draw.uniform(1, 40)}])
    own = {"b": draw.uniform(0, 20), "r": draw.uniform(1, 40)}
    return row("C13_deterministic", None, H=draw.randint(1, 10), R=100.0, T=draw.uniform(0, 3), cross=cross, foi=own)


def c15(draw: random.Random) -> Row:
    hops, rate, on = draw.choice([1, 2, 3, 8]), draw.uniform(0.5, 5), draw.uniform(0.3, 1.0)
    capacity = 1 / rate / on / draw.uniform(0.1, 0.95)
    service = f"each of H domains: C={capacity} per slot w.p. {on} else 0, iid"
    arrival = f"iid Exp({rate})/slot"
    return row("C15_x", draw.choice([0.0, 5.0, 20.0, 80.0]), H=hops, arrival=arrival, service=service)


def c16(draw: random.Random) -> Row:
    own, cross, flow = draw.choice([1, 5, 10]), draw.choice([1, 5, 10]), onoff(draw)
    capacity = (own + cross) * on_share(flow) / draw.uniform(0.3, 0.95)
    return row("C16_SP_MMOO", draw.choice([0.0, 5.0, 30.0]), C=capacity, n_foi=own, n_cross=cross, **flow)


FAMILIES = [c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c15, c16]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_every_draw_has_a_finite_answer(family: Callable[[random.Random], Row]) -> None:
    draw = random.Random(family.__name__)
    for _ in range(DRAWS):
        question = family(draw)
        sharp, fast = (answer_row(question, rung_class) for rung_class in (RungClass.SHARP, RungClass.FAST))
        for found in (sharp, fast):
            assert "error" not in found, question
            assert found["rung"] != "unstable", question
            assert math.isfinite(found["delay"])
            assert 0.0 <= found["probability"] <= 1.0
            json.dumps(found, allow_nan=False)
        assert sharp["probability"] <= fast["probability"] * (1 + 1e-8), question
        union = classical(question)
        if union is not None:
            assert sharp["probability"] <= union * (1 + 1e-6), question


def classical(question: Row) -> float | None:
    """Return the union bound that toolboxes compute, at the best of many theta; None where none is written out."""
    p, d = question["params"], question["delay"]
    theta = np.geomspace(1e-4, 0.9999, 1500)
    with np.errstate(all="ignore"):
        match question["case"][:3]:
            case "C3_":
                theta *= p["lamb"]
                log_q, rate = -np.log1p(-theta / p["lamb"]), p["C"]
            case "C6b" if p["H"] == 1:
                theta *= min(p["lam_foi"], p["lam_x"])
                log_q, rate = -np.log1p(-theta / p["lam_foi"]), p["C"][0] + np.log1p(-theta / p["lam_x"]) / theta
            case "C10":
                theta *= p["decay"]
                log_q, rate = theta * p["rho"], p["C"]
            case "C4_" if p["stay_off"] + p["stay_on"] >= 1.0:
                theta *= 50.0
                a, b, grow = p["stay_off"], p["stay_on"], np.exp(theta)
                trace = a + b * grow
                log_q = p["n"] * np.log((trace + np.sqrt(trace**2 - 4 * (a + b - 1) * grow)) / 2)
                rate = p["C"]
            case _:
                return None
        gap = theta * rate - log_q
        factor = np.log1p(p["M"] * theta / (p["decay"] - theta)) if question["case"] == "C10_EBB" else 0.0
        log_sum = -theta * rate * d - gap - np.log(-np.expm1(-gap)) + factor
        return float(min(1.0, np.exp(np.min(np.where(gap > 0.0, log_sum, np.inf)))))


def test_overload_is_a_probability_of_one_with_a_reason() -> None:
    for question in (
        row("C1_MM1", 5.0, lam=1.0, mu=1.0, C=1.0),
        row("C6_tandem_equal", 5.0, H=2, C=[2.0, 1.0], lam_foi=1.0, lam_x=1.0),
        row("C16_SP_MMOO", 5.0, C=1.0, n_foi=2, n_cross=2, stay_off=0.5, stay_on=0.5, peak=1.0),
    ):
        found = answer_row(question, RungClass.SHARP)
        assert (found["probability"], found["reason"]["code"]) == (1.0, "UNSTABLE")
    found = answer_row(row("C13_d", None, H=1, R=1.0, T=1.0, foi={"b": 1.0, "r": 2.0}), RungClass.SHARP)
    assert found["delay"] is None


def test_a_run_of_a_peer_is_no_system() -> None:
    found = answer_row(
        row("C14_SNCMeister_sample", None, clients=4, config="examples/sample_config.txt", flows=8), RungClass.SHARP
    )  # fmt: skip
    assert "no system" in found["error"]["message"]

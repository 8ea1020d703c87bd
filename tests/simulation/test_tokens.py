"""A language model: work in whole tokens, and prompts whose prefill takes its time by the token."""

import heapq
from pathlib import Path

import numpy as np
import pytest

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.kernels.streams import stream
from aipaging.simulation.kernels.work import fill_work
from aipaging.simulation.laws import law_of, least_of, mean_tokens
from aipaging.simulation.reading import ScenarioError

LAWS = [
    ("constant", {"value": 3.0}),
    ("constant", {"value": 0.2}),
    ("exponential", {"mean": 3.3}),
    ("uniform", {"low": 0.3, "high": 5.7}),
    ("discrete", {"values": [0.2, 2.5, 4.0], "probabilities": [0.25, 0.25, 0.5]}),
    ("log-normal", {"median": 2.0, "sigma": 1.0, "cap": 9.5}),
    ("log-normal", {"median": 0.1, "sigma": 30.0, "cap": 1e5}),
    ("pareto", {"minimum": 1.5, "alpha": 1.2, "cap": 100.0}),
    ("log-normal", {"median": 500.0, "sigma": 1.0, "cap": 2e6}),
]


@pytest.mark.parametrize(("kind", "values"), LAWS)
def test_moments_and_tokens_are_those_of_what_is_drawn(kind, values) -> None:
    law = law_of(kind, values)
    drawn = np.empty(1_000_000)
    fill_work(stream(np.random.SeedSequence(3)), law.law, np.array(law.parameters), drawn)
    tokens = np.maximum(np.ceil(drawn), 1.0)
    for found, sample in ((law.mean, drawn), (law.second_moment, drawn**2), (mean_tokens(law), tokens)):
        assert found == pytest.approx(sample.mean(), abs=5.0 * sample.std() / 1_000.0 + 1e-9)
    assert drawn.min() >= least_of(law)


def test_one_token_each_fills_a_model_to_its_last_slot(build) -> None:
    """Embeddings: 8 slots, 1 ms, one token each is 8 requests per ms, no less."""
    model = {"name": "link", "discipline": "batching", "slots": 8, "iteration_ms": 1.0}
    one = {"kind": "constant", "value": 1.0}
    found = build.ran([model], [build.tenant(rate=7.6, work=one)], packets=100_000)
    assert found.load.queues[0].utilisation == pytest.approx(0.95)
    with pytest.raises(InvalidInputError, match="unstable"):
        build.ran([model], [build.tenant(rate=8.1, work=one)])


MODEL = {"name": "model", "discipline": "batching", "slots": 4, "iteration_ms": 2.0, "per_slot_ms": 0.5}
PREFILL = {"prefill_ms": 1.0, "prefill_ms_per_token": 0.05}
PROMPT = {"kind": "log-normal", "median": 100.0, "sigma": 1.0, "cap": 1000.0}
RETRY = {"error_probability": 0.2, "backoff_ms": 30.0, "attempts_max": 3}


def walked(rng: np.random.Generator, packets: int) -> tuple[float, float]:
    """Return mean delay and share of lost requests by a walk through every iteration."""
    instants = np.cumsum(rng.exponential(1.0 / 0.012, packets))
    prompts = np.minimum(100.0 * np.exp(rng.standard_normal(packets)), 1000.0)
    tokens = np.maximum(np.ceil(rng.exponential(30.0, packets)), 1.0)
    waiting = [(t, k, t, 1) for k, t in enumerate(instants)]
    slots: list[list[float]] = []
    now, delays, lost = 0.0, [], 0
    while waiting or slots:
        if not slots:
            now = max(now, waiting[0][0])
        prefill = 0.0
        while waiting and waiting[0][0] <= now and len(slots) < 4:
            _, number, sent, attempt = heapq.heappop(waiting)
            slots.append([tokens[number], number, sent, attempt])
            prefill += 1.0 + 0.05 * prompts[number]
        now += 2.0 + 0.5 * len(slots) + prefill
        for slot in slots:
            slot[0] -= 1.0
        for _, number, sent, attempt in (slot for slot in slots if slot[0] == 0.0):
            if rng.random() >= 0.2:
                delays.append(now - sent)
            elif attempt < 3:
                heapq.heappush(waiting, (now + 30.0, int(number), sent, int(attempt) + 1))
            else:
                lost += 1
        slots = [slot for slot in slots if slot[0] > 0.0]
    return float(np.mean(delays)), lost / packets


def test_prompts_take_their_time_at_every_attempt(build) -> None:
    tenant = build.tenant(
        route=("link", "model"), rate=0.012, prompt=PROMPT, work={"kind": "exponential", "mean": 30.0}
    )
    found = build.ran([build.domain(rate=1e6), {**MODEL, **PREFILL, "retry": RETRY}], [tenant], packets=400_000)
    plain = [walked(np.random.default_rng(seed), 40_000) for seed in range(4)]
    means, losses = zip(*plain, strict=True)
    (ours,) = found.tenants
    assert ours.mean_ms.value == pytest.approx(np.mean(means), rel=0.03)
    assert ours.loss.value == pytest.approx(np.mean(losses), rel=0.1)
    # Four slots make an iteration of 4 ms: a token takes 1 ms of the model; and 1.24 attempts are made in the mean.
    tokens = mean_tokens(law_of("exponential", {"mean": 30.0}))
    prefill = 1.0 + 0.05 * law_of("log-normal", {key: value for key, value in PROMPT.items() if key != "kind"}).mean
    assert found.load.queues[-1].utilisation == pytest.approx(0.012 * 1.24 * (tokens + prefill))


def test_recorded_prompts_go_with_their_requests(build, tmp_path) -> None:
    (tmp_path / "t.csv").write_text("arrival_ms,prompt,tokens\n0,100,1\n1000,0,10\n2000,40,1\n")
    arrivals = {"kind": "trace", "file": "t.csv", "work_column": "tokens", "prompt_column": "prompt"}
    tenant = {"name": "a", "route": ["model"], "arrivals": arrivals, "targets_ms": [8.4, 8.6, 24.0]}
    found = build.ran([{**MODEL, **PREFILL}], [tenant], packets=3_000, folder=tmp_path).tenants[0]
    # Alone in the model: 2.5 ms a token, 1 ms and 0.05 ms per token of the prompt.
    assert found.mean_ms.value == pytest.approx((2.5 + 6.0 + 25.0 + 1.0 + 2.5 + 3.0) / 3.0)
    assert [each.value for each in found.exceedance.values()] == pytest.approx([2 / 3, 1 / 3, 1 / 3])


def test_what_is_wrong_with_prompts_is_named(build, tmp_path) -> None:
    (tmp_path / "t.csv").write_text("arrival_ms,prompt\n0,100\n1000,-1\n")
    trace = {"kind": "trace", "file": "t.csv", "prompt_column": "prompt"}
    for more, field, message in (
        ({}, "tenant[0].prompt", "takes time for every token"),
        ({"prompt": {"kind": "constant"}}, "tenant[0].prompt.value", "missing"),
        ({"arrivals": trace}, "prompt", "-1 is negative"),
    ):
        with pytest.raises(ScenarioError, match=message) as caught:
            build.ran([{**MODEL, **PREFILL}], [build.tenant(route=("model",), rate=0.01, **more)], folder=tmp_path)
        assert caught.value.field == field
    (tmp_path / "t.csv").write_text("arrival_ms,prompt\n0,100\n1000,1\n")
    twice = build.tenant(route=("model",), arrivals=trace, prompt=PROMPT)
    with pytest.raises(ScenarioError, match="leave it out, or `prompt_column`"):
        build.ran([{**MODEL, **PREFILL}], [twice], folder=Path(tmp_path))

"""Work in whole tokens: what a language model is offered, by the mean of the work rounded up."""

import numpy as np
import pytest

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.kernels.streams import stream
from aipaging.simulation.kernels.work import fill_work
from aipaging.simulation.laws import law_of, least_of, mean_tokens

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

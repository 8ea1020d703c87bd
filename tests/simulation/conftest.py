"""Scenarios as files describe them."""

from pathlib import Path
from typing import Any

import pytest

from aipaging.simulation.reading import read_scenario
from aipaging.simulation.run import Outcome, simulate


def tenant(name: str = "a", route: tuple[str, ...] = ("link",), rate: float = 0.8, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "route": list(route),
        "arrivals": {"kind": "poisson", "rate_per_ms": rate},
        "work": {"kind": "exponential", "mean": 1.0},
        **more,
    }


def domain(name: str = "link", rate: float = 1.0, discipline: str = "fifo", **more: Any) -> dict[str, Any]:
    return {"name": name, "rate_per_ms": rate, "discipline": discipline, **more}


def ran(
    domains: list[dict[str, Any]], tenants: list[dict[str, Any]], *, packets: int = 400_000, seed: int = 1, **more: Any
) -> Outcome:
    document = {"packets": packets, "domain": domains, "tenant": tenants}
    document |= {key: more.pop(key) for key in ("modulator", "copula") if key in more}
    scenario = read_scenario(document, folder=more.pop("folder", Path()), replications=more.pop("replications", None))
    return simulate(scenario, seed=seed, **more)


class Toolbox:
    tenant = staticmethod(tenant)
    domain = staticmethod(domain)
    ran = staticmethod(ran)


@pytest.fixture
def build() -> Toolbox:
    return Toolbox()

"""Packet-level Monte-Carlo: what delays tenants meet in tandems and feed-forward networks of domains.

For a researcher's own program, without the command line:

    from aipaging import simulation

    scenario = simulation.read_scenario({"domain": [...], "tenant": [...]}, folder=Path())
    outcome = simulation.simulate(scenario, seed=1, precision=simulation.Precision(relative=0.05, at="p99.9"))
    rare = simulation.rare_exceedance(scenario, "a", 100.0)
    points = simulation.run_sweep(simulation.read_sweep(Path("sweep.toml")), Path("results"))

`scenario` holds what is simulated, `reading` makes it from a file and checks it, `run` runs it, `rare` estimates
probabilities down to 1e-9 and below, `sweep` runs grids. `kernels` is compiled (Numba, the extra `simulation`) and
loaded when a name below is first used, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from aipaging.simulation.executors import opened, place_of
    from aipaging.simulation.rare.estimate import Effort, RareResult, rare_exceedance
    from aipaging.simulation.reading import ScenarioError, read_scenario
    from aipaging.simulation.run import Outcome, Precision, simulate
    from aipaging.simulation.scenario import Scenario
    from aipaging.simulation.sweep import Sweep, read_sweep, run_sweep

__all__ = [
    "Effort",
    "Outcome",
    "Precision",
    "RareResult",
    "Scenario",
    "ScenarioError",
    "Sweep",
    "opened",
    "place_of",
    "rare_exceedance",
    "read_scenario",
    "read_sweep",
    "run_sweep",
    "simulate",
]

_HOMES: Final = {
    "Effort": "rare.estimate",
    "Outcome": "run",
    "Precision": "run",
    "RareResult": "rare.estimate",
    "Scenario": "scenario",
    "ScenarioError": "reading",
    "Sweep": "sweep",
    "opened": "executors",
    "place_of": "executors",
    "rare_exceedance": "rare.estimate",
    "read_scenario": "reading",
    "read_sweep": "sweep",
    "run_sweep": "sweep",
    "simulate": "run",
}


def __getattr__(name: str) -> Any:
    """Return a name of the library, loading its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

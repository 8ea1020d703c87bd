"""The library without the command line: every public name is there, and importing it loads no compiler."""

import subprocess
import sys
from pathlib import Path

import pytest

from aipaging import simulation


def test_every_name_is_there() -> None:
    for name in simulation.__all__:
        assert getattr(simulation, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = simulation.nothing


def test_a_researchers_program(build) -> None:
    scenario = simulation.read_scenario(
        {"packets": 20_000, "domain": [build.domain()], "tenant": [build.tenant(rate=0.5)]}, folder=Path()
    )
    outcome = simulation.simulate(scenario, seed=1, precision=simulation.Precision(relative=0.1, at="mean"))
    assert outcome.tenants[0].mean_ms.low < 2.0 < outcome.tenants[0].mean_ms.high


def test_importing_it_loads_no_compiler() -> None:
    code = "import sys, aipaging.simulation; assert not {'numba', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_scenario_from_the_command_line_loads_no_controller() -> None:
    """A second of a small scenario is imports; what packets do without is not among them."""
    code = (
        "import sys, aipaging.apps.simulate.command, aipaging.apps.simulate.shown\n"
        "assert not {'aipaging.core.paging.step', 'aipaging.simulation.system.run'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

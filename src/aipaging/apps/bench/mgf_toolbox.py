"""The published MGF toolbox as a peer, from a copy that the user has: it is on no package index, and not copied here.

`AIPAGING_MGF_TOOLBOX` names a checkout of disco-snc-mgf-toolbox (its root, or its `src`); it needs mpmath, pandas and
tqdm beside it. Its bounds are those of its own documentation: minimised over a grid of 500 thetas.
"""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from aipaging.core.foundation.errors import InvalidInputError, UnavailableError, Who

VARIABLE: Final = "AIPAGING_MGF_TOOLBOX"
NAME: Final = "disco-snc-mgf-toolbox"
GRID: Final = 500

Bound = Callable[[], float]


def source() -> Path | None:
    """Return where its modules are; None where the user named no copy.

    Raises:
        InvalidInputError: What is named is no copy of it.
    """
    named = os.environ.get(VARIABLE, "").strip()
    if not named:
        return None
    for path in (Path(named), Path(named) / "src"):
        if (path / "nc_operations" / "single_server_perform.py").is_file():
            return path
    raise InvalidInputError(f"{VARIABLE}={named} is no checkout of {NAME}", field=VARIABLE)


def bounds(path: Path) -> dict[str, Bound]:
    """Return its bounds on P(delay > 20) of the systems that `aipaging bench calculus` times.

    Raises:
        UnavailableError: Something that it imports is not installed.
    """
    sys.path.insert(0, str(path))
    try:
        found = _bounds()
    except ModuleNotFoundError as error:
        raise UnavailableError(
            f"{NAME} needs {error.name}: install it beside aipaging", code="NOT_INSTALLED", who=Who.CALLER
        ) from None
    finally:
        sys.path.remove(str(path))
    return found


def _bounds() -> dict[str, Bound]:
    metrics: Any = import_module("nc_operations.perform_enum")
    single: Any = import_module("nc_operations.single_server_perform")
    server: Any = import_module("nc_server.constant_rate_server")
    slots: Any = import_module("nc_arrivals.iid")
    chains: Any = import_module("nc_arrivals.markov_modulated")
    parameter: Any = import_module("utils.perform_parameter")
    optimize: Any = import_module("optimization.optimize")
    asked = parameter.PerformParameter(perform_metric=metrics.PerformEnum.DELAY_PROB, value=20)

    def hop(arrival: Any, theta_max: float) -> Bound:
        setting = single.SingleServerPerform(
            foi=arrival, server=server.ConstantRateServer(rate=1.0), perform_param=asked
        )
        search = optimize.Optimize(setting, number_param=1)
        thetas = [theta_max * i / GRID for i in range(1, GRID)]

        def bound() -> float:
            # Not its own grid search: that one ends with a NameError where the grid meets an unstable theta.
            return min(float(search.eval_except([theta])) for theta in thetas)

        return bound

    return {
        "single_hop_dm1": hop(slots.DM1(lamb=1.25), 1.25),
        "single_hop_fluid_on_off": hop(chains.MMOOCont(mu=0.1, lamb=0.5, peak_rate=0.225, m=20), 5.0),
    }

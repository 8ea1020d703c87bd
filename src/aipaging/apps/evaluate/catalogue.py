"""Every experiment, in the order of the report; importing one imports what it measures."""

import importlib
from typing import Final

from aipaging.apps.evaluate.experiment import Experiment
from aipaging.core.foundation.errors import InvalidInputError

HOMES: Final = {
    "TRE1": "tre_compliance",
    "TRE2": "tre_isolation",
    "TRE3": "tre_bounds",
    "TRE4": "tre_budget",
    "TRE5": "tre_audit",
    "AIP1": "aip_transactions",
    "AIP2": "aip_relocation",
    "AIP3": "aip_expiry",
    "AIP4": "aip_evidence",
    "AIP5": "aip_failures",
}


def chosen(only: str) -> list[str]:
    """Return the names of the experiments of `--only`, all if it is empty.

    Raises:
        InvalidInputError: There is no such experiment.
    """
    names = [name.strip().upper().replace(" ", "") for name in only.split(",") if name.strip()]
    for name in names:
        if name not in HOMES:
            raise InvalidInputError(f"there is no experiment {name!r}: there are {', '.join(HOMES)}", field="only")
    return [name for name in HOMES if name in names] if names else list(HOMES)


def experiment(name: str) -> Experiment:
    """Return an experiment."""
    found = getattr(importlib.import_module(f"aipaging.apps.evaluate.{HOMES[name]}"), name)
    if not isinstance(found, Experiment):
        raise TypeError(f"{name} is not an experiment")
    return found

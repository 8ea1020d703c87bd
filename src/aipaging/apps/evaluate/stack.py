"""What a machine must have for the experiments on the running system."""

import importlib.util
from typing import Final

from aipaging.apps.evaluate.experiment import NotRunError

NEEDED: Final = {"envoy": "envoy", "grpc": "envoy"}
"""Modules of the user plane, and the extra that brings each."""


def require_envoy() -> None:
    """Refuse to go on where the gateway cannot run; whatever else fails later is an error and no excuse."""
    for module, extra in NEEDED.items():
        if importlib.util.find_spec(module) is None:
            raise NotRunError(
                f"this machine has no package {module!r}: pip install 'aipaging[{extra}]' brings the gateway",
                code="EXTRA_MISSING",
            )

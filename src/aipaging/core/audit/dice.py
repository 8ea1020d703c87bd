"""Random numbers are an argument: what the audit needs of numpy's generator."""

from typing import Any, Protocol


class Dice(Protocol):
    """Satisfied by `numpy.random.Generator`."""

    def multinomial(self, n: Any, pvals: Any, size: Any = None) -> Any:
        """Return counts of n draws, `size` times."""
        ...

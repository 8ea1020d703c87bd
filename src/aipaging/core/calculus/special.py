"""Special functions, imported when first used.

`scipy.special` takes as long to import as everything else together, and admission never needs it.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


def betainc(a: float, b: float, x: Any) -> Floats:
    """Return the regularised incomplete beta function I_x(a, b)."""
    from scipy import special  # noqa: PLC0415

    return np.asarray(special.betainc(a, b, x), dtype=np.float64)


def betaincinv(a: Any, b: Any, y: float) -> Floats:
    """Return x with I_x(a, b) = y."""
    from scipy import special  # noqa: PLC0415

    return np.asarray(special.betaincinv(a, b, y), dtype=np.float64)


def gammaln(x: Any) -> Floats:
    """Return ln Gamma(x)."""
    from scipy import special  # noqa: PLC0415

    return np.asarray(special.gammaln(x), dtype=np.float64)


def ndtr(x: Any) -> Floats:
    """Return the standard normal distribution function."""
    from scipy import special  # noqa: PLC0415

    return np.asarray(special.ndtr(x), dtype=np.float64)

"""Alarms about the process: evidence that grows with every window and may be watched at any time.

*Window betting* [WaudbySmithRamdas2024]: of each window of requests only the fraction that exceeded is used. The wager
E = mean over c of prod (1 + c (Y / epsilon - 1)) has mean one at most as long as every window's expected fraction,
given the windows before, is epsilon at most; how requests within a window depend on one another does not matter. It
raises an alarm when E reaches 1/alpha, and does so wrongly with probability alpha at most, over all time.

*The mixture over counts* is several times faster, and wrong for dependent requests (a false alarm in most runs of an
ordinary queue): it is there for those who can attest that requests are independent.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from aipaging.core.audit.special import Floats, betaln, log_beta_cdf
from aipaging.core.foundation.errors import InvalidInputError

STAKES: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Shares of the capital that are wagered on each window: small ones find small violations, large ones find fast."""

WINDOW_REQUESTS: Final = 5_000
"""Requests of a window where nobody says otherwise: long against the correlation of a queue at 80 % load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowAlarm:
    """The state of the wager: constant in size, whatever it has seen.

    Attributes:
        epsilon: The fraction that may exceed.
        alpha: Probability of a false alarm, over all time.
        log_capital: By stake.
        windows: How many were seen.
        log_e_max: The greatest log e-value so far.
        raised_at: The window that raised the alarm, None while there is none.
    """

    epsilon: float
    alpha: float
    log_capital: tuple[float, ...] = (0.0,) * len(STAKES)
    windows: int = 0
    log_e_max: float = 0.0
    raised_at: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < 1 or not 0 < self.alpha < 1:
            raise InvalidInputError("epsilon and alpha lie between 0 and 1", field="epsilon")

    @property
    def log_e(self) -> float:
        """The log e-value now: the log of the mean capital."""
        most = max(self.log_capital)
        return most + math.log(math.fsum(math.exp(one - most) for one in self.log_capital) / len(STAKES))

    def seen(self, exceedances: int, requests: int) -> "WindowAlarm":
        """Return the state after one more window.

        Args:
            exceedances: Exceedances for certain; what is unknown raises no alarm.
            requests: Requests of the window, more than none.
        """
        if not 0 <= exceedances <= requests or requests == 0:
            raise InvalidInputError(f"{exceedances} of {requests} requests is no window", field="exceedances")
        surplus = exceedances / requests / self.epsilon - 1
        capital = tuple(one + math.log1p(stake * surplus) for one, stake in zip(self.log_capital, STAKES, strict=True))
        grown = replace(self, log_capital=capital, windows=self.windows + 1)
        raised = self.raised_at
        if raised is None and grown.log_e >= math.log(1 / self.alpha):
            raised = grown.windows
        return replace(grown, log_e_max=max(self.log_e_max, grown.log_e), raised_at=raised)


def watched(windows: Iterable[tuple[int, int]], *, epsilon: float, alpha: float) -> WindowAlarm:
    """Return the alarm after a series of (exceedances, requests)."""
    state = WindowAlarm(epsilon=epsilon, alpha=alpha)
    for exceedances, requests in windows:
        state = state.seen(exceedances, requests)
    return state


def log_mixture_evidence(
    exceedances: int | Floats, requests: int | Floats, epsilon: float, *, violated: bool
) -> Floats:
    """Return the log e-value of counts of *independent* requests: only where independence is attested.

    A beta law with mean about epsilon, cut off at epsilon, is mixed over the alternatives; the e-value depends on the
    counts alone, so it merges. Valid at any stopping time.

    Args:
        exceedances: How many exceeded.
        requests: Of how many.
        epsilon: The fraction that may exceed.
        violated: Against "at most epsilon" (True), or against "at least epsilon".
    """
    a, b = 1.0, 1.0 / epsilon
    late = np.asarray(exceedances, dtype=np.float64)
    fine = np.asarray(requests, dtype=np.float64) - late
    marginal = betaln(a + late, b + fine) + log_beta_cdf(a + late, b + fine, epsilon, upper=violated)
    prior = betaln(a, b) + log_beta_cdf(a, b, epsilon, upper=violated)
    return np.asarray(marginal - prior - late * math.log(epsilon) - fine * math.log1p(-epsilon), dtype=np.float64)

"""Errors with a mathematical name."""

from aipaging.core.foundation.errors import InvalidInputError, RefusedError


class UnstableError(RefusedError):
    """The mean arrival rate reaches the capacity: no delay is bounded."""

    def __init__(self, message: str = "the mean arrival rate reaches the capacity: no delay bound exists") -> None:
        super().__init__(message, code="UNSTABLE")


class NoMomentGeneratingFunctionError(RefusedError):
    """E exp(theta X) is infinite for every theta > 0: give the work a cap such as `max_tokens`."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="NO_MOMENT_GENERATING_FUNCTION")


class NotAttestedError(RefusedError):
    """No rung applies: what it would assume is not attested."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="ASSUMPTION_NOT_ATTESTED")


LOAD_MARGIN = 1e-12
"""A load this close to 1 is an overload: in another unit rounding would have put it on the other side."""


def overloaded(demand: float, capacity: float) -> bool:
    """Return whether the mean demand reaches the capacity, to within rounding."""
    return demand >= capacity * (1.0 - LOAD_MARGIN)


def never_exceeds(peak: float, capacity: float) -> bool:
    """Return whether the most that can arrive fits, a peak that equals the capacity to within rounding included."""
    return peak <= capacity * (1.0 + LOAD_MARGIN)


def require_positive(**values: float) -> None:
    """Refuse numbers that are not finite and positive, by name."""
    for name, value in values.items():
        if not 0.0 < value < float("inf"):
            raise InvalidInputError(f"{name} must be finite and > 0", field=name)


def require_non_negative(**values: float) -> None:
    """Refuse numbers that are not finite and >= 0, by name."""
    for name, value in values.items():
        if not 0.0 <= value < float("inf"):
            raise InvalidInputError(f"{name} must be finite and >= 0", field=name)

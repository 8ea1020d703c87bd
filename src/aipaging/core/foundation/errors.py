"""Errors, grouped by who must act.

Every error that leaves the package says what was wrong, what is allowed, and who must act; the
northbound adapter maps `code` and `who` to an HTTP status, the command line maps them to an exit status.
"""

import enum


class Who(enum.Enum):
    """Who must act on an error."""

    CALLER = "caller"
    OPERATOR = "operator"
    PARTNER = "partner"
    BUG = "bug"


class AipagingError(Exception):
    """An error with a code, the party that must act, and the field it is about.

    Attributes:
        message: What was wrong and what is allowed, in one or two sentences.
        code: SCREAMING_SNAKE_CASE, stable: programs branch on it.
        who: The party that must act.
        field: Path of the offending field, such as `intent.delayMs`, where there is one.
        retry_after_s: When the same may succeed, where time helps.
    """

    retry_after_s: int | None = None

    def __init__(self, message: str, *, code: str, who: Who, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.who = who
        self.field = field


class InvalidInputError(AipagingError):
    """The caller sent something that can never be accepted as it is."""

    def __init__(self, message: str, *, code: str = "INVALID_ARGUMENT", field: str | None = None) -> None:
        super().__init__(message, code=code, who=Who.CALLER, field=field)


class RefusedError(AipagingError):
    """The request was understood and refused: not admitted, or not permitted."""

    def __init__(self, message: str, *, code: str, field: str | None = None) -> None:
        super().__init__(message, code=code, who=Who.CALLER, field=field)


class IllegalTransitionError(AipagingError):
    """The event is not legal in the present phase; the state is unchanged."""

    def __init__(self, *, machine: str, phase: str, event: str) -> None:
        super().__init__(
            f"{machine}: {event} is not legal in {phase}", code="INCOMPATIBLE_STATE", who=Who.CALLER, field=None
        )
        self.machine = machine
        self.phase = phase
        self.event = event


class UnverifiedError(AipagingError):
    """Bytes that claim to be signed did not verify; nothing of them may be used."""

    def __init__(self, message: str, *, code: str, who: Who = Who.PARTNER, field: str | None = None) -> None:
        super().__init__(message, code=code, who=who, field=field)


class UnavailableError(AipagingError):
    """The service cannot answer now; the operator must act, the caller may try again."""

    def __init__(self, message: str, *, code: str = "UNAVAILABLE", who: Who = Who.OPERATOR) -> None:
        super().__init__(message, code=code, who=who, field=None)

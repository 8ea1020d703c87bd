"""Errors as a command reports them: the document, the sentence and the exit status.

Exit statuses are an interface: 0 done, 1 a check or a verdict failed, 2 usage or invalid input, 3 refused
(admission, authorisation), 4 not reachable or not available. A bug of ours exits with 1: nothing was done as asked.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aipaging.core.foundation.errors import (
    AipagingError,
    IllegalTransitionError,
    InvalidInputError,
    RefusedError,
    UnavailableError,
    Who,
)

WHO_ACTS: Final = {
    Who.CALLER: "",
    Who.OPERATOR: "The operator must act.",
    Who.PARTNER: "The other side must act.",
    Who.BUG: "This is a bug in aipaging: please report it, with the trace that AIPAGING_DEBUG=1 prints.",
}
"""What a person is told after the message; the caller is the person, who need not be told."""


class ExitStatus(enum.IntEnum):
    """What a program learns from the exit status."""

    DONE = 0
    FAILED = 1
    INVALID = 2
    REFUSED = 3
    UNAVAILABLE = 4


class Problem(AipagingError):  # noqa: N818 - a line of a report, not always raised
    """Something wrong in a file, with its place.

    Attributes:
        file: The file.
        line: The line in it, from 1, or None where no line can be named.
        warning: It works, but probably not as meant.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None,
        file: str,
        line: int | None,
        code: str = "INVALID_CONFIGURATION",
        warning: bool = False,
    ) -> None:
        super().__init__(message, code=code, who=Who.OPERATOR, field=field)
        self.file = file
        self.line = line
        self.warning = warning

    @property
    def place(self) -> str:
        """`file:line`, as editors understand it."""
        return f"{self.file}:{self.line}" if self.line else self.file


class InvalidFileError(InvalidInputError):
    """A file has mistakes; all of them are in `problems`, errors and warnings, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = next(problem for problem in problems if not problem.warning)
        count = sum(not problem.warning for problem in problems)
        more = "" if count == 1 else f" (and {count - 1} more)"
        super().__init__(f"{first.message}{more}", code=first.code, field=first.field)
        self.who = first.who
        self.file = first.file
        self.line = first.line
        self.problems = tuple(problems)


class ExplainedRefusalError(RefusedError):
    """A refusal with its reasons, which stand beside `error` in the JSON document."""

    def __init__(self, message: str, *, code: str, details: Mapping[str, Any], field: str | None = None) -> None:
        super().__init__(message, code=code, field=field)
        self.details = dict(details)


def exit_status(error: AipagingError) -> ExitStatus:
    """Return the exit status of an error."""
    if error.who is Who.BUG:
        return ExitStatus.FAILED
    if isinstance(error, InvalidInputError | Problem):
        return ExitStatus.INVALID
    if isinstance(error, RefusedError | IllegalTransitionError):
        return ExitStatus.REFUSED
    if isinstance(error, UnavailableError):
        return ExitStatus.UNAVAILABLE
    return ExitStatus.FAILED


def error_fields(error: AipagingError) -> dict[str, Any]:
    """Return what stands in the `error` object: code, message, field, file, line, who."""
    fields: dict[str, Any] = {"code": error.code, "message": error.message}
    for name in ("field", "file", "line"):
        value = getattr(error, name, None)
        if value is not None:
            fields[name] = value
    fields["who"] = error.who.value
    return fields


def error_document(error: AipagingError) -> dict[str, Any]:
    """Return the JSON document of an error; a file with several mistakes has them all under `errors`."""
    document: dict[str, Any] = {"error": error_fields(error)}
    if isinstance(error, InvalidFileError):
        document["errors"] = [error_fields(problem) for problem in error.problems if not problem.warning]
        document["warnings"] = [error_fields(problem) for problem in error.problems if problem.warning]
    if isinstance(error, ExplainedRefusalError):
        document |= error.details
    return document


def error_sentence(error: AipagingError) -> str:
    """Return what a person is told, one problem a line."""
    if isinstance(error, InvalidFileError):
        return "\n".join(
            f"{problem.place}: {'warning: ' if problem.warning else ''}{problem.message}" for problem in error.problems
        )
    who = WHO_ACTS[error.who]
    return f"{error.message.rstrip('.')}. {who}".rstrip() if who else error.message

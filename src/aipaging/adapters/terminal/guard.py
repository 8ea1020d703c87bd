"""The one place where a command's failure becomes an exit status and a sentence or document.

Commands raise; they do not print errors and do not choose statuses. A verdict that failed (status 1) is not an
error: the command prints its result and calls `failed()`.
"""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TypeVar

import click

from aipaging.adapters.terminal.errors import ExitStatus, error_document, error_sentence, exit_status
from aipaging.adapters.terminal.output import note, write_json
from aipaging.core.foundation.errors import AipagingError, InvalidInputError, UnavailableError, Who

INTERRUPTED: Final = 130
"""What a shell reports of a program that SIGINT ended; the one status beside the five."""

EXTRAS: Final = {
    "envoy": ("envoy", "grpc", "google"),
    "anchor": ("onnxruntime", "tokenizers", "safetensors", "onnx"),
    "demo": ("openai",),
    "plot": ("matplotlib",),
}
"""Which extra brings which top-level module."""

Command = TypeVar("Command", bound=Callable[..., Any])

json_option: Final = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
"""The option that every command has."""


def examples(*lines: str) -> str:
    """Return the epilog of a command: its examples, one a line, laid out as they are."""
    return "\b\nExamples:\n" + "".join(f"  {line}\n" for line in lines)


def failed() -> NoReturn:
    """End the command with the status of a check or verdict that failed; its result is already printed."""
    raise click.exceptions.Exit(ExitStatus.FAILED)


def run(command: click.Command, arguments: Sequence[str]) -> int:
    """Run a command line and return its exit status, having reported whatever went wrong.

    Args:
        command: The command or group.
        arguments: What follows the program's name.
    """
    # Looked up here, not in the parsed options: a mistake in the options is to be reported in JSON too.
    as_json = "--json" in arguments
    try:
        outcome = command.main(args=list(arguments), prog_name=command.name, standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last line of defence: a person never sees a bare trace
        return _report(_translated(error), as_json=as_json, cause=error)
    return outcome if isinstance(outcome, int) else ExitStatus.DONE


def missing_module(error: ModuleNotFoundError) -> AipagingError:
    """Return what to tell about a module that is not installed: the extra that brings it, if one does."""
    top = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if top in modules:
            return UnavailableError(
                f"the package {top!r} is not installed: pip install 'aipaging[{extra}]' brings it", code="EXTRA_MISSING"
            )
    return _bug(error)


def _translated(error: Exception) -> AipagingError:
    if isinstance(error, AipagingError):
        return error
    if isinstance(error, click.ClickException):
        return _usage(error)
    if isinstance(error, ModuleNotFoundError):
        return missing_module(error)
    return _bug(error)


def _report(error: AipagingError, *, as_json: bool, cause: Exception) -> int:
    if os.environ.get("AIPAGING_DEBUG"):
        traceback.print_exception(cause, file=sys.stderr)
    if as_json:
        write_json(error_document(error))
    else:
        _explain(error, cause)
    return exit_status(error)


def _explain(error: AipagingError, cause: Exception) -> None:
    context = cause.ctx if isinstance(cause, click.UsageError) else None
    if context is not None and isinstance(cause, click.exceptions.NoArgsIsHelpError):
        note(context.get_help())
        return
    if context is not None:
        note(f"{context.get_usage()}\nTry: {context.command_path} --help\n")
    note(f"error: {error_sentence(error)}", style="red")


def _usage(error: click.ClickException) -> AipagingError:
    field: str | None = None
    if isinstance(error, click.BadParameter) and error.param is not None:
        field = (error.param.opts or [error.param.name or ""])[0].lstrip("-")
    message = error.format_message()
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        message = "what to do is missing: name a command"
    if isinstance(error, click.FileError):
        return InvalidInputError(message, code="FILE_UNREADABLE", field=field)
    return InvalidInputError(message, code="USAGE", field=field)


def _bug(error: Exception) -> AipagingError:
    return AipagingError(f"unexpected {type(error).__name__}: {error}", code="INTERNAL", who=Who.BUG)

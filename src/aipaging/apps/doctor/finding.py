"""What a check finds, and what it may look at."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

Level: TypeAlias = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding.

    Attributes:
        level: How bad it is.
        message: What was found, in a sentence.
        who: Who must act: `caller`, `operator`; empty where nobody must.
        fix: What to do; empty where nothing.
    """

    level: Level
    message: str
    who: str = ""
    fix: str = ""


def fine(message: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(level="ok", message=message)


def wrong(message: str, *, fix: str, who: str = "operator") -> Finding:
    """Return the finding that something does not work."""
    return Finding(level="error", message=message, who=who, fix=fix)


def doubtful(message: str, *, fix: str, who: str = "operator") -> Finding:
    """Return the finding that something works, but not for long or not well."""
    return Finding(level="warning", message=message, who=who, fix=fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the checks look at.

    Attributes:
        config_file: The configuration, if one was named.
        config: What `aipaging config show` says of it; empty without a valid one.
        config_problems: What is wrong in it, as `aipaging config check` says it.
        config_warnings: What works in it, but probably not as meant.
        url: Where the controller should be.
        url_given: Whether somebody said so.
        credential: The client's secret, or empty.
        credential_file: Where it was read, or None.
        ca: Whom to trust, or None.
    """

    config_file: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    config_problems: tuple[Mapping[str, Any], ...] = ()
    config_warnings: tuple[Mapping[str, Any], ...] = ()
    url: str = ""
    url_given: bool = False
    credential: str = ""
    credential_file: Path | None = None
    ca: Path | None = None

    @property
    def data_dir(self) -> Path | None:
        """The controller's data directory."""
        return Path(self.config["operator"]["data_dir"]) if self.config else None


Check: TypeAlias = Callable[[Situation], Iterable[Finding]]

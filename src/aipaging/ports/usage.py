"""The port to running sums of what tenants used, so that a question about a year reads no year of evidence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from aipaging.core.evidence.usage import Usage
from aipaging.core.foundation.time import WallUs


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSums:
    """What tenants used in a period.

    Attributes:
        tenants: By name; whoever used nothing is left out.
        accounted_us: The instant of the last record that is in the sums; sessions that go on count up to it.
    """

    tenants: Mapping[str, Usage]
    accounted_us: WallUs


class UsageAccount(Protocol):
    """Sums what tenants used, from the log, as it grows; it blocks, and is used from one thread."""

    def take(self) -> bool:
        """Take in some further records, and tell whether there may be more.

        Raises:
            UnavailableError: The log cannot be read, or the sums not be kept.
        """
        ...

    def between(self, from_us: WallUs, to_us: WallUs, tenant: str | None) -> UsageSums:
        """Return the sums of a period of whole quarters of an hour, of one tenant or of all.

        Raises:
            UnavailableError: They cannot be read.
        """
        ...

    def close(self) -> None:
        """Close what is open."""
        ...

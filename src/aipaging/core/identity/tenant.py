"""Tenants: what each may hold at most, and whose sessions come first.

A tenant that is not registered is limited by nothing but capacity, and is STANDARD.
"""

import enum
from dataclasses import dataclass, field
from typing import Final

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import TenantId

UNLIMITED: Final = 0
"""As a quota: none."""

QUOTA_MAX: Final = 10**15
"""Of any quota: every JSON reader still holds it, and any sum of a few of them, exactly."""

PERIOD_S_MAX: Final = 366 * 86_400
"""A year: a quota that lasts longer is a contract, not a quota."""


class PriorityClass(enum.IntEnum):
    """Whose sessions come first when there is too little for all; equals never displace one another."""

    BACKGROUND = 0
    STANDARD = 1
    URGENT = 2
    EMERGENCY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """The most that a tenant may hold or spend; 0 is no limit.

    Attributes:
        sessions_max: Sessions that are AVAILABLE.
        requests_mrps_max: What these may send: the sum of their rates, in thousandths of a request per second.
        reserved_mrps_max: What is reserved for it, what ended sessions still hold until it is released included.
        spend_max: The most that it may spend in a period, in millionths of the catalogue's currency.
        period_s: How long a period is; periods are counted from 1970-01-01T00:00:00Z.
    """

    sessions_max: int = UNLIMITED
    requests_mrps_max: int = UNLIMITED
    reserved_mrps_max: int = UNLIMITED
    spend_max: int = UNLIMITED
    period_s: int = 86_400

    def checked(self) -> "Quotas":
        """Return the quotas themselves.

        Raises:
            InvalidInputError: A number is out of its range.
        """
        for name, value in (
            ("sessionsMax", self.sessions_max),
            ("requestsPerSecondMax", self.requests_mrps_max),
            ("reservedPerSecondMax", self.reserved_mrps_max),
            ("spendMax", self.spend_max),
        ):
            if not 0 <= value <= QUOTA_MAX:
                raise InvalidInputError(
                    f"{name} is {value}: allowed is 0 (no limit) to {QUOTA_MAX}", code="OUT_OF_RANGE", field=name
                )
        if not 1 <= self.period_s <= PERIOD_S_MAX:
            raise InvalidInputError(
                f"periodS is {self.period_s}: allowed is 1 to {PERIOD_S_MAX}", code="OUT_OF_RANGE", field="periodS"
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Who reservations belong to.

    Attributes:
        tenant: Its name.
        quotas: The most that it may hold.
        priority: The class of its sessions.
        preempts: Whether a page of it may displace sessions of a lower class.
    """

    tenant: TenantId
    quotas: Quotas = field(default_factory=Quotas)
    priority: PriorityClass = PriorityClass.STANDARD
    preempts: bool = False


def cost_of(rate_mrps: int, duration_ms: int, price: int) -> int:
    """Return what a reserved rate costs over a time, rounded up: the rate is paid for whether it is used or not.

    Args:
        rate_mrps: The reserved rate, in thousandths of a request per second.
        duration_ms: How long.
        price: Per 1,000 requests, in millionths of the currency.
    """
    return -(-rate_mrps * duration_ms * price // 10**9)

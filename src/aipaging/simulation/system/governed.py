"""What the records say of tenants, switches, policies, envelopes and counts, and what contradicts it; part of `book`.

Every rule is judged at the record that could break it, on what earlier records say: what was in force *then*.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from aipaging.simulation.system.catalogue import ANCHORS

Fault = tuple[str, str]
"""(checker, sentence)."""

PAGED: Final = "PAGED"
FRESH: Final = (PAGED, "RELOCATION")
"""Causes of COMMITs that were looked at as they are granted; others go on with what was promised before."""

TENANTS: Final = ("tenant-0", "tenant-1", "tenant-2")


def digest_of(tenant: str, anchor: str) -> str:
    """Return what the evidence names a policy by: this tenant not at that anchor."""
    return sha256(f"deny {tenant} {anchor}".encode()).hexdigest()


DENIED: Final = {digest_of(tenant, anchor): (tenant, anchor) for tenant in TENANTS for anchor in ANCHORS}
"""What a digest of policies means."""


@dataclass(frozen=True, slots=True)
class Limits:
    """A tenant's quotas."""

    sessions_max: int
    requests_mrps_max: int
    spend_max: int
    period_s: int


@dataclass(slots=True)
class Governed:
    """Everything of tenants that was ever durable.

    Attributes:
        limits: By tenant.
        killed: Kinds and names of the switches that are thrown.
        denied: `(tenant, anchor)` that the policies in force forbid.
        spent: By tenant and period.
        envelopes: The digest in force, by domain.
        metered: Requests counted, by session and anchor.
        counted: What of it has changed since somebody looked.
    """

    limits: dict[str, Limits] = field(default_factory=dict[str, Limits])
    killed: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    denied: tuple[str, str] = ("", "")
    spent: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    envelopes: dict[str, str] = field(default_factory=dict[str, str])
    metered: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    counted: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def stopped(self, tenant: str, anchor: str) -> str:
        """Return the switch that stops a tenant or an anchor, or ""."""
        for kind, name in self.killed:
            if kind in {"ALL", "SERVICE"} or (kind, name) in {("TENANT", tenant), ("ANCHOR", anchor)}:
                return f"{kind} {name}".strip()
        return ""

    def granted(self, record: dict[str, Any], others: list[int]) -> Iterator[Fault]:
        """Yield what forbids a COMMIT; `others` are the rates of the tenant's other sessions.

        What goes on as it was (after a failed relocation, or a recovery) goes on with what was promised then.
        """
        session, tenant, anchor = record["session"], record["tenant"], record["anchor"]
        where = f"{session} of {tenant} is granted {anchor}"
        if stopped := self.stopped(tenant, anchor):
            yield "KILLED", f"{where}, and {stopped} is stopped"
        if record["cause"] not in FRESH:
            return
        if self.denied == (tenant, anchor):
            yield "POLICY", f"{where}, and the policies in force forbid that"
        limits = self.limits.get(tenant)
        if limits is not None and record["cause"] == PAGED:
            if limits.sessions_max and len(others) + 1 > limits.sessions_max:
                yield "QUOTA", f"{where}, as its session {len(others) + 1} of at most {limits.sessions_max}"
            mrps = sum(others) + record["rate_mrps"]
            if limits.requests_mrps_max and mrps > limits.requests_mrps_max:
                yield "QUOTA", f"{where}, which makes {mrps} mrps of at most {limits.requests_mrps_max}"
        yield from self.rests_on(where, record["domains"], record["envelopes"])

    def rests_on(self, where: str, domains: str, envelopes: str) -> Iterator[Fault]:
        """Yield what is wrong with the envelopes that a bound rests on: each must be the one in force."""
        for domain, digest in zip(domains.split(","), envelopes.split(","), strict=True):
            if self.envelopes.get(domain) != digest:
                yield "BOUND", f"{where}, and its bound rests on an envelope of {domain} that is not in force"


Reader = Callable[[Governed, dict[str, Any], list[dict[str, Any]]], Iterator[Fault]]


def _tenant(book: Governed, record: dict[str, Any], _leaves: list[dict[str, Any]]) -> Iterator[Fault]:
    tenant, before = record["tenant"], book.limits.get(record["tenant"])
    limits = Limits(record["sessions_max"], record["requests_mrps_max"], record["spend_max"], record["period_s"])
    if before is not None and before.period_s != limits.period_s:
        # Periods of another length are counted anew.
        book.spent = {key: spent for key, spent in book.spent.items() if key[0] != tenant}
    book.limits[tenant] = limits
    yield from ()


def _killed(book: Governed, record: dict[str, Any], _leaves: list[dict[str, Any]]) -> Iterator[Fault]:
    book.killed.add((record["kind"], record["name"]))
    yield from ()


def _restored(book: Governed, record: dict[str, Any], _leaves: list[dict[str, Any]]) -> Iterator[Fault]:
    book.killed.discard((record["kind"], record["name"]))
    yield from ()


def _policies(book: Governed, record: dict[str, Any], _leaves: list[dict[str, Any]]) -> Iterator[Fault]:
    book.denied = DENIED[record["digest"]] if record["digest"] else ("", "")
    yield from ()


def _charged(book: Governed, record: dict[str, Any], _leaves: list[dict[str, Any]]) -> Iterator[Fault]:
    key = record["tenant"], record["period"]
    spent = book.spent[key] = book.spent.get(key, 0) + record["amount"]
    limits = book.limits.get(record["tenant"])
    if limits is not None and limits.spend_max and spent > limits.spend_max:
        yield "QUOTA", f"{record['tenant']} spends {spent} of at most {limits.spend_max} in a period"


def _refunded(book: Governed, record: dict[str, Any], _leaves: list[dict[str, Any]]) -> Iterator[Fault]:
    key = record["tenant"], record["period"]
    book.spent[key] = max(0, book.spent.get(key, 0) - record["amount"])
    yield from ()


def _preempted(_book: Governed, record: dict[str, Any], _leaves: list[dict[str, Any]]) -> Iterator[Fault]:
    if record["by_priority"] <= record["priority"]:
        yield "CLASS", f"{record['session']} makes room for {record['by_session']}, which is of no higher class"


def _metered(book: Governed, _record: dict[str, Any], leaves: list[dict[str, Any]]) -> Iterator[Fault]:
    for leaf in leaves:
        key = leaf["session"], leaf["anchor"]
        book.metered[key] = book.metered.get(key, 0) + leaf["requests"]
        book.counted.append(key)
    yield from ()


def _envelope(book: Governed, record: dict[str, Any], _leaves: list[dict[str, Any]]) -> Iterator[Fault]:
    book.envelopes[record["domain"]] = record["digest"]
    yield from ()


READERS: Final[dict[str, Reader]] = {
    "TENANT_REGISTERED": _tenant,
    "SWITCH_KILLED": _killed,
    "SWITCH_RESTORED": _restored,
    "POLICIES_IN_FORCE": _policies,
    "SPEND_CHARGED": _charged,
    "SPEND_REFUNDED": _refunded,
    "SESSION_PREEMPTED": _preempted,
    "SESSIONS_METERED": _metered,
    "ENVELOPE_ACCEPTED": _envelope,
}

"""The records about tenants, switches and classes, judged: invariant (i).

What a tenant reserves is summed over its sessions, each once, whatever COMMITs it holds.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from aipaging.core.evidence.finding import Invariant, Violation
from aipaging.core.evidence.replay_world import Claim, Phase, Session, Tenant, World

Record: TypeAlias = Mapping[str, Any]

CLASSES: Final = ("BACKGROUND", "STANDARD", "URGENT", "EMERGENCY")
"""Priority classes, the lowest first."""


def registered(world: World, record: Record) -> None:
    """TENANT_REGISTERED: quotas count for what is admitted from now on."""
    tenant = _tenant(world, record["tenant"])
    if record["priority"] not in CLASSES:
        raise Violation(Invariant.TENANCY, f"{record['priority']} is no priority class")
    if tenant.quotas and tenant.quotas["period_s"] != record["period_s"]:
        tenant.period = tenant.spent = 0
    tenant.quotas = record


def _tenant(world: World, name: str) -> Tenant:
    return world.tenants.setdefault(name, Tenant())


def killed(world: World, record: Record) -> None:
    """SWITCH_KILLED."""
    world.switches.add((record["kind"], record["name"]))


def restored(world: World, record: Record) -> None:
    """SWITCH_RESTORED."""
    world.switches.discard((record["kind"], record["name"]))


def may_be_steered(world: World, session: Session, anchor: str, *, what: str) -> None:
    """Judge whether a session may be granted or installed at an anchor under the switches that are thrown.

    Raises:
        Violation: A switch stops it.
    """
    if not world.switches:
        return
    asked = (
        ("ALL", ""), ("TENANT", session.tenant), ("SERVICE", world.aisi_of.get(anchor, "")), ("ANCHOR", anchor),
    )  # fmt: skip
    for kind, name in asked:
        if (kind, name) in world.switches:
            raise Violation(Invariant.TENANCY, f"{what} at {anchor}, and {kind} {name} was killed".replace("  ", " "))


def joined(world: World, session: Session, rate_mrps: int) -> None:
    """Count a session that was just admitted, and judge its tenant's quotas.

    Raises:
        Violation: A quota is exceeded.
    """
    tenant = _tenant(world, session.tenant)
    tenant.sessions += 1
    tenant.requests_mrps += rate_mrps
    session.rate_mrps = rate_mrps
    if not tenant.quotas:
        return
    for quota, used in (("sessions_max", tenant.sessions), ("requests_mrps_max", tenant.requests_mrps)):
        most = tenant.quotas[quota]
        if most and used > most:
            raise Violation(Invariant.TENANCY, f"tenant {session.tenant} holds {used}, its {quota} is {most}")
    most = tenant.quotas["reserved_mrps_max"]
    if most:
        reserved = sum(
            max((commit.rate_mrps for commit in each.commits.values()), default=0)
            for each in world.sessions.values()
            if each.tenant == session.tenant
        )
        if reserved > most:
            raise Violation(Invariant.TENANCY, f"tenant {session.tenant} reserves {reserved} mrps, its most is {most}")


def left(world: World, session: Session) -> None:
    """Count a session that ended."""
    if session.phase is Phase.AVAILABLE:
        tenant = _tenant(world, session.tenant)
        tenant.sessions -= 1
        tenant.requests_mrps -= session.rate_mrps


def charged(world: World, record: Record) -> None:
    """SPEND_CHARGED: never beyond the quota of the period."""
    tenant = _tenant(world, record["tenant"])
    _count(tenant, record["period"], record["amount"])
    most = tenant.quotas["spend_max"] if tenant.quotas else 0
    if most and tenant.spent > most:
        raise Violation(Invariant.TENANCY, f"tenant {record['tenant']} spends {tenant.spent}, its most is {most}")


def refunded(world: World, record: Record) -> None:
    """SPEND_REFUNDED."""
    _count(_tenant(world, record["tenant"]), record["period"], -record["amount"])


def _count(tenant: Tenant, period: int, amount: int) -> None:
    if period > tenant.period:
        tenant.period, tenant.spent = period, 0
    if period == tenant.period:
        tenant.spent = max(0, tenant.spent + amount)


def _class_of(world: World, tenant: str) -> int:
    known = world.tenants.get(tenant)
    return CLASSES.index(known.quotas["priority"] if known is not None and known.quotas else "STANDARD")


def room_claimed(world: World, record: Record) -> None:
    """ROOM_CLAIMED: by a tenant that may displace others, in no class above its own."""
    name, priority = record["tenant"], record["priority"]
    quotas = _tenant(world, name).quotas
    if not quotas or not quotas["preempts"] or _class_of(world, name) < priority:
        raise Violation(Invariant.TENANCY, f"tenant {name} may not displace sessions in class {priority}")
    if record["anchor"] not in world.anchors:
        raise Violation(Invariant.CAPACITY, f"room is claimed at {record['anchor']}, which is not registered")
    world.claims[record["for_session"]] = Claim(tenant=name, priority=priority)


def room_let_go(world: World, record: Record) -> None:
    """ROOM_LET_GO."""
    claim = world.claims.pop(record["for_session"], None)
    if claim is None or claim.tenant != record["tenant"]:
        raise Violation(Invariant.TENANCY, f"room is let go that was not claimed for {record['for_session']}")


def preempted(world: World, record: Record) -> None:
    """SESSION_PREEMPTED: for room that is claimed, and only in a higher class than its own."""
    session = world.session(record["session"], Phase.AVAILABLE)
    claim = world.claims.get(record["by_session"])
    if claim is None or claim.priority != record["by_priority"]:
        raise Violation(Invariant.TENANCY, f"a session is displaced, and no room is claimed for {record['by_session']}")
    if record["priority"] != _class_of(world, session.tenant):
        raise Violation(Invariant.TENANCY, f"{record['session']} is not of class {record['priority']}")
    if record["by_priority"] <= record["priority"]:
        raise Violation(Invariant.TENANCY, "a session is displaced by one that is not of a higher class")
    session.preempted = True


def ends(session: Session, record: Record) -> None:
    """SESSION_ENDED: as PREEMPTED only after it was."""
    if record["status_info"] == "PREEMPTED" and not session.preempted:
        raise Violation(Invariant.TENANCY, f"{record['session']} ends as PREEMPTED, and nobody displaced it")


def metered(world: World, record: Record, leaves: Iterable[Record]) -> None:
    """SESSIONS_METERED: counts are of tenants that hold the sessions."""
    _ = record
    for leaf in leaves:
        session = world.sessions.get(leaf["session"])
        if session is not None and session.tenant != leaf["tenant"]:
            raise Violation(Invariant.TENANCY, f"{leaf['session']} is counted for {leaf['tenant']}")

"""Conformance kit of steering drivers: what every adapter of `ports.steering` must do, seen in its traffic.

Wrap a driver in a `SteeringRig` and await `check_steering_driver(rig)`. A rig sends real requests through the user
plane, so that a check sees what a client and an anchor would see, and never what the driver believes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import RefusedError
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.foundation.time import MS, BootUs, Now
from aipaging.core.steering.grant import Fence, SteeringGrant, SteeringRenewal
from aipaging.ports.steering import SteeringDriver

LONG_MS: Final = 60_000
"""A lease that does not end during a check."""

REQUESTERS: Final = 4
"""Clients that send all the time while epochs change."""

RELOCATIONS: Final = 12
"""Changes of anchor under load, in one check."""

SPOOFED: Final = (
    "x-aipaging-anchor",
    "X-AIPaging-Anchor",
    "x-envoy-original-dst-host",
    "x-envoy-upstream-alt-stat-name",
)
"""Headers with which a client might try to choose its own anchor."""


class SteeringRig(Protocol):
    """A driver, two anchors behind its user plane, and the faults that a test can bring upon it.

    Attributes:
        driver: What is checked; `place_anchors` has been called with both anchors, term 1 has begun.
        anchors: The two anchors.
        short_ms: A lease that `advance` can outwait in reasonable time.
    """

    driver: SteeringDriver
    anchors: tuple[AnchorId, AnchorId]
    short_ms: int

    def now(self) -> Now:
        """Return the controller's clocks."""
        ...

    def grant(self, session: SessionId, anchor: AnchorId, epoch: Epoch, lease_ms: int) -> SteeringGrant:
        """Return a grant that starts now, with a receipt that the rig's enforcement points accept."""
        ...

    def session(self) -> SessionId:
        """Return a new session whose requests the rig can send."""
        ...

    async def request(self, session: SessionId, headers: Mapping[str, str] | None = None) -> AnchorId | None:
        """Send one request as the session; return the anchor that served it, or None if none did."""
        ...

    async def advance(self, duration_ms: float) -> None:
        """Let time pass, really or virtually."""
        ...

    async def answer_malformed(self, fault: str | None) -> bool:
        """Let the controller answer look-ups in a wrong way, or properly again; False where there are no look-ups."""
        ...

    async def kill_controller(self) -> None:
        """End the controller without a word; nothing of it answers from now on."""
        ...


MALFORMED: Final = (
    "garbage",
    "no-anchor",
    "foreign-anchor",
    "lease-negative",
    "lease-text",
    "lease-huge",
    "lease-zero",
    "no-receipt",
    "no-generation",
    "old-term",
    "server-error",
    "redirect",
    "silence",
)
"""Faults of an answer that a rig with look-ups must be able to produce."""


async def check_steering_driver(rig: SteeringRig) -> None:
    """Run every check on one rig; `kill_controller` comes last.

    Raises:
        AssertionError: The driver does not conform; the message says in what.
    """
    for check in STEERING_CHECKS:
        await check(rig)


async def check_nothing_without_install(rig: SteeringRig) -> None:
    """A session that was never installed reaches nobody."""
    assert await rig.request(rig.session()) is None, "served without a grant"


async def check_install_steers(rig: SteeringRig) -> None:
    """A grant takes its session, and only that, to its anchor; installing it again changes nothing."""
    first, second = rig.session(), rig.session()
    grant = rig.grant(first, rig.anchors[0], Epoch(1, 1), LONG_MS)
    await rig.driver.install([grant, rig.grant(second, rig.anchors[1], Epoch(1, 1), LONG_MS)])
    await rig.driver.install([grant])
    for _ in range(3):
        assert await rig.request(first) == rig.anchors[0], "not served by the grant's anchor"
        assert await rig.request(second) == rig.anchors[1], "not served by the grant's anchor"


async def check_expiry(rig: SteeringRig) -> None:
    """A grant that nobody renews ends by itself."""
    session = rig.session()
    await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), rig.short_ms)])
    assert await rig.request(session) == rig.anchors[0], "not served during the lease"
    await rig.advance(rig.short_ms)
    assert await rig.request(session) is None, "served after the deadline"


async def check_renewal_extends(rig: SteeringRig) -> None:
    """A renewal in time moves the end; one of another epoch does not."""
    session, other = rig.session(), rig.session()
    grant = rig.grant(session, rig.anchors[0], Epoch(1, 2), rig.short_ms)
    await rig.driver.install([grant, rig.grant(other, rig.anchors[0], Epoch(1, 2), rig.short_ms)])
    assert await rig.request(session) == rig.anchors[0], "not served during the lease"
    later = BootUs(grant.deadline_us + LONG_MS * MS)
    await rig.driver.renew(
        [
            SteeringRenewal(session=session, epoch=Epoch(1, 2), deadline_us=later),
            SteeringRenewal(session=other, epoch=Epoch(1, 1), deadline_us=later),
            SteeringRenewal(session=rig.session(), epoch=Epoch(1, 1), deadline_us=later),
        ]
    )
    await rig.advance(rig.short_ms)
    assert await rig.request(session) == rig.anchors[0], "not served after a renewal"
    assert await rig.request(other) is None, "renewed by another epoch"


async def check_lower_epoch_refused(rig: SteeringRig) -> None:
    """An epoch below the highest seen is refused, also after a revocation, and changes nothing."""
    session = rig.session()
    await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 3), LONG_MS)])
    await _refused(rig, rig.grant(session, rig.anchors[1], Epoch(1, 2), LONG_MS))
    await _refused(rig, rig.grant(session, rig.anchors[1], Epoch(1, 3), LONG_MS))
    assert await rig.request(session) == rig.anchors[0], "a refused grant took effect"
    await rig.driver.revoke([_fence(rig, session, Epoch(1, 3))])
    await _refused(rig, rig.grant(session, rig.anchors[1], Epoch(1, 3), LONG_MS))
    assert await rig.request(session) is None, "a refused grant took effect"


async def check_revocation(rig: SteeringRig) -> None:
    """When `revoke` returns no request is served under the epoch; a higher epoch may follow."""
    sessions = [rig.session() for _ in range(3)]
    await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), LONG_MS) for session in sessions])
    for session in sessions:
        assert await rig.request(session) == rig.anchors[0], "not served during the lease"
    await rig.driver.revoke([_fence(rig, sessions[0], Epoch(1, 1))])
    for _ in range(5):
        assert await rig.request(sessions[0]) is None, "served after its revocation"
        assert await rig.request(sessions[1]) == rig.anchors[0], "another session's revocation took effect"
    await rig.driver.install([rig.grant(sessions[0], rig.anchors[1], Epoch(1, 2), LONG_MS)])
    assert await rig.request(sessions[0]) == rig.anchors[1], "not served under a higher epoch"


async def check_mass_revocation(rig: SteeringRig) -> None:
    """More revocations than any list holds stop exactly what they name."""
    sessions = [rig.session() for _ in range(48)]
    await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), LONG_MS) for session in sessions])
    for session in sessions:
        assert await rig.request(session) == rig.anchors[0], "not served during the lease"
    revoked, kept = sessions[:40], sessions[40:]
    await rig.driver.revoke([_fence(rig, session, Epoch(1, 1)) for session in revoked])
    for session in revoked:
        assert await rig.request(session) is None, "served after its revocation"
    for session in kept:
        assert await rig.request(session) == rig.anchors[0], "another session's revocation took effect"


async def check_higher_epoch_replaces(rig: SteeringRig) -> None:
    """Relocation under load: no request fails, and what starts after `install` reaches the new anchor."""
    session = rig.session()
    await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), LONG_MS)])
    stop = asyncio.Event()
    failures = [0]

    async def requester() -> None:
        while not stop.is_set():
            failures[0] += await rig.request(session) is None
            await asyncio.sleep(0)

    requesters = [asyncio.create_task(requester()) for _ in range(REQUESTERS)]
    try:
        for n in range(2, 2 + RELOCATIONS):
            target = rig.anchors[n % 2]
            await rig.driver.install([rig.grant(session, target, Epoch(1, n), LONG_MS)])
            for _ in range(3):
                assert await rig.request(session) == target, f"epoch {n} is in force and an older one was used"
    finally:
        stop.set()
        await asyncio.gather(*requesters)
    assert failures[0] == 0, f"{failures[0]} requests failed during {RELOCATIONS} relocations"


async def check_spoofed_headers(rig: SteeringRig) -> None:
    """No header of a client chooses an anchor, with or without a grant."""
    ours, foreign = rig.session(), rig.session()
    await rig.driver.install([rig.grant(ours, rig.anchors[0], Epoch(1, 1), LONG_MS)])
    for name in SPOOFED:
        for value in (str(rig.anchors[1]), f"anchor:{rig.anchors[1]}"):
            assert await rig.request(foreign, {name: value}) is None, f"{name} replaced a grant"
            assert await rig.request(ours, {name: value}) == rig.anchors[0], f"{name} chose the anchor"
    forged = {"x-aipaging-commit": "forged.forged.forged", "x-aipaging-anchor": f"anchor:{rig.anchors[1]}"}
    assert await rig.request(foreign, forged) is None, "a forged receipt replaced a grant"


async def check_malformed_answers(rig: SteeringRig) -> None:
    """A controller that answers nonsense steers nobody; afterwards everything works again."""
    session = rig.session()
    await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), LONG_MS)])
    for fault in MALFORMED:
        if not await rig.answer_malformed(fault):
            break
        assert await rig.request(session) is None, f"served on an answer with the fault {fault!r}"
    await rig.answer_malformed(None)
    assert await rig.request(session) == rig.anchors[0], "not served by a controller that has recovered"


async def check_reconcile(rig: SteeringRig) -> None:
    """A new term keeps exactly what it names."""
    kept, unknown = rig.session(), rig.session()
    await rig.driver.install([rig.grant(each, rig.anchors[0], Epoch(1, 1), LONG_MS) for each in (kept, unknown)])
    for session in (kept, unknown):
        assert await rig.request(session) == rig.anchors[0], "not served during the lease"
    await rig.driver.reconcile(2, [rig.grant(kept, rig.anchors[1], Epoch(2, 1), LONG_MS)])
    assert await rig.request(kept) == rig.anchors[1], "a grant of the new term does not steer"
    assert await rig.request(unknown) is None, "unknown steering survived the reconciliation"
    await _refused(rig, rig.grant(unknown, rig.anchors[0], Epoch(1, 9), LONG_MS))


async def check_controller_killed(rig: SteeringRig) -> None:
    """With the controller dead, steering goes on until its deadline and not longer."""
    session = rig.session()
    await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(2, 1), 2 * rig.short_ms)])
    assert await rig.request(session) == rig.anchors[0], "not served during the lease"
    await rig.kill_controller()
    assert await rig.request(session) == rig.anchors[0], "steering ended before its lease"
    await rig.advance(2 * rig.short_ms)
    assert await rig.request(session) is None, "served after the deadline, with the controller dead"
    assert await rig.request(rig.session()) is None, "a new session was served with the controller dead"


STEERING_CHECKS: Final[tuple[Callable[[SteeringRig], Awaitable[None]], ...]] = (
    check_nothing_without_install,
    check_install_steers,
    check_expiry,
    check_renewal_extends,
    check_lower_epoch_refused,
    check_revocation,
    check_mass_revocation,
    check_higher_epoch_replaces,
    check_spoofed_headers,
    check_malformed_answers,
    check_reconcile,
    check_controller_killed,
)
"""In this order: a reconciliation begins term 2, and nothing works after the controller is dead."""


def _fence(rig: SteeringRig, session: SessionId, epoch: Epoch) -> Fence:
    return Fence(session=session, epoch=epoch, keep_until_us=rig.now().after(LONG_MS * MS))


async def _refused(rig: SteeringRig, grant: SteeringGrant) -> None:
    code = ""
    try:
        await rig.driver.install([grant])
    except RefusedError as error:
        code = error.code
    assert code == "FENCED", f"epoch {grant.epoch} below one that had been seen: {code or 'installed'}, not FENCED"

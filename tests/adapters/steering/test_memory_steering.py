"""The reference driver conforms, on virtual time."""

import uuid
from collections.abc import Mapping

import pytest

from aipaging.adapters.steering.memory import MemorySteering
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, GatewayId, SessionId
from aipaging.core.foundation.time import MS, Now, WallUs
from aipaging.core.steering.grant import AnchorEndpoint, SteeringGrant
from aipaging.testing.clock import VirtualClock
from aipaging.testing.steering import STEERING_CHECKS, check_expiry, check_steering_driver

ANCHORS = (AnchorId("anchor-1"), AnchorId("anchor-2"))


class MemoryRig:
    anchors = ANCHORS
    short_ms = 1_000

    def __init__(self, driver_type: type[MemorySteering] = MemorySteering) -> None:
        self.clock = VirtualClock()
        self.driver = driver_type(self.clock)

    async def begin(self) -> "MemoryRig":
        await self.driver.place_anchors(
            [AnchorEndpoint(anchor=a, host="127.0.0.1", port=1, tls=False, in_flight_max=1) for a in ANCHORS]
        )
        await self.driver.reconcile(1, [])
        return self

    def now(self) -> Now:
        return self.clock()

    def grant(self, session: SessionId, anchor: AnchorId, epoch: Epoch, lease_ms: int) -> SteeringGrant:
        now = self.clock()
        return SteeringGrant(
            session=session,
            anchor=anchor,
            epoch=epoch,
            deadline_us=now.after(lease_ms * MS),
            token_expires_us=WallUs(now.wall_us + 3_600_000 * MS),
            receipt="receipt",
            rate_mrps=1_000,
            burst=1,
        )

    def session(self) -> SessionId:
        return SessionId(str(uuid.uuid4()))

    async def request(self, session: SessionId, headers: Mapping[str, str] | None = None) -> AnchorId | None:
        return self.driver.route(session)

    async def advance(self, duration_ms: float) -> None:
        self.clock.advance_ms(duration_ms)

    async def answer_malformed(self, fault: str | None) -> bool:
        return False

    async def kill_controller(self) -> None:
        """Nothing to do: the driver has no task and no timer that could die."""


async def test_conforms() -> None:
    await check_steering_driver(await MemoryRig().begin())


@pytest.mark.parametrize("check", STEERING_CHECKS[:-2], ids=lambda check: check.__name__)
async def test_conforms_check_by_check(check: object) -> None:
    await check(await MemoryRig().begin())  # type: ignore[operator]


async def test_the_kit_finds_a_driver_that_never_lets_go() -> None:
    class Clinging(MemorySteering):
        def route(self, session: SessionId) -> AnchorId | None:
            steered = self._steered.get(session)
            return steered.anchor if steered else None

    with pytest.raises(AssertionError, match="after the deadline"):
        await check_expiry(await MemoryRig(Clinging).begin())


async def test_the_receipt_is_there_while_the_session_is_steered() -> None:
    rig = await MemoryRig().begin()
    session = rig.session()
    await rig.driver.install([rig.grant(session, ANCHORS[0], Epoch(1, 1), 1_000)])
    assert rig.driver.receipt(session) == "receipt"
    await rig.driver.reconcile(2, [])
    assert not rig.driver.receipt(session)


async def test_a_wall_clock_step_back_extends_nothing() -> None:
    rig = await MemoryRig().begin()
    session = rig.session()
    await rig.driver.install([rig.grant(session, ANCHORS[0], Epoch(1, 1), 1_000)])
    rig.clock.step_wall_ms(-3_600_000)
    rig.clock.advance_ms(1_000)
    assert rig.driver.route(session) is None


async def test_a_token_that_ends_before_the_lease_ends_the_steering() -> None:
    rig = await MemoryRig().begin()
    session = rig.session()
    await rig.driver.install([rig.grant(session, ANCHORS[0], Epoch(1, 1), 10_000_000)])
    rig.clock.advance_ms(3_600_000)
    assert rig.driver.route(session) is None


async def test_an_install_is_journalled_before_it_steers_and_once_per_epoch() -> None:
    rig = await MemoryRig().begin()
    seen: list[tuple[Epoch, AnchorId | None, GatewayId]] = []

    async def on_installed(session: SessionId, anchor: AnchorId, epoch: Epoch, gateway: GatewayId) -> None:
        seen.append((epoch, rig.driver.route(session), gateway))

    rig.driver._on_installed = on_installed
    session = rig.session()
    for epoch, anchor in ((Epoch(1, 1), ANCHORS[0]), (Epoch(1, 1), ANCHORS[0]), (Epoch(1, 2), ANCHORS[1])):
        await rig.driver.install([rig.grant(session, anchor, epoch, 1_000)])
    assert seen == [(Epoch(1, 1), None, "memory"), (Epoch(1, 2), ANCHORS[0], "memory")]

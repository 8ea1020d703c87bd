"""The controller's audit over a real engine's state: what each report says, what is missing, what is found."""

from collections.abc import Callable, Sequence
from typing import Any

from aipaging.core.audit import Status
from aipaging.core.audit.live import LivePlan
from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.envelope.envelope import Dependence, Envelope
from aipaging.core.foundation.names import DomainName, SessionId
from aipaging.core.foundation.time import BootUs, Now, WallUs
from aipaging.core.paging.commands import Command
from aipaging.core.paging.state import State
from aipaging.ports.telemetry import SeenRequest
from aipaging.runtime.audit.contracts import promised_point, rounded_up
from aipaging.runtime.audit.live import BUFFER_BYTES_MAX, LiveAudit


class Still:
    """An engine without sessions."""

    healthy = True
    ill = ""

    def __init__(self) -> None:
        self.state = State()
        self.submitted: list[Command] = []

    async def submit(self, command: Command) -> Any:
        self.submitted.append(command)

    async def view(self, read: Callable[[State, Now], Any], of: SessionId | None = None) -> Any:
        return read(self.state, Now(boot_us=BootUs(1), wall_us=WallUs(1)))


def decode(message: bytes) -> Sequence[SeenRequest]:
    if message == b"broken":
        raise ValueError("no message")
    return [SeenRequest("nobody", "", "", 0, Status.OK, 1, 1, -1)] * message[0]


async def none() -> int:
    return 7


def audit() -> LiveAudit:
    return LiveAudit(Still(), LivePlan(), decode=decode, new_id=lambda: "1", software="test", dropped=none)


async def test_what_cannot_be_read_or_placed_or_was_dropped_is_counted() -> None:
    live = audit()
    for message in (b"\x03", b"broken"):
        live.offer(message)
    await live.tick()
    await live.tick()
    counts = live.counts
    assert (counts.records, counts.unknown, counts.malformed, counts.missing) == (0, 3, 1, 7)


async def test_a_full_buffer_is_missing_and_never_waits() -> None:
    live = audit()
    big = b"\x05" + bytes(BUFFER_BYTES_MAX - 1)
    live.offer(big)
    live.offer(b"\x04")
    assert live.counts.missing == 4
    await live.tick()
    live.offer(b"\x04")
    await live.tick()
    assert (live.counts.unknown, live.counts.missing) == (9, 11)


def test_the_point_of_an_envelope_is_on_its_tail() -> None:
    envelope = Envelope(
        domain=DomainName("edge"), segment="", sequence=1,
        contract=DelayContract(offset_ms=60.0, prefactor=1.0, decay_per_ms=0.12), loss=1e-6, error=1e-6,
        rate_mrps_max=1, burst_max=1, capacity_mrps=0, valid_from_us=WallUs(0), valid_until_us=WallUs(1),
        dependence=Dependence.ANY, common_cause="", digest="a" * 64,
    )  # fmt: skip
    assert promised_point(envelope, 0.001) == (117.565, 0.001002)
    assert [rounded_up(epsilon) for epsilon in (0.001, 0.0011, 0.003, 0.0051)] == [0.001, 0.002, 0.005, 0.01]

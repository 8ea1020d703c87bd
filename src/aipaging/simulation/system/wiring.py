"""Who talks to whom: the nodes' wires over the one network, with the watch's eye on what passes.

The watch sees requests where they are forwarded and admitted, work where it ends, and answers that grant time.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.foundation.time import MS, SECOND
from aipaging.core.lease.holder import LeaseQuestion
from aipaging.core.paging import commands as c
from aipaging.simulation.system.checkers import Watch
from aipaging.simulation.system.controller import Controller
from aipaging.simulation.system.driver import Done, Stream
from aipaging.simulation.system.engine import nobody
from aipaging.simulation.system.gateway import Gateway, Request
from aipaging.simulation.system.kernel import Node
from aipaging.simulation.system.network import Call, Network
from aipaging.simulation.system.parts import Batch
from aipaging.simulation.system.sidecar import ANSWER_US_MAX, POLL_WAIT_US, Sidecar

SUBSCRIBE_US_MAX: Final = 300 * MS
KEEPALIVE_US: Final = 2 * SECOND
"""A partition that lasts longer breaks streams."""

COMMAND_US_MAX: Final = 5 * SECOND
PREPARE_US_MAX: Final = 500 * MS


class Wiring:
    """The wires of every node of one run."""

    def __init__(self, network: Network, watch: Watch) -> None:
        self.network = network
        self.watch = watch
        self.gateways: dict[str, Gateway] = {}
        self.sidecars: dict[str, Sidecar] = {}
        self.controller: Controller
        self.deposed: dict[str, Controller] = {}

    # -- the controller's wires

    def push(self, stream: Stream, revision: int, revoked: str) -> None:
        """Send the list to a gateway."""
        gateway = self.gateways[stream.gateway.name]
        self.network.stream(self.controller, gateway, gateway.listed, stream.number, revision, revoked)

    def prepare(self, target: AnchorId, done: Done, failed: Done, limit_us: int) -> None:
        """Ask a sidecar whether it is ready."""
        sidecar = self.sidecars[target]

        def answered(ready: object) -> None:
            if ready:
                done()
            else:
                failed()

        over = Call(answered, failed)
        self.network.call(self.controller, sidecar, sidecar.prepared, over=over, limit_us=limit_us)

    # -- a gateway's wires

    def look_up(self, gateway: Gateway, session: SessionId, answered: Callable[[object], None], limit_us: int) -> None:
        """Ask the controller."""
        over = Call(answered, lambda: answered("503"))
        # Who has not heard of a new leader yet goes on asking the old one.
        controller = self.deposed.get(gateway.name, self.controller)
        self.network.call(gateway, controller, controller.look_up, gateway.name, session, over=over, limit_us=limit_us)

    def subscribe(self, gateway: Gateway, number: int) -> None:
        """Begin a stream."""

        def refused() -> None:
            gateway.left(number)

        over = Call(nobody, refused)
        controller = self.controller
        self.network.call(
            gateway, controller, controller.subscribe, gateway, number, over=over, limit_us=SUBSCRIBE_US_MAX
        )

    def acknowledge(self, gateway: Gateway, number: int, revision: int) -> None:
        """Acknowledge a list."""
        controller = self.controller
        self.network.stream(gateway, controller, controller.acknowledged, gateway.name, number, revision)

    def forward(self, gateway: Gateway, anchor: AnchorId, epoch: Epoch, request: Request) -> None:
        """Send a request to an anchor."""
        self.watch.forwarded(gateway.name, gateway.life, anchor, session=request.session, epoch=epoch)
        sidecar = self.sidecars[anchor]
        if not sidecar.up:
            request.over("ANCHOR_DEAD")
            return
        self.network.send(gateway, sidecar, sidecar.enter, request)

    # -- a sidecar's wires

    def ask(self, sidecar: Sidecar, questions: Sequence[LeaseQuestion], answered: Callable[[Any], None]) -> None:
        """Ask how long leases last."""
        over = Call(answered, lambda: answered(None))
        controller = self.controller
        self.network.call(
            sidecar, controller, controller.remaining, sidecar.anchor, questions, over=over, limit_us=ANSWER_US_MAX
        )

    def follow(self, sidecar: Sidecar, term: int, sequence: int, answered: Callable[[Any], None]) -> None:
        """Ask for revocations."""
        over = Call(answered, lambda: answered(None))
        controller = self.controller
        self.network.call(
            sidecar, controller, controller.follow, term, sequence, POLL_WAIT_US,
            over=over, limit_us=POLL_WAIT_US + ANSWER_US_MAX,
        )  # fmt: skip

    def beat(self, sidecar: Sidecar) -> None:
        """Say how it is."""
        over = Call(nobody, nobody)
        controller = self.controller
        self.network.call(
            sidecar, controller, controller.beat, sidecar.anchor, sidecar.says, over=over, limit_us=ANSWER_US_MAX
        )

    def told(self, sidecar: Sidecar, session: SessionId, epoch: Epoch) -> None:
        """It was told that an epoch has ended."""
        self.watch.told(sidecar.anchor, sidecar.life, session, epoch)

    def usage(self, sidecar: Sidecar, boot: str, batch: Batch, answered: Callable[[bool], None]) -> None:
        """Say what sessions used."""

        def replied(reply: Any) -> None:
            answered(isinstance(reply, c.UsageTaken))

        over = Call(replied, lambda: answered(False))
        controller = self.controller
        self.network.call(
            sidecar, controller, controller.usage, sidecar.anchor, boot, batch, over=over, limit_us=ANSWER_US_MAX
        )

    def admitted(self, sidecar: Sidecar, request: Request) -> None:
        """A request passed the gate."""
        self.watch.admitted(sidecar.anchor, sidecar.life, request.session, request.epoch)

    def ended(self, sidecar: Sidecar, request: Request, last_us: int) -> None:
        """Its work has ended."""
        self.watch.work_ended(sidecar.anchor, request.session, request.epoch, last_us)

    # -- clients, operators, and what breaks

    def submit(self, client: Node, command: c.Command, answered: Callable[[Any], None]) -> None:
        """Ask the controller for something; `answered` takes the reply, the error, or None."""
        over = Call(answered, lambda: answered(None))
        controller = self.controller
        self.network.call(client, controller, controller.command, command, over=over, limit_us=COMMAND_US_MAX)

    def reload(self, client: Node) -> None:
        """Have the controller read its configuration anew; when that happens, it reads what stands there then."""
        over = Call(nobody, nobody)
        controller = self.controller
        self.network.call(client, controller, controller.reload, over=over, limit_us=COMMAND_US_MAX)

    def cut(self, one: str, other: str, for_us: int) -> None:
        """Part two nodes for a while; a stream between them breaks when that lasts."""
        link = self.network.link(one, other)
        link.cuts += 1
        agenda = self.controller.agenda
        agenda.at(agenda.us + for_us, self.network.heal, link)
        gateway = self.gateways.get(one) or self.gateways.get(other)
        if gateway is not None and self.controller.name in {one, other} and for_us > KEEPALIVE_US:
            agenda.at(agenda.us + KEEPALIVE_US, self.break_stream, gateway, gateway.stream)

    def stream_lost(self, gateway: Gateway) -> None:
        """The controller died: its end of the stream is gone."""
        gateway.agenda.at(gateway.agenda.us, gateway.fire, gateway.life, gateway.left, (gateway.stream,))

    def break_stream(self, gateway: Gateway, number: int) -> None:
        """End a gateway's stream at both ends."""
        if gateway.stream != number:
            return
        controller = self.controller
        controller.agenda.at(
            controller.agenda.us, controller.fire, controller.life, controller.gone, (gateway.name, number)
        )
        gateway.agenda.at(gateway.agenda.us, gateway.fire, gateway.life, gateway.left, (number,))

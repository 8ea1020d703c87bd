"""The network between nodes: delay, loss, duplication, overtaking, partition.

Two kinds of traffic. *Calls* (look-ups, questions, heartbeats, requests) travel on connections of their own: they may
be lost, doubled and overtaken, and the caller gives up after a time limit. *Streams* (the gateways' subscription) are
ordered and repeated by their transport: loss delays them, a partition holds them back until it heals or the stream
breaks. With the fault `overtaking` even they arrive out of order, for enforcement points promise to bear that.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from aipaging.core.foundation.time import MS
from aipaging.simulation.system.kernel import Action, Agenda, Node

HOP_US_MIN: Final = 150
HOP_US_MAX: Final = 1_500
"""One way between two machines of one site, when nothing is wrong."""

REPEAT_US: Final = 200 * MS
"""How long the loss of a segment holds a stream up: the least retransmission time-out of Linux."""

REFUSED_US: Final = 1 * MS
"""How soon a connection to a port where nobody listens fails."""

Respond = Callable[[Any], None]


@dataclass(slots=True)
class Link:
    """Between two nodes, both ways.

    Attributes:
        cuts: How many partitions are in force.
        loss: The probability that a message is lost.
        doubled: The probability that it arrives twice.
        slow_us: What is added to a delay at most.
        slow_calls_us: What is added to calls alone.
        overtaking: Whether streams lose their order.
        held: What a partition holds back of streams.
        last_us: When the last message of a stream arrives, by receiver.
    """

    cuts: int = 0
    loss: float = 0.0
    doubled: float = 0.0
    slow_us: int = 0
    slow_calls_us: int = 0
    overtaking: int = 0
    held: list[tuple[Node, int, Action, tuple[Any, ...]]] = field(
        default_factory=list[tuple[Node, int, Action, tuple[Any, ...]]]
    )
    last_us: dict[str, int] = field(default_factory=dict[str, int])


class Call:
    """A question under way: answered once, or given up."""

    __slots__ = ("_answered", "_failed", "_over")

    def __init__(self, answered: Action, failed: Action) -> None:
        self._answered = answered
        self._failed = failed
        self._over = False

    def answer(self, value: Any) -> None:
        """Take the first answer; others come too late."""
        if not self._over:
            self._over = True
            self._answered(value)

    def fail(self) -> None:
        """Give up."""
        if not self._over:
            self._over = True
            self._failed()


class Network:
    """All links."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self._links: dict[tuple[str, str], Link] = {}

    def link(self, one: str, other: str) -> Link:
        """Return the link between two nodes."""
        pair = (one, other) if one < other else (other, one)
        found = self._links.get(pair)
        if found is None:
            found = self._links[pair] = Link()
        return found

    def send(self, source: Node, to: Node, action: Action, *arguments: Any) -> None:
        """Send a message that may be lost, doubled or overtaken."""
        link, dice, reached = self.link(source.name, to.name), self._agenda.dice, self._agenda.reached
        if link.cuts:
            reached["message not over a cut"] += 1
            return
        if link.loss and dice.random() < link.loss:
            reached["message lost"] += 1
            return
        us = self._agenda.us
        delay_us = self._delay_us(link)
        if link.slow_calls_us:
            delay_us += int(dice.random() * link.slow_calls_us)
        self._agenda.at(us + delay_us, to.fire, to.life, action, arguments)
        if link.doubled and dice.random() < link.doubled:
            reached["message doubled"] += 1
            self._agenda.at(us + self._delay_us(link), to.fire, to.life, action, arguments)

    def stream(self, source: Node, to: Node, action: Action, *arguments: Any) -> None:
        """Send the next message of a stream."""
        link = self.link(source.name, to.name)
        if link.cuts:
            self._agenda.reached["stream held by a cut"] += 1
            link.held.append((to, to.life, action, arguments))
            return
        delay_us = self._delay_us(link)
        if link.loss and self._agenda.dice.random() < link.loss:
            self._agenda.reached["stream repeated"] += 1
            delay_us += REPEAT_US
        arrives_us = self._agenda.us + delay_us
        if link.overtaking:
            arrives_us += self._agenda.dice.randrange(REPEAT_US)
            self._agenda.reached["stream overtaken"] += arrives_us < link.last_us.get(to.name, 0)
            link.last_us[to.name] = max(arrives_us, link.last_us.get(to.name, 0))
        else:
            arrives_us = max(arrives_us, link.last_us.get(to.name, 0) + 1)
            link.last_us[to.name] = arrives_us
        self._agenda.at(arrives_us, to.fire, to.life, action, arguments)

    def heal(self, link: Link) -> None:
        """End one partition; streams go on."""
        link.cuts -= 1
        if not link.cuts:
            held, link.held = link.held, []
            for to, life, action, arguments in held:
                self._agenda.at(self._agenda.us + self._delay_us(link), to.fire, life, action, arguments)

    def call(self, source: Node, to: Node, handler: Action, *arguments: Any, over: Call, limit_us: int) -> None:
        """Ask: `handler(respond, *arguments)` at the other end; `over` takes the answer or the silence."""
        source.after(limit_us, over.fail)
        if not to.up and not self.link(source.name, to.name).cuts:
            source.after(REFUSED_US, over.fail)
            return

        def respond(value: Any) -> None:
            self.send(to, source, over.answer, value)

        self.send(source, to, handler, respond, *arguments)

    def _delay_us(self, link: Link) -> int:
        dice = self._agenda.dice
        delay_us = HOP_US_MIN + int(dice.random() * (HOP_US_MAX - HOP_US_MIN))
        if link.slow_us:
            self._agenda.reached["message slow"] += 1
            delay_us += int(dice.random() * link.slow_us)
        return delay_us

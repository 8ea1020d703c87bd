"""Sessions that are moved again and again while their clients go on: make-before-break, and break-before-make.

Some are relocated between two anchors. The others are moved as one moves without relocation: the session is ended and
another is paged at the other anchor, and the client goes on with the new token as soon as it has it.
"""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final

from aipaging.testing.loopback_stack import BenchAnchor, BenchStack
from aipaging.testing.recording_upstream import boot_us
from aipaging.testing.traffic import Traffic

ANCHORS: Final = (BenchAnchor(name="east"), BenchAnchor(name="west"))

STREAMS_OF: Final = 5
"""One session in so many streams."""

CYCLE_S: Final = 2.8
"""From one move of a session to its next, so that both kinds of moves fall evenly on the same time."""

SETTLE_S: Final = 1.0
"""Traffic before the first move, and after the last."""

ACCEPTED: Final = 202
SWITCH_S_MAX: Final = 15.0
POLL_S: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePlan:
    """What is moved.

    Attributes:
        sessions: How many are relocated, and how many others are ended and paged anew.
        rounds: How often each is moved.
        all_stream: Whether some of the others stream, too; their streams break.
    """

    sessions: int
    rounds: int
    all_stream: bool = False


class Moving(ABC):
    """A session that is moved again and again while its client goes on.

    Attributes:
        instants_us: When the moves that came off began and ended, on the boot clock.
        failed: Why the others did not.
    """

    def __init__(self, stack: BenchStack, key: int, document: dict[str, Any]) -> None:
        self.stack = stack
        self.key = key
        self.session: str = document["sessionId"]
        self.instants_us: list[tuple[int, int]] = []
        self.failed: list[str] = []

    @property
    def durations_ms(self) -> list[float]:
        """How long the moves took that came off."""
        return [(ended - began) / 1000 for began, ended in self.instants_us]

    async def run(self, *, rounds: int, first_s: float) -> None:
        """Move the session `rounds` times, beginning at an instant of the loop's clock."""
        loop = asyncio.get_running_loop()
        for turn in range(rounds):
            await asyncio.sleep(first_s + turn * CYCLE_S - loop.time())
            await self.until_free()
            began_us = boot_us()
            why = await self.move(turn)
            if why:
                self.failed.append(why)
            else:
                self.instants_us.append((began_us, boot_us()))

    @abstractmethod
    async def until_free(self) -> None:
        """Wait until the last move is quite over."""

    @abstractmethod
    async def move(self, turn: int) -> str:
        """Move the session once; return why that failed, or nothing."""


class Relocated(Moving):
    """Make before break."""

    async def until_free(self) -> None:
        """Wait until the source of the last relocation has been released: on a busy machine its drain began late."""
        while True:
            _, document = await self.stack.call("GET", f"/sessions/{self.session}")
            if "relocation" not in document or document["relocation"]["phase"] in {"SOURCE_RELEASED", "FAILED"}:
                return
            await asyncio.sleep(POLL_S)

    async def move(self, turn: int) -> str:
        """Ask for a relocation and wait for the switch."""
        del turn
        status, document = await self.stack.call("POST", f"/sessions/{self.session}/relocate", {})
        if status != ACCEPTED:
            return f"{status} {document.get('code')}: {document.get('message')}"
        number = document["relocation"]["number"]
        end_s = asyncio.get_running_loop().time() + SWITCH_S_MAX
        while asyncio.get_running_loop().time() < end_s:
            relocation = document["relocation"]
            if relocation["number"] != number or relocation["phase"] in {"SWITCHED", "SOURCE_RELEASED"}:
                return ""
            if relocation["phase"] == "FAILED":
                return str(relocation.get("message"))
            await asyncio.sleep(POLL_S)
            _, document = await self.stack.call("GET", f"/sessions/{self.session}")
        return "no switch in time"


class PagedAnew(Moving):
    """Break before make."""

    def __init__(self, stack: BenchStack, key: int, document: dict[str, Any], clients: Traffic) -> None:
        super().__init__(stack, key, document)
        self._clients = clients

    async def until_free(self) -> None:
        """Return: a session that was just paged can be ended."""

    async def move(self, turn: int) -> str:
        """End the session, page another at the other anchor, and give its token to the client."""
        await self.stack.call("DELETE", f"/sessions/{self.session}")
        document = await self.stack.page(anchor=ANCHORS[(self.key + turn + 1) % 2].name)
        self.session = document["sessionId"]
        await self._clients.client(self.key, document["aist"])
        return ""


async def move_all(stack: BenchStack, clients: Traffic, plan: MovePlan) -> tuple[list[Moving], list[Moving]]:
    """Page sessions, move them under traffic, and return (relocated, ended and paged anew).

    Even keys are those of the relocated.
    """
    ours: list[Moving] = []
    theirs: list[Moving] = []
    for key in range(2 * plan.sessions):
        relocated = key % 2 == 0
        streams = (relocated or plan.all_stream) and key // 2 % STREAMS_OF == 0
        document = await stack.page(anchor="" if relocated else ANCHORS[key // 2 % 2].name)
        await clients.client(key, document["aist"], kind="stream" if streams else "json")
        if relocated:
            ours.append(Relocated(stack, key // 2, document))
        else:
            theirs.append(PagedAnew(stack, key, document, clients))
    begin_s = asyncio.get_running_loop().time() + SETTLE_S
    async with asyncio.TaskGroup() as group:
        for place in range(plan.sessions):
            # Moves of different sessions are spread over the cycle; of each kind one falls on the same instant.
            first_s = begin_s + CYCLE_S * place / plan.sessions
            group.create_task(ours[place].run(rounds=plan.rounds, first_s=first_s))
            group.create_task(theirs[place].run(rounds=plan.rounds, first_s=first_s))
    await asyncio.sleep(SETTLE_S)
    return ours, theirs

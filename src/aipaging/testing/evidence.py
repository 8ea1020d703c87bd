"""Valid histories of a controller, made from a seed: what a verifier must accept, and what tests mutate.

A `History` is a small discrete-event simulation of sessions that are paged, steered, renewed, relocated, ended and
released, across restarts. It shares no code with the engine or the replay, so that it can contradict both.
"""

import heapq
import random
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from aipaging.core.evidence.log import EMPTY_LOG, LogHead, Sealer
from aipaging.core.evidence.record import Draft, Fields, SealedEntry, commitment
from aipaging.core.foundation.time import MS, SECOND, BootUs, Now, WallUs, stretched_us

LEASE_MS: Final = 10_000
LEASE_MS_MAX: Final = 20_000
DRIFT_PPM: Final = 500
GRACE_MS: Final = 500
DRAIN_MS: Final = 3_000
RATE_MRPS: Final = 1_000
BATCH_LEAVES: Final = 64

_WALL_US: Final = 1_790_000_000 * SECOND
_DIGEST: Final = "ab" * 32
_NODE: Final = "controller-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One record before it is sealed, with when and by whom it is written."""

    draft: Draft
    term: int
    boot: str
    now: Now


@dataclass(slots=True)
class _Commit:
    anchor: str
    began_us: int
    deadline_us: int
    release_us: int = 0
    renewal: int = 0
    live: bool = True
    draining: bool = False


@dataclass(slots=True)
class _Session:
    name: str
    epoch: tuple[int, int] = (0, 0)
    serving: tuple[int, int] = (0, 0)
    commits: dict[tuple[int, int], _Commit] = field(default_factory=dict)
    relocation: dict[str, str] | None = None
    switched: bool = False
    relocations: int = 0
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a history is like.

    Attributes:
        sessions_per_second: Arrivals.
        duration_s: Mean length of a session.
        anchors: How many there are.
        anchor_sessions: How many sessions one anchor carries.
        relocated: Share of sessions that are relocated.
        restart_s: Time between restarts.
        payload_bytes: Size of a session's private payload.
    """

    sessions_per_second: float = 2.0
    duration_s: float = 40.0
    anchors: int = 4
    anchor_sessions: int = 40
    relocated: float = 0.4
    restart_s: float = 120.0
    payload_bytes: int = 300


class History:
    """A valid history without end; take as many steps as are wanted.

    Args:
        seed: What everything follows from.
        plan: What it is like.
    """

    def __init__(self, seed: int, plan: Plan | None = None) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - histories are to be repeated, they hold no secrets
        self._plan = plan or Plan()
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._us = 0
        self._term = 0
        self._boot = ""
        self._booted_us = 0
        self._steps: list[Step] = []
        self._sessions: dict[str, _Session] = {}
        self._due: list[tuple[_Session, tuple[int, int]]] = []
        self._anchors = [f"anchor-{place}" for place in range(self._plan.anchors)]
        self._reserved: dict[str, int] = {}
        self._begin()

    def __iter__(self) -> Iterator[Step]:
        while True:
            while not self._steps:
                self._us, _, action = heapq.heappop(self._agenda)
                action()
            yield from self._steps
            self._steps.clear()

    def take(self, count: int) -> list[Step]:
        """Return the first `count` steps; called once."""
        return list(islice(self, count))

    def _after(self, delay_us: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._agenda, (self._us + int(delay_us), self._count, action))

    def _say(
        self, record_type: str, fields: Fields, *, leaves: tuple[Fields, ...] = (), payload: bytes | None = None,
        salt: bytes | None = None,
    ) -> None:  # fmt: skip
        now = Now(boot_us=BootUs(self._us - self._booted_us), wall_us=WallUs(_WALL_US + self._us))
        draft = Draft(type=record_type, fields=fields, leaves=leaves, payload=payload, salt=salt)
        self._steps.append(Step(draft=draft, term=self._term, boot=self._boot, now=now))

    def _begin(self) -> None:
        plan = self._plan
        self._start_term()
        self._say("SERVICE_REGISTERED", {"aisi": "aisi://op.example/embed/small", "digest": _DIGEST})
        places = [("radio", "access", 0), ("core", "transport", plan.anchors * plan.anchor_sessions * RATE_MRPS)]
        for domain, kind, capacity in places:
            self._say(
                "DOMAIN_REGISTERED", {"domain": domain, "kind": kind, "capacity_mrps": capacity, "digest": _DIGEST}
            )
            self._say(
                "ENVELOPE_ACCEPTED",
                {"domain": domain, "digest": _DIGEST, "sequence": 1, "valid_until_us": 2 * _WALL_US},
            )
        self._say("PATH_REGISTERED", {"access": "radio", "compute": "core", "digest": _DIGEST})
        for name in self._anchors:
            fields: Fields = {
                "anchor": name, "domain": "core", "aisi": "aisi://op.example/embed/small",
                "capacity_mrps": plan.anchor_sessions * RATE_MRPS,
            }  # fmt: skip
            self._say("ANCHOR_REGISTERED", fields)
            self._say("ANCHOR_STATE_CHANGED", {"anchor": name, "state": "READY", "cause": "HEARTBEAT"})
        self._after(0, self._arrive)
        self._after(250 * MS, self._renew)
        self._after(plan.restart_s * SECOND, self._restart)

    def _start_term(self) -> None:
        self._booted_us = self._us - self._dice.randrange(SECOND)
        self._term += 1
        self._boot = f"boot-{self._term}"
        fields: Fields = {
            "previous_term": self._term - 1, "drift_ppm": DRIFT_PPM, "grace_ms": GRACE_MS, "drain_ms_max": DRAIN_MS,
            "lease_ms_max": LEASE_MS_MAX, "software": "aipaging 0.1",
        }  # fmt: skip
        self._say("TERM_STARTED", fields)

    def _restart(self) -> None:
        """Begin a term: relocations are called off, sessions granted anew, the rest held for the longest lease."""
        self._start_term()
        held_us = self._us + stretched_us(LEASE_MS_MAX * MS, DRIFT_PPM) + GRACE_MS * MS
        leaves: list[Fields] = []
        for session in self._sessions.values():
            for commit in session.commits.values():
                commit.release_us = held_us
            if not session.ended:
                self._call_off(session)
                leaves.append(self._regrant(session))
        for first in range(0, len(leaves), BATCH_LEAVES):
            self._say("LEASES_REGRANTED", {}, leaves=tuple(leaves[first : first + BATCH_LEAVES]))
        self._due.clear()
        self._after(self._plan.restart_s * SECOND, self._restart)

    def _call_off(self, session: _Session) -> None:
        self._close_relocation(session)
        for epoch, commit in session.commits.items():
            if commit.live and epoch != session.serving:
                self._over(session, epoch, "COMMIT_EXPIRED")

    def _regrant(self, session: _Session) -> Fields:
        commit = session.commits.pop(session.serving)
        session.epoch = session.serving = (self._term, session.epoch[1] + 1)
        session.commits[session.serving] = commit
        commit.renewal = 0
        self._lease(session, session.serving, commit)
        self._steer_after(2, session)
        return {"session": session.name, "anchor": commit.anchor, **_epoch(session.epoch), "lease_ms": LEASE_MS}

    def _lease(self, session: _Session, epoch: tuple[int, int], commit: _Commit) -> None:
        """Count a lease from now, and want it renewed in time."""
        commit.began_us, commit.deadline_us = self._us, self._us + LEASE_MS * MS
        commit.release_us = self._us + stretched_us(LEASE_MS * MS, DRIFT_PPM) + GRACE_MS * MS
        self._after(LEASE_MS * MS * 5 // 12, lambda: self._due.append((session, epoch)))

    def _arrive(self) -> None:
        self._after(self._dice.expovariate(self._plan.sessions_per_second) * SECOND, self._arrive)
        name = str(uuid.UUID(int=self._dice.getrandbits(128), version=4))
        caller = {"session": name, "tenant": f"tenant-{self._dice.randrange(9)}", "client": "client-1"}
        salt = self._dice.randbytes(16)
        payload = self._dice.randbytes(self._plan.payload_bytes)
        intent = {"intent_commitment": commitment(salt, payload)}
        anchor = self._free_anchor("")
        if not anchor:
            self._say(
                "SESSION_REFUSED", {**caller, "constraint": "CAPACITY", "candidates": 4, "policies": "", **intent}
            )
            return
        session = _Session(name)
        self._sessions[name] = session
        duration_us = self._dice.expovariate(1 / self._plan.duration_s) * SECOND
        requested: Fields = {
            **caller, "aisi": "aisi://op.example/embed/small", "duration_ms": int(duration_us) // MS, **intent
        }  # fmt: skip
        self._say("SESSION_REQUESTED", requested, payload=payload, salt=salt)
        session.serving = self._grant(session, caller["tenant"], anchor, "PAGED")
        self._steer_after(1, session)
        self._after(duration_us, lambda: self._end(session))
        if self._dice.random() < self._plan.relocated:
            self._after(duration_us * self._dice.random(), lambda: self._relocate(session, caller["tenant"]))
        if self._dice.random() < 0.1:
            self._after(duration_us * self._dice.random(), lambda: self._extend(session))

    def _free_anchor(self, but: str) -> str:
        """Return an anchor with capacity left, or "" if there is none or the domain has none left."""
        most = self._plan.anchor_sessions
        free = [a for a in self._anchors if self._reserved.get(a, 0) < most and a != but]
        within = self._reserved.get("", 0) < len(self._anchors) * most
        return self._dice.choice(free) if free and (within or but) else ""

    def _count_places(self, session: _Session, change: int) -> None:
        """Add `change` for every place where the session holds its rate; "" is the domain."""
        for place in {commit.anchor for commit in session.commits.values()} | ({""} if session.commits else set()):
            self._reserved[place] = self._reserved.get(place, 0) + change

    def _grant(self, session: _Session, tenant: str, anchor: str, cause: str) -> tuple[int, int]:
        epoch = session.epoch = (self._term, session.epoch[1] + 1)
        self._count_places(session, -1)
        commit = session.commits[epoch] = _Commit(anchor, 0, 0)
        self._count_places(session, 1)
        self._lease(session, epoch, commit)
        fields: Fields = {
            "session": session.name, "tenant": tenant, "aisi": "aisi://op.example/embed/small", "anchor": anchor,
            "domains": "radio,core", **_epoch(epoch), "lease_ms": LEASE_MS, "rate_mrps": RATE_MRPS, "burst": 4,
            "delay_us": 20_000, "epsilon": "0.001", "epsilon_bound": "0.00042", "rung": "any-dependence",
            "envelopes": _DIGEST, "cause": cause,
        }  # fmt: skip
        self._say("COMMIT_GRANTED", fields, payload=self._dice.randbytes(self._plan.payload_bytes // 2))
        return epoch

    def _steer_after(self, delay_ms: int, session: _Session) -> None:
        epoch = session.epoch
        self._after(delay_ms * MS, lambda: self._steer(session, epoch))

    def _steer(self, session: _Session, epoch: tuple[int, int]) -> None:
        commit = session.commits.get(epoch)
        if commit is not None and commit.live and not session.ended and epoch == session.epoch:
            fields: Fields = {"session": session.name, "anchor": commit.anchor, **_epoch(epoch), "gateway": "gateway-1"}
            self._say("STEER_INSTALLED", fields)

    def _renew(self) -> None:
        self._after(250 * MS, self._renew)
        leaves: list[Fields] = []
        for session, epoch in self._due:
            commit = session.commits.get(epoch)
            if commit is None or not commit.live or commit.draining or commit.deadline_us <= self._us:
                continue
            commit.renewal += 1
            self._lease(session, epoch, commit)
            leaf: Fields = {
                "session": session.name, **_epoch(epoch), "renewal": commit.renewal, "lease_ms": LEASE_MS
            }  # fmt: skip
            leaves.append(leaf)
        self._due.clear()
        for first in range(0, len(leaves), BATCH_LEAVES):
            self._say("LEASES_RENEWED", {}, leaves=tuple(leaves[first : first + BATCH_LEAVES]))

    def _extend(self, session: _Session) -> None:
        if not session.ended:
            self._say("SESSION_EXTENDED", {"session": session.name, "duration_ms": 100_000})

    def _relocate(self, session: _Session, tenant: str) -> None:
        if session.ended or session.relocation is not None:
            return
        source = session.commits[session.serving].anchor
        target = self._free_anchor(source)
        session.relocations += 1
        cause = self._dice.choice(["OPERATOR", "MOBILITY", "ANCHOR_DRAINING", "ANCHOR_LOST"])
        session.relocation = {
            "session": session.name, "relocation": str(session.relocations), "cause": cause, "source": source,
            "target": "",
        }  # fmt: skip
        session.switched = False
        if cause == "MOBILITY":
            moved = {"session": session.name, "place_commitment": commitment(b"salt", source.encode())}
            self._say("CLIENT_MOVED", moved, payload=b"radio")
        self._say("RELOCATION_DETECTED", dict(session.relocation))
        if not target:
            self._close_relocation(session)
            return
        session.relocation["target"] = target
        self._say("RELOCATION_DECIDED", dict(session.relocation))
        epoch = self._grant(session, tenant, target, "RELOCATION")
        number = session.relocations
        if self._dice.random() < 0.15:
            self._after(50 * MS, lambda: self._fail(session, number, epoch))
        else:
            self._after(20 * MS, lambda: self._prepared(session, number, epoch))

    def _open(self, session: _Session, number: int) -> bool:
        return not session.ended and session.relocation is not None and session.relocations == number

    def _fail(self, session: _Session, number: int, epoch: tuple[int, int]) -> None:
        if self._open(session, number):
            self._close_relocation(session)
            self._over(session, epoch, "COMMIT_REVOKED")

    def _prepared(self, session: _Session, number: int, epoch: tuple[int, int]) -> None:
        if self._open(session, number):
            self._say("RELOCATION_TARGET_PREPARED", dict(session.relocation or {}))
            self._after(3 * MS, lambda: self._steer(session, epoch))
            self._after(10 * MS, lambda: self._switch(session, number, epoch))

    def _switch(self, session: _Session, number: int, epoch: tuple[int, int]) -> None:
        if not self._open(session, number):
            return
        source_epoch, session.serving, session.switched = session.serving, epoch, True
        self._say("RELOCATION_SWITCHED", dict(session.relocation or {}))
        source = session.commits[source_epoch]
        source.draining = True
        source.deadline_us = max(source.deadline_us, self._us + DRAIN_MS * MS)
        lease_us = source.deadline_us - source.began_us
        source.release_us = source.began_us + stretched_us(lease_us, DRIFT_PPM) + GRACE_MS * MS
        fields: Fields = {"session": session.name, **_epoch(source_epoch), "drain_ms": DRAIN_MS}
        self._say("COMMIT_DRAINING", fields)
        self._after(source.deadline_us - self._us, lambda: self._drained(session, number, source_epoch))

    def _drained(self, session: _Session, number: int, epoch: tuple[int, int]) -> None:
        if self._open(session, number) and session.commits[epoch].live:
            self._over(session, epoch, "COMMIT_EXPIRED")
            self._close_relocation(session)

    def _close_relocation(self, session: _Session) -> None:
        if session.relocation is not None:
            phase = "SOURCE_RELEASED" if session.switched else "FAILED"
            self._say(f"RELOCATION_{phase}", dict(session.relocation))
            session.relocation, session.switched = None, False

    def _over(self, session: _Session, epoch: tuple[int, int], record_type: str) -> None:
        """End a COMMIT and release its reservation when the last holder has let go."""
        commit = session.commits[epoch]
        commit.live = False
        cause: Fields = {"cause": "ENDED"} if record_type == "COMMIT_REVOKED" else {}
        self._say(record_type, {"session": session.name, **_epoch(epoch), **cause})
        self._after(commit.release_us - self._us, lambda: self._release(session, epoch))

    def _release(self, session: _Session, epoch: tuple[int, int]) -> None:
        commit = session.commits[epoch]
        if commit.release_us > self._us:  # a term began meanwhile
            self._after(commit.release_us - self._us, lambda: self._release(session, epoch))
            return
        self._count_places(session, -1)
        del session.commits[epoch]
        self._count_places(session, 1)
        self._say("RESERVATION_RELEASED", {"session": session.name, "anchor": commit.anchor, **_epoch(epoch)})
        if session.ended and not session.commits:
            del self._sessions[session.name]
            self._after(20 * SECOND, lambda: self._say("SESSION_FORGOTTEN", {"session": session.name}))
            self._after(21 * SECOND, lambda: self._say("SESSION_ERASED", {"for_session": session.name}))

    def _end(self, session: _Session) -> None:
        self._close_relocation(session)
        for epoch, commit in session.commits.items():
            if commit.live:
                self._over(session, epoch, "COMMIT_REVOKED" if commit.deadline_us > self._us else "COMMIT_EXPIRED")
        session.ended = True
        self._say("SESSION_ENDED", {"session": session.name, "status_info": "DURATION_EXPIRED"})
        gone: Fields = {
            "session": session.name, **_epoch(session.epoch), "gateway": "gateway-1", "cause": "DURATION_EXPIRED"
        }  # fmt: skip
        self._after(2 * MS, lambda: self._say("STEER_REMOVED", gone))


def sealed_history(steps: Iterable[Step], head: LogHead = EMPTY_LOG) -> Iterator[SealedEntry]:
    """Yield the steps sealed into a log."""
    sealer, boot = Sealer(_NODE, "", head), ""
    for step in steps:
        if step.boot != boot:
            sealer, boot = Sealer(_NODE, step.boot, sealer.head), step.boot
        yield from sealer.seal([step.draft], term=step.term, now=step.now)


def _epoch(epoch: tuple[int, int]) -> dict[str, int]:
    return {"epoch_term": epoch[0], "epoch_n": epoch[1]}

"""What happens in a run, and when: made from the seed beforehand, so that it can be shown, replayed and shrunk.

A schedule is a list of acts. Workload acts are what clients and operators do; fault acts are what breaks. Dropping an
act leaves the others as they are: the least schedule that still fails is the explanation of a bug.
"""

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.time import MS, SECOND
from aipaging.simulation.system.catalogue import ACCESS, ANCHORS, EDGES, GATEWAYS, METRO

STEPS_DEFAULT: Final = 60
STEPS_MAX: Final = 100_000

WORKLOAD_SPACING_US: Final = 180 * MS
"""The mean time between two acts of clients: sessions last seconds, so some ten are open at once."""

FAULT_SPACING_US: Final = 1_200 * MS
QUIET_ONE_IN: Final = 5
"""Every fifth seed has no faults: there every request of a live session has to be served."""

DRIFT_PPM: Final = 480
"""Clocks differ from true time by up to this much either way, within the 500 ppm that lease terms assume."""

DRIFT_BEYOND_PPM: Final = 5_000
"""What the fault family `drift` does to a clock: ten times what is assumed."""

FAMILIES: Final = (
    "network", "crash", "disk", "clock", "pause", "anchor", "backup", "leadership", "races", "drift", "preemption",
    "tenancy",
)  # fmt: skip
DEFAULT_FAMILIES: Final = FAMILIES[:-4]
"""Races (slow look-ups beside quick pushes that overtake one another) are asked for by name. So is
drift beyond what lease terms assume: then the checkers allow what the excess explains. With preemption the tenants are
of three classes, and pages of the highest displace sessions of the others. With tenancy they have quotas, clients lose
their entitlement, policies forbid, operators stop and restore, configurations change, and sidecars count."""

GOVERNED: Final = {4: ("tenancy",), 6: ("tenancy", "preemption")}
"""What is added to the usual families, by the rest of a seed by seven; two of seven have it."""

GOVERNED_OF: Final = 7

GOVERNING_SPACING_US: Final = 1_500 * MS
"""The mean time between two acts of operators on tenants."""

CLASSES: Final = {"tenant-0": "BACKGROUND", "tenant-1": "STANDARD", "tenant-2": "EMERGENCY"}
TENANTS_US: Final = 450 * MS
"""When they are registered: a controller that starts has begun, and nobody has paged yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One thing that happens.

    Attributes:
        us: When, in true time.
        kind: What.
        who: The node or domain that it happens to; "" where `number` says it.
        other: A second node.
        number: The session, by the order of paging; or a count.
        for_us: How long it lasts.
        amount: How much.
    """

    us: int
    kind: str
    who: str = ""
    other: str = ""
    number: int = 0
    for_us: int = 0
    amount: float = 0.0

    @property
    def fault(self) -> bool:
        """Whether it breaks something."""
        return self.kind in FAULT_KINDS

    def __str__(self) -> str:
        parts = [f"{self.us / SECOND:9.3f} s  {self.kind}", self.who, self.other]
        parts += [f"session {self.number}"] if self.kind in SESSION_KINDS else []
        parts += [f"for {self.for_us / MS:.0f} ms"] if self.for_us else []
        parts += [f"{self.amount:g}"] if self.amount else []
        return " ".join(filter(None, parts))


GOVERNING_KINDS: Final = frozenset({"tenant", "entitle", "policies", "kill", "settings"})
SESSION_KINDS: Final = frozenset({"page", "end", "extend", "relocate", "move"})
FAULT_KINDS: Final = frozenset(
    {
        "cut", "slow", "slow-calls", "loss", "overtaking", "crash", "reboot", "restart-gateway", "restart-sidecar",
        "sidecar-down", "unhealthy", "disk-full", "disk-failing", "disk-slow", "suspend", "pause", "jump", "restore",
        "takeover", "drift",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One run.

    Attributes:
        seed: What everything follows from.
        lease_ms: The lease of this run's controller.
        acts: What happens, in order.
        ends_us: When everything is healed and clients stop beginning anything.
        counts: Whether sidecars count what sessions use.
    """

    seed: int
    lease_ms: int
    acts: tuple[Act, ...]
    ends_us: int
    counts: bool = False

    @property
    def pages(self) -> int:
        """How many page transactions it asks for."""
        return sum(act.kind == "page" for act in self.acts)


def families_of(text: str) -> tuple[str, ...]:
    """Return the fault families of a comma-separated list; `none` and `all` are words too.

    Raises:
        InvalidInputError: A family is not known.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["none"]:
        return ()
    if names == ["all"]:
        return FAMILIES
    unknown = [name for name in names if name not in FAMILIES]
    if unknown or not names:
        raise InvalidInputError(
            f"there are no faults {', '.join(unknown) or text!r}: there are {', '.join(FAMILIES)}, all, none",
            field="faults",
        )
    return tuple(name for name in FAMILIES if name in names)


def schedule(seed: int, *, steps: int = STEPS_DEFAULT, families: Collection[str] | None = None) -> Schedule:
    """Return the schedule of a seed.

    Args:
        seed: Any whole number.
        steps: How many things clients and operators do.
        families: Which families of faults there are; by default those within the assumptions, and none at all in
            every fifth seed.
    """
    dice = random.Random(f"schedule {seed}")  # noqa: S311 - to be repeated
    if families is None:
        # Few families at a time meet one another more often than all of them would.
        families = [] if seed % QUIET_ONE_IN == 0 else dice.sample(DEFAULT_FAMILIES, dice.randint(1, 3))
        families = [*families, *GOVERNED.get(seed % GOVERNED_OF, ())]
    lease_ms = dice.choice((800, 2_000, 4_000))
    us = 500 * MS
    acts: list[Act] = []
    paged = 0
    for _ in range(steps):
        us += int(dice.expovariate(1 / WORKLOAD_SPACING_US))
        act = _workload(dice, us, paged)
        paged += act.kind == "page"
        acts.append(act)
    ends_us = us + 500 * MS
    makers = [maker for family in FAMILIES if family in families for maker in _MAKERS[family]]
    us = int(dice.expovariate(1 / FAULT_SPACING_US))
    while makers and us < ends_us:
        acts += dice.choice(makers)(dice, us)
        us += int(dice.expovariate(1 / FAULT_SPACING_US))
    if "drift" in families:
        # Stray machines have been straying since before anything happens: their lease arithmetic is consistent.
        strays = dice.sample([*GATEWAYS, *ANCHORS, "controller"], 2)
        sign = dice.choice((-1, 1))
        acts += [Act(us=0, kind="drift", who=who, amount=sign * DRIFT_BEYOND_PPM) for who in strays[:1]]
    if "preemption" in families:
        acts += [Act(us=TENANTS_US, kind="tenant", who=who, other=word, number=-1) for who, word in CLASSES.items()]
    counts = "tenancy" in families
    if counts:
        acts += _governing(random.Random(f"tenancy {seed}"), ends_us)  # noqa: S311 - to be repeated
    acts.sort(key=lambda act: act.us)
    return Schedule(seed=seed, lease_ms=lease_ms, acts=tuple(acts), ends_us=ends_us, counts=counts)


def _governing(dice: random.Random, ends_us: int) -> list[Act]:
    """Return what operators do about tenants, clients, policies and switches; dice of its own leave the rest alone."""
    tenants = list(CLASSES)
    acts = [Act(us=TENANTS_US, kind="tenant", who=who, number=dice.randrange(5)) for who in tenants]
    us = TENANTS_US + int(dice.expovariate(1 / GOVERNING_SPACING_US))
    while us < ends_us:
        kind = dice.choices(("tenant", "entitle", "policies", "kill", "settings"), (4, 2, 3, 3, 2))[0]
        for_us = _ms(dice, 800, 5_000)
        if kind == "tenant":
            acts.append(Act(us=us, kind=kind, who=dice.choice(tenants), number=dice.randrange(5)))
        elif kind == "settings":
            acts.append(Act(us=us, kind=kind, amount=dice.choice((0.5, 0.75, 1.0))))
        elif kind == "entitle":
            acts.append(Act(us=us, kind=kind, number=dice.randrange(4), for_us=for_us))
        elif kind == "policies":
            who, other = dice.choice(tenants), dice.choice(list(ANCHORS))
            acts.append(Act(us=us, kind=kind, who=who, other=other, for_us=for_us))
        else:
            what = dice.choices(("TENANT", "ANCHOR", "SERVICE", "ALL"), (4, 4, 1, 1))[0]
            who = {"TENANT": dice.choice(tenants), "ANCHOR": dice.choice(list(ANCHORS))}.get(what, "")
            acts.append(Act(us=us, kind=kind, who=who, other=what, for_us=for_us))
        us += int(dice.expovariate(1 / GOVERNING_SPACING_US))
    return acts


def _workload(dice: random.Random, us: int, paged: int) -> Act:
    kind = dice.choices(
        ("page", "end", "extend", "relocate", "move", "drain", "undrain", "envelope", "backup"),
        (40, 8, 6, 14, 10, 4, 5, 3, 2),
    )[0]
    if kind in SESSION_KINDS - {"page"} and paged:
        return Act(us=us, kind=kind, number=dice.randrange(max(0, paged - 12), paged), who=dice.choice(ACCESS))
    if kind in {"drain", "undrain"}:
        return Act(us=us, kind=kind, who=dice.choice(list(ANCHORS)))
    if kind == "envelope":
        bad = 1.0 if dice.random() < 0.3 else 0.0
        return Act(us=us, kind=kind, who=dice.choice((*ACCESS, METRO, *EDGES)), amount=bad, for_us=_ms(dice, 800, 6000))
    if kind == "backup":
        return Act(us=us, kind=kind)
    return Act(us=us, kind="page", number=paged, who=dice.choice(ACCESS), amount=dice.choice((5.0, 10.0, 20.0, 30.0)))


def _ms(dice: random.Random, least: int, most: int) -> int:
    return dice.randrange(least, most) * MS


def _pair(dice: random.Random) -> tuple[str, str]:
    return dice.choice(
        [("controller", each) for each in (*GATEWAYS, *ANCHORS)] + [(g, a) for g in GATEWAYS for a in ANCHORS]
    )


def _cut(dice: random.Random, us: int) -> list[Act]:
    one, other = _pair(dice)
    return [Act(us=us, kind="cut", who=one, other=other, for_us=_ms(dice, 50, 7_000))]


def _cut_off(dice: random.Random, us: int) -> list[Act]:
    """The controller is cut off from everybody, as when it is alone on the wrong side."""
    for_us = _ms(dice, 500, 7_000)
    return [Act(us=us, kind="cut", who="controller", other=each, for_us=for_us) for each in (*GATEWAYS, *ANCHORS)]


def _bad_link(dice: random.Random, us: int) -> list[Act]:
    one, other = _pair(dice)
    kind = dice.choice(("slow", "loss", "overtaking", "slow"))
    amount = {"slow": float(dice.choice((20, 100, 450)) * MS), "loss": 0.3}.get(kind, 0.0)
    return [Act(us=us, kind=kind, who=one, other=other, for_us=_ms(dice, 300, 5_000), amount=amount)]


def _race(dice: random.Random, us: int) -> list[Act]:
    who, for_us = dice.choice(GATEWAYS), _ms(dice, 3_000, 8_000)
    slow = Act(us=us, kind="slow-calls", who="controller", other=who, for_us=for_us, amount=450.0 * MS)
    return [slow, Act(us=us, kind="overtaking", who="controller", other=who, for_us=for_us)]


def _crash(dice: random.Random, us: int) -> list[Act]:
    # What becomes of the batch under way: 0 it is lost, 1 it is durable and nobody was told.
    kind = dice.choice(("crash", "reboot"))
    return [Act(us=us, kind=kind, for_us=_ms(dice, 20, 5_000), number=dice.randrange(2))]


def _far(dice: random.Random, us: int) -> list[Act]:
    """A node is far from its controller, and sometimes loses it for good while an answer is on its way."""
    who = dice.choice((*GATEWAYS, *ANCHORS))
    for_us = _ms(dice, 3_000, 9_000)
    acts = [Act(us=us, kind="slow", who="controller", other=who, for_us=for_us, amount=450.0 * MS)]
    if dice.random() < 0.5:
        acts.append(Act(us=us + int(dice.random() * for_us), kind="crash", for_us=_ms(dice, 2_000, 5_000)))
    return acts


def _restart(dice: random.Random, us: int) -> list[Act]:
    if dice.random() < 0.5:
        return [Act(us=us, kind="restart-gateway", who=dice.choice(GATEWAYS), for_us=_ms(dice, 20, 1_000))]
    return [Act(us=us, kind="restart-sidecar", who=dice.choice(list(ANCHORS)), for_us=_ms(dice, 20, 800))]


def _disk(dice: random.Random, us: int) -> list[Act]:
    if dice.random() < 0.5:
        return [Act(us=us, kind=dice.choice(("disk-full", "disk-failing")), for_us=_ms(dice, 50, 4_000))]
    # Syncs that take long are what is lost when the machine dies meanwhile.
    for_us = _ms(dice, 300, 3_000)
    end = Act(us=us + for_us, kind=dice.choice(("crash", "reboot", "disk-failing")), for_us=_ms(dice, 1_500, 6_000))
    return [Act(us=us, kind="disk-slow", for_us=for_us), end]


def _jump(dice: random.Random, us: int) -> list[Act]:
    who = dice.choice(("controller", *GATEWAYS, *ANCHORS))
    return [Act(us=us, kind="jump", who=who, amount=float(dice.choice((-1, 1)) * _ms(dice, 200, 4_000)))]


def _stop(dice: random.Random, us: int) -> list[Act]:
    who = dice.choice(("controller", "controller", *GATEWAYS, *GATEWAYS, *GATEWAYS, *ANCHORS))
    return [Act(us=us, kind=dice.choice(("suspend", "suspend", "pause")), who=who, for_us=_ms(dice, 100, 6_000))]


def _anchor(dice: random.Random, us: int) -> list[Act]:
    kind = dice.choice(("sidecar-down", "unhealthy"))
    return [Act(us=us, kind=kind, who=dice.choice(list(ANCHORS)), for_us=_ms(dice, 300, 5_000))]


def _restore(dice: random.Random, us: int) -> list[Act]:
    return [Act(us=us, kind="restore", for_us=_ms(dice, 50, 3_000))]


def _takeover(dice: random.Random, us: int) -> list[Act]:
    return [Act(us=us, kind="takeover", for_us=_ms(dice, 1_000, 4_000))]


_MAKERS: Final[dict[str, tuple[Callable[[random.Random, int], list[Act]], ...]]] = {
    "network": (_cut, _cut, _cut_off, _bad_link, _bad_link, _far, _far),
    "crash": (_crash, _crash, _restart, _restart),
    "disk": (_disk,),
    "clock": (_jump,),
    "pause": (_stop, _stop),
    "anchor": (_anchor,),
    "backup": (_restore,),
    "leadership": (_takeover,),
    "races": (_race, _race),
    "drift": (),
    "preemption": (),
    "tenancy": (),
}

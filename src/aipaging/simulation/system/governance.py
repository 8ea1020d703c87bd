"""What operators say of tenants, clients, switches and policies; and what a controller's configuration says of them.

A configuration is read at every start, and again when an operator has it read: settings, tenants, clients, policies as
they stand there then. A kill is none of it: it stands in the journal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from aipaging.core.anchor.catalogue import Anchor
from aipaging.core.foundation.names import ClientId, TenantId
from aipaging.core.foundation.time import MS
from aipaging.core.identity.tenant import PriorityClass, Quotas, Tenant
from aipaging.core.paging import commands as c
from aipaging.core.paging.settings import ChangeSettings, Settings
from aipaging.core.paging.tenancy import Question, Ruling
from aipaging.core.paging.tenancy_events import SwitchKind
from aipaging.simulation.system.catalogue import CLIENTS, SERVICE
from aipaging.simulation.system.governed import digest_of
from aipaging.simulation.system.kernel import Agenda, Node
from aipaging.simulation.system.schedule import Act
from aipaging.simulation.system.wiring import Wiring

PERIOD_S: Final = 20
QUOTAS: Final = (
    Quotas(),
    Quotas(sessions_max=4),
    Quotas(requests_mrps_max=45_000),
    Quotas(spend_max=8, period_s=PERIOD_S),
    Quotas(sessions_max=8, requests_mrps_max=90_000, reserved_mrps_max=100_000),
)
"""By the number of the act; the first limits nothing."""

AGAIN_US: Final = 700 * MS
TRIES_MAX: Final = 12
"""An operator who stops or restores something says it until it is done."""


@dataclass(frozen=True, slots=True)
class Denied:
    """A policy: this tenant not at that anchor."""

    tenant: str
    anchor: str

    @property
    def digest(self) -> str:
        """What the evidence names it by."""
        return digest_of(self.tenant, self.anchor)

    def judge(self, question: Question, anchors: Sequence[Anchor]) -> list[Ruling]:
        """Judge each anchor."""
        mine = question.tenant == self.tenant
        return [
            Ruling(allowed=not (mine and each.anchor == self.anchor), policies=("deny",), message="it is forbidden")
            for each in anchors
        ]


class Governance:
    """The operators' side of one run.

    Attributes:
        tenants: As configured.
        entitled: The clients as configured; None: nothing is said of clients.
        policies: As configured.
        settings: As configured.
    """

    def __init__(self, agenda: Agenda, wiring: Wiring, node: Node, *, settings: Settings) -> None:
        self.tenants: dict[str, Tenant] = {}
        self.entitled: tuple[ClientId, ...] | None = None
        self.policies: Denied | None = None
        self.settings = settings
        self._lease_ms = settings.lease.lease_ms
        self._agenda = agenda
        self._wiring = wiring
        self._node = node

    def configured(self) -> list[c.Command]:
        """Return what a controller reads at its start, and whenever it is told to read again."""
        commands: list[c.Command] = [ChangeSettings(settings=self.settings)]
        commands += [c.RegisterTenant(tenant=tenant) for tenant in self.tenants.values()]
        if self.entitled is not None:
            commands.append(c.EntitleClients(clients=self.entitled))
            self._wiring.watch.entitled(self.entitled)
        commands.append(c.ForcePolicies(policies=self.policies, count=int(self.policies is not None)))
        return commands

    def act(self, act: Act) -> None:
        """Do what the schedule says."""
        getattr(self, f"_{act.kind}")(act)

    def _tenant(self, act: Act) -> None:
        """A tenant is described, perhaps anew: the highest class may displace the others."""
        known = self.tenants.get(act.who)
        priority = PriorityClass[act.other] if act.other else known.priority if known else PriorityClass.STANDARD
        quotas = QUOTAS[act.number % len(QUOTAS)] if act.number >= 0 else known.quotas if known else Quotas()
        tenant = Tenant(
            tenant=TenantId(act.who), quotas=quotas, priority=priority, preempts=priority is PriorityClass.EMERGENCY
        )
        self.tenants[act.who] = tenant
        self._wiring.reload(self._node)

    def _entitle(self, act: Act) -> None:
        """A client is entitled no more, for a while."""
        self._say_entitled(tuple(client for place, client in enumerate(CLIENTS) if place != act.number % len(CLIENTS)))
        self._agenda.at(self._agenda.us + act.for_us, self._say_entitled, CLIENTS)

    def _say_entitled(self, clients: tuple[ClientId, ...]) -> None:
        self.entitled = clients
        self._wiring.reload(self._node)

    def _policies(self, act: Act) -> None:
        """A tenant is forbidden an anchor, for a while."""
        self._say_policies(Denied(act.who, act.other))
        self._agenda.at(self._agenda.us + act.for_us, self._say_policies, None)

    def _say_policies(self, policies: Denied | None) -> None:
        self.policies = policies
        self._wiring.reload(self._node)

    def _settings(self, act: Act) -> None:
        """The configuration is read anew: further leases last as long as it says."""
        lease_ms = round(self._lease_ms * act.amount)
        self.settings = replace(self.settings, lease=replace(self.settings.lease, lease_ms=lease_ms))
        self._wiring.reload(self._node)

    def _kill(self, act: Act) -> None:
        """Something is stopped, and restored after a while."""
        kind = SwitchKind[act.other]
        name = SERVICE if kind is SwitchKind.SERVICE else act.who
        self._until_done(c.Kill(kind=kind, name=name, reason="drill"), TRIES_MAX)
        restore = c.Restore(kind=kind, name=name, reason="drill")
        self._agenda.at(self._agenda.us + act.for_us, self._until_done, restore, TRIES_MAX)

    def _until_done(self, command: c.Kill | c.Restore, left: int) -> None:
        def said(reply: Any) -> None:
            if not isinstance(reply, c.Done) and left:
                self._agenda.at(self._agenda.us + AGAIN_US, self._until_done, command, left - 1)

        self._wiring.submit(self._node, command, said)

"""The tenants' part of the state: quotas, accounts, kill switches, policies in force."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aipaging.core.anchor.catalogue import Anchor, Catalogue
from aipaging.core.anchor.intent import Intent
from aipaging.core.foundation.names import AnchorId, ClientId, ServiceUri, SessionId, TenantId
from aipaging.core.identity.tenant import Tenant
from aipaging.core.paging.tenancy_events import Claim, SwitchKilled, SwitchKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What policies are asked.

    Attributes:
        action: `page`, `relocate` or `extend`.
        tenant: For whom.
        client: Who asks.
        intent: What for.
        catalogue: Where the anchors' services and domains are described.
    """

    action: str
    tenant: TenantId
    client: ClientId
    intent: Intent
    catalogue: Catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What the policies say about one anchor.

    Attributes:
        allowed: Whether it may be.
        policies: The ids of the policies that decided.
        message: Of a refusal, the sentence that says why.
    """

    allowed: bool
    policies: tuple[str, ...]
    message: str = ""


class Policies(Protocol):
    """A set of policies: a pure function of its inputs. Replay does not need it: events carry what came of it."""

    @property
    def digest(self) -> str:
        """Return the digest of the set."""
        ...

    def judge(self, question: Question, anchors: Sequence[Anchor]) -> Sequence[Ruling]:
        """Return a ruling for each anchor; what cannot be judged is refused."""
        ...


@dataclass(slots=True)
class Account:
    """What a tenant holds now.

    Attributes:
        sessions: Its sessions that are AVAILABLE, the oldest first.
        requests_mrps: The sum of their rates.
        sizes: How many of them have a rate of so many bits: below twice the next smaller power of two.
        period: The period that `spent` is about.
        spent: What was charged in it, less what was refunded.
    """

    sessions: dict[SessionId, None] = field(default_factory=dict[SessionId, None])
    requests_mrps: int = 0
    sizes: dict[int, int] = field(default_factory=dict[int, int])
    period: int = 0
    spent: int = 0

    def count(self, rate_mrps: int, sessions: int) -> None:
        """Count sessions of a rate more or, negative, less."""
        self.requests_mrps += sessions * rate_mrps
        bits = rate_mrps.bit_length()
        count = self.sizes.pop(bits, 0) + sessions
        if count:
            self.sizes[bits] = count

    def charge(self, period: int, amount: int) -> None:
        """Count a charge or, negative, a refund; those of a period that is over count for nothing any more."""
        if period > self.period:
            self.period, self.spent = period, 0
        if period == self.period:
            self.spent = max(0, self.spent + amount)


@dataclass(slots=True)
class Tenancy:
    """Tenants, switches and policies.

    Attributes:
        tenants: Those that are registered.
        accounts: What tenants hold, registered or not.
        switches: What is killed, and why.
        policies: The policies in force; None: everything is allowed. Not recorded but by digest.
        policies_before: Those that were loaded before them.
        policies_digest: Digest of those in force as the evidence has it.
        meters: The last batch of counts that was taken of the latest boots of each anchor's sidecar, oldest first.
        claims: Room that is kept, by the id of the page that it is kept for.
        victims: Sessions that have to make room, and for which claim; one that has left is not among them.
    """

    tenants: dict[TenantId, Tenant] = field(default_factory=dict[TenantId, Tenant])
    accounts: dict[TenantId, Account] = field(default_factory=dict[TenantId, Account])
    switches: dict[tuple[SwitchKind, str], SwitchKilled] = field(
        default_factory=dict[tuple[SwitchKind, str], SwitchKilled]
    )
    policies: Policies | None = None
    policies_before: Policies | None = None
    policies_digest: str = ""
    meters: dict[AnchorId, dict[str, int]] = field(default_factory=dict[AnchorId, dict[str, int]])
    claims: dict[SessionId, Claim] = field(default_factory=dict[SessionId, Claim])
    victims: dict[SessionId, SessionId] = field(default_factory=dict[SessionId, SessionId])

    def take_policies(self, given_up: "Tenancy") -> None:
        """Take the policies that the journal says are in force from a state that is given up.

        Policies whose record was lost are not among them. If nobody has those that are in force, nothing is allowed
        until they are loaded again.
        """
        loaded = (given_up.policies, given_up.policies_before)
        self.policies = next((each for each in loaded if each and each.digest == self.policies_digest), None)

    def tenant(self, tenant: TenantId) -> Tenant:
        """Return a tenant; one that is not registered has no quotas."""
        return self.tenants.get(tenant) or Tenant(tenant=tenant)

    def account(self, tenant: TenantId) -> Account:
        """Return a tenant's account, to be changed by `evolve` only."""
        return self.accounts.setdefault(tenant, Account())

    def joined(self, session: SessionId, tenant: TenantId, rate_mrps: int) -> None:
        """Count a session that became AVAILABLE."""
        account = self.account(tenant)
        account.sessions[session] = None
        account.count(rate_mrps, 1)

    def left(self, session: SessionId, tenant: TenantId, rate_mrps: int) -> None:
        """Count a session that ended."""
        account = self.account(tenant)
        if session in account.sessions:
            del account.sessions[session]
            account.count(rate_mrps, -1)

    def killed_tenant(self, tenant: TenantId) -> SwitchKilled | None:
        """Return the switch that stops everything of a tenant, or None."""
        switches = self.switches
        return (switches.get((SwitchKind.ALL, "")) or switches.get((SwitchKind.TENANT, tenant))) if switches else None

    def killed_anchor(self, anchor: AnchorId, aisi: ServiceUri) -> SwitchKilled | None:
        """Return the switch that stops an anchor or its service, or None."""
        switches = self.switches
        if not switches:
            return None
        return switches.get((SwitchKind.ANCHOR, anchor)) or switches.get((SwitchKind.SERVICE, aisi))

    def open_anchors(self, anchors: Mapping[AnchorId, Anchor]) -> Iterator[Anchor]:
        """Return the anchors that no switch stops."""
        if not self.switches:
            yield from anchors.values()
            return
        for anchor in anchors.values():
            if self.killed_anchor(anchor.anchor, anchor.aisi) is None:
                yield anchor

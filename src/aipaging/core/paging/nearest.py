"""The nearest intents that would be admitted: what a refusal proposes, tried before it is told.

A check proposes what would pass it; a later check may refuse that as well, and proposes further. Each alternative is
followed until it is admitted or leads nowhere. Trying commits to nothing and is for explanations: a page that is
refused under load is not made dearer by it.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from msgspec import structs

from aipaging.core.anchor.eligibility import Candidate, Nearest, Rejection, examine, least_promised
from aipaging.core.anchor.intent import Intent
from aipaging.core.anchor.offer import Offer
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import ClientId, TenantId
from aipaging.core.foundation.time import Now
from aipaging.core.paging.claiming import own_claim
from aipaging.core.paging.decision import offer_to
from aipaging.core.paging.governing import governed
from aipaging.core.paging.page import NO_SESSION, resolve
from aipaging.core.paging.state import State
from aipaging.core.paging.tenancy import Question

STEPS_MAX: Final = 6
"""Proposals followed in one direction: there are five checks that propose."""

TRIES_MAX: Final = 64
"""Looks at one anchor in one answer, up to some ms each where a delay is refused; the rest is told untried."""

DELAY: Final = "DELAY"
INTENT: Final = "INTENT"
DIRECTIONS: Final = ("delay_ms", "epsilon", "rate_rps", "burst")

_Value: TypeAlias = float | int


def resolved(state: State, intent: Intent, now: Now, *, tenant: TenantId, client: ClientId) -> list[Candidate]:
    """Return every candidate as `resolve` does; what a refused one proposes would be admitted, each change alone.

    Where no change alone would do, each passes what it can, and what is left is told when it is asked for.
    """
    trials = _Trials(state=state, intent=intent, now=now, tenant=tenant, client=client)
    return [trials.settled(candidate) for candidate in resolve(state, intent, now, tenant=tenant, client=client)]


@dataclass(slots=True, kw_only=True)
class _Trials:
    """Proposals tried at one instant, each once: anchors of one place are often refused alike."""

    state: State
    intent: Intent
    now: Now
    tenant: TenantId
    client: ClientId
    left: int = TRIES_MAX
    known: dict[tuple[object, ...], Nearest] = field(default_factory=dict[tuple[object, ...], Nearest])

    def settled(self, candidate: Candidate) -> Candidate:
        """Return a candidate whose proposal was tried."""
        rejection = candidate.rejection
        if rejection is None or rejection.nearest is None:
            return candidate
        near = rejection.nearest
        key = (candidate.path, candidate.aisi, rejection.constraint, near)
        if key not in self.known:
            self.known[key] = self._admitted(candidate, self._sharpened(candidate, rejection.constraint, near))
        return replace(candidate, rejection=replace(rejection, nearest=self.known[key]))

    def _sharpened(self, candidate: Candidate, constraint: str, near: Nearest) -> Nearest:
        """Return a proposal of the delay check with what all rungs prove."""
        if constraint != DELAY or not self.left:
            return near
        self.left -= 1
        catalogue = self.state.catalogue
        found = [catalogue.envelope_of(domain, candidate.aisi) for domain in candidate.path]
        envelopes = tuple(envelope for envelope in found if envelope is not None)
        least = least_promised(self._offer(self.intent), self.intent, envelopes)
        return replace(near, delay_ms=least.delay_ms, epsilon=least.epsilon)

    def _offer(self, intent: Intent) -> Offer:
        own = own_claim(self.state, self.tenant, self.client, intent)
        return offer_to(self.state, NO_SESSION, intent, self.now, tenant=self.tenant, but=own)

    def _admitted(self, candidate: Candidate, near: Nearest) -> Nearest:
        followed = {name: self._followed(candidate, name, getattr(near, name)) for name in DIRECTIONS}
        alone = {name: value for name, (value, admitted) in followed.items() if admitted}
        # Where no change alone would do, the last value in each direction passes whatever that direction can mend.
        return Nearest(**(alone or {name: value for name, (value, _) in followed.items()}))  # type: ignore[arg-type]

    def _followed(self, candidate: Candidate, name: str, value: _Value | None) -> tuple[_Value | None, bool]:
        """Return the last value that was proposed in one direction, and whether it is admitted, as far as was tried."""
        for _ in range(STEPS_MAX):
            if value is None or not self.left:
                return value, value is not None
            rejection = self._refusal(candidate, name, value)
            if rejection is None:
                return value, True
            if rejection.constraint == INTENT:
                return None, False  # nobody may ask for it
            further: _Value | None = getattr(rejection.nearest, name) if rejection.nearest is not None else None
            if further is None or further == value:
                break
            value = further
        return value, False

    def _refusal(self, candidate: Candidate, name: str, value: _Value) -> Rejection | None:
        """Return why the anchor would refuse the intent with one change."""
        self.left -= 1
        change: dict[str, Any] = {name: value}
        try:
            intent = structs.replace(self.intent, **change).checked()
        except InvalidInputError as error:
            return Rejection(constraint=INTENT, message=error.message)
        question = Question(
            action="page", tenant=self.tenant, client=self.client, intent=intent, catalogue=self.state.catalogue
        )
        looked = examine(self._offer(intent), intent, [self.state.catalogue.anchors[candidate.anchor]])
        return governed(self.state, question, looked)[0].rejection

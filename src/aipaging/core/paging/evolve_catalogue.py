"""What the events about the catalogue make of the state; called by `core.paging.evolve` only."""

from dataclasses import replace

from aipaging.core.anchor.catalogue import OBSERVED, AnchorState
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.foundation.time import MS, BootUs, WallUs
from aipaging.core.lease.expiry import Due
from aipaging.core.paging import events as e
from aipaging.core.paging import promise_events as p
from aipaging.core.paging.auditing import standing_kept
from aipaging.core.paging.auditing import trust_changed as trusted_anew
from aipaging.core.paging.promises import ORIGINALS_MAX, Original
from aipaging.core.paging.protection import protect_all
from aipaging.core.paging.standing import TrustChanged
from aipaging.core.paging.state import State

EVERYWHERE = ""
"""Subject of an agenda entry about the paths of all sessions."""


def service_registered(state: State, event: e.ServiceRegistered) -> None:
    """A service is described; described anew, every session is looked at."""
    _look_at_all(state, again=event.service.aisi in state.catalogue.services)
    state.catalogue.services[event.service.aisi] = event.service


def domain_registered(state: State, event: e.DomainRegistered) -> None:
    """A domain is described; described anew, every session is looked at."""
    _look_at_all(state, again=event.domain.name in state.catalogue.domains)
    state.catalogue.domains[event.domain.name] = standing_kept(state, event.domain)


def trust_changed(state: State, event: TrustChanged) -> None:
    """A domain is trusted less, or more again; the sessions that cross it are looked at now."""
    trusted_anew(state, event)
    state.queue.add(event.boot_us, Due.ENVELOPE, event.domain)


def path_registered(state: State, event: e.PathRegistered) -> None:
    """A path is described; described anew, every session is looked at."""
    _look_at_all(state, again=(event.path.access, event.path.compute) in state.catalogue.paths)
    state.catalogue.paths[event.path.access, event.path.compute] = event.path


def _look_at_all(state: State, *, again: bool) -> None:
    """Put every session on the agenda where something that admission reads was described anew: that is rare."""
    if again:
        state.queue.add(BootUs(0), Due.ENVELOPE, EVERYWHERE)


def envelope_accepted(state: State, event: p.EnvelopeAccepted) -> None:
    """An envelope is in force; the sessions that cross its domain are looked at now and at its end."""
    envelope = event.envelope
    before = state.catalogue.envelopes.get((envelope.domain, envelope.segment))
    if before is not None:
        state.catalogue.suspect.pop(before.digest, None)
    state.catalogue.envelopes[envelope.domain, envelope.segment] = envelope
    protect_all(state, envelope.domain)
    if event.signed:
        _keep(state, event)
    state.queue.add(event.boot_us, Due.ENVELOPE, envelope.domain)
    until_over(state, envelope, event.boot_us, event.wall_us)


def _keep(state: State, event: p.EnvelopeAccepted) -> None:
    """Keep the signed original, and as many earlier ones as there is room for."""
    originals, envelope = state.promises.originals, event.envelope
    originals[envelope.digest] = Original(
        domain=envelope.domain,
        segment=envelope.segment,
        sequence=envelope.sequence,
        signed=event.signed,
        key_id=event.key_id,
        accepted_us=event.wall_us,
    )
    if len(originals) > ORIGINALS_MAX:
        in_force = {known.digest for known in state.catalogue.envelopes.values()}
        oldest = next((digest for digest in originals if digest not in in_force), None)
        if oldest is not None:
            del originals[oldest]


def envelope_suspected(state: State, event: p.EnvelopeSuspected) -> None:
    """An envelope is not believed any more; the sessions that cross its domain are looked at now."""
    state.catalogue.suspect[event.digest] = event.reason
    state.queue.add(event.boot_us, Due.ENVELOPE, event.domain)


def envelope_cleared(state: State, event: p.EnvelopeCleared) -> None:
    """An envelope is believed again; the sessions that cross its domain are looked at now."""
    state.catalogue.suspect.pop(event.digest, None)
    state.queue.add(event.boot_us, Due.ENVELOPE, event.domain)


def keys_registered(state: State, event: p.KeysRegistered) -> None:
    """A domain's keys are known; what is in force stays in force."""
    state.promises.key_sets[event.domain] = event.key_set


def until_over(state: State, envelope: Envelope, boot_us: BootUs, wall_us: WallUs) -> None:
    """Put the end of an envelope on the agenda."""
    state.queue.add(BootUs(boot_us + max(0, envelope.valid_until_us - wall_us)), Due.ENVELOPE, envelope.domain)


def anchor_registered(state: State, event: e.AnchorRegistered) -> None:
    """An anchor is described; its state stays as it is known."""
    known = state.catalogue.anchors.get(event.anchor.anchor)
    _look_at_all(state, again=known is not None)
    state.catalogue.anchors[event.anchor.anchor] = replace(
        event.anchor,
        state=known.state if known else AnchorState.UNKNOWN,
        held_back=known is not None and known.held_back,
    )


def anchor_state_changed(state: State, event: e.AnchorStateChanged) -> None:
    """An anchor's state changed; the sessions that must leave it are looked at now."""
    anchor = state.catalogue.anchors[event.anchor]
    held_back = anchor.held_back if event.cause in OBSERVED else event.state is AnchorState.DRAINING
    state.catalogue.anchors[event.anchor] = replace(anchor, state=event.state, held_back=held_back)
    if event.state in {AnchorState.LOST, AnchorState.DRAINING}:
        for session in state.on_anchor.get(event.anchor, {}):
            state.queue.add(event.boot_us, Due.RELOCATION, session)
    if event.state in {AnchorState.READY, AnchorState.DRAINING}:
        state.queue.add(BootUs(event.boot_us + state.settings.anchor_lost_ms * MS), Due.ANCHOR, event.anchor)


def anchor_removed(state: State, event: e.AnchorRemoved) -> None:
    """An anchor is gone."""
    del state.catalogue.anchors[event.anchor]
    state.heard_us.pop(event.anchor, None)
    state.on_anchor.pop(event.anchor, None)


def heard(state: State, event: e.HeartbeatSeen) -> None:
    """An anchor was heard of."""
    state.heard_us[event.anchor] = event.boot_us


def clients_entitled(state: State, event: e.ClientsEntitled) -> None:
    """These may hold sessions."""
    state.entitled = frozenset(event.clients)

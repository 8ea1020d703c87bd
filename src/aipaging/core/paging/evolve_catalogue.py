"""What the events about the catalogue make of the state; called by `core.paging.evolve` only."""

from dataclasses import replace

from aipaging.core.anchor.catalogue import OBSERVED, AnchorState
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.foundation.time import MS, BootUs, WallUs
from aipaging.core.lease.expiry import Due
from aipaging.core.paging import events as e
from aipaging.core.paging.protection import protect_all
from aipaging.core.paging.state import State


def service_registered(state: State, event: e.ServiceRegistered) -> None:
    """A service is described."""
    state.catalogue.services[event.service.aisi] = event.service


def domain_registered(state: State, event: e.DomainRegistered) -> None:
    """A domain is described."""
    state.catalogue.domains[event.domain.name] = event.domain


def path_registered(state: State, event: e.PathRegistered) -> None:
    """A path is described."""
    state.catalogue.paths[event.path.access, event.path.compute] = event.path


def envelope_accepted(state: State, event: e.EnvelopeAccepted) -> None:
    """An envelope is in force; the sessions that cross its domain are looked at now and at its end."""
    state.catalogue.envelopes[event.envelope.domain, event.envelope.segment] = event.envelope
    protect_all(state, event.envelope.domain)
    state.queue.add(event.boot_us, Due.ENVELOPE, event.envelope.domain)
    until_over(state, event.envelope, event.boot_us, event.wall_us)


def until_over(state: State, envelope: Envelope, boot_us: BootUs, wall_us: WallUs) -> None:
    """Put the end of an envelope on the agenda."""
    state.queue.add(BootUs(boot_us + max(0, envelope.valid_until_us - wall_us)), Due.ENVELOPE, envelope.domain)


def anchor_registered(state: State, event: e.AnchorRegistered) -> None:
    """An anchor is described; its state stays as it is known."""
    known = state.catalogue.anchors.get(event.anchor.anchor)
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

"""Events as evidence, and back.

Every transition becomes one draft: public fields that anybody may check, and a private payload from which the state
is rebuilt. What is private (the intent, the place) stands in the record only as a salted commitment. The payload is
the whole event; the journal encrypts it under the session's key, so erasing the key forgets the session and leaves
its records verifiable.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final, get_args

import msgspec

from aipaging.core.evidence.record import Draft, Fields, SealedEntry, commitment
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.foundation.names import SessionId
from aipaging.core.foundation.time import MS
from aipaging.core.paging import acting, audit_records, settings, sinks
from aipaging.core.paging import events as e
from aipaging.core.paging import promise_events as p
from aipaging.core.paging import standing as st
from aipaging.core.paging import tenancy_events as t
from aipaging.core.paging import tenancy_records as tenancy
from aipaging.core.paging.sink_steps import sink_fields
from aipaging.core.paging.state import State

PAYLOAD_VERSION: Final = b"1"
"""First byte of every payload; a reader refuses a version that it does not know."""

ENVELOPES_LISTED_MAX: Final = 16
"""Digests in one record or receipt, 65 characters each: receipts travel with every request to a sidecar."""

TEXTS_CACHED: Final = 4_096
"""Texts of bounds that are remembered: most pages are admitted by a bound that others were admitted by."""

_ENCODE: Final = msgspec.msgpack.Encoder().encode
_JSON: Final = msgspec.json.Encoder(order="sorted").encode
_DECODERS: Final = {kind.__name__: msgspec.msgpack.Decoder(kind) for kind in get_args(e.Transition)}
_HEADERS: Final = {kind: PAYLOAD_VERSION + kind.__name__.encode() + b"\x00" for kind in get_args(e.Transition)}


def _digest(value: object) -> str:
    return sha256(_JSON(value)).hexdigest()


def _epoch(epoch: Epoch) -> dict[str, str | int]:
    return {"epoch_term": epoch.term, "epoch_n": epoch.n}


@lru_cache(maxsize=TEXTS_CACHED)
def bound_text(probability: float) -> str:
    """Return six digits of a bound, rounded up: a record must not promise more than was proved."""
    digits = f"{probability:.5e}"
    return digits if float(digits) >= probability else f"{math.nextafter(probability * (1 + 1e-5), math.inf):.5e}"


@lru_cache(maxsize=TEXTS_CACHED)
def envelopes_text(digests: tuple[str, ...]) -> str:
    """Return the digests of the envelopes of a path as records and receipts hold them: each, in the order of the path.

    A path of more than `ENVELOPES_LISTED_MAX` domains is named by one digest over that list.
    """
    listed = ",".join(digests)
    return listed if len(digests) <= ENVELOPES_LISTED_MAX else f"sha256:{sha256(listed.encode()).hexdigest()}"


@lru_cache(maxsize=TEXTS_CACHED)
def assumptions_text(assumptions: tuple[str, ...]) -> str:
    """Return what a bound rests on as records and receipts hold it."""
    return "; ".join(assumptions).encode("ascii", "replace").decode()


def _term_started(event: e.TermStarted, _state: State) -> Fields:
    lease = event.settings.lease
    return {
        "previous_term": event.previous_term,
        "drift_ppm": lease.drift_ppm,
        "grace_ms": lease.grace_ms,
        "drain_ms_max": lease.drain_ms_max,
        "lease_ms_max": event.settings.lease_ms_max,
        "software": event.software,
    }


def _service_registered(event: e.ServiceRegistered, _state: State) -> Fields:
    return {"aisi": event.service.aisi, "digest": _digest(event.service)}


def _domain_registered(event: e.DomainRegistered, _state: State) -> Fields:
    domain = event.domain
    return {
        "domain": domain.name,
        "kind": domain.kind.value,
        "capacity_mrps": domain.capacity_mrps,
        "digest": _digest(domain),
    }


def _path_registered(event: e.PathRegistered, _state: State) -> Fields:
    return {"access": event.path.access, "compute": event.path.compute, "digest": _digest(event.path)}


def _envelope_accepted(event: p.EnvelopeAccepted, _state: State) -> Fields:
    envelope = event.envelope
    return {
        "domain": envelope.domain,
        "segment": envelope.segment,
        "digest": envelope.digest,
        "sequence": envelope.sequence,
        "valid_from_us": envelope.valid_from_us,
        "valid_until_us": envelope.valid_until_us,
        "key_id": event.key_id,
    }


def _envelope_suspected(event: p.EnvelopeSuspected, _state: State) -> Fields:
    return {"domain": event.domain, "segment": event.segment, "digest": event.digest, "reason": event.reason}


def _envelope_cleared(event: p.EnvelopeCleared, _state: State) -> Fields:
    return {"domain": event.domain, "segment": event.segment, "digest": event.digest}


def _keys_registered(event: p.KeysRegistered, _state: State) -> Fields:
    key_set = event.key_set
    return {
        "domain": event.domain,
        "digest": key_set.digest,
        "key_ids": ",".join(key_set.key_ids),
        "source": key_set.source,
    }


def _anchor_registered(event: e.AnchorRegistered, _state: State) -> Fields:
    anchor = event.anchor
    return {
        "anchor": anchor.anchor,
        "domain": anchor.domain,
        "aisi": anchor.aisi,
        "capacity_mrps": anchor.capacity_mrps,
    }


def _anchor_state_changed(event: e.AnchorStateChanged, _state: State) -> Fields:
    return {"anchor": event.anchor, "state": event.state.value, "cause": event.cause}


def _anchor_removed(event: e.AnchorRemoved, _state: State) -> Fields:
    return {"anchor": event.anchor, "state": "REMOVED", "cause": "OPERATOR"}


def _session_requested(event: e.SessionRequested, _state: State) -> Fields:
    return {
        "session": event.session,
        "tenant": event.tenant,
        "client": event.client,
        "aisi": event.aisi,
        "duration_ms": event.intent.duration_s * 1000,
        "intent_commitment": commitment(event.salt, _JSON(event.intent)),
    }


def _commit_granted(event: e.CommitGranted, state: State) -> Fields:
    session = state.sessions[event.session]
    return {
        "session": event.session,
        "tenant": session.tenant,
        "aisi": session.aisi,
        "anchor": event.anchor,
        "domains": ",".join(event.domains),
        **_epoch(event.epoch),
        "lease_ms": event.lease_ms,
        "rate_mrps": event.rate_mrps,
        "burst": session.intent.burst,
        "delay_us": math.floor(session.intent.delay_ms * MS),
        "epsilon": f"{session.intent.epsilon:.6g}",
        "epsilon_bound": bound_text(event.bound.epsilon_bound),
        "rung": event.bound.rung,
        "assumptions": assumptions_text(event.bound.assumptions),
        "envelopes": envelopes_text(event.envelopes),
        "cause": event.cause,
    }


def _commit_rebound(event: p.CommitRebound, _state: State) -> Fields:
    return {
        "session": event.session,
        **_epoch(event.epoch),
        "epsilon_bound": bound_text(event.bound.epsilon_bound),
        "rung": event.bound.rung,
        "assumptions": assumptions_text(event.bound.assumptions),
        "envelopes": envelopes_text(event.envelopes),
    }


def _session_degraded(event: p.SessionDegraded, _state: State) -> Fields:
    return {"session": event.session, "constraint": event.constraint}


def _session_restored(event: p.SessionRestored, _state: State) -> Fields:
    return {"session": event.session}


def _batch(_event: e.LeasesRenewed | e.LeasesRegranted, _state: State) -> Fields:
    return {}


def _commit_revoked(event: e.CommitRevoked, _state: State) -> Fields:
    return {"session": event.session, **_epoch(event.epoch), "cause": event.cause}


def _commit_expired(event: e.CommitExpired, _state: State) -> Fields:
    return {"session": event.session, **_epoch(event.epoch)}


def _commit_draining(event: e.CommitDraining, _state: State) -> Fields:
    return {"session": event.session, **_epoch(event.epoch), "drain_ms": event.drain_ms}


def _steer_installed(event: e.SteerInstalled, _state: State) -> Fields:
    return {
        "session": event.session,
        "anchor": event.anchor,
        **_epoch(event.epoch),
        "gateway": event.gateway,
    }


def _reservation_released(event: e.ReservationReleased, _state: State) -> Fields:
    return {"session": event.session, "anchor": event.anchor, **_epoch(event.epoch)}


def _relocation_advanced(event: e.RelocationAdvanced, _state: State) -> Fields:
    return {
        "session": event.session,
        "relocation": str(event.number),
        "cause": event.cause.value,
        "source": event.source,
        "target": event.target,
    }


def _session_extended(event: e.SessionExtended, _state: State) -> Fields:
    return {"session": event.session, "duration_ms": event.duration_ms}


def _session_ended(event: e.SessionEnded, _state: State) -> Fields:
    return {"session": event.session, "status_info": event.status_info.value}


def _client_moved(event: e.ClientMoved, state: State) -> Fields:
    salt = state.sessions[event.session].salt
    return {"session": event.session, "place_commitment": commitment(salt, event.place.encode())}


def _session_forgotten(event: e.SessionForgotten, _state: State) -> Fields:
    return {"session": event.session}


_FIELDS: Final[Mapping[type[e.Transition], tuple[str, Callable[[Any, State], Fields]]]] = MappingProxyType(
    {
        e.TermStarted: ("TERM_STARTED", _term_started),
        settings.SettingsChanged: ("SETTINGS_CHANGED", settings.changed_fields),
        e.ServiceRegistered: ("SERVICE_REGISTERED", _service_registered),
        e.DomainRegistered: ("DOMAIN_REGISTERED", _domain_registered),
        e.PathRegistered: ("PATH_REGISTERED", _path_registered),
        p.EnvelopeAccepted: ("ENVELOPE_ACCEPTED", _envelope_accepted),
        p.EnvelopeSuspected: ("ENVELOPE_SUSPECTED", _envelope_suspected),
        p.EnvelopeCleared: ("ENVELOPE_CLEARED", _envelope_cleared),
        st.AuditFound: ("AUDIT", audit_records.audit_found),
        st.TrustChanged: ("TRUST_CHANGED", audit_records.trust_changed),
        p.KeysRegistered: ("KEYS_REGISTERED", _keys_registered),
        e.AnchorRegistered: ("ANCHOR_REGISTERED", _anchor_registered),
        e.AnchorStateChanged: ("ANCHOR_STATE_CHANGED", _anchor_state_changed),
        e.AnchorRemoved: ("ANCHOR_STATE_CHANGED", _anchor_removed),
        e.SessionRequested: ("SESSION_REQUESTED", _session_requested),
        e.SessionRefused: ("SESSION_REFUSED", tenancy.refused),
        e.CommitGranted: ("COMMIT_GRANTED", _commit_granted),
        p.CommitRebound: ("COMMIT_REBOUND", _commit_rebound),
        p.SessionDegraded: ("SESSION_DEGRADED", _session_degraded),
        p.SessionRestored: ("SESSION_RESTORED", _session_restored),
        e.LeasesRenewed: ("LEASES_RENEWED", _batch),
        e.LeasesRegranted: ("LEASES_REGRANTED", _batch),
        e.CommitRevoked: ("COMMIT_REVOKED", _commit_revoked),
        e.CommitExpired: ("COMMIT_EXPIRED", _commit_expired),
        e.CommitDraining: ("COMMIT_DRAINING", _commit_draining),
        e.SteerInstalled: ("STEER_INSTALLED", _steer_installed),
        e.ReservationReleased: ("RESERVATION_RELEASED", _reservation_released),
        e.RelocationAdvanced: ("RELOCATION", _relocation_advanced),
        e.SessionExtended: ("SESSION_EXTENDED", _session_extended),
        e.SessionEnded: ("SESSION_ENDED", _session_ended),
        sinks.SinkSet: ("SINK_SET", sink_fields),
        e.ClientMoved: ("CLIENT_MOVED", _client_moved),
        e.SessionForgotten: ("SESSION_FORGOTTEN", _session_forgotten),
        acting.OperatorActed: ("OPERATOR_ACTION", acting.action_fields),
        acting.SessionErased: ("SESSION_ERASED", acting.erasure_fields),
        **tenancy.FIELDS,
    }
)


RESTRICTIVE: Final = frozenset(
    {
        e.CommitRevoked,
        e.CommitExpired,
        e.CommitDraining,
        e.SessionEnded,
        e.ReservationReleased,
        e.SessionForgotten,
        e.RelocationAdvanced,
        e.AnchorStateChanged,
        p.SessionDegraded,
        p.EnvelopeSuspected,
        t.SwitchKilled,
        acting.OperatorActed,
        t.SpendRefunded,
        t.SessionPreempted,
        t.RoomLetGo,
    }
)
"""What only takes away: the journal keeps space aside for it, so that a full disk never keeps a lease alive."""


def draft_of(event: e.Transition, state: State) -> Draft:
    """Return the evidence of an event that has just been applied to `state`."""
    kind = type(event)
    record_type, fields = _FIELDS[kind]
    if isinstance(event, e.RelocationAdvanced):
        record_type = f"RELOCATION_{event.phase.value}"
    elif isinstance(event, st.AuditFound):
        record_type = f"AUDIT_{event.finding.kind}"
    return Draft(
        type=record_type,
        fields=fields(event, state),
        leaves=_leaves(event),
        payload=_HEADERS[kind] + _ENCODE(event),
        session=getattr(event, "session", None),
        salt=getattr(event, "salt", None),
    )


def _leaves(event: e.Transition) -> tuple[Fields, ...]:
    if isinstance(event, e.LeasesRenewed):
        return tuple(
            {"session": r.session, **_epoch(r.epoch), "renewal": r.renewal, "lease_ms": r.lease_ms}
            for r in event.renewals
        )
    if isinstance(event, e.LeasesRegranted):
        return tuple(
            {"session": r.session, "anchor": r.anchor, **_epoch(r.epoch), "lease_ms": r.lease_ms}
            for r in event.regrants
        )
    if isinstance(event, t.SessionsMetered):
        return tenancy.metered_leaves(event)
    return ()


def event_of(entry: SealedEntry, known: Callable[[SessionId], bool]) -> e.Transition | None:
    """Return the event of a journal entry, or None if its session was erased.

    Only forgotten sessions are erased, so what they did adds up to nothing: leaving all of it out rebuilds the
    same state. `known` says which sessions the state rebuilt so far holds: batches are cut down to them.

    Raises:
        UnavailableError: The payload is of a version or type that this software does not know.
    """
    if entry.payload is None:
        return None
    header, _, body = entry.payload.partition(b"\x00")
    decoder = _DECODERS.get(header[1:].decode()) if header[:1] == PAYLOAD_VERSION else None
    if decoder is None:
        raise UnavailableError(
            f"journal entry {entry.seq} holds {header[:40]!r}, which this version cannot read: use the version that "
            "wrote it, or a later one",
            code="JOURNAL_VERSION",
        )
    event: e.Transition = decoder.decode(body)
    if isinstance(event, e.LeasesRenewed):
        return e.LeasesRenewed(renewals=tuple(r for r in event.renewals if known(r.session)), boot_us=event.boot_us)
    if isinstance(event, e.LeasesRegranted):
        return e.LeasesRegranted(regrants=tuple(r for r in event.regrants if known(r.session)), boot_us=event.boot_us)
    return event

"""What an evidence record is: its types, their fields, and the canonical bytes that are hashed.

A record is a flat map of ASCII strings and integers; `RECORD_TYPES` is the one table of what each type must
hold. The sealer and the verifier check against the same table, and both refuse a field that it does not name:
records are kept for years, and what they cannot say by accident they cannot leak.
Tokens, prompts and places never appear; `commitment` binds a record to them through a salt that can be erased.
"""

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Final, TypeAlias

import msgspec

from aipaging.core.evidence.merkle import CompletedTile
from aipaging.core.foundation.canonical import INTEGER_MAX
from aipaging.core.foundation.errors import AipagingError, Who
from aipaging.core.foundation.names import SessionId

RECORD_VERSION: Final = 1
"""`v` of every record; a reader refuses a version that it does not know."""

RECORD_BYTES_MAX: Final = 65_535
"""C2SP tlog-tiles writes the length of an entry in 16 bits."""

LEAVES_MAX: Final = 4_096
"""Leaves of one batch record: about half a megabyte, so that one `leaves/<root>` file is read at once."""

FIRST_PREV: Final = "0" * 64
"""`prev` of the first record."""

_ENCODER: Final = msgspec.json.Encoder(order="sorted")

Fields: TypeAlias = Mapping[str, str | int]

Kind: TypeAlias = Callable[[object], bool]
"""Whether a value may stand in a field."""


class Draft(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A record before it is sealed: what happened, without its place in the log.

    Attributes:
        type: A key of `RECORD_TYPES`.
        fields: The fields of that type; `count` and `root` of a batch are added by the sealer.
        leaves: The leaves of a batch record.
        payload: Private bytes, stored encrypted under the session's key and never hashed into the record.
        session: Whose key encrypts the payload; by default the record's `session`.
        salt: The session's commitment salt, kept with its key and erased with it; given with the first payload.
    """

    type: str
    fields: Fields
    leaves: tuple[Fields, ...] = ()
    payload: bytes | None = None
    session: SessionId | None = None
    salt: bytes | None = None


class SealedEntry(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """A journal entry: a record in its place in the log, and what is stored beside it.

    Attributes:
        seq: Its place, from 0.
        record: Canonical bytes of the record; what the chain and the tree hash.
        leaf_hash: Hash of `record` as a leaf of the tree.
        leaves: Canonical bytes of the leaves of a batch record.
        root: Root of those leaves, as in the record; empty without leaves.
        payload: Private bytes; None when there were none, or when they were erased.
        session: Whose record it is.
        salt: The session's commitment salt, where it was given and not erased.
        tiles: The tiles of the tree that this record completes: one record in 256 has any. What is read back has
            none, and is the same entry.
    """

    seq: int
    record: bytes
    leaf_hash: bytes
    leaves: tuple[bytes, ...] = ()
    root: bytes = b""
    payload: bytes | None = None
    session: SessionId | None = None
    salt: bytes | None = None
    tiles: tuple[CompletedTile, ...] = ()

    def __eq__(self, other: object) -> bool:
        """Compare all but the tiles."""
        return isinstance(other, SealedEntry) and self._stored() == other._stored()

    def __hash__(self) -> int:
        """Hash what is hashed in the log."""
        return hash(self.leaf_hash)

    def _stored(self) -> tuple[object, ...]:
        return self.seq, self.record, self.leaf_hash, self.leaves, self.root, self.payload, self.session, self.salt


def commitment(salt: bytes, value: bytes) -> str:
    """Return the hex commitment to `value`: it binds without revealing, for as long as the salt is secret."""
    return sha256(b"aipaging-commitment\x00" + len(salt).to_bytes(2, "big") + salt + value).hexdigest()


def text(value: object) -> bool:
    """Accept any string (ASCII is checked where it is encoded)."""
    return type(value) is str


def name(value: object) -> bool:
    """Accept a string that is not empty."""
    return type(value) is str and bool(value)


def count(value: object) -> bool:
    """Accept a non-negative integer that every JSON reader holds exactly."""
    return type(value) is int and 0 <= value <= INTEGER_MAX


_HEX = re.compile(r"[0-9a-f]{64}").fullmatch


def digest(value: object) -> bool:
    """Accept a hex SHA-256."""
    return type(value) is str and _HEX(value) is not None


_DIGESTS = re.compile(r"(?:sha256:)?[0-9a-f]{64}|[0-9a-f]{64}(?:,[0-9a-f]{64}){1,15}").fullmatch


def digests(value: object) -> bool:
    """Accept hex SHA-256s with commas between, or one over such a list."""
    return type(value) is str and _DIGESTS(value) is not None


def one_of(*allowed: str) -> Kind:
    """Return the kind of the given words."""
    return frozenset(allowed).__contains__


def one_of_numbers(*allowed: int) -> Kind:
    """Return the kind of the given numbers."""
    return frozenset(allowed).__contains__


COMMON: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "v": frozenset({RECORD_VERSION}).__contains__,
        "seq": count,
        "type": name,
        "node": name,
        "boot": name,
        "term": count,
        "wall_us": count,
        "boot_us": count,
        "prev": digest,
    }
)
"""The fields of every record."""

_EPOCH: Final[dict[str, Kind]] = {"epoch_term": count, "epoch_n": count}
_SESSION: Final[dict[str, Kind]] = {"session": name}
_SWITCH: Final[dict[str, Kind]] = {"kind": one_of("TENANT", "SERVICE", "ANCHOR", "ALL"), "name": text, "reason": text}
_SPEND: Final[dict[str, Kind]] = {"tenant": name, "for_session": name, "period": count, "amount": count}
_BATCH: Final[dict[str, Kind]] = {"count": count, "root": digest}
_CALLER: Final[dict[str, Kind]] = {**_SESSION, "tenant": name, "client": name}
_RELOCATION: Final[dict[str, Kind]] = {**_SESSION, "relocation": name, "cause": name, "source": text, "target": text}

AUDIT_FIELDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "audit": name, "contract": digest, "envelope": text, "domain": name, "tenant": text, "delay_ms": name,
        "epsilon": name, "clock_error_ms": name, "period_start_us": count, "period_end_us": count,
        "expected_requests": count, "offset_ms": text, "prefactor": text, "decay_per_ms": text, "estimand": name,
        "verdict": one_of("compliant", "violated", "insufficient_evidence"), "reason": name, "requests": count,
        "observed": count, "missing": count, "allowed": count, "exceedances_low": count, "exceedances_high": count,
        "method": name, "alpha": name, "alpha_each": name, "multiplicity": name, "family": count, "sampled": count,
        "seed": text, "root": text, "committed": count, "log_e": text, "software": name, "account": text,
    }
)  # fmt: skip
"""What an alarm or a verdict was computed from; numbers that are no integers are decimal texts, "" is nothing."""

RECORD_TYPES: Final[Mapping[str, Mapping[str, Kind]]] = MappingProxyType(
    {
        "TERM_STARTED": {
            "previous_term": count, "drift_ppm": count, "grace_ms": count, "drain_ms_max": count,
            "lease_ms_max": count, "software": text,
        },
        "SETTINGS_CHANGED": {
            "lease_ms": count, "anchor_lost_ms": count, "prepare_ms_max": count, "retry_ms": count,
            "relocations_per_s": count, "kept_ms": count, "duration_s_max": count, "sessions_max": count,
        },
        "SERVICE_REGISTERED": {"aisi": name, "digest": digest},
        "SERVICE_REMOVED": {"aisi": name},
        "DOMAIN_REGISTERED": {"domain": name, "kind": name, "capacity_mrps": count, "digest": digest},
        "ENVELOPE_ACCEPTED": {
            "domain": name, "segment": text, "digest": digest, "sequence": count, "valid_from_us": count,
            "valid_until_us": count, "key_id": text,
        },
        "ENVELOPE_SUSPECTED": {"domain": name, "segment": text, "digest": digest, "reason": text},
        "ENVELOPE_CLEARED": {"domain": name, "segment": text, "digest": digest},
        "AUDIT_ALARM": AUDIT_FIELDS,
        "AUDIT_VERDICT": AUDIT_FIELDS,
        "TRUST_CHANGED": {"domain": name, "stated": count, "trust": count, "cause": name},
        "KEYS_REGISTERED": {
            "domain": name, "digest": digest, "key_ids": text, "source": one_of("FILE", "URL", "API"),
        },
        "PATH_REGISTERED": {"access": name, "compute": name, "digest": digest},
        "ANCHOR_REGISTERED": {"anchor": name, "domain": name, "aisi": name, "capacity_mrps": count},
        "ANCHOR_STATE_CHANGED": {
            "anchor": name, "state": one_of("UNKNOWN", "READY", "DRAINING", "LOST", "REMOVED"), "cause": text,
        },
        "SESSION_REQUESTED": {**_CALLER, "aisi": name, "duration_ms": count, "intent_commitment": digest},
        "SESSION_REFUSED": {
            **_CALLER, "constraint": name, "candidates": count, "policies": text, "intent_commitment": digest,
        },
        "COMMIT_GRANTED": {
            **_SESSION, "tenant": name, "aisi": name, "anchor": name, "domains": text, **_EPOCH, "lease_ms": count,
            "rate_mrps": count, "burst": count, "delay_us": count, "epsilon": name, "epsilon_bound": name,
            "rung": name, "assumptions": text, "envelopes": digests,
            "cause": one_of("PAGED", "RELOCATION", "RELOCATION_FAILED", "RECOVERY"),
        },
        "COMMIT_REBOUND": {
            **_SESSION, **_EPOCH, "epsilon_bound": name, "rung": name, "assumptions": text, "envelopes": digests,
        },
        "SESSION_DEGRADED": {**_SESSION, "constraint": name},
        "SESSION_RESTORED": _SESSION,
        "LEASES_RENEWED": _BATCH,
        "LEASES_REGRANTED": _BATCH,
        "COMMIT_REVOKED": {**_SESSION, **_EPOCH, "cause": text},
        "COMMIT_EXPIRED": {**_SESSION, **_EPOCH},
        "COMMIT_DRAINING": {**_SESSION, **_EPOCH, "drain_ms": count},
        "STEER_INSTALLED": {**_SESSION, "anchor": name, **_EPOCH, "gateway": name},
        "STEER_REMOVED": {**_SESSION, **_EPOCH, "gateway": name, "cause": text},
        "RESERVATION_RELEASED": {**_SESSION, "anchor": name, **_EPOCH},
        "RELOCATION_DETECTED": _RELOCATION,
        "RELOCATION_DECIDED": _RELOCATION,
        "RELOCATION_TARGET_PREPARED": _RELOCATION,
        "RELOCATION_SWITCHED": _RELOCATION,
        "RELOCATION_SOURCE_RELEASED": _RELOCATION,
        "RELOCATION_FAILED": _RELOCATION,
        "SESSION_EXTENDED": {**_SESSION, "duration_ms": count},
        "SESSION_ENDED": {**_SESSION, "status_info": name},
        "CLIENT_MOVED": {**_SESSION, "place_commitment": digest},
        "SINK_SET": {**_SESSION, "sinks": count, "sink_commitment": digest},
        "SESSION_FORGOTTEN": _SESSION,
        "SESSION_ERASED": {"for_session": name},
        "OPERATOR_ACTION": {"client": name, "tenant": name, "operation": name, "status": count, "correlator": text},
        "TENANT_REGISTERED": {
            "tenant": name, "sessions_max": count, "requests_mrps_max": count, "reserved_mrps_max": count,
            "spend_max": count, "period_s": count, "priority": name, "preempts": one_of_numbers(0, 1),
        },
        "SWITCH_KILLED": _SWITCH,
        "SWITCH_RESTORED": _SWITCH,
        "SPEND_CHARGED": {**_SPEND, "price": count},
        "SPEND_REFUNDED": _SPEND,
        "POLICIES_IN_FORCE": {"digest": text, "policies": count},
        "POLICY_APPLIED": {
            **_SESSION, "action": one_of("page", "relocate", "extend"), "anchor": name, "policies": text,
            "digest": digest,
        },
        "ROOM_CLAIMED": {
            "tenant": name, "for_session": name, "priority": count, "anchor": name, "domains": text,
            "rate_mrps": count, "burst": count, "until_us": count,
        },
        "ROOM_LET_GO": {
            "tenant": name, "for_session": name, "cause": one_of("TAKEN", "EXPIRED", "KILLED"),
        },
        "SESSION_PREEMPTED": {
            **_SESSION, "priority": count, "by_session": name, "by_priority": count,
        },
        "SESSIONS_METERED": _BATCH,
    }
)  # fmt: skip
"""Type -> the fields that it must have, and what each may hold."""

EARLIER_TYPES: Final[Mapping[str, Mapping[str, Kind]]] = MappingProxyType(
    {
        "ENVELOPE_ACCEPTED": {"domain": name, "digest": digest, "sequence": count, "valid_until_us": count},
        "SESSION_REFUSED": {**_CALLER, "constraint": name, "candidates": count, "intent_commitment": digest},
        "COMMIT_GRANTED": {
            key: kind for key, kind in RECORD_TYPES["COMMIT_GRANTED"].items() if key != "assumptions"
        } | {"envelopes": digest},
    }
)  # fmt: skip
"""The fields of types as earlier software wrote them: logs are kept for years, and are read as they are."""

LEAF_TYPES: Final[Mapping[str, Mapping[str, Kind]]] = MappingProxyType(
    {
        "LEASES_RENEWED": {**_SESSION, **_EPOCH, "renewal": count, "lease_ms": count},
        "LEASES_REGRANTED": {**_SESSION, "anchor": name, **_EPOCH, "lease_ms": count},
        "SESSIONS_METERED": {**_SESSION, "tenant": name, "anchor": name, "requests": count, "tokens": count},
    }
)
"""Batch type -> the fields of each leaf."""


class _Shape:
    """The fields of a type, sorted by kind, so that the usual answer (it fits) costs a fraction of a call a field."""

    __slots__ = ("_counts", "_fields", "_kinds", "_names", "_of", "_others")

    def __init__(self, of: str, kinds: Mapping[str, Kind]) -> None:
        self._of = of
        self._kinds = kinds
        self._fields = frozenset(kinds)
        self._counts = tuple(key for key, kind in kinds.items() if kind is count)
        self._names = tuple(key for key, kind in kinds.items() if kind is name)
        self._others = tuple((key, kind) for key, kind in kinds.items() if kind not in {count, name})

    def fault(self, values: Mapping[str, object]) -> str | None:
        """Return in a sentence what is wrong, or None."""
        return None if self._fits(values) else self._why(values)

    def _fits(self, values: Mapping[str, object]) -> bool:
        if len(values) != len(self._fields) or not self._fields.issuperset(values):
            return False
        for key in self._counts:
            value = values[key]
            if type(value) is not int or not 0 <= value <= INTEGER_MAX:
                return False
        for key in self._names:
            value = values[key]
            if type(value) is not str or not value:
                return False
        for key, kind in self._others:  # noqa: SIM110 - a generator here costs as much as the checks
            if not kind(values[key]):
                return False
        return True

    def _why(self, values: Mapping[str, object]) -> str:
        for key, kind in self._kinds.items():
            if key not in values:
                return f"{self._of} lacks the field {key!r}"
            if not kind(values[key]):
                return f"{self._of} has {key} = {str(values[key])[:80]!r}, which that field may not hold"
        return f"{self._of} has the unknown field {min(set(values) - self._fields)!r}"


_RECORD_SHAPES: Final = {of: _Shape(of, {**COMMON, **kinds}) for of, kinds in RECORD_TYPES.items()}
_EARLIER_SHAPES: Final = {of: _Shape(of, {**COMMON, **kinds}) for of, kinds in EARLIER_TYPES.items()}
_LEAF_SHAPES: Final = {of: _Shape(f"a leaf of {of}", kinds) for of, kinds in LEAF_TYPES.items()}


def record_fault(record: Mapping[str, object]) -> str | None:
    """Return in a sentence what is wrong with a whole record (common fields included), or None."""
    record_type = record.get("type")
    shape = _RECORD_SHAPES.get(record_type) if isinstance(record_type, str) else None
    if shape is None or not isinstance(record_type, str):
        return f"the record type {record_type!r} is not known"
    fault = shape.fault(record)
    earlier = _EARLIER_SHAPES.get(record_type) if fault is not None else None
    return fault if earlier is None or earlier.fault(record) is not None else None


def leaf_fault(record_type: str, leaf: Mapping[str, object]) -> str | None:
    """Return in a sentence what is wrong with a leaf of a batch record, or None."""
    return _LEAF_SHAPES[record_type].fault(leaf)


def canonical_record(record: Fields) -> bytes:
    """Return the canonical bytes of a whole record, checked against its type.

    Raises:
        AipagingError: The record does not fit its type; records are built by us, so this is a bug of ours.
    """
    if fault := record_fault(record):
        raise malformed(fault)
    encoded = encoded_ascii(record)
    if len(encoded) > RECORD_BYTES_MAX:
        raise malformed(f"the record has {len(encoded)} bytes, {RECORD_BYTES_MAX} are allowed")
    return encoded


def canonical_leaf(record_type: str, leaf: Fields) -> bytes:
    """Return the canonical bytes of a leaf of a batch record, checked against its type.

    Raises:
        AipagingError: The leaf does not fit.
    """
    if fault := leaf_fault(record_type, leaf):
        raise malformed(fault)
    return encoded_ascii(leaf)


def encoded_ascii(fields: Fields) -> bytes:
    """Return what `canonical_json` returns for fields whose kinds were checked: only ASCII is left to check.

    Raises:
        AipagingError: A string is not ASCII.
    """
    encoded = _ENCODER.encode(fields)
    if not encoded.isascii():
        raise malformed("a field is not ASCII")
    return encoded


def malformed(what: str) -> AipagingError:
    """Return the error for a record or leaf that does not fit its type."""
    return AipagingError(what, code="RECORD_MALFORMED", who=Who.BUG)

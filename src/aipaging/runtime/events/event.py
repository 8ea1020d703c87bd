"""One evidence record as one event: its name, its id, whom it concerns, and its CloudEvents 1.0.2 form.

An event is a function of its record alone, so that it is the same from memory, from the journal, before and after a
restart. Its id is `<seq>-<first 8 hex digits of the record's leaf hash>`: the number orders events and says where to
go on; the digits tell a history that was rewritten (a restored backup) from the one that the reader knew.

Not every record is told: what happens several times a minute without meaning for anybody but the verifier (renewals,
installations at gateways, releases of capacity) is left to the evidence.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

import msgspec

from aipaging.core.foundation.errors import InvalidInputError

TYPE_PREFIX: Final = "org.aipaging.ai-paging.v0."
"""CAMARA's scheme (`<organisation>.<api>.<version>.<event>`) under our own name."""

SILENT: Final = frozenset(
    {
        "LEASES_RENEWED",
        "LEASES_REGRANTED",
        "SESSION_REQUESTED",
        "STEER_INSTALLED",
        "STEER_REMOVED",
        "COMMIT_DRAINING",
        "RESERVATION_RELEASED",
        "SESSION_FORGOTTEN",
        "SINK_SET",
        "SESSIONS_METERED",
    }
)
"""Records that are no events. A type that is not named here is one: what is new is told rather than lost."""

OTHERS: Final = frozenset({"by_session"})
"""Whom a session made room for: in the evidence by its number alone, and not told here; it is another tenant's."""

_COMMON: Final = frozenset({"v", "seq", "type", "node", "boot", "term", "wall_us", "boot_us", "prev"})
_ID: Final = re.compile(r"(\d{1,16})(?:-([0-9a-f]{8}))?")
_HASH_DIGITS: Final = 8
_EPOCH_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ENCODER: Final = msgspec.json.Encoder()

GAP: Final = "events-gap"
"""The one event that is no record: what lies between two places is not told any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventId:
    """Where an event stands.

    Attributes:
        seq: The place of its record.
        mark: First digits of the record's leaf hash; "" when the reader knows only the number.
    """

    seq: int
    mark: str = ""

    def __str__(self) -> str:
        """Return the form on the wire."""
        return f"{self.seq}-{self.mark}" if self.mark else str(self.seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event.

    Attributes:
        id: Where it stands; of a gap, the last place that it covers.
        name: Such as `session-available`.
        wall_us: When, wall clock.
        session: Whose, or "".
        client: Who asked for the session, where the record says it, or "".
        tenant: Likewise.
        fields: The record's own fields, without the salted commitments and without other tenants.
    """

    id: EventId
    name: str
    wall_us: int
    session: str
    client: str
    tenant: str
    fields: Mapping[str, str | int]

    def document(self, source: str) -> bytes:
        """Return the event in the JSON format of CloudEvents 1.0.2.

        Args:
            source: Who tells: a URI; with the id it names the event for all time.
        """
        attributes: dict[str, Any] = {
            "specversion": "1.0",
            "id": str(self.id),
            "source": source,
            "type": TYPE_PREFIX + self.name,
            "time": (_EPOCH_START + timedelta(microseconds=self.wall_us)).isoformat().replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "sequence": f"{self.id.seq:016d}",
            "data": {_camel(key): value for key, value in self.fields.items()},
        }
        if self.session:
            attributes["subject"] = self.session
        return _ENCODER.encode(attributes)


def event_id(text: str) -> EventId:
    """Return the place that a reader names.

    Raises:
        InvalidInputError: It is no id of an event.
    """
    found = _ID.fullmatch(text)
    if found is None:
        raise InvalidInputError(
            f"{text[:40]!r} is not the id of an event: <number>-<8 hex digits> as it was received, or a number alone",
            field="lastEventId",
        )
    return EventId(seq=int(found[1]), mark=found[2] or "")


def mark_of(leaf_hash: bytes) -> str:
    """Return the part of an id that tells histories apart."""
    return leaf_hash.hex()[:_HASH_DIGITS]


class RecordHead(msgspec.Struct):
    """The fields that decide whether the rest is read."""

    type: str
    session: str = ""
    client: str = ""
    tenant: str = ""


_HEAD: Final = msgspec.json.Decoder(RecordHead)


def head_of(record: bytes) -> RecordHead:
    """Return the few fields of a record that say what it is and whose."""
    return _HEAD.decode(record)


def event_of(seq: int, record: bytes, leaf_hash: bytes) -> Event | None:
    """Return the event of a record, or None where it is not told.

    Args:
        seq: The record's place.
        record: Its canonical bytes.
        leaf_hash: Its hash as a leaf of the tree.
    """
    record_type = head_of(record).type
    if record_type in SILENT:
        return None
    fields: dict[str, str | int] = msgspec.json.decode(record)
    return Event(
        id=EventId(seq=seq, mark=mark_of(leaf_hash)),
        name=_name(record_type, fields),
        wall_us=int(fields["wall_us"]),
        session=str(fields.get("session", "")),
        client=str(fields.get("client", "")),
        tenant=str(fields.get("tenant", "")),
        fields=MappingProxyType(
            {
                key: value
                for key, value in fields.items()
                if key not in _COMMON and key not in OTHERS and not key.endswith("_commitment")
            }
        ),
    )


def gap_event(*, first: int, last: EventId, reason: str, wall_us: int) -> Event:
    """Return the event that says what is not told.

    Args:
        first: The first place that is left out.
        last: The last one: whoever resumes from this event goes on after it.
        reason: TOO_OLD (more than is replayed) or HISTORY_CHANGED (the reader knew another history).
        wall_us: Now.
    """
    return Event(
        id=last,
        name=GAP,
        wall_us=wall_us,
        session="",
        client="",
        tenant="",
        fields=MappingProxyType({"first_seq": first, "last_seq": last.seq, "reason": reason}),
    )


def _name(record_type: str, fields: Mapping[str, str | int]) -> str:
    if record_type == "COMMIT_GRANTED" and fields.get("cause") == "PAGED":
        return "session-available"
    return record_type.lower().replace("_", "-")


def _camel(key: str) -> str:
    head, *rest = key.split("_")
    return head + "".join(part.capitalize() for part in rest)

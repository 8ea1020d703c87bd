"""Whose doing an access-log entry is: the service's, or its client's.

A client must not be able to make a service late by what it sends, or how it reads. So every delay is an interval: up to
its end as the client saw it, and from what the client surely had no part in. Taken off are the time in which the
request's body was still coming, and whatever passed after the answer began where the answer is larger than what the
gateway holds for a slow reader. A failure counts as the service's unless the client may have brought it about; then
it is unknown. The table is in docs/background/audit.md.

Both forms of the log, protobuf and JSON, are judged here.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from aipaging.core.audit.telemetry import Status

TIMEOUTS: Final = frozenset(
    {"upstream_request_timeout", "stream_idle_timeout", "duration_timeout", "upstream_max_stream_duration_reached"}
)
"""Flags of a request that ran out of time; whose time it was, the bytes say."""

CLIENT_FLAGS: Final = frozenset(
    {
        "downstream_connection_termination",
        "downstream_remote_reset",
        "downstream_protocol_error",
        "invalid_envoy_request_headers",
    }
)
"""Flags of a request that its client gave up or broke: late if it was late by then, else nothing is known."""

HELD_BYTES: Final = 32_768
"""A body up to here passes the gateway whoever dawdles on the other side: half the 64 KiB of an HTTP/2 stream's buffer.
HTTP/1.1 has a MiB; the smaller counts for both."""

REQUEST_TIMEOUT: Final = 408
TOO_MANY: Final = 429


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What an entry says of one request; instants in microseconds since its first byte, negative where unknown.

    Attributes:
        flags: Response flags that are raised, as in `envoy.data.accesslog.v3.ResponseFlags`.
        code: HTTP status that the client got, 0 where none.
        request_bytes: Of the body that came from the client.
        answer_bytes: Of the body that went to it.
        whole_us: When the request had come in full; unknown where it never did.
        sent_us: When its first byte went to the anchor.
        begun_us: When the first byte of the answer came from there.
        answered_us: When the last came.
        ended_us: When the last byte went to the client, or when all was over.
        timed: Whether the anchor's sidecar says how long it took: an answer of the model server.
        excused: Whether the sidecar says that the request was beyond its session's guardrail, or outlived its lease.
    """

    flags: AbstractSet[str]
    code: int
    request_bytes: int
    answer_bytes: int
    whole_us: int
    sent_us: int
    begun_us: int
    answered_us: int
    ended_us: int
    timed: bool
    excused: bool

    @property
    def is_read_slowly(self) -> bool:
        """Whether a slow reader can have held the answer up."""
        return self.answer_bytes > HELD_BYTES

    def status(self) -> Status:
        """Return how the request ended, UNKNOWN where its client may have ended it."""
        if self.flags & CLIENT_FLAGS or self.code == REQUEST_TIMEOUT or self.excused:
            return Status.UNKNOWN
        status = self._unexcused()
        # An anchor gives up a body that does not come, and a reader that does not read.
        perhaps = self.whole_us < 0 or (self.begun_us >= 0 and self.is_read_slowly)
        return Status.UNKNOWN if status != Status.OK and perhaps else status

    def _unexcused(self) -> Status:
        if self.flags & TIMEOUTS:
            return Status.TIMEOUT
        if self.code == 0:
            return Status.LOST
        if self.flags or self.code >= 500 or self.code == TOO_MANY:
            return Status.ERROR
        # What the model server answers to a bad request is an answer; the sidecar's own refusal is none.
        refused = self.code >= 400 and self.sent_us >= 0 and not self.timed
        return Status.UNKNOWN if refused else Status.OK

    def least_first_us(self) -> int:
        """Return the least that the service took until its answer began, or until it was over without one."""
        if self.whole_us < 0:
            return 0
        return max(0, (self.begun_us if self.begun_us >= 0 else self.ended_us) - self.whole_us)

    def least_total_us(self) -> int:
        """Return the least that the service took for the whole answer, as far as it came."""
        if self.whole_us < 0 or (self.is_read_slowly and self.begun_us >= 0):
            return self.least_first_us()
        return max(0, (self.answered_us if self.answered_us >= 0 else self.ended_us) - self.whole_us)

    def least_anchor_us(self, anchor_us: int) -> int:
        """Return the least of an anchor's own time: it cannot compute on a body that has not come.

        Args:
            anchor_us: From the request's head to the answer's, as the anchor's sidecar says; negative where unknown.
        """
        if anchor_us < 0:
            return anchor_us
        if self.whole_us < 0 or self.sent_us < 0:
            return 0
        return max(0, anchor_us - max(0, self.whole_us - self.sent_us))

    def most_anchor_us(self, anchor_us: int) -> int:
        """Return the most of it: whoever reads a large body slowly holds its client back."""
        return anchor_us if self.request_bytes > HELD_BYTES or self.whole_us < 0 else self.least_anchor_us(anchor_us)

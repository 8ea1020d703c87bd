"""One request's way: lease gate, fair queue, upstream, and its answer's way back.

Stages only move forward, but for one retry of a request that may be repeated:

    ASKING -> QUEUED -> CONNECTING -> SENT -> STREAMING -> OVER

Bytes of bodies are passed on as they arrive and are never gathered, but for what a client sends before its request has
a connection (bounded by holding the client back). A response that has begun ends in one of two ways: whole, or
visibly broken. Broken means that the connection is closed without the body's end; a stream of events gets an error
event first, whenever the client reads fast enough to receive it. A cut never waits for a slow reader.
"""

import enum
from collections.abc import Callable
from typing import Final

from aipaging.adapters.sidecar.answers import (
    CLOSE,
    CLOSING,
    FENCED,
    LEASE_ENDED,
    LEASE_ENDED_MEANWHILE,
    UPSTREAM_BROKEN,
    UPSTREAM_SILENT,
    UPSTREAM_UNREACHABLE,
    Refusal,
    over_contract,
    queue_full,
    refusal_answer,
    repeat_answer,
)
from aipaging.adapters.sidecar.data_path import Asker, DataPath, Waiting
from aipaging.adapters.sidecar.framing import FramingError
from aipaging.adapters.sidecar.heads import RequestHead, ResponseBrokenError
from aipaging.adapters.sidecar.relay import ResponseRelay
from aipaging.adapters.sidecar.traces import RequestTrace, is_recorded
from aipaging.adapters.sidecar.upstream import UpstreamConnection
from aipaging.core.anchor.fair_queue import Ticket
from aipaging.core.foundation.names import SessionId, TenantId
from aipaging.core.foundation.time import BootUs
from aipaging.core.identity.claims import CommitClaims

BODY_AHEAD_BYTES_MAX: Final = 64 * 1024
"""Of a body whose request still waits; with a full queue of 1024 that is 64 MB."""

REPEATED_BYTES_MAX: Final = BODY_AHEAD_BYTES_MAX
"""Of the body of a request that the gateway is to repeat; the gateway keeps twice as much."""

_STALE: Final = frozenset({FENCED, LEASE_ENDED})
"""Refusals of an epoch: the gateway's knowledge may be old, so it is to ask again."""

NEVER_S: Final = float("inf")

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_EWMA: Final = 0.05
"""Weight of the newest answer in the mean service time: a few dozen answers of memory."""


class Stage(enum.IntEnum):
    """How far a request has come."""

    ASKING = 0
    QUEUED = 1
    CONNECTING = 2
    SENT = 3
    STREAMING = 4
    OVER = 5


class Exchange:
    """A request and its response."""

    __slots__ = (
        "_arrived_us",
        "_body",
        "_body_bytes",
        "_body_done",
        "_call_off",
        "_connection",
        "_dispatched_us",
        "_entered",
        "_head",
        "_path",
        "_relay",
        "_retried",
        "_reused",
        "_side",
        "_slot_of",
        "_slotted",
        "_stage",
        "_stale",
        "_tenant",
        "_ticket",
        "_trace",
        "claims",
        "deadline_s",
        "passed",
    )

    claims: CommitClaims

    def __init__(self, path: DataPath, side: Asker, head: RequestHead) -> None:
        self._path = path
        self._side = side
        self._head = head
        self._stage = Stage.ASKING
        self._stale: Refusal | None = None
        self._tenant = ""
        self._entered = False
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._body_done = False
        self._connection: UpstreamConnection | None = None
        self._call_off: Callable[[], object] | None = None
        self._ticket: Ticket[Waiting] | None = None
        self._slot_of = ""
        self._slotted = False
        self._reused = False
        self._retried = False
        self._relay = ResponseRelay(head.method, head.target, self._added_fields)
        self._arrived_us = 0
        self._dispatched_us = 0
        self._trace: RequestTrace | None = None
        self.passed = False
        self.deadline_s = NEVER_S

    # -- through gate and queue ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Show the receipt."""
        path = self._path
        instruments = path.instruments
        if instruments.spans is not None and is_recorded(self._head.traceparent):
            self._trace = RequestTrace(instruments.spans, instruments.clocks, self._head.traceparent or b"")
        claims = path.gate.claims_of(self._head.commit)
        if isinstance(claims, Refusal):
            self.refused(claims)
            return
        self.claims = claims
        self._tenant = instruments.metrics.label(claims.tenant)
        if path.closing:
            self.refused(CLOSING)
            return
        self._arrived_us = instruments.clocks.boot_us()
        self._entered = True
        path.gate.enter(self)

    def admitted(self) -> None:
        """Take a slot, or a place in the queue."""
        path, claims = self._path, self.claims
        session, tenant, weight = claims.session, claims.tenant, claims.rate_mrps
        if not path.settings.reservations:
            session, tenant, weight = SessionId(""), TenantId(""), 1  # all in one line
        elif early_us := path.guardrails.too_early_us(session, weight, claims.burst, BootUs(self._arrived_us)):
            self.refused(over_contract(weight, claims.burst, early_us))
            return
        self._slot_of = tenant
        if path.queue.skip_line(flow=session, tenant=tenant, weight=weight):
            self.dispatched()
            return
        self._stage = Stage.QUEUED
        self._ticket = path.queue.enter(self, flow=session, tenant=tenant, weight=weight)
        if self._ticket is None:
            self.refused(queue_full(path.retry_after_s()))

    def refused(self, refusal: Refusal) -> None:
        """Answer with a refusal."""
        self._path.instruments.metrics.refused[self._tenant, refusal.code] += 1

        if refusal in _STALE and self._may_be_repeated():
            self._stale = refusal
            if self._body_done:
                self._ask_for_repetition()
            return
        self._answer_with(refusal)

    def _may_be_repeated(self) -> bool:
        """Whether the gateway can look the session up and send the request again: it keeps a short body for that."""
        head = self._head
        short = not head.has_body or self._body_done or not head.expects_continue
        return bool(head.scheme and head.host) and not head.refused and short and self._body_bytes <= REPEATED_BYTES_MAX

    def _ask_for_repetition(self) -> None:
        """Have the gateway repeat the request; only when its body is here, since only then does the gateway do so."""
        head, stale = self._head, self._stale
        assert stale is not None, "nothing was refused"  # noqa: S101 our own mistake
        self._stale = None
        location = b"%b://%b%b" % (head.scheme, head.host, head.target)
        answer = repeat_answer(stale, location, str(self.claims.epoch), close=head.close)
        self._end(stale.code)
        self._side.write(answer)
        self._side.request_over(keep=not head.close)

    def _answer_with(self, refusal: Refusal) -> None:
        close = self._head.close
        self._end(refusal.code)
        self._side.write(refusal_answer(refusal, close=close, with_body=self._head.method != b"HEAD"))
        self._side.request_over(keep=not close)

    def cut(self, reason: Refusal) -> None:
        """Stop now: the lease is over, or the upstream failed."""
        instruments = self._path.instruments
        instruments.metrics.cut[self._tenant, reason.code] += 1
        instruments.log.event(
            "cut",
            session=self.claims.session,
            epoch=str(self.claims.epoch),
            code=reason.code,
            stage=self._stage.name,
        )
        if self._stage < Stage.STREAMING:
            self._give_back(reason)
            return
        last = self._relay.last_event(reason)
        self._end(reason.code)
        self._side.break_off(last)

    def _give_back(self, reason: Refusal) -> None:
        """Leave a request whose answer has not begun to whoever can repeat it, at the session's next anchor.

        The gateway repeats what the model server has not seen; of anything else, the client has to know.
        """
        if reason is LEASE_ENDED and self._stage < Stage.SENT and self._body_done and self._may_be_repeated():
            self._stale = reason
            self._ask_for_repetition()
        else:
            self._answer_with(LEASE_ENDED_MEANWHILE if reason is LEASE_ENDED else reason)

    # -- to the upstream -------------------------------------------------------------------------------------------

    def dispatched(self) -> None:
        """Go to the upstream: a slot is ours."""
        path = self._path
        self._ticket = None
        self._slotted = True
        self._stage = Stage.CONNECTING
        self._dispatched_us = path.instruments.clocks.boot_us()
        metrics = path.instruments.metrics
        metrics.queue_delay.add(self._dispatched_us - self._arrived_us)
        metrics.in_flight[self._tenant] += 1
        if self._trace is not None:
            self._trace.dispatched()
        self._call_off = path.pool.acquire(self)

    def connected(self, connection: UpstreamConnection) -> None:
        """Send the head and what there is of the body."""
        self._call_off = None
        self._connection = connection
        self._reused = not connection.fresh
        self._stage = Stage.SENT
        self._await(self._path.settings.timeouts.first_byte_s)
        if self._body_bytes > BODY_AHEAD_BYTES_MAX:
            self._side.hold(held=False)  # before writing, which may hold the client back again
        connection.transport.writelines([self._upstream_head(), *self._body])
        self._body, self._body_bytes = [], 0
        if self._head.expects_continue:
            self._head.expects_continue = False
            if not self._body_done:
                self._side.write(_CONTINUE)

    def _upstream_head(self) -> bytes:
        head, upstream = self._head, self._path.settings.upstream
        framing = b""
        if head.chunked:
            framing = b"transfer-encoding: chunked\r\n"
        elif head.length is not None:
            framing = b"content-length: %d\r\n" % head.length
        if upstream.authorization is not None:
            framing += b"authorization: %b\r\n" % upstream.authorization
        if head.traceparent:
            passed_on = head.traceparent if self._trace is None else self._trace.passed_on
            framing += b"traceparent: %b\r\n" % passed_on
        return b"%b %b%b HTTP/1.1\r\nhost: %b\r\n%b%b\r\n" % (
            head.method,
            upstream.prefix,
            head.target,
            upstream.authority,
            head.fields,
            framing,
        )

    def connect_failed(self) -> None:
        """Say that there is no upstream."""
        self._call_off = None
        self.cut(UPSTREAM_UNREACHABLE)

    def body(self, piece: bytes) -> None:
        """Pass a piece of the request's body on, framing included."""
        if self._connection is not None:
            self._connection.send(piece)
            if self._stage is Stage.SENT:
                self._await(self._path.settings.timeouts.first_byte_s)
            return
        if self._stale is not None:
            self._body_bytes += len(piece)
            if self._body_bytes > REPEATED_BYTES_MAX:
                stale, self._stale = self._stale, None
                self._answer_with(stale)
            return
        self._body.append(piece)
        was, self._body_bytes = self._body_bytes, self._body_bytes + len(piece)
        if was <= BODY_AHEAD_BYTES_MAX < self._body_bytes:
            self._side.hold(held=True)

    def body_done(self) -> None:
        """The request is whole."""
        self._body_done = True
        if self._stale is not None:
            self._ask_for_repetition()

    def upstream_full(self, *, full: bool) -> None:
        """Hold the client back while the upstream does not take its body."""
        self._side.hold(held=full)

    # -- back to the gateway ---------------------------------------------------------------------------------------

    def upstream_bytes(self, piece: bytes) -> None:
        """Pass a piece of the response on."""
        relay = self._relay
        try:
            out = relay.feed(piece)
        except (ResponseBrokenError, FramingError) as error:
            self._broken(str(error))
            return
        if relay.begun:
            self._stage = Stage.STREAMING
            self._await(self._path.settings.timeouts.gap_s)
            if out:
                self._side.write(out)
            if relay.done:
                self._whole()

    def _added_fields(self) -> bytes:
        now_us = self._path.instruments.clocks.boot_us()
        waited_us, served_us = self._dispatched_us - self._arrived_us, now_us - self._dispatched_us
        self._path.instruments.metrics.first_byte_delay.add(served_us)
        return b"server-timing: queue;dur=%.3f, inference;dur=%.3f\r\n%b" % (
            waited_us / 1000,
            served_us / 1000,
            CLOSE if self._head.close else b"",
        )

    def _whole(self) -> None:
        path, relay = self._path, self._relay
        if relay.truncated:
            self._broken("the stream lacks its end")
            return
        connection, self._connection = self._connection, None
        if connection is not None:
            if relay.reusable and self._body_done:
                connection.give_back()
            else:
                connection.abort()
        path.service_us += _EWMA * (path.instruments.clocks.boot_us() - self._dispatched_us - path.service_us)
        path.instruments.metrics.requests[self._tenant, _outcome(relay.status)] += 1
        self._count()
        self._end()
        self._side.request_over(keep=not self._head.close)

    def upstream_lost(self, *, clean: bool) -> None:
        """The upstream closed: the end of some answers, the breaking of others."""
        self._connection = None
        if self._stage is Stage.OVER:
            return
        if self._relay.untouched and self._reused and self._head.may_be_repeated and not self._retried:
            # A kept connection that died as we wrote into it: the upstream has not begun to answer.
            self._retried = True
            self._stage = Stage.CONNECTING
            self._path.instruments.metrics.upstream_retries += 1
            self._call_off = self._path.pool.acquire(self, fresh=True)
            return
        try:
            last = self._relay.closed(clean=clean)
        except ResponseBrokenError as error:
            self._broken(str(error))
            return
        self._side.write(last)
        self._whole()

    def _broken(self, why: str) -> None:
        self._path.instruments.log.event("upstream_broken", session=self.claims.session, why=why)
        self.cut(UPSTREAM_BROKEN)

    def gateway_full(self, *, full: bool) -> None:
        """Hold the upstream back while the gateway does not take its answer."""
        if self._connection is not None:
            self._connection.hold(held=full)
            if self._stage is Stage.STREAMING:
                # Whoever is held back is not late.
                self._await(NEVER_S if full else self._path.settings.timeouts.gap_s)

    def gateway_left(self) -> None:
        """The gateway closed its connection: nobody wants the answer any more."""
        if self._stage is not Stage.OVER:
            self._path.instruments.metrics.requests[self._tenant, "client_left"] += 1
            self._count()
            self._end("CLIENT_LEFT")

    def _count(self) -> None:
        """Count the request for its session, if it has been served."""
        if self._relay.status // 100 != 2:
            return
        tokens, metrics = self._relay.tokens, self._path.instruments.metrics
        if tokens is None:
            metrics.tokens_unsaid += 1
        else:
            metrics.tokens[self._tenant] += tokens
        self._path.meter.count(self.claims.session, tokens or 0)

    def overdue(self) -> None:
        """The upstream has kept us waiting for too long."""
        self._path.instruments.log.event("upstream_silent", session=self.claims.session, stage=self._stage.name)
        self.cut(UPSTREAM_SILENT)

    @property
    def unanswered(self) -> bool:
        """Whether nothing has been sent to the gateway yet."""
        return self._stage < Stage.STREAMING

    def _await(self, for_s: float) -> None:
        self.deadline_s = self._path.now_s + for_s

    def _end(self, code: str = "") -> None:
        """Let go of everything; the next request may have the slot. `code` says why, where it was no whole answer."""
        path = self._path
        if self._trace is not None:
            session = self.claims.session if self._entered else ""
            self._trace.over(status=self._relay.status, code=code, session=session)
            self._trace = None
        self._stage = Stage.OVER
        self.deadline_s = NEVER_S
        if self._call_off is not None:
            self._call_off()
            self._call_off = None
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
        if self._ticket is not None:
            path.queue.withdraw(self._ticket)
            self._ticket = None
        if self._entered:
            path.gate.leave(self)
        if self._slotted:
            self._slotted = False
            path.instruments.metrics.no_longer_in_flight(self._tenant)
            path.queue.release(self._slot_of)
            path.dispatch_waiting()


def _outcome(status: int) -> str:
    return f"{status // 100}xx"

"""A domain at run time: the packets in it, and the kernel that serves them."""

import math
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.simulation.kernels import batching, fifo, priority, sharing
from aipaging.simulation.kernels.streams import stream
from aipaging.simulation.scenario import Batching, Domain, Impairment, Recorded, Retry, Tenant

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Serve: TypeAlias = Callable[["Rows", float], None]

ROOM_FIRST: Final = 4096
"""Packets per row that there is room for at first; a row doubles when it is full."""


class Rows:
    """The packets in one place, a row per tenant: instant, work, instant of sending, and perhaps prompt of each."""

    def __init__(self, rows: int, fields: int = 3) -> None:
        self.cells = np.empty((rows, fields, ROOM_FIRST))
        self.counts = np.zeros(rows, np.int64)
        self.done = np.zeros(rows, np.int64)

    def room(self, row: int, packets: int) -> Floats:
        """Return the free part of a row, at least `packets` wide."""
        needed = int(self.counts[row]) + packets
        width = self.cells.shape[2]
        if needed > width:
            wider = np.empty((*self.cells.shape[:2], max(needed, 2 * width)))
            wider[:, :, :width] = self.cells
            self.cells = wider
        return self.cells[row, :, self.counts[row] :]

    def append(self, row: int, block: Floats, *, ordered: bool) -> None:
        """Add packets to a row; where they come out of order, the row is sorted behind what is already decided."""
        packets = block.shape[1]
        self.room(row, packets)[:, :packets] = block
        self.counts[row] += packets
        if not ordered and packets:
            waiting = self.cells[row, :, self.done[row] : self.counts[row]]
            waiting[:] = waiting[:, np.argsort(waiting[0], kind="stable")]

    def drop_done(self, row: int) -> None:
        """Forget the packets of a row that are done."""
        done, count = int(self.done[row]), int(self.counts[row])
        self.cells[row, :, : count - done] = self.cells[row, :, done:count]
        self.counts[row] = count - done
        self.done[row] = 0


class Station:
    """One domain at run time."""

    def __init__(
        self, domain: Domain, tenants: Sequence[Tenant], seed: np.random.SeedSequence, *, fields: int = 3
    ) -> None:
        self.rows = Rows(len(tenants) * (domain.retry.attempts_max if domain.retry else 1), fields)
        together = domain.batching is None and domain.delays is None and domain.retry is None
        self.ordered = domain.servers == 1 and together
        lossy = (domain.impairment, domain.delays, domain.retry)
        self.may_lose = domain.loses or any(each is not None for each in lossy)
        self._tenants = len(tenants)
        self._retries = domain.retry is not None
        self._slots: Floats | None = None
        self._serve = self._kernel(domain, tenants, seed)

    def serve(self, horizon: float) -> None:
        """Decide all that can be decided up to the horizon."""
        if self._retries:
            waiting = int((self.rows.counts - self.rows.done).sum()) + self._held()
            for row in range(self._tenants, len(self.rows.counts)):
                self.rows.room(row, waiting)
        self._serve(self.rows, horizon)

    def served(self, row: int) -> Floats:
        """Return the packets of a row that left, and forget them. The array is good until the next call."""
        if not self._retries:
            return self._left(row)
        blocks = [self._left(each) for each in range(row, len(self.rows.counts), self._tenants)]
        whole = np.concatenate(blocks, axis=1)
        # Those that asked again left minus infinity behind; they are in the row of their next attempt.
        kept: Floats = whole[:, whole[0] != -math.inf]
        return kept

    def _held(self) -> int:
        return 0 if self._slots is None else int((self._slots[batching.LEFT] > 0.0).sum())

    def _left(self, row: int) -> Floats:
        rows = self.rows
        done = int(rows.done[row])
        if self._slots is not None:
            return _generated(rows, self._slots, row)
        block = rows.cells[row, :, :done].copy() if done else rows.cells[row, :, :0]
        rows.drop_done(row)
        return block

    def _kernel(self, domain: Domain, tenants: Sequence[Tenant], seed: np.random.SeedSequence) -> Serve:
        if domain.batching is not None:
            slots = self._slots = np.zeros((3, domain.batching.slots))
            return _batching(domain.batching, domain.latency_ms, slots, _terms(domain, len(tenants), seed))
        if domain.delays is not None:
            return _delaying(domain.delays, domain.latency_ms, len(tenants), seed)
        if domain.discipline == "reserved":
            return _reserved(domain, tenants)
        if domain.discipline == "fifo":
            return _fifo(domain, len(tenants), seed)
        return _chosen(domain, tenants)


def _generated(rows: Rows, slots: Floats, row: int) -> Floats:
    """Return the finished requests; those that hold a slot move to the front of the row, in their order."""
    taken = int(rows.done[row])
    begun = rows.cells[row, :, :taken]
    held = begun[1] < 0.0
    block = begun[:, ~held]
    places = np.cumsum(held) - 1
    mine = (slots[batching.LEFT] > 0.0) & (slots[batching.ROW] == row)
    slots[batching.PLACE, mine] = places[slots[batching.PLACE, mine].astype(np.int64)]
    keep = np.ones(int(rows.counts[row]), bool)
    keep[:taken] = held
    kept = rows.cells[row, :, : len(keep)][:, keep]
    rows.cells[row, :, : kept.shape[1]] = kept
    rows.counts[row] = kept.shape[1]
    rows.done[row] = int(held.sum())
    return block


Terms: TypeAlias = tuple[Floats, NDArray[np.uint64]]


def _terms(domain: Domain, tenants: int, seed: np.random.SeedSequence) -> Terms:
    """Return what `kernels.again` wants to know."""
    retry = domain.retry or Retry(error_probability=0.0, backoff_ms=0.0, attempts_max=1)
    return np.array([retry.error_probability, retry.backoff_ms, tenants]), stream(seed)


def _delaying(recorded: Recorded, latency_ms: float, tenants: int, seed: np.random.SeedSequence) -> Serve:
    """Give every tenant the record from a random place."""
    delays = recorded.delays_ms
    at = np.random.default_rng(seed).integers(len(delays), size=tenants)

    def serve(rows: Rows, horizon: float) -> None:
        for row in range(tenants):
            first, count = int(rows.done[row]), int(rows.counts[row])
            instants = rows.cells[row, 0, first:count]
            taken = int(np.searchsorted(instants, horizon, side="right"))
            instants[:taken] += delays[(at[row] + np.arange(taken)) % len(delays)] + latency_ms
            at[row] += taken
            rows.done[row] = first + taken

    return serve


def _batching(timing: Batching, latency_ms: float, slots: Floats, terms: Terms) -> Serve:
    each = (timing.iteration_ms, timing.per_slot_ms, timing.prefill_ms, latency_ms, timing.prefill_ms_per_token)
    engine = np.array([0.0, *each])

    def serve(rows: Rows, horizon: float) -> None:
        batching.batched((rows.cells, rows.counts, rows.done), slots, engine, *terms, horizon)

    return serve


def _fifo(domain: Domain, count: int, seed: np.random.SeedSequence) -> Serve:
    server = priority.new_server(1.0 / domain.rate_per_ms, domain.latency_ms)
    if domain.impairment is not None:
        return _impaired(domain.impairment, server, seed)
    if domain.servers > 1 or domain.loses or domain.retry is not None:
        return _several(domain, _terms(domain, count, seed))

    def alone(rows: Rows, horizon: float) -> None:
        rows.done[0] = fifo.fifo_alone(rows.cells[0], int(rows.counts[0]), server, horizon)

    def merged(rows: Rows, horizon: float) -> None:
        fifo.fifo_merged(rows.cells, rows.counts, rows.done, server, horizon)

    return alone if count == 1 else merged


def _several(domain: Domain, terms: Terms) -> Serve:
    fixed = [0.0, 1.0 / domain.rate_per_ms, domain.latency_ms, domain.buffer_work]
    servers = np.concatenate([fixed, np.zeros(domain.servers)])
    room = np.zeros(0)
    if domain.buffer_packets < math.inf:
        room = np.full(1 + int(domain.buffer_packets) - domain.servers, -math.inf)
        room[0] = 1.0

    def serve(rows: Rows, horizon: float) -> None:
        fifo.fifo_several((rows.cells, rows.counts, rows.done), servers, room, *terms, horizon)

    return serve


def _impaired(link: Impairment, server: Floats, seed: np.random.SeedSequence) -> Serve:
    dice = stream(seed)
    server[priority.MEAN : priority.MEAN + 2] = link.mean_good_ms, link.mean_bad_ms
    server[priority.SLOWNESS_BAD] = 1.0 / link.bad_rate_per_ms if link.bad_rate_per_ms else math.inf
    server[priority.LOSS : priority.LOSS + 2] = link.loss_good, link.loss_bad
    # It begins as if a bad time had just ended.
    server[priority.STATE_BAD] = 1.0

    def serve(rows: Rows, horizon: float) -> None:
        priority.impaired(rows.cells, rows.counts, rows.done, server, dice, horizon)

    return serve


def _reserved(domain: Domain, tenants: Sequence[Tenant]) -> Serve:
    rates = np.array([tenant.reserved_rate_per_ms[domain.name] for tenant in tenants])
    if domain.work_conserving:
        flows = np.vstack([rates, np.full(len(rates), math.inf)])
        clock = np.array([0.0, 0.0, domain.rate_per_ms, domain.latency_ms])

        def shared(rows: Rows, horizon: float) -> None:
            sharing.shared(rows.cells, rows.counts, rows.done, flows, clock, horizon)

        return shared
    servers = [priority.new_server(1.0 / rate, domain.latency_ms) for rate in rates]

    def dedicated(rows: Rows, horizon: float) -> None:
        for row, server in enumerate(servers):
            rows.done[row] = fifo.fifo_alone(rows.cells[row], int(rows.counts[row]), server, horizon)

    return dedicated


def _chosen(domain: Domain, tenants: Sequence[Tenant]) -> Serve:
    server = priority.new_server(1.0 / domain.rate_per_ms, domain.latency_ms)
    ranks = np.array([tenant.priority for tenant in tenants])

    def by_priority(rows: Rows, horizon: float) -> None:
        priority.priority(rows.cells, rows.counts, rows.done, ranks, server, horizon)

    if domain.discipline == "priority":
        return by_priority
    if domain.discipline == "round-robin":
        turns = np.zeros((4, len(tenants)))
        turns[0] = [tenant.quantum or 0.0 for tenant in tenants]
        turns[2] = math.inf
        server[priority.STATE_END] = -1.0

        def in_turn(rows: Rows, horizon: float) -> None:
            priority.deficit_round_robin(rows.cells, rows.counts, rows.done, turns, server, horizon)

        return in_turn
    tags = np.zeros((3, len(tenants)))
    tags[0] = [tenant.reserved_rate_per_ms[domain.name] for tenant in tenants]
    tags[2] = math.inf

    def by_tag(rows: Rows, horizon: float) -> None:
        priority.fair(rows.cells, rows.counts, rows.done, tags, server, horizon)

    return by_tag

"""Prometheus metrics: what was answered, what became durable, and what the control plane holds at a scrape.

Everything about sessions and leases is counted from the records as they become durable: a metric cannot say what the
evidence does not. Counters begin anew with each start, as Prometheus expects. Units are base units, counters end in
`_total`. No label holds what a client wrote.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.evidence.record import SealedEntry
from aipaging.core.foundation.time import SECOND
from aipaging.core.paging.state import State
from aipaging.ports.control import ControlPlane

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"

SECONDS: Final = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0)
"""Around the goal of a page, 3 ms at the median."""

BATCH_RECORDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096)
"""From one record a sync to the most that is synced at once."""


class _Noted(msgspec.Struct):
    """The fields of records that are counted by."""

    type: str
    cause: str = ""
    constraint: str = ""
    status_info: str = ""
    count: int = 0


_NOTED: Final = msgspec.json.Decoder(_Noted)


@dataclass(frozen=True, slots=True)
class ExpositionForm:
    """Another form than text.

    Attributes:
        media_type: Of what is written.
        fits: Whether an `Accept` header asks for it.
        written: Writes all metrics.
    """

    media_type: str
    fits: Callable[[str], bool]
    written: Callable[[Iterable[Metric]], bytes]


class Metrics:
    """The metrics of one controller, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._requests = Histogram(
            "aipaging_http_request_seconds",
            "Requests answered, by operation and status.",
            ["operation", "status"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._at_scrape: list[Callable[[], None]] = []
        self._forms: list[ExpositionForm] = []
        self._seen: Tally[tuple[str, str]] = Tally()
        self._make_gauges()
        self._make_counters()
        self._make_journal()

    def _make_gauges(self) -> None:
        self._healthy = self._gauge("aipaging_healthy", "1 if the engine may grant time.")
        self._gateway = self._gauge("aipaging_gateway_connected", "1 if a gateway is connected.")
        self._term = self._gauge("aipaging_term", "The present leadership.")
        self._sessions = self._gauge("aipaging_sessions_live", "Sessions that are AVAILABLE.")
        self._degraded = self._gauge("aipaging_sessions_degraded", "Live sessions whose contract is not provable now.")
        self._kept = self._gauge("aipaging_sessions_kept", "Sessions known, ended ones that are kept included.")
        self._reservations = self._gauge("aipaging_reservations", "Reservations held.")
        self._anchors = self._gauge("aipaging_anchors", "Anchors by state.", "state")
        self._streams = self._gauge("aipaging_event_streams", "Open event streams.")
        self._reserved = self._gauge(
            "aipaging_domain_reserved_requests_per_second", "Rate reserved in a domain.", "domain"
        )
        self._valid_until = self._gauge(
            "aipaging_envelope_valid_until_timestamp_seconds",
            "When the envelope in force ends, seconds since the epoch.",
            "domain",
            "segment",
        )
        self._suspect = self._gauge("aipaging_envelopes_suspect", "Envelopes that are not believed now.")
        self._killed = self._gauge("aipaging_kill_switches", "Kill switches in force.")
        self._refused = self._gauge(
            "aipaging_configuration_refused", "1 if the configuration file, when last read, was not taken."
        )
        self._policies = self._gauge("aipaging_policies_in_force", "1 if pages are decided by policies.")
        self._tenant_sessions = self._gauge("aipaging_tenant_sessions", "Live sessions of a tenant.", "tenant")
        self._tenant_rate = self._gauge(
            "aipaging_tenant_requests_per_second", "Sum of the rates of a tenant's live sessions.", "tenant"
        )
        self._waiting = self._gauge("aipaging_journal_waiting_commands", "Commands that wait for the journal.")
        self._notifying = self._gauge("aipaging_notifications_waiting", "Notifications that are not settled.")

    def _make_counters(self) -> None:
        self._pages = self._counter(
            "aipaging_pages", "Pages decided, by outcome; a refused one by the constraint.", "outcome", "constraint"
        )
        self._renewals = self._counter("aipaging_lease_renewals", "Leases renewed.")
        self._expiries = self._counter("aipaging_lease_expiries", "COMMITs that reached their deadline.")
        self._revocations = self._counter("aipaging_lease_revocations", "COMMITs revoked.")
        self._relocations = self._counter("aipaging_relocation_phases", "Phases entered.", "phase", "cause")
        self._ended = self._counter("aipaging_sessions_ended", "Sessions ended, by why.", "status_info")
        self._look_ups = self._counter("aipaging_look_ups", "Look-ups of gateways, by status.", "status")
        self._effects = self._counter("aipaging_effect_failures", "What did not come about in the user plane.", "kind")
        self._delivered = self._counter("aipaging_notifications_delivered", "Notifications that sinks acknowledged.")
        self._attempts = self._counter("aipaging_notification_failures", "Attempts that failed, by reason.", "reason")
        self._dead = self._counter("aipaging_dead_letters", "Notifications given up, by reason.", "reason")

    def _make_journal(self) -> None:
        self._records = self._counter("aipaging_journal_records", "Records made durable, by type.", "type")
        self._failures = self._counter("aipaging_journal_failures", "Appends that failed, by code.", "code")
        self._snapshots_failed = self._counter("aipaging_snapshot_failures", "Snapshots that were not taken.")
        self._behind = self._gauge(
            "aipaging_snapshot_behind_records", "Records since the newest snapshot: a recovery replays them."
        )
        self._first_seq = self._gauge(
            "aipaging_journal_file_first_record", "The first record of the file that is written: older ones are sealed."
        )
        self._files_failed = self._counter(
            "aipaging_journal_file_failures", "How often the journal could not go on in another file."
        )
        self._append = Histogram(
            "aipaging_journal_append_seconds",
            "Appends, from handing over to durable.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batch = Histogram(
            "aipaging_journal_batch_records", "Records in one append.", buckets=BATCH_RECORDS, registry=self._registry
        )

    def include(self, collector: Collector) -> None:
        """Let another part of the controller add its metrics; it is asked at every scrape."""
        self._registry.register(collector)

    def offer(self, form: ExpositionForm) -> None:
        """Write the metrics in another form, too, for those who ask for it."""
        self._forms.append(form)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def streams(self, count: int) -> None:
        """Take note of how many event streams are open."""
        self._streams.set(count)

    def observe(self, name: str, status: int, seconds: float, /) -> None:
        """Count one answer."""
        self._requests.labels(name, str(status)).observe(seconds)

    def looked_up(self, status: int) -> None:
        """Count one look-up of a gateway."""
        self._look_ups.labels(str(status)).inc()

    def at_scrape(self, read: Callable[[], None]) -> None:
        """Call this before every scrape."""
        self._at_scrape.append(read)

    # -- an observer of the engine

    def recovered(self, records: int) -> None:
        """What was before the start is not counted."""

    def append_failed(self, code: str) -> None:
        """Count a failed append."""
        self._failures.labels(code).inc()

    def effect_failed(self, kind: str) -> None:
        """Count what did not come about."""
        self._effects.labels(kind).inc()

    def appended(self, entries: Sequence[SealedEntry], seconds: float) -> None:
        """Count what became durable."""
        self._append.observe(seconds)
        self._batch.observe(len(entries))
        types: Tally[str] = Tally()
        for entry in entries:
            noted = _NOTED.decode(entry.record)
            types[noted.type] += 1
            self._note(noted)
        for record_type, count in types.items():
            self._records.labels(record_type).inc(count)

    def _note(self, noted: _Noted) -> None:
        match noted.type:
            case "LEASES_RENEWED":
                self._renewals.inc(noted.count)
            case "COMMIT_GRANTED" if noted.cause == "PAGED":
                self._pages.labels("admitted", "").inc()
            case "SESSION_REFUSED":
                self._pages.labels("refused", noted.constraint).inc()
            case "COMMIT_EXPIRED":
                self._expiries.inc()
            case "COMMIT_REVOKED":
                self._revocations.inc()
            case "SESSION_ENDED":
                self._ended.labels(noted.status_info).inc()
            case _ if noted.type.startswith("RELOCATION_"):
                self._relocations.labels(noted.type.removeprefix("RELOCATION_"), noted.cause).inc()
            case _:
                pass

    def notifications(
        self, *, delivered: int, failures: Mapping[str, int], given_up: Mapping[str, int], waiting: int
    ) -> None:
        """Take over what a courier has counted since it started."""
        self._notifying.set(waiting)
        self._delivered.inc(self._more("delivered", "", delivered))
        for reason, count in failures.items():
            self._attempts.labels(reason).inc(self._more("failures", reason, count))
        for reason, count in given_up.items():
            self._dead.labels(reason).inc(self._more("given up", reason, count))

    def _more(self, what: str, reason: str, count: int) -> int:
        more = count - self._seen[what, reason]
        self._seen[what, reason] = count
        return max(0, more)

    def configuration(self, *, refused: bool) -> None:
        """Take note of whether the configuration file was last taken."""
        self._refused.set(refused)

    def holds(self, *, gateway: bool, waiting: int) -> None:
        """Take note of what only the composition root knows."""
        self._gateway.set(gateway)
        self._waiting.set(waiting)

    def snapshots(self, *, failed: int, behind_records: int) -> None:
        """Take over what came of snapshots since the start."""
        self._snapshots_failed.inc(self._more("snapshots", "", failed))
        self._behind.set(behind_records)

    def journal_files(self, *, failed: int, first_seq: int) -> None:
        """Take over where the file that is written begins, and what came of going on in another."""
        self._files_failed.inc(self._more("journal files", "", failed))
        self._first_seq.set(first_seq)

    async def scraped(self, control: ControlPlane, accept: str = "") -> tuple[bytes, str]:
        """Return the exposition and its media type.

        Args:
            control: The engine.
            accept: What the scraper asks for; text where nothing is known that fits.
        """
        for read in self._at_scrape:
            read()
        await control.view(lambda state, _: self._read(state))
        self._healthy.set(control.healthy)
        for form in self._forms:
            if form.fits(accept):
                return form.written(self._registry.collect()), form.media_type
        return generate_latest(self._registry), TEXT

    def _read(self, state: State) -> None:
        self._term.set(state.term)
        self._sessions.set(state.live)
        self._kept.set(len(state.sessions))
        self._degraded.set(sum(session.available and session.degraded for session in state.sessions.values()))
        self._reservations.set(len(state.ledger))
        counts = dict.fromkeys(AnchorState, 0)
        for anchor in state.catalogue.anchors.values():
            counts[anchor.state] += 1
        for anchor_state, count in counts.items():
            self._anchors.labels(anchor_state.value).set(count)
        for domain in state.catalogue.domains:
            self._reserved.labels(domain).set(state.ledger.domain_mrps(domain) / 1000)
        self._read_tenants(state)
        self._suspect.set(len(state.catalogue.suspect))
        self._valid_until.clear()
        for envelope in state.catalogue.envelopes.values():
            self._valid_until.labels(envelope.domain, envelope.segment).set(envelope.valid_until_us / SECOND)

    def _read_tenants(self, state: State) -> None:
        tenancy = state.tenancy
        self._killed.set(len(tenancy.switches))
        self._policies.set(tenancy.policies is not None)
        self._tenant_sessions.clear()
        self._tenant_rate.clear()
        for tenant, account in tenancy.accounts.items():
            self._tenant_sessions.labels(tenant).set(len(account.sessions))
            self._tenant_rate.labels(tenant).set(account.requests_mrps / 1000)

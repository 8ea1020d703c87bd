"""What the continuous audit counts, as Prometheus metrics."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from aipaging.runtime.audit.live import AuditCounts


class AuditCollector(Collector):
    """Reads the counts at every scrape."""

    def __init__(self, counts: AuditCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics."""
        counts = self._counts
        requests = CounterMetricFamily(
            "aipaging_audit_requests", "Requests that gateways reported or should have, by what became of them.",
            labels=["outcome"],
        )  # fmt: skip
        for outcome, count in (
            ("counted", counts.records),
            ("missing", counts.missing),
            ("unknown", counts.unknown),
            ("unwatched", counts.unwatched),
        ):
            requests.add_metric([outcome], count)
        yield requests
        yield CounterMetricFamily(
            "aipaging_audit_malformed_messages", "Messages of gateways that could not be read.", value=counts.malformed
        )
        traces = CounterMetricFamily(
            "aipaging_audit_late_requests", "Requests that were late for certain, by whether their trace was kept.",
            labels=["trace"],
        )  # fmt: skip
        traces.add_metric(["kept"], counts.traces)
        traces.add_metric(["left_out"], counts.traces_left_out)
        yield traces
        findings = CounterMetricFamily(
            "aipaging_audit_findings", "Alarms and verdicts, by kind and verdict.", labels=["kind", "verdict"]
        )
        for (kind, verdict), count in counts.findings.items():
            findings.add_metric([kind, verdict], count)
        yield findings

"""What was wrong with the telemetry, each under its name, with what it did to the verdicts."""

from collections.abc import Mapping
from typing import Any, Final

from aipaging.core.audit.contract import END_TO_END
from aipaging.core.audit.period import PeriodAudit

EFFECTS: Final[Mapping[str, str]] = {
    "malformed_rows": "each counts as one request of which everything is unknown: it widens the counts",
    "unknown_status": "neither success nor failure: each widens the end-to-end counts by one",
    "missing_id": "may be copies of other requests: each widens the counts by one",
    "unknown_start": "cannot be placed: each widens the counts of every contract that has a period by one",
    "unknown_delay": "empty: each widens the counts of its domain by one",
    "unreadable_delay": "unknown: each widens the counts of its domain by one",
    "negative_delay": "cannot be true, so unknown: each widens the counts of its domain by one",
    "absurd_delay": "longer than a day, so unknown: each widens the counts of its domain by one",
    "domains_disagree": "domains together took longer than the request: the excess is taken from each domain for the "
    "lower count, and added to the whole for the upper count",
    "clock_step": "starts go back by more than a second: no delay changes, but requests near an end of a period may be "
    "on the wrong side of it, and windows of time are blurred",
    "duplicated_requests": "each counts once; where copies differ, it widens the counts",
    "conflicting_duplicates": "one copy exceeded and another did not: each widens the counts by one",
    "outside_period": "not counted for the contract",
    "missing_requests": "the period must hold them: each widens the counts by one",
    "surplus_requests": "more than the period was to hold: all are counted, and the contract allows for all",
    "domain_without_telemetry": "no column: every request of the contract is unknown",
    "no_request_in_period": "the contract's period has no request here (expired, or other telemetry): no verdict",
    "unknown_tenant": "may be any tenant's: each widens the counts of every contract that names a tenant by one",
    "unproven_openings": "not what was committed to: each counts as a record of which everything is unknown",
    "root_mismatch": "the records are not those that were committed to: no verdict",
    "tenants_unknown": "no column tenant: every request counts for every tenant's contract",
}
"""By the name of a flaw, up to its colon."""


def data_quality(audit: PeriodAudit) -> dict[str, Any]:
    """Return the document: rows, and each flaw with count and effect; flaws without a count are not listed."""
    flaws = dict(audit.scan.flaws.counts)
    flaws |= {
        name: count
        for name, count in (
            ("duplicated_requests", audit.scan.duplicates),
            ("conflicting_duplicates", audit.scan.conflicting),
        )
        if count
    }
    for index, verdict in enumerate(audit.verdicts):
        name = _name(verdict.contract.domain, verdict.contract.tenant)
        flaws |= {f"outside_period:{name}": audit.scan.outside[index]} if index in audit.scan.outside else {}
        flaws |= {f"missing_requests:{name}": verdict.missing} if verdict.missing else {}
        expected = verdict.contract.expected_requests
        if expected is not None and verdict.observed > expected:
            flaws[f"surplus_requests:{name}"] = verdict.observed - expected
        if verdict.contract.domain not in (*audit.domains, END_TO_END):
            flaws[f"domain_without_telemetry:{name}"] = verdict.observed
        if verdict.observed == 0:
            flaws[f"no_request_in_period:{name}"] = audit.layout.rows
    found = {name: {"count": count, "effect": EFFECTS[name.partition(":")[0]]} for name, count in flaws.items()}
    if "clock_step" in found:
        found["clock_step"]["largest_us"] = audit.scan.flaws.largest_step_us
    return {
        "rows": audit.layout.rows,
        "duplicates": audit.scan.duplicates,
        "first_start_us": audit.layout.first_us,
        "last_start_us": audit.layout.last_us,
        "domains": list(audit.domains),
        "flaws": found,
    }


def _name(domain: str, tenant: str | None) -> str:
    return domain if tenant is None else f"{domain}@{tenant}"

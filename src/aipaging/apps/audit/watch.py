"""Alarms from a telemetry file, in the order of its rows; alpha is divided among the contracts.

Rows whose id comes again are left out of the windows, all copies, and counted: a copy proves nothing early.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aipaging.adapters.telemetry.source import open_telemetry
from aipaging.apps.audit.contract_file import read_contracts
from aipaging.apps.audit.progress import Shown
from aipaging.core.audit.continuous import ChangeKind, ContinuousAudit, Counts
from aipaging.core.audit.layout import Layout, LayoutScan
from aipaging.core.audit.period import Table
from aipaging.core.audit.telemetry import Flaws
from aipaging.core.audit.windows import RequestWindows


def watch_telemetry(telemetry: Path, contract_file: Path, *, alpha: float, window: int) -> Iterator[dict[str, Any]]:
    """Yield an event per alarm when it is raised, then the last state of every contract.

    Raises:
        InvalidInputError: A file, or what it holds, cannot be audited.
    """
    contracts = read_contracts(contract_file).contracts
    flaws = [Flaws() for _ in contracts]
    cutters = [RequestWindows(contract, window) for contract in contracts]
    audits = [
        ContinuousAudit.begun(contract, alpha=alpha, family=len(contracts), window_requests=window)
        for contract in contracts
    ]
    with Shown(open_telemetry(telemetry), "watching") as table:
        layout, row = _layout(table), 0
        for batch in table.batches(ids=False, tenants=any(c.tenant is not None for c in contracts)):
            counted = None if layout.aside is None else ~layout.aside[row : row + len(batch)]
            row += len(batch)
            for index, cutter in enumerate(cutters):
                for late in cutter.add(batch, flaws[index], counted):
                    fed = Counts(requests=window, certain=late, possible=late)
                    audits[index], changes = audits[index].fed(fed)
                    if any(change.kind is ChangeKind.ALARM for change in changes):
                        yield _event("alarm", audits[index])
    aside = 0 if layout.aside is None else int(layout.aside.sum())
    for audit, cutter, found in zip(audits, cutters, flaws, strict=True):
        yield _event("end", audit) | {
            "requests_not_in_a_window": cutter.waiting,
            "repeated_rows_left_out": aside,
            "flaws": found.counts,
        }


def _layout(table: Table) -> Layout:
    scan = LayoutScan()
    for start_us, ids in table.identities():
        scan.add(start_us, ids)
    return scan.layout(())


def _event(kind: str, audit: ContinuousAudit) -> dict[str, Any]:
    contract = audit.contract
    return {
        "event": kind,
        "domain": contract.domain,
        "tenant": contract.tenant,
        "delay_ms": contract.delay_ms,
        "epsilon": contract.epsilon,
        "alarm": audit.alarmed,
        "raised_at_request": audit.alarmed_at,
        "windows": audit.alarm.windows,
        "window_requests": audit.window_requests,
        "alpha_each": audit.alarm.alpha,
        "log_e": audit.log_e,
        "log_e_max": max(audit.alarm.log_e_max, audit.log_e),
        "method": "beta-mixture" if contract.independent else "window-betting",
        "assumption": "requests are independent, as the contract attests"
        if contract.independent
        else "the expected fraction of each window, given those before, is epsilon at most",
    }


def event_line(event: dict[str, Any]) -> str:
    """Return an event for people."""
    if event["event"] == "alarm":
        return f"ALARM {event['domain']}: violated, after {event['raised_at_request']} requests"
    state = "alarm" if event["alarm"] else "no alarm"
    return f"{event['domain']}: {state}, {event['windows']} windows of {event['window_requests']} requests"

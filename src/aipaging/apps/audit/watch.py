"""Alarms from a telemetry file, in the order of its rows; alpha is divided among the contracts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aipaging.adapters.telemetry.source import open_telemetry
from aipaging.apps.audit.contract_file import read_contracts
from aipaging.core.audit.betting import WindowAlarm
from aipaging.core.audit.contract import Contract
from aipaging.core.audit.telemetry import Flaws
from aipaging.core.audit.windows import RequestWindows


def watch_telemetry(telemetry: Path, contract_file: Path, *, alpha: float, window: int) -> Iterator[dict[str, Any]]:
    """Yield an event per alarm when it is raised, then the last state of every contract.

    Raises:
        InvalidInputError: A file, or what it holds, cannot be audited.
    """
    contracts = read_contracts(contract_file).contracts
    table, flaws = open_telemetry(telemetry), Flaws()
    each = alpha / len(contracts)
    cutters = [RequestWindows(contract, window) for contract in contracts]
    alarms = [WindowAlarm(epsilon=contract.epsilon, alpha=each) for contract in contracts]
    for batch in table.batches(ids=False, tenants=any(c.tenant is not None for c in contracts)):
        for index, cutter in enumerate(cutters):
            for late in cutter.add(batch, flaws):
                before, alarms[index] = alarms[index], alarms[index].seen(late, window)
                if before.raised_at is None and alarms[index].raised_at is not None:
                    yield _event("alarm", contracts[index], alarms[index], window)
    for contract, alarm, cutter in zip(contracts, alarms, cutters, strict=True):
        yield _event("end", contract, alarm, window) | {"requests_not_in_a_window": cutter.waiting}


def _event(kind: str, contract: Contract, alarm: WindowAlarm, window: int) -> dict[str, Any]:
    return {
        "event": kind,
        "domain": contract.domain,
        "tenant": contract.tenant,
        "delay_ms": contract.delay_ms,
        "epsilon": contract.epsilon,
        "alarm": alarm.raised_at is not None,
        "raised_at_request": None if alarm.raised_at is None else alarm.raised_at * window,
        "windows": alarm.windows,
        "window_requests": window,
        "alpha_each": alarm.alpha,
        "log_e": alarm.log_e,
        "log_e_max": alarm.log_e_max,
        "method": "window-betting",
        "assumption": "the expected fraction of each window, given those before, is epsilon at most",
    }


def event_line(event: dict[str, Any]) -> str:
    """Return an event for people."""
    if event["event"] == "alarm":
        return f"ALARM {event['domain']}: violated, after {event['raised_at_request']} requests"
    state = "alarm" if event["alarm"] else "no alarm"
    return f"{event['domain']}: {state}, {event['windows']} windows of {event['window_requests']} requests"

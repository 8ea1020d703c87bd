"""Sessions, bounds and candidates as people read them."""

from collections.abc import Mapping, Sequence
from typing import Any

from aipaging.adapters.terminal.output import say, table
from aipaging.apps.cli.quantities import said_ms, said_probability


def show_session(session: Mapping[str, Any]) -> None:
    """Print a session for people."""
    status = session["status"] + (f" ({session['statusInfo']})" if session.get("statusInfo") else "")
    rows: list[tuple[str, object]] = [
        ("session", session["sessionId"]),
        ("status", f"{status}, {'ended' if session.get('statusInfo') else 'until'} {session['expiresAt']}"),
        ("service", session["aisi"]),
        ("anchor", session.get("anchorId")),
        ("gateway", session["gatewayUrl"]),
    ]
    commit = session.get("commit")
    if commit:
        epoch = commit["epoch"]
        left = f"{commit['remainingMs']:,} of {commit['leaseMs']:,} ms left"
        binding = f"{commit['ratePerSecond']:g} requests/s, burst {commit['burst']}"
        rows.append(("COMMIT", f"epoch {epoch['term']}.{epoch['n']}, {left}, {binding}"))
    contract = session.get("contract") or {}
    if contract.get("state") == "DEGRADED":
        rows.append(("contract", f"DEGRADED since {contract['since']}: {contract.get('reason', '')}"))
    relocation = session.get("relocation")
    if relocation:
        way = f"{relocation['sourceAnchorId']} -> {relocation.get('targetAnchorId', '?')}"
        rows.append(("relocation", f"{relocation['phase']} ({relocation['cause']}): {way}"))
    if session.get("aist"):
        rows.append(("token", session["aist"]))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        say(f"{name.ljust(width)}  {value}")
    if session.get("bound"):
        say()
        show_bound(session["bound"])


def show_bound(bound: Mapping[str, Any]) -> None:
    """Print a bound and the budget of every domain."""
    met = bound["epsilonBound"] <= bound["epsilon"]
    say(
        f"P(delay > {said_ms(bound['delayMs'])}, or lost, or failed) <= {said_probability(bound['epsilonBound'])}, "
        f"{'within' if met else 'above'} the {said_probability(bound['epsilon'])} asked for ({bound['rung']})",
        style="green" if met else "red",
    )
    table(
        ("domain", "delay budget", "P(exceeds)", "P(lost or failed)"),
        (
            (
                part["domain"],
                f"{part['delayMs']:.2f} ms",
                said_probability(part["epsilon"]),
                said_probability(part["failure"]),
            )
            for part in bound["budget"]
        ),
        right=(1, 2, 3),
        indent=2,
    )
    say(f"  assumes {', '.join(bound['assumptions'])}")


def show_candidates(candidates: Sequence[Mapping[str, Any]]) -> None:
    """Print every candidate with its bound, or with the constraint that it fails."""
    table(
        ("candidate", "service", "P(delay exceeds)", "refused by", "because"),
        (
            (
                candidate["anchorId"],
                candidate["aisi"],
                said_probability(candidate["bound"]["epsilonBound"]) if candidate.get("bound") else None,
                (candidate.get("rejection") or {}).get("constraint"),
                (candidate.get("rejection") or {}).get("message"),
            )
            for candidate in candidates
        ),
        right=(2,),
    )

"""What a run found, as a document and for people."""

from typing import Any

from aipaging.adapters.terminal.output import note, say, table
from aipaging.simulation.estimates import CONFIDENCE, Estimate
from aipaging.simulation.kernels.tally import MANTISSA_BITS
from aipaging.simulation.run import Outcome


def document(outcome: Outcome, *, timed: bool = True) -> dict[str, Any]:
    """Return what a run found as plain values; `timed` says whether how long it took is part of it."""
    load = outcome.load
    times = {
        "seconds": outcome.seconds,
        "packets_per_second": outcome.packets / outcome.seconds if outcome.seconds else None,
        "compile_seconds": outcome.compile_seconds,
    }
    return {
        "seed": outcome.seed,
        "packets": outcome.packets,
        **(times if timed else {}),
        "tenants": [
            {
                "name": tenant.name,
                "sent": tenant.sent,
                "lost": tenant.lost,
                "loss": {"probability": tenant.loss.value, "low": tenant.loss.low, "high": tenant.loss.high},
                "mean_ms": tenant.mean_ms.value,
                "mean_interval_ms": {"low": tenant.mean_ms.low, "high": tenant.mean_ms.high},
                "quantiles": {str(level): _interval(each) for level, each in tenant.quantiles.items()},
                "exceedance": [
                    {"target_ms": target, "probability": each.value, "low": each.low, "high": each.high}
                    for target, each in tenant.exceedance.items()
                ],
            }
            for tenant in outcome.tenants
        ],
        "queues": [{"name": queue.name, "utilisation": queue.utilisation} for queue in load.queues],
        "method": {
            "confidence": CONFIDENCE,
            "replications": outcome.replications,
            "warm_up_ms": load.warm_up_ms,
            "warm_up_packets": round(load.warm_up_ms * load.packets_per_ms) * outcome.replications,
            "intervals": "Student's t over independent replications",
            "quantile_resolution": 2.0**-MANTISSA_BITS,
            "lost_packets": "exceed every target; mean and quantiles are of the packets that arrived",
        },
        "warnings": list(outcome.warnings),
    }


def rows(outcome: Outcome) -> list[dict[str, Any]]:
    """Return what a run found as flat rows: one per tenant and metric."""
    found: list[dict[str, Any]] = []
    for tenant in outcome.tenants:
        named: list[tuple[str, float | None, Estimate]] = [("mean_ms", None, tenant.mean_ms)]
        named.append(("loss", None, tenant.loss))
        named += [("quantile_ms", level, each) for level, each in tenant.quantiles.items()]
        named += [("exceedance", target, each) for target, each in tenant.exceedance.items()]
        found += [
            {
                "tenant": tenant.name, "metric": metric, "at": at, "value": each.value, "low": each.low,
                "high": each.high, "sent": tenant.sent, "lost": tenant.lost, "seed": outcome.seed,
                "replications": outcome.replications,
            }
            for metric, at, each in named
        ]  # fmt: skip
    return found


def show(outcome: Outcome) -> None:
    """Print what a run found."""
    rows: list[tuple[str, ...]] = []
    for tenant in outcome.tenants:
        rows.append((tenant.name, f"sent {tenant.sent:,}", "", f"{tenant.lost:,} lost" if tenant.lost else ""))
        if tenant.lost:
            rows.append(("", "P(lost)", *_shown(tenant.loss, "")))
        rows.append(("", "mean", *_shown(tenant.mean_ms, " ms")))
        rows += [("", f"p{100 * level:g}", *_shown(each, " ms")) for level, each in tenant.quantiles.items()]
        rows += [("", f"P(delay > {target:g} ms)", *_shown(each, "")) for target, each in tenant.exceedance.items()]
    table(("tenant", "", "estimate", "95 % interval"), rows, right=(2,))
    rate = outcome.packets / outcome.seconds / 1e6 if outcome.seconds else 0.0
    say(
        f"{outcome.packets:,} packets in {outcome.replications} replications, seed {outcome.seed}, "
        f"{outcome.seconds:.2f} s ({rate:.1f} million packets/s); "
        f"the first {outcome.load.warm_up_ms:.4g} ms of each are left out"
    )
    for warning in outcome.warnings:
        note(f"warning: {warning}", style="yellow")


def _interval(each: Estimate) -> dict[str, float]:
    return {"value": each.value, "low": each.low, "high": each.high}


def _shown(each: Estimate, unit: str) -> tuple[str, str]:
    return f"{each.value:.5g}{unit}", f"{each.low:.5g} .. {each.high:.5g}"

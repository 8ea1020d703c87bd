"""What no single table of a scenario shows: capacity sold twice, and limits under which nothing fits."""

from collections.abc import Iterator, Sequence

from aipaging.simulation.laws import least_of
from aipaging.simulation.scenario import Domain, Tenant, Trace, Work


def contradictions(domains: Sequence[Domain], tenants: Sequence[Tenant]) -> Iterator[tuple[str, str]]:
    """Return the field and the message of everything that contradicts something else.

    Args:
        domains: In the order of the file.
        tenants: In the order of the file.
    """
    yield from _oversold(domains, tenants)
    for place, tenant in enumerate(tenants):
        bucket, least = tenant.bucket, _least(tenant, tenant.work)
        if bucket is not None and not bucket.holds and least > bucket.burst:
            yield (
                f"tenant[{place}].regulator.burst",
                f"the smallest packet brings {least:g}, more than may pass at once: all would be lost",
            )
    yield from _too_small(domains, tenants)


def _oversold(domains: Sequence[Domain], tenants: Sequence[Tenant]) -> Iterator[tuple[str, str]]:
    for index, domain in enumerate(domains):
        total = sum(tenant.reserved_rate_per_ms.get(domain.name, 0.0) for tenant in tenants)
        if domain.discipline == "reserved" and total > domain.rate_per_ms * (1.0 + 1e-9):
            yield (
                f"domain[{index}].rate_per_ms",
                f"domain {domain.name!r} does {domain.rate_per_ms:g} per ms; reserved are {total:g}: not sold twice",
            )


def _too_small(domains: Sequence[Domain], tenants: Sequence[Tenant]) -> Iterator[tuple[str, str]]:
    for index, domain in enumerate(domains):
        for tenant in tenants:
            least = _least(tenant, tenant.work_in(domain.name)) if domain.name in tenant.route else 0.0
            if least > domain.buffer_work:
                yield (
                    f"domain[{index}].buffer_work",
                    f"the smallest packet of tenant {tenant.name!r} brings {least:g}: all would be lost",
                )


def _least(tenant: Tenant, work: Work) -> float:
    """Return the least work of a tenant's packets."""
    if isinstance(tenant.arrivals, Trace) and tenant.arrivals.works is not None and work is tenant.work:
        return float(tenant.arrivals.works.min())
    return least_of(work)

"""The backlog of fluid on/off flows, exactly: [AnickMitraSondhi1982].

The coefficients of the spectral expansion are products of ratios of eigenvalues that alternate in sign, times sums of
eigenvectors that alternate as well: they are worked out in decimal arithmetic, and the largest term times the precision
is added on top.
Time is counted in mean on-periods, work in what one flow sends in one.
"""

from decimal import Decimal, localcontext
from typing import Final

from aipaging.core.calculus.errors import UnstableError, never_exceeds, overloaded
from aipaging.core.calculus.onoff import FluidOnOff
from aipaging.core.calculus.rounding import round_up, whole_below

FLOWS_MAX: Final = 400
"""Beyond it the sum takes longer than the `sharp` class allows; the martingale bound is used."""


def fluid_exact_tail(flows: FluidOnOff, capacity: float, backlog: float) -> float | None:
    """Return P(Q > backlog), rounded up; None with more than `FLOWS_MAX` flows.

    Raises:
        UnstableError: The mean rate reaches the capacity.
    """
    if overloaded(flows.mean_rate, capacity):
        raise UnstableError
    if never_exceeds(flows.peak_rate, capacity):
        return 0.0
    if flows.count > FLOWS_MAX:
        return None
    with localcontext() as context:
        context.prec = 60 + 2 * flows.count
        context.Emin, context.Emax = -(10**9), 10**9
        n = flows.count
        ratio = Decimal(flows.off_to_on) / Decimal(flows.on_to_off)
        level = Decimal(backlog) * Decimal(flows.on_to_off) / Decimal(flows.peak)
        c, servers = overloading_below(flows, capacity)
        return _sum_expansion(negative_eigenvalues(n, ratio, c, n - servers), n, ratio=ratio, c=c, level=level)


def overloading_below(flows: FluidOnOff, capacity: float) -> tuple[Decimal, int]:
    """Return C/P, and the most flows that do not overload it."""
    c = Decimal(capacity) / Decimal(flows.peak)
    servers = whole_below(capacity / flows.peak)
    if abs(c - servers) <= Decimal("1e-12") * max(servers, 1):
        # A state of zero drift makes the system singular: take the capacity a hair lower, the safe side.
        return Decimal(servers) * (1 - Decimal("1e-18")), servers - 1
    return c, servers


def _sum_expansion(values: list[Decimal], n: int, *, ratio: Decimal, c: Decimal, level: Decimal) -> float:
    base = (ratio / (1 + ratio)) ** n
    total, largest = Decimal(0), Decimal(0)
    for j, z in enumerate(values):
        product = base
        for i, other in enumerate(values):
            if i != j:
                product *= other / (other - z)
        k, first, second = eigenvector_factors(z, n, ratio, c)
        term = product * first**k * second ** (n - k) * (z * level).exp()
        total += term
        largest = max(largest, abs(term))
    allowance = largest * Decimal(10) ** (-50)
    return round_up(max(0.0, float(total + allowance)))


def negative_eigenvalues(n: int, ratio: Decimal, c: Decimal, count: int) -> list[Decimal]:
    """Return the `count` negative eigenvalues; the quadratics of k and n - k are the same one."""
    half, found = Decimal(n) / 2, list[Decimal]()
    for k in range(n // 2 + 1):
        a = (half - k) ** 2 - (half - c) ** 2
        b = 2 * (1 - ratio) * (half - k) ** 2 - n * (1 + ratio) * (half - c)
        d = -((1 + ratio) ** 2) * (half**2 - (half - k) ** 2)
        if 2 * k == n:
            found.append(-b / (2 * a))  # the discriminant is zero: one root
            continue
        root = (b * b - 4 * a * d).sqrt()
        stem = -(b + root) / 2 if b > 0 else (root - b) / 2
        found.extend((stem / a, d / stem))
    found = [z for z in found if z < 0]
    found.sort(reverse=True)
    return found[:count]


def eigenvector_factors(z: Decimal, n: int, ratio: Decimal, c: Decimal) -> tuple[int, Decimal, Decimal]:
    """Return (k, 1 - r1, 1 - r2): the eigenvector with last component 1 sums to (1 - r1)^k (1 - r2)^(n - k)."""
    b = z + 1 - ratio
    root = (b * b + 4 * ratio).sqrt()
    r1, r2 = (root - b) / (2 * ratio), (-b - root) / (2 * ratio)
    residue = (z * c - n * ratio + n * ratio * r1) / (ratio * (r1 - r2))
    return int(residue.to_integral_value()), 1 - r1, 1 - r2

"""Who made requests late: envelope-capped Shapley, which sums exactly and cannot blame whoever kept the contract.

Every delay D_i of a domain that may be blamed is capped at what its contract permits at its rank in the period,
min(D_i, G_i^-1(rank)), so the dependence between domains stays as it was. The game is v(S) = fraction of requests that
are late when the domains outside S are capped; v(none) is what the contracts permit, v(all) what was observed, and the
Shapley value of a domain is its blame:

    observed = permitted + sum of blame + unattributed.

*The gate:* only a domain whose own verdict is `violated` may be blamed; the others are never capped. What no domain
reported (the path's delay less the domains', capped at nought) plays along as a domain of its own, and its value goes
to `unattributed`, with the requests that were late and of which a domain, or all, is unknown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import factorial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aipaging.core.audit.contract import DOMAINS_MAX, Contract
from aipaging.core.audit.dice import Dice
from aipaging.core.audit.special import Floats
from aipaging.core.audit.telemetry import Integers

RESAMPLES: Final = 1000
"""Of the windows, for the intervals."""

CELLS_MAX: Final = 1 << 22
"""Requests times coalitions in memory at once: 32 MB."""

WINDOWS_FOR_INTERVALS_MIN: Final = 8
"""Windows with requests, without which no interval is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """What one domain added to the fraction of late requests, beyond what its contract permits.

    Attributes:
        blame: The fraction.
        low: Lower end of its 95 % interval over windows or sessions.
        high: Upper end.
        excess_share: Its share of the mean excess of late requests over all (centred Euler): where time was spent, a
            description, no blame. None where that is not defined.
        may_be_blamed: Whether its own verdict is `violated`.
    """

    blame: float
    low: float
    high: float
    excess_share: float | None
    may_be_blamed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """The account of one end-to-end contract.

    Attributes:
        contract: The contract.
        observed: Fraction of requests that exceeded.
        permitted: Fraction that would have, had every domain to blame kept its contract.
        domains: Blame, by domain.
        unattributed: Fraction that no domain's report explains.
        unexplained_requests: Late requests of which a domain is unknown, or which failed although they were quick.
    """

    contract: Contract
    observed: float
    permitted: float
    domains: Mapping[str, Blame]
    unattributed: float
    unexplained_requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Where some delays are among all delays of a domain in the period.

    Attributes:
        above: How many are longer.
        at_least: How many are as long or longer.
        population: How many there are.
    """

    above: Integers
    at_least: Integers
    population: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LateRequests:
    """The requests that exceeded end to end, and how many requests there were.

    Attributes:
        domains: Names of the columns of `delays_us`.
        delays_us: By request and domain, negative where unknown.
        end_to_end_us: Over the path, negative where unknown.
        window: Of each, or the group of its session, below `len(requests)`.
        requests: All requests, by window or group of sessions.
        weight: How many late requests each row stands for.
        means_us: Mean delay of all requests, by domain, for the description.
    """

    domains: Sequence[str]
    delays_us: Integers
    end_to_end_us: Integers
    window: Integers
    requests: Integers
    weight: float = 1.0
    means_us: Floats | None = None


def attribute(contract: Contract, late: LateRequests, caps_us: Mapping[str, Floats], dice: Dice) -> Attribution:
    """Return the account of an end-to-end contract.

    Args:
        contract: The contract.
        late: The requests that exceeded it.
        caps_us: What the contract permits each late request, by domain that may be blamed.
        dice: For the intervals.
    """
    count = int(late.requests.sum())
    domains = late.domains
    total = np.maximum(late.delays_us, 0).sum(axis=1)
    known = np.asarray(np.all(late.delays_us >= 0, axis=1), dtype=np.bool_)
    whole = np.where(late.end_to_end_us >= 0, np.maximum(late.end_to_end_us, total), total)
    explained = known & (whole > contract.delay_us)
    players = [name for name in domains if name in caps_us]
    reductions = _reductions(late, whole, caps_us, players)[explained]
    margin = np.asarray((whole - contract.delay_us)[explained], dtype=np.float64)
    worth = _coalitions(reductions, margin, late.window[explained], len(late.requests)) * late.weight
    values = _shapley(worth)
    unexplained = np.bincount(late.window[~explained], minlength=len(late.requests)) * late.weight
    values[:, -1] += unexplained
    blame = values.sum(axis=0) / max(count, 1)
    low, high = _intervals(values, late.requests, dice)
    shares = _excess_shares(late, known)
    column = {name: index for index, name in enumerate(players)}
    return Attribution(
        contract=contract,
        observed=len(late.window) * late.weight / max(count, 1),
        permitted=float(worth[:, 0].sum() / max(count, 1)),
        domains={
            name: Blame(
                blame=float(blame[column[name]]) if name in column else 0.0,
                low=float(low[column[name]]) if name in column else 0.0,
                high=float(high[column[name]]) if name in column else 0.0,
                excess_share=None if shares is None else float(shares[index]),
                may_be_blamed=name in column,
            )
            for index, name in enumerate(domains)
        },
        unattributed=float(blame[-1]),
        unexplained_requests=round(float(unexplained.sum())),
    )


def permitted_delays(contract: Contract, values_us: Integers, ranks: Ranks) -> Floats:
    """Return what a contract permits to late requests, by the rank of their delay in the period.

    Args:
        contract: The domain's contract.
        values_us: Delays of the late requests in that domain.
        ranks: Where those are among all delays of the period.
    """
    _, inverse, ties = np.unique(values_us, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    first = np.concatenate(([0], np.cumsum(ties)[:-1]))
    place = np.empty(len(values_us), dtype=np.int64)
    place[order] = np.arange(len(values_us)) - first[inverse[order]]
    # Equal delays share their ranks evenly: of a tie that is half permitted, half is permitted.
    rank = ranks.above + (place + 1.0) * (ranks.at_least - ranks.above) / ties[inverse]
    return contract.permitted_us(rank / max(ranks.population, 1))


def _reductions(late: LateRequests, whole: Integers, caps_us: Mapping[str, Floats], players: Sequence[str]) -> Floats:
    """Return by how much capping shortens each request, by player; the last is what no domain reported."""
    columns = [np.maximum(late.delays_us[:, late.domains.index(name)] - caps_us[name], 0.0) for name in players]
    columns.append(np.maximum(whole - np.maximum(late.delays_us, 0).sum(axis=1), 0).astype(np.float64))
    return np.asarray(np.column_stack(columns), dtype=np.float64)


def _coalitions(reductions: Floats, margin: Floats, window: Integers, windows: int) -> Floats:
    """Return the late requests of each window, by coalition of those who are *not* capped (a bit per player)."""
    players = reductions.shape[1]
    if players > DOMAINS_MAX + 1:
        raise AssertionError("the readers allow twelve domains")
    worth = np.zeros((windows, 1 << players), dtype=np.float64)
    order = np.argsort(window, kind="stable")
    step = max(1, CELLS_MAX >> players)
    for begin in range(0, len(order), step):
        rows = order[begin : begin + step]
        shortened = np.zeros((len(rows), 1), dtype=np.float64)
        for player in range(players):
            # Bit set: the player is in the coalition, so nothing is taken off.
            shortened = np.hstack((shortened + reductions[rows, player, None], shortened))
        still_late = shortened < margin[rows, None]
        edges = np.flatnonzero(np.diff(window[rows], prepend=-1))
        worth[window[rows][edges]] += np.add.reduceat(still_late, edges, axis=0, dtype=np.int64)
    return worth


def _shapley(worth: Floats) -> Floats:
    """Return the Shapley values of the games in the rows, by player."""
    players = worth.shape[1].bit_length() - 1
    coalitions = np.arange(worth.shape[1])
    sizes = np.asarray([int(coalition).bit_count() for coalition in coalitions])
    weight = np.asarray([factorial(k) * factorial(players - 1 - k) / factorial(players) for k in range(players)])
    values = np.zeros((len(worth), players), dtype=np.float64)
    for player in range(players):
        without = coalitions[(coalitions >> player) & 1 == 0]
        values[:, player] = (worth[:, without | (1 << player)] - worth[:, without]) @ weight[sizes[without]]
    return values


def _intervals(values: Floats, requests: Integers, dice: Dice) -> tuple[Floats, Floats]:
    """Return percentile intervals over resampled windows or sessions, which keep what depends on what together."""
    used = np.flatnonzero(requests)
    if len(used) < WINDOWS_FOR_INTERVALS_MIN:
        point = values.sum(axis=0) / max(int(requests.sum()), 1)
        return np.zeros_like(point), np.maximum(point, 1.0)
    drawn: NDArray[np.float64] = np.asarray(
        dice.multinomial(len(used), np.full(len(used), 1.0 / len(used)), size=RESAMPLES), dtype=np.float64
    )
    shares = (drawn @ values[used]) / (drawn @ requests[used].astype(np.float64))[:, None]
    return np.percentile(shares, 2.5, axis=0), np.percentile(shares, 97.5, axis=0)


def _excess_shares(late: LateRequests, known: NDArray[np.bool_]) -> Floats | None:
    if late.means_us is None or not known.any():
        return None
    excess = late.delays_us[known].mean(axis=0) - late.means_us
    total = float(excess.sum())
    return None if total <= 0 else np.asarray(excess / total, dtype=np.float64)

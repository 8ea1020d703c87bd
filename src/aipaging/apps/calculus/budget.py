"""A risk budget as JSON: what is asked, what comes back, and how far the answer is from the optimum."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import msgspec

from aipaging.core.calculus.domain import Dependence
from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.calculus.risk_cost import RatedDomain, Reservation
from aipaging.core.calculus.risk_joint import cheapest_joint_reservation
from aipaging.core.calculus.risk_limits import BindingLimit, BudgetDomain, Certificate, PartLimits
from aipaging.core.calculus.risk_rates import cheapest_reservation
from aipaging.core.calculus.risk_sharp import epsilon_any_dependence_sharp, epsilon_conditional
from aipaging.core.calculus.risk_split import LimitedSplit, least_delay_split, least_risk_split, split_of
from aipaging.core.foundation.errors import InvalidInputError

POINTS: Final = 80
"""Delays of a frontier."""

FIELDS: Final[Mapping[str, str]] = {
    "minimize": "risk (default): the least epsilon for delay_ms; delay: the least delay for epsilon; cost: both given",
    "delay_ms": "the end-to-end delay; needed for risk and cost",
    "epsilon": "the end-to-end risk; needed for delay and cost; for risk, what must not be exceeded",
    "dependence": "any (default), conditional, or independent: what is attested of the contracts",
    "joint": "cost only, conditional or independent: bound the sum of delays, not every part; far cheaper, no parts",
    "domains[].name": "of the domain, unique",
    "domains[].offset_ms": "T of P(D > T + x) <= M exp(-eta x)",
    "domains[].prefactor": "M",
    "domains[].decay_per_ms": "eta; for risk and delay",
    "domains[].decay_per_rate": "theta: eta = theta times the reserved rate; for cost",
    "domains[].price": "per unit of rate; for cost",
    "domains[].rate_min, .rate_max": "of the reserved rate; for cost",
    "domains[].delay_min_ms, .delay_max_ms": "floor and cap of the domain's part",
    "domains[].epsilon_min, .epsilon_max": "floor and cap of the domain's risk",
}


class Part(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One domain of the question."""

    name: str
    prefactor: float
    offset_ms: float = 0.0
    decay_per_ms: float | None = None
    decay_per_rate: float | None = None
    price: float | None = None
    rate_min: float = 0.0
    rate_max: float | None = None
    delay_min_ms: float = 0.0
    delay_max_ms: float | None = None
    epsilon_min: float = 0.0
    epsilon_max: float = 1.0

    def limits(self) -> PartLimits:
        """Return its floors and caps."""
        return PartLimits(
            delay_min_ms=self.delay_min_ms,
            delay_max_ms=math.inf if self.delay_max_ms is None else self.delay_max_ms,
            epsilon_min=self.epsilon_min,
            epsilon_max=self.epsilon_max,
        )

    def contract(self) -> BudgetDomain:
        """Return it as a domain whose tail is fixed."""
        contract = DelayContract(
            offset_ms=self.offset_ms,
            prefactor=self.prefactor,
            decay_per_ms=self._needed(self.decay_per_ms, "decay_per_ms"),
        )
        return BudgetDomain(name=self.name, contract=contract, limits=self.limits())

    def rated(self) -> RatedDomain:
        """Return it as a domain whose tail is bought."""
        return RatedDomain(
            name=self.name,
            offset=self.offset_ms,
            prefactor=self.prefactor,
            decay_per_rate=self._needed(self.decay_per_rate, "decay_per_rate"),
            price=self._needed(self.price, "price"),
            rate_min=self.rate_min,
            rate_max=math.inf if self.rate_max is None else self.rate_max,
            limits=self.limits(),
        )

    def _needed(self, value: float | None, name: str) -> float:
        if value is None:
            raise InvalidInputError(f"{self.name} needs {name}", field=f"domains.{self.name}.{name}")
        return value


class Question(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What is asked."""

    domains: tuple[Part, ...]
    minimize: Literal["risk", "delay", "cost"] = "risk"
    delay_ms: float | None = None
    epsilon: float | None = None
    dependence: Literal["any", "conditional", "independent"] = "any"
    joint: bool = False


Found: TypeAlias = LimitedSplit | Reservation


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A question and its answer."""

    question: Question
    found: Found

    @property
    def parts(self) -> list[dict[str, Any]]:
        """What every domain gets."""
        names = [part.name for part in self.question.domains]
        if isinstance(self.found, LimitedSplit):
            return [
                {"name": name, "delay_ms": part.delay_ms, "epsilon": part.epsilon}
                for name, part in zip(names, self.found.parts, strict=True)
            ]
        delays = self.found.delays or (None,) * len(names)
        shares = self.found.epsilons or (None,) * len(names)
        return [
            {"name": name, "delay_ms": delay, "epsilon": share, "rate": rate}
            for name, delay, share, rate in zip(names, delays, shares, self.found.rates, strict=True)
        ]


def asked(document: Mapping[str, Any]) -> Question:
    """Return the question that a document holds.

    Raises:
        InvalidInputError: It is none; the message names the member.
    """
    try:
        question = msgspec.convert(document, Question)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise InvalidInputError(message, field=path.removesuffix("`").removeprefix(".") or None) from None
    if question.joint and (question.minimize != "cost" or question.dependence == "any"):
        raise InvalidInputError(
            "a joint bound needs minimize = cost and contracts that hold given the past", field="joint"
        )
    return question


def answered(question: Question) -> Budget:
    """Return the optimum.

    Raises:
        InvalidInputError: Something that the question needs is missing.
        InfeasibleBudgetError: No split keeps all limits.
    """
    dependence = Dependence(question.dependence)
    if question.minimize == "cost":
        rated = [part.rated() for part in question.domains]
        delay_ms, epsilon = _number(question.delay_ms, "delay_ms"), _number(question.epsilon, "epsilon")
        if question.joint:
            return Budget(question=question, found=cheapest_joint_reservation(rated, delay_ms, epsilon))
        found = cheapest_reservation(rated, delay_ms, epsilon, dependence=dependence)
        return Budget(question=question, found=found)
    domains = [part.contract() for part in question.domains]
    if question.minimize == "delay":
        epsilon = _number(question.epsilon, "epsilon")
        return Budget(question=question, found=least_delay_split(domains, epsilon, dependence=dependence))
    delay_ms = _number(question.delay_ms, "delay_ms")
    if question.epsilon is None:
        return Budget(question=question, found=least_risk_split(domains, delay_ms, dependence=dependence))
    return Budget(question=question, found=split_of(domains, delay_ms, question.epsilon, dependence=dependence))


def document_of(budget: Budget) -> dict[str, Any]:
    """Return the JSON-ready answer."""
    question, found = budget.question, budget.found
    common: dict[str, Any] = {
        "minimize": question.minimize,
        "dependence": question.dependence,
        "parts": budget.parts,
        "binding": [_binding(limit) for limit in found.binding],
        "certificate": _certificate(found.certificate),
    }
    if isinstance(found, LimitedSplit):
        joint = min(found.epsilon, _joint_epsilon(question, found.delay_ms))
        return common | {
            "delay_ms": found.delay_ms,
            "epsilon": found.epsilon,
            "joint_epsilon": joint,
            "rung": found.rung,
            "assumptions": list(found.assumptions),
            "prices": {
                "log_epsilon_per_ms": found.log_epsilon_per_ms,
                "ms_per_log_epsilon": found.ms_per_log_epsilon,
            },
        }
    return common | {
        "delay_ms": question.delay_ms,
        "epsilon": question.epsilon,
        "cost": found.cost,
        "prices": {"cost_per_ms": found.delay_price, "cost_per_log_epsilon": found.log_epsilon_price},
    }


def frontier(question: Question, delay_max_ms: float, rate_factors: Sequence[float]) -> list[dict[str, Any]]:
    """Return, for every dependence and rate, the least risk at rising delays: what can be promised at all.

    The bound on the sum of delays is drawn, not that of the parts: it is what a path can promise end to end.

    Args:
        question: Its domains; contracts with a decay per ms.
        delay_max_ms: The largest delay.
        rate_factors: Multiples of the reserved rates; the decays grow with them.
    """
    domains = [part.contract().contract for part in question.domains]
    curves: list[dict[str, Any]] = []
    for factor in rate_factors:
        scaled = [replace(contract, decay_per_ms=contract.decay_per_ms * factor) for contract in domains]
        for dependence in ("any", "conditional"):
            bound = epsilon_any_dependence_sharp if dependence == "any" else epsilon_conditional
            points = [
                {"delay_ms": delay, "epsilon": bound(scaled, delay).epsilon}
                for delay in (delay_max_ms * k / POINTS for k in range(1, POINTS + 1))
            ]
            curves.append({"rate_factor": factor, "dependence": dependence, "points": points})
    return curves


def _joint_epsilon(question: Question, delay_ms: float) -> float:
    contracts = [part.contract().contract for part in question.domains]
    bound = epsilon_any_dependence_sharp if question.dependence == "any" else epsilon_conditional
    return bound(contracts, delay_ms).epsilon


def _number(value: float | None, name: str) -> float:
    if value is None:
        raise InvalidInputError(f"the question needs {name}", field=name)
    return value


def _binding(limit: BindingLimit) -> dict[str, Any]:
    return {"domain": limit.domain, "limit": limit.limit, "price": limit.price}


def _certificate(found: Certificate) -> dict[str, Any]:
    gap = found.duality_gap if math.isfinite(found.duality_gap) else None
    return {"convex": found.convex, "kkt_residual": found.kkt_residual, "duality_gap": gap}

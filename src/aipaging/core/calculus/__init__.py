"""Bounds on delay: numbers, then algebra, then networking.

Usable alone. Values are immutable; a bound is a `TailBound` that names its rung and its assumptions.

    >>> from aipaging.core import calculus
    >>> video = calculus.CompoundPoisson(rate=0.8, work=calculus.ExponentialWork(mean=1.0))
    >>> link = calculus.Domain(name="link", service=calculus.RateLatency(rate=1.0, latency=0.0))
    >>> calculus.bound_path(video, [link], 20.0).bound.rung
    'mm1-exact'

One name for each question:

* a path, given a delay or an epsilon: `bound_path`, `delay_of_path`; its work: `bound_backlog`, `backlog_of_path`; what
  leaves it: `output_of_path`;
* delay contracts, the bound alone: `epsilon_any_dependence` and `_sharp`, `epsilon_conditional`,
  `delay_any_dependence`; one number for many candidates at once: `epsilons_any_dependence`;
* a budget within limits, with prices and a certificate: `least_risk_split`, `least_delay_split`, `split_of` (both
  given); the rates behind it: `cheapest_reservation` for parts, `cheapest_joint_reservation` for the sum;
* a trace: `fit_token_bucket`, `fit_exponentially_bounded`, `fit_slotted`, `fit_compound_poisson`, `fit_on_off`;
  measured delays: `fit_delay_contract`, `measured_latency`.
"""

from aipaging.core.calculus.arrivals import (
    Arrival,
    CompoundPoisson,
    SlottedWork,
    Superposition,
    is_slotted,
    mean_rate,
    superpose,
)
from aipaging.core.calculus.bound import RungClass, TailBound
from aipaging.core.calculus.candidates import epsilons_any_dependence, poisson_exponential_tails
from aipaging.core.calculus.deficit import ImpairedRateLatency, deficit_bound
from aipaging.core.calculus.deterministic import (
    RateLatency,
    TokenBucket,
    convolve,
    deconvolve,
    horizontal_deviation,
    vertical_deviation,
)
from aipaging.core.calculus.domain import (
    CrossFlow,
    Dependence,
    Discipline,
    Domain,
    ExponentialServer,
    Measure,
    OnOffService,
    RandomService,
    Service,
    gps_share,
)
from aipaging.core.calculus.errors import NoMomentGeneratingFunctionError, NotAttestedError, UnstableError
from aipaging.core.calculus.fit import FittedContract, fit_delay_contract, least_burst
from aipaging.core.calculus.fit_arrival import (
    AssumptionRejectedError,
    FittedArrival,
    Trace,
    burst_curve,
    fit_compound_poisson,
    fit_exponentially_bounded,
    fit_on_off,
    fit_slotted,
    fit_token_bucket,
)
from aipaging.core.calculus.llm import BatchingServer
from aipaging.core.calculus.measured import MeasuredLatency, measured_latency
from aipaging.core.calculus.modulated import MarkovFluid, MarkovPoisson, MarkovSlots
from aipaging.core.calculus.onoff import FluidOnOff, SlottedOnOff
from aipaging.core.calculus.output import output_of_path
from aipaging.core.calculus.path import (
    BacklogAnswer,
    PathAnswer,
    backlog_of_path,
    bound_backlog,
    bound_path,
    delay_of_path,
)
from aipaging.core.calculus.pollaczek import Enclosure, WorkloadLaw, workload_law
from aipaging.core.calculus.regulated import ExponentiallyBounded, LeakyBuckets
from aipaging.core.calculus.risk_budget import (
    BudgetPart,
    BudgetSplit,
    DelayContract,
    combined_failure,
    delay_any_dependence,
    epsilon_any_dependence,
)
from aipaging.core.calculus.risk_cost import RatedDomain, Reservation
from aipaging.core.calculus.risk_joint import cheapest_joint_reservation, joint_tail
from aipaging.core.calculus.risk_limits import (
    BindingLimit,
    BudgetDomain,
    Certificate,
    InfeasibleBudgetError,
    PartLimits,
)
from aipaging.core.calculus.risk_rates import cheapest_reservation
from aipaging.core.calculus.risk_sharp import epsilon_any_dependence_sharp, epsilon_conditional
from aipaging.core.calculus.risk_split import LimitedSplit, least_delay_split, least_risk_split, split_of
from aipaging.core.calculus.single_hop import backlog_tail
from aipaging.core.calculus.work import (
    ConstantWork,
    DiscreteWork,
    ExponentialWork,
    TruncatedLogNormalWork,
    TruncatedParetoWork,
    Work,
    scaled_work,
)

__all__ = [
    "Arrival",
    "AssumptionRejectedError",
    "BacklogAnswer",
    "BatchingServer",
    "BindingLimit",
    "BudgetDomain",
    "BudgetPart",
    "BudgetSplit",
    "Certificate",
    "CompoundPoisson",
    "ConstantWork",
    "CrossFlow",
    "DelayContract",
    "Dependence",
    "Discipline",
    "DiscreteWork",
    "Domain",
    "Enclosure",
    "ExponentialServer",
    "ExponentialWork",
    "ExponentiallyBounded",
    "FittedArrival",
    "FittedContract",
    "FluidOnOff",
    "ImpairedRateLatency",
    "InfeasibleBudgetError",
    "LeakyBuckets",
    "LimitedSplit",
    "MarkovFluid",
    "MarkovPoisson",
    "MarkovSlots",
    "Measure",
    "MeasuredLatency",
    "NoMomentGeneratingFunctionError",
    "NotAttestedError",
    "OnOffService",
    "PartLimits",
    "PathAnswer",
    "RandomService",
    "RateLatency",
    "RatedDomain",
    "Reservation",
    "RungClass",
    "Service",
    "SlottedOnOff",
    "SlottedWork",
    "Superposition",
    "TailBound",
    "TokenBucket",
    "Trace",
    "TruncatedLogNormalWork",
    "TruncatedParetoWork",
    "UnstableError",
    "Work",
    "WorkloadLaw",
    "backlog_of_path",
    "backlog_tail",
    "bound_backlog",
    "bound_path",
    "burst_curve",
    "cheapest_joint_reservation",
    "cheapest_reservation",
    "combined_failure",
    "convolve",
    "deconvolve",
    "deficit_bound",
    "delay_any_dependence",
    "delay_of_path",
    "epsilon_any_dependence",
    "epsilon_any_dependence_sharp",
    "epsilon_conditional",
    "epsilons_any_dependence",
    "fit_compound_poisson",
    "fit_delay_contract",
    "fit_exponentially_bounded",
    "fit_on_off",
    "fit_slotted",
    "fit_token_bucket",
    "gps_share",
    "horizontal_deviation",
    "is_slotted",
    "joint_tail",
    "least_burst",
    "least_delay_split",
    "least_risk_split",
    "mean_rate",
    "measured_latency",
    "output_of_path",
    "poisson_exponential_tails",
    "scaled_work",
    "split_of",
    "superpose",
    "vertical_deviation",
    "workload_law",
]

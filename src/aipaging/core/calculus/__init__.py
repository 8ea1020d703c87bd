"""Bounds on delay: numbers, then algebra, then networking.

Usable alone. Values are immutable; a bound is a `TailBound` that names its rung and its assumptions.

    >>> from aipaging.core import calculus
    >>> video = calculus.CompoundPoisson(rate=0.8, work=calculus.ExponentialWork(mean=1.0))
    >>> link = calculus.Domain(name="link", service=calculus.RateLatency(rate=1.0, latency=0.0))
    >>> calculus.bound_path(video, [link], 20.0).bound.rung
    'mm1-exact'
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
from aipaging.core.calculus.risk_cost import RatedDomain, Reservation, cheapest_reservation
from aipaging.core.calculus.risk_sharp import epsilon_any_dependence_sharp, epsilon_conditional
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
    "BacklogAnswer",
    "BatchingServer",
    "BudgetPart",
    "BudgetSplit",
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
    "FittedContract",
    "FluidOnOff",
    "ImpairedRateLatency",
    "LeakyBuckets",
    "MarkovFluid",
    "MarkovPoisson",
    "MarkovSlots",
    "Measure",
    "MeasuredLatency",
    "NoMomentGeneratingFunctionError",
    "NotAttestedError",
    "OnOffService",
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
    "TruncatedLogNormalWork",
    "TruncatedParetoWork",
    "UnstableError",
    "Work",
    "WorkloadLaw",
    "backlog_of_path",
    "backlog_tail",
    "bound_backlog",
    "bound_path",
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
    "fit_delay_contract",
    "gps_share",
    "horizontal_deviation",
    "is_slotted",
    "least_burst",
    "mean_rate",
    "measured_latency",
    "output_of_path",
    "poisson_exponential_tails",
    "scaled_work",
    "superpose",
    "vertical_deviation",
    "workload_law",
]

"""What is simulated: domains, tenants, modulators. Values only; `reading` makes them from a file and checks them.

Times are milliseconds, rates are per millisecond, work has whatever unit the rates of the domains are in.
"""

import math
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The law of the work of a packet.

    Attributes:
        law: One of the constants of `kernels.work`.
        parameters: Its parameters, in the order that the kernel wants.
        mean: E X.
        second_moment: E X**2.
    """

    law: int
    parameters: tuple[float, ...]
    mean: float
    second_moment: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisson:
    """Independent exponential gaps."""

    rate_per_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Periodic:
    """Equal gaps; the phase is random."""

    interval_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Modulated:
    """Poisson arrivals whose rate follows a Markov chain: its own, or one that several tenants share.

    Attributes:
        rates_per_ms: The rate in each mode.
        modulator: The chain.
    """

    rates_per_ms: tuple[float, ...]
    modulator: "Modulator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Modulator:
    """A Markov chain in continuous time.

    Attributes:
        name: What tenants call it; empty for the private chain of one tenant.
        jumps_per_ms: Rates of the jumps from each mode (row) to each other (column).
    """

    name: str
    jumps_per_ms: tuple[tuple[float, ...], ...]

    def stationary(self) -> Floats:
        """Return the long-run share of time in each mode."""
        generator = self._generator()
        size = len(generator)
        system = np.vstack([generator.T, np.ones(size)])
        shares = np.linalg.lstsq(system, np.append(np.zeros(size), 1.0), rcond=None)[0]
        return np.maximum(np.asarray(shares, np.float64), 0.0)

    def dispersion(self, rates_per_ms: tuple[float, ...]) -> float:
        """Return the variance per millisecond that the modulation adds to the number of arrivals, in the long run."""
        generator, shares, rates = self._generator(), self.stationary(), np.array(rates_per_ms)
        centred = rates - shares @ rates
        # Solution of Poisson's equation of the chain: sum over time of E[centred rate | first mode].
        sums = np.linalg.lstsq(generator, -centred, rcond=None)[0]
        sums -= shares @ sums
        return max(2.0 * float((shares * centred) @ sums), 0.0)

    def memory_ms(self) -> float:
        """Return how long the chain remembers its mode: the inverse of its spectral gap."""
        decays = np.sort(-np.real(np.linalg.eigvals(self._generator())))
        return 1.0 / float(decays[1]) if len(decays) > 1 else 0.0

    def _generator(self) -> Floats:
        jumps = np.array(self.jumps_per_ms)
        return jumps - np.diag(jumps.sum(axis=1))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Recorded arrivals, replayed in a circle from a random place.

    Attributes:
        file: Where they came from.
        instants_ms: In order, the first is 0.
        period_ms: When the circle begins anew.
        works: The work of each, or None where it is drawn.
        prompts: The tokens of the prompt of each, or None.
        dispersion: The variance per millisecond of the number of arrivals, beyond that of independent ones.
    """

    file: str
    instants_ms: Floats
    period_ms: float
    works: Floats | None
    prompts: Floats | None
    dispersion: float

    @property
    def rate_per_ms(self) -> float:
        """Arrivals per millisecond."""
        return len(self.instants_ms) / self.period_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Copula:
    """How the rates of several tenants depend within a slot of time; slots are independent.

    Attributes:
        name: What tenants call it.
        slot_ms: How long a rate holds.
        correlation: Of the normal numbers of any two tenants (one common factor).
        degrees: Degrees of freedom of Student's copula; infinite for the Gaussian one.
    """

    name: str
    slot_ms: float
    correlation: float
    degrees: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlated:
    """Poisson arrivals whose rate is drawn anew in every slot, together with those of other tenants.

    Attributes:
        rates_per_ms: What the rate may be.
        probabilities: How often.
        copula: How it depends on the others.
    """

    rates_per_ms: tuple[float, ...]
    probabilities: tuple[float, ...]
    copula: Copula

    @property
    def rate_per_ms(self) -> float:
        """Arrivals per millisecond in the mean."""
        return math.fsum(r * p for r, p in zip(self.rates_per_ms, self.probabilities, strict=True))

    @property
    def dispersion(self) -> float:
        """The variance per millisecond that the changes of the rate add to the number of arrivals."""
        square = math.fsum(r * r * p for r, p in zip(self.rates_per_ms, self.probabilities, strict=True))
        return (square - self.rate_per_ms**2) * self.copula.slot_ms


Arrivals: TypeAlias = Poisson | Periodic | Modulated | Correlated | Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A leaky bucket at the entrance of a tenant.

    Attributes:
        rate_per_ms: Work per millisecond that may pass.
        burst: Work that may pass at once.
        holds: Whether it holds what does not conform (shaping) or loses it (policing).
    """

    rate_per_ms: float
    burst: float
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Impairment:
    """A link that is now good, now bad, for independent exponential times (on/off, Gilbert-Elliott).

    Attributes:
        mean_good_ms: Mean length of a good time.
        mean_bad_ms: Mean length of a bad time.
        bad_rate_per_ms: The rate while it is bad; 0 stops it.
        loss_good: Probability that a packet is lost that ends its service in a good time.
        loss_bad: The same in a bad time.
    """

    mean_good_ms: float
    mean_bad_ms: float
    bad_rate_per_ms: float
    loss_good: float
    loss_bad: float

    @property
    def memory_ms(self) -> float:
        """How long the link remembers its state."""
        return 1.0 / (1.0 / self.mean_good_ms + 1.0 / self.mean_bad_ms)

    def dispersion(self, rate_per_ms: float) -> float:
        """Return the variance per millisecond of the work that it can do, in the long run; its rate is the good one."""
        good = self.mean_good_ms / (self.mean_good_ms + self.mean_bad_ms)
        return 2.0 * good * (1.0 - good) * (rate_per_ms - self.bad_rate_per_ms) ** 2 * self.memory_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Service that may fail and is asked for again: an inference that ends in an error.

    Attributes:
        error_probability: Probability that a service ends in an error; it took its time all the same.
        backoff_ms: How long the client waits before it asks again, at the end of the queue.
        attempts_max: Attempts in all; a packet whose last one fails is lost.
    """

    error_probability: float
    backoff_ms: float
    attempts_max: int

    @property
    def attempts_mean(self) -> float:
        """Attempts per packet in the mean."""
        return sum(self.error_probability**k for k in range(self.attempts_max))


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """The timing of a language model with continuous batching.

    Attributes:
        slots: Requests that are generated for at once.
        iteration_ms: Time of an iteration whatever it holds.
        per_slot_ms: Time that each slot in use adds.
        prefill_ms: Time that each admitted request adds to its first iteration.
        prefill_ms_per_token: Time that each token of its prompt adds to it.
    """

    slots: int
    iteration_ms: float
    per_slot_ms: float
    prefill_ms: float
    prefill_ms_per_token: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recorded:
    """Recorded delays, given to the packets one after another, in a circle from a random place.

    Attributes:
        file: Where they came from.
        delays_ms: In the order of the record; NaN where a packet was lost.
    """

    file: str
    delays_ms: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One domain on the way.

    Attributes:
        name: Its name.
        discipline: `fifo`, `priority`, `reserved`, `fair`, `round-robin` or `batching`.
        rate_per_ms: Work per millisecond (of each server); infinite for `batching`.
        latency_ms: Added to every packet after its service.
        servers: Servers that share one queue.
        buffer_packets: Most packets in the domain, those in service included.
        buffer_work: Most work in the domain.
        work_conserving: Whether capacity that its owner does not use is shared (`reserved`).
        impairment: How the link fails, or None.
        batching: The timing of `batching`, or None.
        retry: How its service fails and is asked for again, or None.
        delays: Recorded delays where the discipline is `delay`, or None.
    """

    name: str
    discipline: str
    rate_per_ms: float
    latency_ms: float = 0.0
    servers: int = 1
    buffer_packets: float = math.inf
    buffer_work: float = math.inf
    work_conserving: bool = True
    impairment: Impairment | None = None
    batching: Batching | None = None
    retry: Retry | None = None
    delays: "Recorded | None" = None

    @property
    def loses(self) -> bool:
        """Whether packets may be lost in it for want of room."""
        return self.buffer_packets < math.inf or self.buffer_work < math.inf

    @property
    def mean_rate_per_ms(self) -> float:
        """Work per millisecond that it can do in the long run."""
        if self.impairment is None:
            return self.rate_per_ms * self.servers
        good, bad = self.impairment.mean_good_ms, self.impairment.mean_bad_ms
        return (good * self.rate_per_ms + bad * self.impairment.bad_rate_per_ms) / (good + bad)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One stream of packets.

    Attributes:
        name: Its name.
        route: Names of the domains, in order.
        arrivals: When packets are sent.
        work: How much work each brings, at every domain the same; the law of the trace where the trace has it.
        priority: Its rank where the discipline is `priority`; lower first.
        reserved_rate_per_ms: By domain, where the discipline is `reserved` or `fair`.
        quantum: Work per turn where the discipline is `round-robin`.
        targets_ms: Delays whose exceedance is counted.
        bucket: What regulates it at its entrance, or None.
        prompt: Tokens of the prompt of each packet, or None; of the trace where the trace has them.
        work_at: By domain the law of the work that a packet gets on entering it and keeps from there on.
    """

    name: str
    route: tuple[str, ...]
    arrivals: Arrivals
    work: Work
    priority: int
    reserved_rate_per_ms: dict[str, float]
    quantum: float | None
    targets_ms: tuple[float, ...]
    bucket: Bucket | None
    prompt: Work | None = None
    work_at: dict[str, Work] = field(default_factory=dict[str, Work])

    def work_in(self, domain: str) -> Work:
        """Return the law of the work that it brings into a domain of its route."""
        work = self.work
        for name in self.route:
            work = self.work_at.get(name, work)
            if name == domain:
                break
        return work

    @property
    def rate_per_ms(self) -> float:
        """Packets per millisecond."""
        match self.arrivals:
            case Periodic(interval_ms=interval):
                return 1.0 / interval
            case Modulated(rates_per_ms=rates, modulator=modulator):
                return float(modulator.stationary() @ np.array(rates))
            case arrivals:
                return arrivals.rate_per_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that is simulated.

    Attributes:
        packets: How many packets are counted, over all tenants.
        replications: How many independent runs they are divided into.
        domains: In an order in which every route goes forward.
        tenants: The tenants.
    """

    packets: int
    replications: int
    domains: tuple[Domain, ...]
    tenants: tuple[Tenant, ...]

"""A batching language-model server as a service curve in tokens.

With at most B requests in a batch and iteration time tau(B) = tau0 + tau1 B (capped prefill included), every
admitted request gets at least one token per tau(B). A tenant with b reserved slots therefore has the strict
service curve rate b / tau, latency tau + (b - 1) N_max tau / b: while fewer than b requests of the tenant are
present, each still decodes at 1 / tau only, and what the idle slots would have given is lost, at most
(b - 1) N_max tokens of it. (b / tau with latency tau is *not* a service curve.) Proof: deterministic.md.
"""

from dataclasses import dataclass

from aipaging.core.calculus.deterministic import RateLatency
from aipaging.core.calculus.errors import require_non_negative, require_positive
from aipaging.core.foundation.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingServer:
    """A continuous-batching server and a tenant's share of it.

    Attributes:
        slots: B, requests in a full batch.
        base_time: tau0, the time of an iteration before any request.
        time_per_request: tau1, what each request adds, its share of capped prefill included.
        reserved_slots: b, how many slots the tenant owns.
        tokens_max: N_max, the `max_tokens` guardrail.
    """

    slots: int
    base_time: float
    time_per_request: float
    reserved_slots: int
    tokens_max: int

    def __post_init__(self) -> None:
        require_positive(slots=self.slots, reserved_slots=self.reserved_slots, tokens_max=self.tokens_max)
        require_positive(base_time=self.base_time)
        require_non_negative(time_per_request=self.time_per_request)
        if self.reserved_slots > self.slots:
            raise InvalidInputError("a tenant cannot own more slots than there are", field="reserved_slots")

    @property
    def iteration_time(self) -> float:
        """tau(B), the longest iteration."""
        return self.base_time + self.time_per_request * self.slots

    def token_service_curve(self) -> RateLatency:
        """Return the tenant's service curve in tokens."""
        tau, b = self.iteration_time, self.reserved_slots
        return RateLatency(rate=b / tau, latency=tau + (b - 1) * self.tokens_max * tau / b)

    def slot_service_curve(self) -> RateLatency:
        """Return the service curve of a single reserved slot, whose requests queue for it alone."""
        return RateLatency(rate=1.0 / self.iteration_time, latency=self.iteration_time)

    def request_time_min(self, tokens: int) -> float:
        """Return the least time of a request on an idle server: no batch makes one request decode faster."""
        return tokens * (self.base_time + self.time_per_request)

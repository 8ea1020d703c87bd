"""The structured intent: what a client wants, never how.

Every field but `prefer` is a hard constraint: it filters and is never traded against another. `prefer` only
orders what is left. An `Intent` that exists is valid; `Intent.checked` is where bad input is refused.
"""

import enum
import math
from typing import Final

import msgspec

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import DomainName

DELAY_MS_MAX: Final = 3_600_000.0
"""An hour. A longer target is a batch job, not a paged session."""

EPSILON_MIN: Final = 1e-12
"""Below it no envelope that was ever calibrated on data has anything to say."""

EPSILON_MAX: Final = 0.5
"""A target that more than half may miss is none."""

RATE_RPS_MAX: Final = 1_000_000.0
"""Ten times what one site of accelerators serves today; larger demands are split over sessions."""

BURST_MAX: Final = 1_000_000
"""A burst is held in queues; this many requests are the memory of a rack."""

DURATION_S_MAX: Final = 86_400
"""A day, as the longest QoS profile of CAMARA quality-on-demand; `extend` prolongs it."""

LIST_ITEMS_MAX: Final = 32
"""Regions, jurisdictions or licences in one intent: more is a policy, not an intent."""

TRUST_MAX: Final = 5
"""Trust levels run from 0 (none claimed) to 5 (hardware-attested)."""


class DelayScope(enum.Enum):
    """What the delay target is measured to."""

    FIRST_TOKEN = "FIRST_TOKEN"  # noqa: S105 - a token of text, not a secret
    RESPONSE = "RESPONSE"


class DataClass(enum.IntEnum):
    """How sensitive the client's data is; a domain is cleared up to one class."""

    PUBLIC = 0
    INTERNAL = 1
    CONFIDENTIAL = 2
    RESTRICTED = 3


class Preference(enum.Enum):
    """What ranks the eligible candidates first."""

    COST = "COST"
    DELAY = "DELAY"
    QUALITY = "QUALITY"


class Quality(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A least score on one named benchmark; scores of different benchmarks are not comparable."""

    benchmark: str
    score_min: float


class Intent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a client wants.

    Attributes:
        task: Such as `embeddings` or `chat`.
        modality: Such as `text`.
        place: The client's access domain.
        delay_ms: The delay target D.
        epsilon: The probability with which D may be exceeded.
        delay_scope: What D is measured to.
        rate_rps: Sustained requests per second (rho).
        burst: Requests that may come at once (sigma).
        duration_s: How long the session is wanted.
        quality: A least benchmark score, or None.
        language: An ISO 639 code, or "" for any.
        regions: Regions in which the data may be processed; empty for any.
        jurisdictions: Jurisdictions likewise.
        trust_min: The least trust level of every domain on the path.
        data_class: What every domain on the path must be cleared for.
        licences: Model licences that are acceptable; empty for any.
        cost_max: The most per 1,000 requests, in millionths of the catalogue's currency, or None.
        prefer: What ranks first.
    """

    task: str
    modality: str
    place: DomainName
    delay_ms: float
    epsilon: float
    delay_scope: DelayScope = DelayScope.RESPONSE
    rate_rps: float
    burst: int
    duration_s: int
    quality: Quality | None = None
    language: str = ""
    regions: tuple[str, ...] = ()
    jurisdictions: tuple[str, ...] = ()
    trust_min: int = 0
    data_class: DataClass = DataClass.PUBLIC
    licences: tuple[str, ...] = ()
    cost_max: int | None = None
    prefer: Preference = Preference.COST

    @property
    def rate_mrps(self) -> int:
        """The rate in thousandths of a request per second, rounded up: what is reserved.

        Less than a millionth of a thousandth is the binary fraction's, not the client's: 0.07 is 70, not 71.
        """
        return math.ceil(self.rate_rps * 1000 - 1e-6)

    def checked(self) -> "Intent":
        """Return the intent itself.

        Raises:
            InvalidInputError: A number is out of its range; the error names the field and the range.
        """
        _number("intent.delayMs", self.delay_ms, 0.001, DELAY_MS_MAX)
        _number("intent.epsilon", self.epsilon, EPSILON_MIN, EPSILON_MAX)
        _number("intent.ratePerSecond", self.rate_rps, 0.001, RATE_RPS_MAX)
        _number("intent.burst", self.burst, 1, BURST_MAX)
        _number("intent.durationS", self.duration_s, 1, DURATION_S_MAX)
        _number("intent.trustMin", self.trust_min, 0, TRUST_MAX)
        if self.cost_max is not None:
            _number("intent.costMax", self.cost_max, 0, 10**15)
        if self.quality is not None:
            _number("intent.quality.scoreMin", self.quality.score_min, -1e9, 1e9)
        for field, items in (
            ("regions", self.regions),
            ("jurisdictions", self.jurisdictions),
            ("licences", self.licences),
        ):
            if len(items) > LIST_ITEMS_MAX:
                raise InvalidInputError(
                    f"intent.{field} has {len(items)} items: at most {LIST_ITEMS_MAX} are allowed",
                    field=f"intent.{field}",
                )
        return self


def _number(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also refuses NaN
        raise InvalidInputError(
            f"{field} is {value:g}: allowed is {low:g} to {high:g}", code="OUT_OF_RANGE", field=field
        )

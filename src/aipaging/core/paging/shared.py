"""Values that many sessions have in common, held once.

Sessions are read one by one, from clients and from the journal, and most of them ask for what others ask for. An equal
value that is known already takes the place of a new one: nothing can tell the difference but the memory. Half of what
a session takes would be copies.
"""

import dataclasses
import sys
from functools import lru_cache
from typing import Final, TypeVar, cast

from msgspec.structs import replace

from aipaging.core.anchor.intent import Intent
from aipaging.core.envelope.admission import TailBound
from aipaging.core.foundation.epoch import Epoch

SHARED_MAX: Final = 4_096
"""Different intents, paths and bounds that are remembered to be shared; the others are held once more."""

Name = TypeVar("Name", bound=str)
Part = TypeVar("Part", bound=tuple[object, ...])


@lru_cache(maxsize=SHARED_MAX)
def same_intent(intent: Intent) -> Intent:
    """Return an equal intent that other sessions have too; one that nobody has still has names that others have."""
    names = (same_name(intent.task), same_name(intent.modality), same_name(intent.place))
    return replace(intent, task=names[0], modality=names[1], place=names[2])


@lru_cache(maxsize=SHARED_MAX)
def same_names(names: tuple[Name, ...]) -> tuple[Name, ...]:
    """The same for the domains and the envelopes of a path."""
    return names


@lru_cache(maxsize=SHARED_MAX)
def same_bound(bound: TailBound) -> TailBound:
    """The same for a bound, a kilobyte; on one path bounds for other targets rest on the same."""
    shares = (same_part(bound.assumptions), same_part(bound.parameters))
    return dataclasses.replace(bound, rung=same_name(bound.rung), assumptions=shares[0], parameters=shares[1])


@lru_cache(maxsize=SHARED_MAX)
def same_part(part: Part) -> Part:
    """The same for what a bound rests on, and for its parameters."""
    return part


@lru_cache(maxsize=SHARED_MAX)
def same_epoch(epoch: Epoch) -> Epoch:
    """The same for an epoch: the first of most sessions is the first of its term."""
    return epoch


@lru_cache(maxsize=SHARED_MAX)
def same_duration(duration_ms: int) -> int:
    """The same for how long sessions last."""
    return duration_ms


def same_name(name: Name) -> Name:
    """The same for a name of a tenant, a client, a service or an anchor, for as long as anybody has it."""
    return cast("Name", sys.intern(name))

"""The quick choice among many routes against the full list, and what keeps a route out."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aipaging.core.anchor.catalogue import Anchor, AnchorState, Catalogue, Domain, DomainKind, Path, Service
from aipaging.core.anchor.choice import HELD_TO, best
from aipaging.core.anchor.eligibility import CHECKS, examine, ranked
from aipaging.core.anchor.intent import DataClass, Intent, Preference, Quality
from aipaging.core.anchor.offer import Offer
from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.envelope.envelope import Dependence
from aipaging.core.envelope.service import OnOffSlots, ReservedRate, ServiceModel, SharedRate
from aipaging.core.foundation.names import AnchorId, DomainName, ServiceUri, SessionId, TenantId
from aipaging.core.foundation.time import WallUs
from aipaging.core.lease.ledger import Ledger
from aipaging.core.paging.state import OthersReserved
from aipaging.testing.world import ACCESS, CHAT, EMBED, anchor, domain, envelope, intent

OTHER = ServiceUri("aisi://example/embed/other")
MODELS: tuple[ServiceModel | None, ...] = (
    None,
    None,
    ReservedRate(rate_per_ms=0.1, latency_ms=4.0),
    OnOffSlots(slot_ms=1.0, requests_per_slot=1.0, availability=0.7),
    SharedRate(rate_per_ms=0.5, latency_ms=1.0, burst_total_max=10),
)


def offer_for(wanted: Intent, catalogue: Catalogue) -> Offer:
    reserved = OthersReserved(
        ledger=Ledger(), session=SessionId("new"), tenant=TenantId("red"), rate_mrps=wanted.rate_mrps,
        burst=wanted.burst,
    )  # fmt: skip
    return Offer(catalogue=catalogue, reserved=reserved, wall_us=WallUs(1))


def of_computes(*computes: tuple[float, float, ServiceModel | None]) -> Catalogue:
    """Return a catalogue with one anchor of each service in every compute domain."""
    catalogue = Catalogue()
    for aisi, task, price, score in ((EMBED, "embeddings", 20, 0.5), (OTHER, "embeddings", 30, 0.9)):
        catalogue.services[aisi] = Service(
            aisi=aisi, task=task, modality="text", model="m", price=price, scores=(("mteb", score),)
        )
    for name, kind in ((ACCESS, DomainKind.ACCESS), (DomainName("metro"), DomainKind.TRANSPORT)):
        catalogue.domains[name] = domain(name, kind, "eu")
        catalogue.envelopes[name, ""] = replace(envelope(name), digest=f"{name:0>64}")
    for i, (offset_ms, decay, model) in enumerate(computes):
        name = DomainName(f"compute-{i}")
        catalogue.domains[name] = domain(name, DomainKind.COMPUTE, "eu" if i % 2 else "us")
        catalogue.paths[ACCESS, name] = Path(access=ACCESS, compute=name, transport=(DomainName("metro"),))
        contract = DelayContract(offset_ms=offset_ms, prefactor=1.0, decay_per_ms=decay)
        catalogue.envelopes[name, ""] = replace(
            envelope(name), contract=contract, service=model, digest=f"{i:064x}", dependence=Dependence.CONDITIONAL
        )
        for aisi in (EMBED, OTHER):
            known = replace(anchor(f"{aisi[-5:]}-{i}", name, aisi=aisi), state=AnchorState.READY)
            catalogue.anchors[known.anchor] = known
    return catalogue


COMPUTES = st.lists(
    st.tuples(st.sampled_from([0.0, 10.0, 60.0]), st.sampled_from([0.05, 0.2, 1.0]), st.sampled_from(MODELS)),
    min_size=1,
    max_size=9,
)


@settings(max_examples=150, deadline=None)
@given(
    COMPUTES,
    st.sampled_from([60.0, 100.0, 150.0, 300.0]),
    st.sampled_from([1e-2, 1e-4]),
    st.sampled_from(list(Preference)),
    st.sampled_from([{}, {"regions": ("eu",)}, {"trust_min": 4}, {"burst": 12}, {"cost_max": 25}]),
)
def test_the_quick_choice_ranks_first_among_many(
    computes: list[tuple[float, float, ServiceModel | None]],
    delay_ms: float,
    epsilon: float,
    prefer: Preference,
    more: dict[str, object],
) -> None:
    quality = Quality(benchmark="mteb", score_min=0.1)
    wanted = intent(delay_ms=delay_ms, epsilon=epsilon, prefer=prefer, quality=quality, **more)
    catalogue = of_computes(*computes)
    offer, anchors = offer_for(wanted, catalogue), list(catalogue.anchors.values())
    full = examine(offer, wanted, anchors)
    first = ranked(catalogue, wanted, full)[:1]
    found = best(offer, wanted, anchors)
    assert found == (first[0] if first else None)
    assert {one.anchor for one in full if one.rejection is None} <= set(catalogue.anchors)


def test_no_constraint_is_left_out_of_the_quick_choice() -> None:
    assert list(HELD_TO) == [constraint for constraint, _ in CHECKS]


def changed(catalogue: Catalogue, what: str) -> Catalogue:
    """Return the catalogue with one thing wrong in it."""
    known: Anchor = (
        catalogue.anchors[AnchorId("nilm-0")]
        if AnchorId("nilm-0") in catalogue.anchors
        else next(iter(catalogue.anchors.values()))
    )
    compute: Domain = catalogue.domains[known.domain]
    promise = catalogue.envelopes[known.domain, ""]
    match what:
        case "service":
            catalogue.services.clear()
        case "path":
            catalogue.paths.clear()
        case "domain":
            del catalogue.domains[DomainName("metro")]
        case "envelope":
            del catalogue.envelopes[known.domain, ""]
        case "suspect":
            catalogue.suspect[promise.digest] = "measured"
        case "health":
            catalogue.anchors = {n: replace(a, state=AnchorState.LOST) for n, a in catalogue.anchors.items()}
        case "capacity":
            catalogue.anchors = {n: replace(a, capacity_mrps=1) for n, a in catalogue.anchors.items()}
        case "trust":
            catalogue.domains[known.domain] = replace(compute, trust=0)
        case "class":
            catalogue.domains[known.domain] = replace(compute, data_class_max=DataClass.PUBLIC)
        case "validity":
            catalogue.envelopes[known.domain, ""] = replace(promise, valid_until_us=WallUs(0))
        case _:
            catalogue.domains[known.domain] = replace(compute, jurisdiction="mars")
    return catalogue


@pytest.mark.parametrize(
    ("what", "constraint"),
    [
        ("service", "SERVICE"), ("path", "PATH"), ("domain", "PATH"), ("envelope", "ENVELOPE"),
        ("suspect", "ENVELOPE"), ("health", "HEALTH"), ("capacity", "CAPACITY"), ("trust", "TRUST"),
        ("class", "DATA_CLASS"), ("validity", "ENVELOPE"), ("jurisdiction", "PLACE"),
    ],
)  # fmt: skip
def test_whatever_is_wrong_keeps_the_quick_choice_away_too(what: str, constraint: str) -> None:
    wanted = intent(trust_min=1, data_class=DataClass.INTERNAL, jurisdictions=("us",))
    good = of_computes((0.0, 1.0, None))
    assert best(offer_for(wanted, good), wanted, good.anchors.values()) is not None
    bad = changed(of_computes((0.0, 1.0, None)), what)
    offer = offer_for(wanted, bad)
    assert best(offer, wanted, bad.anchors.values()) is None
    assert {one.rejection.constraint for one in examine(offer, wanted, bad.anchors.values()) if one.rejection} == {
        constraint
    }


@pytest.mark.parametrize(
    ("more", "constraint"),
    [
        ({"language": "de"}, "LANGUAGE"),
        ({"quality": Quality(benchmark="mmlu", score_min=0.0)}, "QUALITY"),
        ({"quality": Quality(benchmark="mteb", score_min=0.99)}, "QUALITY"),
        ({"delay_ms": 1.0}, "DELAY"),
    ],
)
def test_wishes_that_nobody_meets(more: dict[str, object], constraint: str) -> None:
    catalogue = of_computes((0.0, 1.0, None))
    catalogue.services = {name: replace(one, languages=("en",)) for name, one in catalogue.services.items()}
    wanted = intent(**{"language": "en", **more})
    offer = offer_for(wanted, catalogue)
    assert best(offer, wanted, catalogue.anchors.values()) is None
    found = examine(offer, wanted, catalogue.anchors.values())
    assert {one.rejection.constraint for one in found if one.rejection} == {constraint}
    assert CHAT not in catalogue.services

"""From the sentence to the candidates: tightening never adds one, and what is ruled out is never among them."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aipaging.core.anchor.catalogue import AnchorState, Catalogue, DomainKind, Path, Service
from aipaging.core.anchor.eligibility import examine
from aipaging.core.anchor.intent import DataClass, Intent
from aipaging.core.anchor.offer import Offer
from aipaging.core.foundation.names import AnchorId, DomainName, SessionId, TenantId
from aipaging.core.foundation.time import WallUs
from aipaging.core.lease.ledger import Ledger
from aipaging.core.paging.state import OthersReserved
from aipaging.core.wording.read import read
from aipaging.core.wording.reading import Status, Vocabulary
from aipaging.core.wording.tasks import keyword_reader
from aipaging.testing.world import ACCESS, EMBED, anchor, domain, envelope

SITES = {"fr": "paris", "ie": "dublin", "de": "frankfurt", "us": "ashburn"}
NAMES = {"fr": "France", "ie": "Ireland", "de": "Germany", "us": "the US"}
VOCABULARY = Vocabulary(
    tasks=("embeddings",),
    access={ACCESS: "lyon"},
    regions=tuple(SITES.values()),
    jurisdictions=tuple(SITES),
    benchmarks=("mteb",),
    licences=("Apache-2.0",),
)
BASE = "embed English text via access-eu, p99.9 within 250 ms, 2 requests/s"


def catalogue() -> Catalogue:
    """Return one anchor in each of eight compute domains, two in each country: one trusted and cleared, one not."""
    made = Catalogue()
    made.services[EMBED] = Service(
        aisi=EMBED, task="embeddings", modality="text", model="m", price=20, scores=(("mteb", 60.0),),
        licence="Apache-2.0", languages=("en",),
    )  # fmt: skip
    made.domains[ACCESS] = replace(domain(ACCESS, DomainKind.ACCESS, "lyon"), trust=5)
    made.domains[ACCESS] = replace(made.domains[ACCESS], data_class_max=DataClass.RESTRICTED)
    made.envelopes[ACCESS, ""] = envelope(ACCESS)
    for law, region in SITES.items():
        for trust, cleared in ((5, DataClass.RESTRICTED), (1, DataClass.PUBLIC)):
            name = DomainName(f"edge-{region}-{trust}")
            made.domains[name] = replace(
                domain(name, DomainKind.COMPUTE, region), jurisdiction=law, trust=trust, data_class_max=cleared
            )
            made.paths[ACCESS, name] = Path(access=ACCESS, compute=name, transport=())
            made.envelopes[name, ""] = envelope(name)
            known = replace(anchor(f"{region}-{trust}", name), state=AnchorState.READY)
            made.anchors[known.anchor] = known
    return made


CATALOGUE = catalogue()


def candidates(wanted: Intent) -> set[AnchorId]:
    reserved = OthersReserved(
        ledger=Ledger(), session=SessionId("new"), tenant=TenantId("red"), rate_mrps=wanted.rate_mrps,
        burst=wanted.burst,
    )  # fmt: skip
    offer = Offer(catalogue=CATALOGUE, reserved=reserved, wall_us=WallUs(1))
    return {one.anchor for one in examine(offer, wanted, CATALOGUE.anchors.values()) if one.rejection is None}


def found(text: str) -> set[AnchorId] | None:
    """Return the anchors that a sentence finds, or None where it is a question."""
    reading = read(text, VOCABULARY, keyword_reader())
    assert (reading.intent is None) == (reading.status is not Status.RESOLVED)
    return None if reading.intent is None else candidates(reading.intent)


def test_the_plain_sentence_finds_every_anchor() -> None:
    assert len(found(BASE) or ()) == 8


TIGHTER = (
    "EU only", "not in the US", "not in Ireland or Germany", "no French servers", "in Frankfurt or Paris", "trust 3",
    "confidential data", "patient records", "Apache licence", "MIT licence", "mteb at least 50", "mteb at least 80",
    "at most 1 cent per thousand requests", "hardware attested", "must not leave France", "in German", "not in ashburn",
    "no Apache licence", "must not leave the country", "HIPAA compliant", "within 100 ms", "only in Bavaria",
)  # fmt: skip


@given(st.lists(st.sampled_from(TIGHTER), unique=True, max_size=3), st.sampled_from(TIGHTER))
@settings(max_examples=200, deadline=None)
def test_one_more_constraint_never_adds_a_candidate(some: list[str], more: str) -> None:
    before, after = found(", ".join((BASE, *some))), found(", ".join((BASE, *some, more)))
    # A question finds nothing, and one more constraint does not answer it.
    assert (after or set()) <= (before or set())


RULED_OUT = (
    "not in {}", "nowhere in {}", "never in {}", "outside {}", "except {}", "anywhere but {}", "avoid {}",
    "neither in {}", "must not be processed in {}", "don't use servers in {}", "{} excluded", "{} is forbidden",
    "{} are off limits", "excluding {}", "without {}", "all countries but {}",
)  # fmt: skip


@given(
    st.lists(st.sampled_from(sorted(NAMES)), unique=True, min_size=1, max_size=3),
    st.sampled_from(RULED_OUT),
    st.sampled_from(("or", "and", "nor", "or in")),
    st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_what_is_ruled_out_is_never_found(laws: list[str], words: str, link: str, commas: bool) -> None:
    names = [NAMES[law] for law in laws]
    listed = f" {link} ".join([", ".join(names[:-1]), names[-1]] if commas and len(names) > 1 else names)
    sites = tuple(SITES[law] for law in laws)
    assert found(f"{BASE}, {words.format(listed)}") == {
        name for name in CATALOGUE.anchors if not name.startswith(sites)
    }


@pytest.mark.parametrize(
    "text",
    ["not in {}", "nowhere in {}", "never in {}", "outside {}", "except {}", "{} excluded", "avoid {}", "excluding {}"],
)
def test_the_usual_words_are_understood_without_a_question(text: str) -> None:
    assert found(f"{BASE}, {text.format('Ireland, Germany and the US')}") == {"paris-5", "paris-1"}

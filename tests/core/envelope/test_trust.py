"""The trusted set: attacks on it as data, each refused with its own error, and the set unchanged."""

from collections.abc import Iterator

import pytest

from aipaging.core.envelope.document import (
    DelayContractModel,
    EnvelopeDocument,
    Guardrails,
    Part,
    canonical_bytes,
    digest_of,
    wall_us_of,
)
from aipaging.core.envelope.refusals import (
    EnvelopeEquivocationError,
    EnvelopeExpiredError,
    EnvelopeKeyForeignError,
    EnvelopeMalformedError,
    EnvelopeNotCanonicalError,
    EnvelopeNotYetValidError,
    EnvelopePartUnknownError,
    EnvelopeRefusedError,
    EnvelopeReplayedError,
    EnvelopeRolledBackError,
    EnvelopesTooManyError,
)
from aipaging.core.envelope.trust import SEGMENTS_PER_DOMAIN_MAX, CheckedSignature, TrustedEnvelopes
from aipaging.core.foundation.names import DomainName

NOW = wall_us_of("2026-11-22T12:00:00Z", field="now")
BEFORE = wall_us_of("2026-11-21T23:59:59Z", field="now")
AFTER = wall_us_of("2026-11-30T00:00:00Z", field="now")


def document(sequence: int = 5, **members: object) -> EnvelopeDocument:
    standard = {
        "version": 1,
        "domain": "transport-fr",
        "sequence": sequence,
        "not_before": "2026-11-22T00:00:00Z",
        "not_after": "2026-11-30T00:00:00Z",
        "guardrails": Guardrails(rate_rps="10", burst=5),
        "model": DelayContractModel(offset_ms="1", prefactor="1", decay_per_ms="0.5"),
    }
    return EnvelopeDocument(**{**standard, **members})


def checked(content: EnvelopeDocument | bytes, *signers: str) -> CheckedSignature:
    payload = content if isinstance(content, bytes) else canonical_bytes(content)
    domains = frozenset(map(DomainName, signers or ("transport-fr",)))
    return CheckedSignature(payload=payload, key_id="k1", signers=domains)


@pytest.fixture
def trusted() -> TrustedEnvelopes:
    return TrustedEnvelopes().accepting(checked(document()), NOW)[0]


def test_what_is_signed_by_its_domain_new_and_valid_is_verified() -> None:
    trusted, verified = TrustedEnvelopes().accepting(checked(document()), NOW)
    assert verified.document == document()
    assert verified.digest == verified.envelope.digest == digest_of(document())
    assert trusted.in_force(verified.digest, NOW) is verified
    newer, verified = trusted.accepting(checked(document(9)), NOW)
    assert verified.envelope.sequence == 9
    assert list(newer.verified) == [verified.digest], "what is superseded is not in force"


def attacks() -> Iterator[tuple[str, CheckedSignature, int, type[EnvelopeRefusedError]]]:
    yield "rollback", checked(document(4)), NOW, EnvelopeRolledBackError
    yield "replay", checked(document(5)), NOW, EnvelopeReplayedError
    yield "equivocation", checked(document(5, not_after="2026-11-29T00:00:00Z")), NOW, EnvelopeEquivocationError
    yield "expired", checked(document(6)), AFTER, EnvelopeExpiredError
    yield "an old promise stays one when it has expired", checked(document(4)), AFTER, EnvelopeRolledBackError
    yield "too early", checked(document(6)), BEFORE, EnvelopeNotYetValidError
    yield "a key of another domain", checked(document(6), "mallory"), NOW, EnvelopeKeyForeignError
    yield (
        "a key of nobody",
        CheckedSignature(payload=canonical_bytes(document(6)), key_id="k", signers=frozenset()),
        NOW,
        EnvelopeKeyForeignError,
    )
    yield "not canonical", checked(b" " + canonical_bytes(document(6))), NOW, EnvelopeNotCanonicalError
    yield (
        "a second sequence",
        checked(canonical_bytes(document(6)).replace(b'"sequence":6', b'"sequence":1,"sequence":6')),
        NOW,
        EnvelopeNotCanonicalError,
    )
    yield "not an envelope", checked(b'{"domain":"transport-fr"}'), NOW, EnvelopeMalformedError
    yield "not JSON", checked(b"\x00"), NOW, EnvelopeMalformedError


@pytest.mark.parametrize(
    ("name", "attack", "now", "error"), list(attacks()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_attack_is_refused_with_its_own_error(name, attack, now, error, trusted: TrustedEnvelopes) -> None:
    before = dict(trusted.accepted)
    with pytest.raises(error) as caught:
        trusted.accepting(attack, now)
    assert type(caught.value) is error, name
    assert caught.value.code == error.reason
    assert dict(trusted.accepted) == before
    # Whatever was tried, the next good one is accepted.
    assert trusted.accepting(checked(document(6)), NOW)[1].envelope.sequence == 6


def test_every_refusal_has_a_code_of_its_own() -> None:
    kinds = EnvelopeRefusedError.__subclasses__()
    assert len({kind.reason for kind in kinds}) == len(kinds) > 10


def test_segments_are_numbered_apart(trusted: TrustedEnvelopes) -> None:
    _, verified = trusted.accepting(checked(document(1, segment="aisi://op/embed/minilm")), NOW)
    assert verified.envelope.segment == "aisi://op/embed/minilm"


def test_a_domain_cannot_fill_the_memory(trusted: TrustedEnvelopes) -> None:
    for n in range(1, SEGMENTS_PER_DOMAIN_MAX):
        trusted, _ = trusted.accepting(checked(document(1, segment=f"aisi://op/s/v{n}")), NOW)
    with pytest.raises(EnvelopesTooManyError):
        trusted.accepting(checked(document(1, segment="aisi://op/s/one-more")), NOW)
    assert trusted.accepting(checked(document(6)), NOW), "what is known may be renewed"
    assert trusted.accepting(checked(document(1, domain="other"), "other"), NOW), "others are not shut out"


def test_parts_of_a_composite_are_those_in_force(trusted: TrustedEnvelopes) -> None:
    part = Part(domain="transport-fr", sequence=5, digest=digest_of(document()))
    trusted, composite = trusted.accepting(checked(document(1, domain="op", parts=(part,)), "op"), NOW)
    assert [found.document for found in trusted.parts_of(composite, NOW)] == [document()]
    superseding, _ = trusted.accepting(checked(document(6)), NOW)
    with pytest.raises(EnvelopePartUnknownError):
        superseding.parts_of(composite, NOW)
    with pytest.raises(EnvelopeExpiredError):
        trusted.parts_of(composite, AFTER)


def test_a_composite_may_not_misname_its_part(trusted: TrustedEnvelopes) -> None:
    part = Part(domain="other", sequence=5, digest=digest_of(document()))
    trusted, composite = trusted.accepting(checked(document(1, domain="op", parts=(part,)), "op"), NOW)
    with pytest.raises(EnvelopePartUnknownError):
        trusted.parts_of(composite, NOW)

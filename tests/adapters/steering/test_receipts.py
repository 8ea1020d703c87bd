"""A packed receipt is the receipt, to the character, and takes a fifth of it."""

import secrets
import sys
import uuid
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipaging.adapters.signing.keys import KeyStore
from aipaging.adapters.signing.tokens import JwtSigner
from aipaging.adapters.steering.receipts import USES_MIN, Receipts
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, ServiceUri, SessionId, TenantId
from aipaging.core.foundation.time import WallUs
from aipaging.core.identity.claims import CommitClaims

ANCHOR = AnchorId("edge-one")


def claims(number: int, **changes: str) -> CommitClaims:
    session = SessionId(str(uuid.uuid4()))
    return CommitClaims(
        session=session,
        tenant=TenantId("acme"),
        aisi=ServiceUri("aisi://example/embed/minilm"),
        anchor=ANCHOR,
        epoch=Epoch(28_174_864_079, 1),
        lease_ms=60_000,
        rate_mrps=1_000 + number,
        burst=4,
        delay_us=250_000 + number,
        epsilon="0.001",
        epsilon_bound=f"{secrets.randbelow(10**6)}e-12",
        rung="union-any-dependence",
        assumptions="delay-contracts-hold; any-dependence; losses and errors added (union)",
        envelopes=changes.get("envelopes", ",".join(f"{place:02d}" * 32 for place in range(3))),
        token_id_sha256=secrets.token_hex(32),
        commit_id=f"{session}.28174864079.1",
        issued_us=WallUs(1_790_000_000_000_000 + number),
        expires_us=WallUs(1_790_000_003_600_000 + number),
    )


@pytest.fixture(name="signer")
def _signer(tmp_path):
    return JwtSigner(KeyStore.open(tmp_path / "keys"), "https://paging.example")


def test_receipts_of_one_anchor_take_a_fifth_of_themselves(signer) -> None:
    receipts, signed = Receipts(), [signer.sign_commit(claims(number)) for number in range(200)]
    packed = [receipts.packed(ANCHOR, each) for each in signed]
    assert [str(each) for each in packed] == signed
    own = sum(sys.getsizeof(each) + sys.getsizeof(each.packed) for each in packed)
    assert own < 0.25 * sum(map(sys.getsizeof, signed))


def test_after_another_key_or_other_envelopes_the_next_are_packed_like_those(signer, tmp_path) -> None:
    receipts = Receipts()
    other = JwtSigner(KeyStore.open(tmp_path / "other"), "https://paging.example")
    envelopes = ",".join(secrets.token_hex(32) for _ in range(12))
    kinds = [lambda n: signer.sign_commit(claims(n)), lambda n: other.sign_commit(claims(n))]
    kinds.append(lambda n: other.sign_commit(claims(n, envelopes=envelopes)))
    signed = [make(number) for make in kinds for number in range(USES_MIN + 9)]
    packed = [receipts.packed(ANCHOR, each) for each in signed]
    assert [str(each) for each in packed] == signed
    assert len({id(each.pattern) for each in packed}) == 3
    assert max(len(each.packed) for each in packed[-8:]) < 250


@pytest.mark.parametrize("claims", ["YR", "YW=", "Y-W_Y+8/", "YW\nJj", "YWJ", "Y", "YWI=", "ä", ""])
def test_base64_that_would_be_written_in_another_way_comes_out_as_it_was(claims: str) -> None:
    receipts = Receipts()
    for text in (f"head.{claims}.c2ln", f"head.YWJj.{claims}", f"head.{claims}.c2ln.more", f"head.{claims}"):
        assert str(receipts.packed(ANCHOR, text)) == text


@given(
    st.lists(st.one_of(st.text(), st.binary(max_size=300).map(lambda raw: urlsafe_b64encode(raw).decode())), max_size=4)
)
def test_whatever_else_is_given_comes_out_again(pieces: list[str]) -> None:
    receipts, text = Receipts(), ".".join(pieces)
    if not text.isprintable():
        return
    for _ in range(2):
        assert str(receipts.packed(ANCHOR, text)) == text

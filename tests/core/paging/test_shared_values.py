"""Equal values of sessions are held once, and the ledger's sums do not depend on how they are kept."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, DomainName, SessionId, TenantId
from aipaging.core.lease.ledger import Ledger, Reservation
from aipaging.core.paging.snapshot import decode_state, encode_state
from aipaging.testing.world import World, intent


def test_sessions_that_ask_for_the_same_share_what_they_have_in_common() -> None:
    world = World.started()
    wanted = intent(rate_rps=1.0)
    first, second = world.paged(wanted), world.paged(structs.replace(wanted))
    other = world.paged(intent(rate_rps=2.0))
    assert first.lease is not None
    assert second.lease is not None
    assert first.intent is second.intent
    assert first.lease.domains is second.lease.domains
    assert first.lease.envelopes is second.lease.envelopes
    assert first.lease.bound is second.lease.bound
    assert other.intent != first.intent


def test_a_state_read_back_is_the_same_state() -> None:
    world = World.started()
    world.paged()
    blob = encode_state(world.state)
    again = decode_state(blob)
    assert again is not None
    assert encode_state(again) == blob
    assert again.ledger.sums == world.state.ledger.sums
    assert again.ledger.held == world.state.ledger.held


SESSIONS = st.sampled_from([SessionId("s1"), SessionId("s2")])
EPOCHS = st.builds(Epoch, st.just(1), st.integers(1, 3))
DOMAINS = st.lists(st.sampled_from([DomainName(name) for name in "abc"]), min_size=1, max_size=3).map(tuple)
ANCHORS = st.sampled_from([AnchorId("one"), AnchorId("two")])
STEPS = st.lists(st.tuples(st.booleans(), SESSIONS, EPOCHS, ANCHORS, DOMAINS), max_size=30)


@given(STEPS)
def test_a_session_counts_once_wherever_it_holds_something(
    steps: list[tuple[bool, SessionId, Epoch, AnchorId, tuple[DomainName, ...]]],
) -> None:
    ledger, held = Ledger(), dict[tuple[SessionId, Epoch], Reservation]()
    rates = {"s1": 5, "s2": 7}  # a session reserves one rate, wherever it is
    for reserves, session, epoch, anchor, domains in steps:
        if reserves and (session, epoch) not in held:
            reservation = Reservation(anchor, domains, rates[session], TenantId("t"), 1, epoch)
            held[session, epoch] = reservation
            ledger.reserve(session, reservation)
        elif not reserves and (session, epoch) in held:
            del held[session, epoch]
            ledger.release(session, epoch)
        for name in "abc":
            there = {of for (of, _), one in held.items() if name in one.domains}
            assert ledger.domain_mrps(DomainName(name)) == sum(rates[of] for of in there)
            assert {
                of for of in (SessionId("s1"), SessionId("s2")) if ledger.holds_domain(of, DomainName(name))
            } == there
        for name in ("one", "two"):
            there = {of for (of, _), one in held.items() if one.anchor == name}
            assert ledger.anchor_mrps(AnchorId(name)) == sum(rates[of] for of in there)
        assert ledger.tenant_mrps(TenantId("t")) == sum(rates[of] for of in {of for of, _ in held})

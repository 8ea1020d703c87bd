"""Cedar policies: what they permit and forbid, what of them is recorded, and what happens when they are wrong."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from aipaging.adapters.policy.cedar import CedarPolicies
from aipaging.apps.server.policies import PolicyFile
from aipaging.core.anchor.intent import DataClass
from aipaging.core.evidence.verify import Verifier
from aipaging.core.foundation.errors import InvalidInputError, RefusedError
from aipaging.core.foundation.names import AnchorId, ClientId, TenantId
from aipaging.core.paging import commands as c
from aipaging.core.paging.page import resolve
from aipaging.core.paging.relocation_machine import RelocationCause, RelocationPhase
from aipaging.core.paging.snapshot import decode_state, encode_state
from aipaging.core.paging.tenancy import Question
from aipaging.core.paging.tenancy_events import PolicyApplied
from aipaging.testing.world import World, intent

BASE = '@id("base") permit(principal, action, resource);'
EU_ONLY = f"""{BASE}
@id("eu-only") forbid(principal in Tenant::"tenant-1", action, resource) unless {{ resource.region == "eu" }};
"""
NOT_HERE = f'{BASE}\n@id("not-b") forbid(principal, action == Action::"relocate", resource == Anchor::"b");'


def forced(text: str) -> World:
    world = World.started()
    policies = CedarPolicies(text)
    world.do(c.ForcePolicies(policies=policies, count=len(policies.ids)))
    return world


def audited(world: World) -> None:
    verifier = Verifier()
    for entry in world.entries:
        verifier.feed(entry.record, stored_hash=entry.leaf_hash, leaves=entry.leaves)
    assert verifier.verdict().first_bad is None


def test_a_forbidden_anchor_is_passed_over_and_says_by_which_policy() -> None:
    world = forced(EU_ONLY)
    session = world.paged()
    assert session.lease is not None
    assert (session.lease.anchor, session.policies) == ("a", ("base",))
    applied = [event for event in world.events if isinstance(event, PolicyApplied)]
    assert [(event.action, event.anchor, event.policies) for event in applied] == [("page", "a", ("base",))]
    reply = world.page(intent(regions=("us",))).reply
    assert isinstance(reply, c.Refused)
    assert reply.constraint == "POLICY"
    assert reply.message == "page: forbidden by eu-only"
    record = json.loads(world.entries[-1].record)
    assert (record["type"], record["constraint"], record["policies"]) == ("SESSION_REFUSED", "POLICY", "eu-only")
    candidates = resolve(world.state, intent(), world.now, tenant=session.tenant, client=session.client)
    refused = {each.anchor: each.rejection.constraint for each in candidates if each.rejection is not None}
    assert refused == {"b": "POLICY", "t": "TASK"}
    audited(world)


def test_what_no_policy_permits_is_refused() -> None:
    reply = forced('@id("chat") permit(principal, action, resource) when { context.task == "chat" };').page().reply
    assert isinstance(reply, c.Refused)
    assert reply.message == "page: no policy permits it"


def test_a_relocation_and_an_extension_are_asked_about() -> None:
    world = forced(NOT_HERE)
    session = world.paged(intent(regions=()))
    assert session.lease is not None
    world.do(c.Relocate(session=session.session, cause=RelocationCause.OPERATOR, target=AnchorId("b")))
    relocation = world.state.sessions[session.session].relocation
    assert relocation is not None
    assert (relocation.phase, relocation.message) == (RelocationPhase.FAILED, "b: POLICY")
    no_more = CedarPolicies(f'{BASE} @id("short") forbid(principal, action == Action::"extend", resource);')
    world.do(c.ForcePolicies(policies=no_more, count=2))
    with pytest.raises(RefusedError) as error:
        world.do(c.Extend(session=session.session, additional_s=10))
    assert (error.value.code, error.value.message) == ("POLICY", "extend: forbidden by short")
    audited(world)


def test_hard_constraints_hold_whatever_policies_permit() -> None:
    reply = forced(BASE).page(intent(trust_min=5)).reply
    assert isinstance(reply, c.Refused)
    assert reply.constraint == "TRUST"


def test_policies_that_are_in_force_and_not_loaded_refuse() -> None:
    world = forced(BASE)
    world.paged()
    restored = decode_state(encode_state(world.state))
    assert restored is not None
    world.state = restored
    reply = world.page().reply
    assert isinstance(reply, c.Refused)
    assert "not loaded" in reply.message
    world.do(c.ForcePolicies(policies=None))
    assert isinstance(world.page().reply, c.Admitted)
    audited(world)


def test_a_policy_that_fails_refuses() -> None:
    overflow = "forbid(principal, action, resource) when { context.burst * 9223372036854775807 == 0 };"
    reply = forced(f"{BASE} {overflow}").page(intent(burst=2)).reply
    assert isinstance(reply, c.Refused)
    assert "could not be evaluated" in reply.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("permit(", "not Cedar"),
        ("permit(principal, action, resource) when { resource.colour == 1 };", "does not fit the schema"),
        ('permit(principal == User::"x", action, resource);', "does not fit the schema"),
        (f"{BASE}\n{BASE}", "two policies"),
        ('@id("a,b") permit(principal, action, resource);', "without commas"),
        (" " * 1_048_577, "more than"),
    ],
)
def test_a_wrong_file_is_told(text: str, told: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        CedarPolicies(text)
    assert told in error.value.message
    assert (error.value.code, error.value.who.value) == ("POLICY_INVALID", "operator")


async def settled(policies: PolicyFile) -> None:
    """Look twice: a file that changed between is still being written."""
    await policies.look()
    await policies.look()


async def test_a_wrong_file_never_replaces_a_right_one(tmp_path: Path) -> None:
    world, file = World.started(), tmp_path / "policies.cedar"

    async def submit(command: c.Command) -> c.Reply:
        await asyncio.sleep(0)
        return world.do(command).reply

    file.write_text(BASE)
    policies = PolicyFile(file, submit)
    await policies.load()
    first = world.state.tenancy.policies
    assert policies.status.policies == ["base"]
    file.write_text("permit(")
    await settled(policies)
    assert world.state.tenancy.policies is first
    assert "not Cedar" in policies.status.error
    assert policies.status.digest == world.state.tenancy.policies_digest
    file.unlink()
    await settled(policies)
    assert world.state.tenancy.policies is first
    assert "cannot be read" in policies.status.error
    file.write_text(EU_ONLY)
    await settled(policies)
    assert policies.status.policies == ["base", "eu-only"]
    assert policies.status.error == ""
    with pytest.raises(InvalidInputError):
        await PolicyFile(tmp_path / "none.cedar", submit).load()


async def test_a_file_that_is_being_written_does_not_count(tmp_path: Path) -> None:
    world, file = World.started(), tmp_path / "policies.cedar"

    async def submit(command: c.Command) -> c.Reply:
        return world.do(command).reply

    file.write_text(EU_ONLY)
    policies = PolicyFile(file, submit)
    await policies.load()
    parts = [f"{BASE}\n", f"{BASE}\n{NOT_HERE}", NOT_HERE, EU_ONLY]
    for part in parts:
        file.write_text(part)
        await policies.look()
        assert policies.status.policies == ["base", "eu-only"], "permits alone were never in force"
    file.write_text(BASE)
    await settled(policies)
    assert policies.status.policies == ["base"]


PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "policies.md"
EXAMPLES = re.findall(r"^```cedar\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_ten_examples_of_the_page_fit_the_schema_alone_and_together() -> None:
    assert len(EXAMPLES) == 10
    assert [len(CedarPolicies(example).ids) for example in EXAMPLES] == [1] * 9 + [2]
    assert len(CedarPolicies("\n".join(EXAMPLES)).ids) == 11


@pytest.mark.parametrize(
    ("number", "tenant", "client", "action", "wanted", "allowed"),
    [
        (2, "acme", "x", "page", {}, {"t": True, "a": True, "b": False}),  # b is in "us", the others in "eu"
        (2, "other", "x", "page", {}, {"b": True}),
        (3, "lab", "x", "page", {}, {"a": True, "t": False}),
        (4, "any", "x", "page", {"data_class": DataClass.CONFIDENTIAL}, {"a": False}),
        (4, "any", "x", "page", {}, {"a": True}),
        (5, "any", "x", "page", {}, {"a": False}),
        (6, "acme", "acme-app", "page", {"rate_rps": 51.0}, {"a": False}),
        (6, "acme", "acme-app", "extend", {"rate_rps": 51.0}, {"a": True}),
        (6, "acme", "other-app", "page", {"rate_rps": 51.0}, {"a": True}),
        (7, "any", "x", "page", {}, {"a": True}),
        (8, "any", "x", "page", {}, {"a": True}),
        (9, "any", "x", "relocate", {}, {"a": True}),
        (10, "trial", "x", "page", {"duration_s": 3_601}, {"a": False}),
        (10, "trial", "x", "page", {"duration_s": 3_600}, {"a": True}),
        (10, "trial", "x", "extend", {}, {"a": False}),
    ],
)
def test_each_example_does_what_it_says(
    number: int, tenant: str, client: str, action: str, wanted: dict[str, object], allowed: dict[str, bool]
) -> None:
    catalogue = World.started().state.catalogue
    policies = CedarPolicies("\n".join({EXAMPLES[0]: None, EXAMPLES[number - 1]: None}))
    question = Question(
        action=action, tenant=TenantId(tenant), client=ClientId(client), intent=intent(**wanted), catalogue=catalogue
    )
    for name, expected in allowed.items():
        assert policies.judge(question, [catalogue.anchors[AnchorId(name)]])[0].allowed is expected

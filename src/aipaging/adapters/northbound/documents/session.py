"""Sessions on the wire."""

from typing import Annotated

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound.documents.intent import (
    BoundDocument,
    CandidateDocument,
    IntentDocument,
    NearestDocument,
    bound_document,
    intent_document,
    nearest_document,
)
from aipaging.adapters.northbound.documents.tenancy import CLASS_WORDS, ClassWord
from aipaging.adapters.northbound.documents.words import (
    ANSWER_ITEMS_MAX,
    Aisi,
    Burst,
    Count,
    Digest,
    Instant,
    Milliseconds,
    Name,
    Page,
    Pagination,
    PerPage,
    RatePerSecond,
    Sentence,
    SessionIdText,
    Token,
    Url,
    Word,
    instant,
    rate_of,
)
from aipaging.core.foundation.time import MS, Now
from aipaging.core.lease.machine import Lease
from aipaging.core.paging.claiming import retry_after_s
from aipaging.core.paging.preemption import Plan
from aipaging.core.paging.promises import Contract, ContractState
from aipaging.core.paging.relocation_machine import RelocationCause, RelocationPhase
from aipaging.core.paging.session_machine import SessionPhase, StatusInfo
from aipaging.core.paging.state import Relocation, Session, State
from aipaging.runtime.http.faults import Fault

Candidates = Annotated[
    list[CandidateDocument], Meta(max_length=ANSWER_ITEMS_MAX, description="Every anchor that was looked at.")
]


class IntentRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """An intent to resolve or to page."""

    intent: IntentDocument


class ExtendRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """By how much to prolong a session; the result is capped."""

    additional_duration_s: Annotated[int, Meta(ge=1, le=86_400, description="Seconds.")]


class RelocateRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Where to move a session: to the best other anchor, or, for an operator, to the named one."""

    target_anchor_id: Name | None = None


class MoveRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The client's new access domain."""

    place: Name


class SessionFilter(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Which sessions to list; all that is given must match."""

    status: SessionPhase | None = None
    aisi: Aisi | None = None
    anchor_id: Name | None = None
    client_id: Annotated[Name, Meta(description="For operators; clients see their own sessions only.")] | None = None


class RetrieveSessionsRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Which sessions to list, and which page of them."""

    page: Page = 1
    per_page: PerPage = 20
    filter: SessionFilter = msgspec.field(default_factory=SessionFilter)


class EpochDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A fencing token: `term` rises with every leadership, `n` with every change of the session's COMMIT."""

    term: Annotated[Count, Meta(description="Of the leadership.")]
    n: Annotated[Count, Meta(description="Of the change within it.")]


class CommitDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The admission lease. The controller renews it while the session lasts; durations count from this answer."""

    epoch: EpochDocument
    lease_ms: Annotated[Milliseconds, Meta(description="The duration of the grant or of the last renewal.")]
    remaining_ms: Annotated[Milliseconds, Meta(description="What is left of it; 0 when it has ended.")]
    rate_per_second: RatePerSecond
    burst: Annotated[Burst, Meta(description="Requests that may come at once.")]
    receipt: Annotated[Token, Meta(description="Signed proof of the epoch (JWS, `ai-commit+jwt`).")] | None = None


class RelocationDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The latest relocation of a session; FAILED leaves it on its source."""

    number: Annotated[Count, Meta(description="The first is 1.")]
    phase: RelocationPhase
    cause: RelocationCause
    source_anchor_id: Name
    target_anchor_id: Name | None = None
    message: Annotated[Sentence, Meta(description="Why it failed.")] = ""


class ContractDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How what a session was promised stands: HELD, or DEGRADED while its bound is not provable.

    A degraded session is served as before, without the promise; it is moved or restored as soon as that is possible.
    """

    state: ContractState
    since: Instant
    constraint: Annotated[Word, Meta(description="Of a DEGRADED one: what fails where the session is.")] | None = None
    reason: Annotated[Sentence, Meta(description="How it fails.")] | None = None
    nearest: Annotated[NearestDocument, Meta(description="What could be promised there instead.")] | None = None


class SessionDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A session."""

    session_id: SessionIdText
    status: SessionPhase
    tenant: Name
    client_id: Name
    aisi: Aisi
    gateway_url: Annotated[Url, Meta(description="Where to send requests, with the AIST as bearer token.")]
    intent: IntentDocument
    duration_s: Annotated[Count, Meta(description="How long it lasts from its beginning, seconds.")]
    started_at: Instant
    expires_at: Instant
    status_info: Annotated[StatusInfo, Meta(description="Why it is UNAVAILABLE.")] | None = None
    anchor_id: Name | None = None
    aist: Annotated[Token, Meta(description="The session's token; only in the answers that issue it.")] | None = None
    commit: CommitDocument | None = None
    bound: BoundDocument | None = None
    envelopes: Annotated[
        list[Digest], Meta(max_length=64, description="Digests of the envelopes that the bound rests on.")
    ] = []
    contract: ContractDocument | None = None
    policies: Annotated[
        list[Annotated[str, Meta(max_length=128)]],
        Meta(max_length=2_000, description="Ids of the policies that permitted where it is."),
    ] = []
    relocation: RelocationDocument | None = None


class SessionList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One page of sessions, the oldest first."""

    sessions: Annotated[list[SessionDocument], Meta(max_length=1_000, description="The sessions of this page.")]
    pagination: Pagination


class PreemptionDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How room would be made by a page that finds none: sessions of a lower class would give way."""

    anchor_id: Annotated[Name, Meta(description="Where the room would be.")]
    sessions: Annotated[Count, Meta(description="How many would be moved, or ended; 0: it is enough to wait.")]
    highest_class: Annotated[ClassWord, Meta(description="The highest class among them.")] | None = None
    retry_after_s: Annotated[Count, Meta(description="When the room would be free, in seconds.")]


class Resolution(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What an intent would find: the eligible candidates first, best first, then the others with their reasons."""

    intent: IntentDocument
    candidates: Candidates
    preemption: (
        Annotated[
            PreemptionDocument,
            Meta(description="Of a tenant that preempts, where no candidate is eligible for want of room alone."),
        ]
        | None
    ) = None


class AdmissionRefusal(Fault, frozen=True, kw_only=True, rename="camel"):
    """A refused page: an error document, extended by the reason of every candidate.

    `sessionId` is the id under which the evidence of the refusal stands; there is no such session.
    """

    session_id: SessionIdText
    constraint: Annotated[Word, Meta(description="That which the candidate that came furthest failed.")]
    candidates: Candidates


def preemption_document(state: State, plan: Plan, now: Now) -> PreemptionDocument:
    """Return the document of what a page would displace."""
    classes = [state.tenancy.tenant(victim.tenant).priority for victim in plan.victims]
    return PreemptionDocument(
        anchor_id=plan.candidate.anchor,
        sessions=len(classes),
        highest_class=CLASS_WORDS[max(classes)] if classes else None,
        retry_after_s=retry_after_s(plan, now),
    )


def commit_document(session: Session, lease: Lease, now: Now, receipt: str | None) -> CommitDocument:
    """Return the document of a COMMIT."""
    return CommitDocument(
        epoch=EpochDocument(term=lease.epoch.term, n=lease.epoch.n),
        lease_ms=(lease.deadline_us - lease.granted_us) // MS,
        remaining_ms=max(0, lease.deadline_us - now.boot_us) // MS if lease.live else 0,
        rate_per_second=rate_of(lease.rate_mrps),
        burst=session.intent.burst,
        receipt=receipt,
    )


def _contract_document(contract: Contract) -> ContractDocument:
    return ContractDocument(
        state=contract.state,
        since=instant(contract.since_us),
        constraint=contract.constraint or None,
        reason=contract.message or None,
        nearest=nearest_document(contract.nearest),
    )


def _relocation_document(relocation: Relocation) -> RelocationDocument:
    return RelocationDocument(
        number=relocation.number,
        phase=relocation.phase,
        cause=relocation.cause,
        source_anchor_id=relocation.source,
        target_anchor_id=relocation.target or None,
        message=relocation.message,
    )


def session_document(
    session: Session, now: Now, *, gateway_url: str, aist: str | None = None, receipt: str | None = None
) -> SessionDocument:
    """Return the document of a session."""
    lease = session.lease
    ends_us = session.requested_wall_us + session.duration_ms * MS
    return SessionDocument(
        session_id=session.session,
        status=session.phase,
        status_info=session.status_info,
        tenant=session.tenant,
        client_id=session.client,
        aisi=session.aisi,
        anchor_id=lease.anchor if lease else None,
        gateway_url=gateway_url,
        aist=aist,
        commit=commit_document(session, lease, now, receipt) if lease else None,
        bound=bound_document(lease.bound, session.intent.epsilon) if lease else None,
        envelopes=list(lease.envelopes) if lease else [],
        contract=_contract_document(session.contract) if session.contract and session.available else None,
        policies=list(session.policies),
        relocation=_relocation_document(session.relocation) if session.relocation else None,
        intent=intent_document(session.intent),
        duration_s=session.duration_ms // 1000,
        started_at=instant(session.requested_wall_us),
        expires_at=instant(ends_us if session.ended_wall_us is None else session.ended_wall_us),
    )

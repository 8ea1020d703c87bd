"""Evidence: a session's own records with proofs for its client; checkpoint, tiles and proofs for operators."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound import examples
from aipaging.adapters.northbound.credentials import Caller
from aipaging.adapters.northbound.documents.words import PER_PAGE_MAX, Count, Pagination, SessionIdText
from aipaging.adapters.northbound.operation import BASE, Operation, Reply
from aipaging.adapters.northbound.pages import AskedPage, page_query
from aipaging.adapters.northbound.service import Northbound
from aipaging.core.evidence.tiles import CHECKPOINT_PATH, KEYS_PATH
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import SessionId, session_id
from aipaging.runtime.http.exchange import Answer, Request, integer_of, json_answer

SIZE_MAX: Final = 2**53 - 1

MOVED_AWAY: Final = "AI_PAGING.JOURNAL_FILE_MISSING"
"""What is asked for stands in a file that the operator moved away, or may."""

HashText = Annotated[str, Meta(max_length=64, pattern="^[0-9a-f]{64}$")]
Proof = Annotated[list[HashText], Meta(max_length=64, description="Hashes from the leaf up (RFC 9162), hex.")]


class EvidenceRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One record, byte for byte as it is hashed (RFC 8785), and its proof."""

    seq: Annotated[Count, Meta(description="Its place in the log, from 0.")]
    record: Annotated[
        msgspec.Raw,
        Meta(extra_json_schema={"type": "object", "additionalProperties": True, "description": "As it was recorded."}),
    ]
    proof: Proof | None = None


class SessionEvidenceDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The records of one session, and the signed checkpoint that their proofs lead to."""

    session_id: SessionIdText
    records: Annotated[list[EvidenceRecord], Meta(max_length=PER_PAGE_MAX, description="The records of this page.")]
    pagination: Pagination
    checkpoint: Annotated[str, Meta(max_length=8192, description="Signed note (C2SP tlog-checkpoint).")] | None = None


class InclusionDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Record `seq` is in the tree of `size` records."""

    seq: Annotated[Count, Meta(description="Of the record.")]
    size: Annotated[Count, Meta(description="Of the tree.")]
    proof: Proof


class ConsistencyDocument(msgspec.Struct, frozen=True, kw_only=True, rename={"old": "from", "new": "to"}):
    """The tree of `to` records only appended to that of `from`."""

    old: Annotated[Count, Meta(description="Size of the older tree.")]
    new: Annotated[Count, Meta(description="Size of the newer tree.")]
    proof: Proof


class EvidenceRoutes:
    """The operations on evidence."""

    def __init__(self, service: Northbound) -> None:
        self._control = service.control
        self._desk = service.evidence

    async def session(self, request: Request, caller: Caller) -> Answer:
        """Answer a session's records."""
        session = session_id(request.parameters["sessionId"])
        request.notes["session"] = session
        query = request.parameters_of_query("page", "perPage")
        page = AskedPage.of(query)
        await self._check_visible(session, caller)
        found = await self._desk.session(session, page.first, page.per_page)
        return json_answer(
            SessionEvidenceDocument(
                session_id=session,
                checkpoint=found.checkpoint,
                records=[
                    EvidenceRecord(
                        seq=proven.seq,
                        record=msgspec.Raw(proven.record),
                        proof=_hex(proven.proof) if proven.proof is not None else None,
                    )
                    for proven in found.records
                ],
                pagination=page.of_total(found.total),
            )
        )

    async def _check_visible(self, session: SessionId, caller: Caller) -> None:
        """Check whose records these are: refused and forgotten sessions have records, too.

        Raises:
            InvalidInputError: There are none, or they are somebody else's (`NOT_FOUND`).
        """
        raw = await self._desk.first_record(session)
        first: dict[str, Any] = msgspec.json.decode(raw) if raw is not None else {}
        mine = (first.get("client"), first.get("tenant")) == (caller.client, caller.tenant)
        if raw is None or not (caller.operator or mine):
            raise InvalidInputError(f"there are no records of session {session}", code="NOT_FOUND", field="sessionId")

    async def file(self, request: Request, _caller: Caller) -> Answer:
        """Answer a file of the log."""
        path = request.parameters["path"]
        content = await self._desk.file(path)
        if content is None:
            raise InvalidInputError(
                f"the log has no file {path[:120]!r}: checkpoint, verifier-keys, tile/<level>/<index>[.p/<width>], "
                "tile/entries/<index>[.p/<width>] and leaves/<root> are what it may have",
                code="NOT_FOUND",
            )
        media_type = "text/plain; charset=utf-8" if path in {CHECKPOINT_PATH, KEYS_PATH} else "application/octet-stream"
        return Answer(body=content, media_type=media_type)

    async def inclusion(self, request: Request, _caller: Caller) -> Answer:
        """Answer an inclusion proof."""
        query = request.parameters_of_query("seq", "size")
        seq = integer_of(query.get("seq"), field="seq", low=0, high=SIZE_MAX)
        size = integer_of(query.get("size"), field="size", low=1, high=SIZE_MAX)
        proof = await self._desk.inclusion(seq, size)
        return json_answer(InclusionDocument(seq=seq, size=size, proof=_hex(proof)))

    async def consistency(self, request: Request, _caller: Caller) -> Answer:
        """Answer a consistency proof."""
        query = request.parameters_of_query("from", "to")
        old = integer_of(query.get("from"), field="from", low=0, high=SIZE_MAX)
        new = integer_of(query.get("to"), field="to", low=0, high=SIZE_MAX)
        proof = await self._desk.consistency(old, new)
        return json_answer(ConsistencyDocument(old=old, new=new, proof=_hex(proof)))

    def operations(self) -> Sequence[Operation]:
        """Return the table of these operations; files come last, for their path takes all that follows."""
        # tidy: long because it is a table
        return [
            Operation(
                method="GET",
                path=f"{BASE}/sessions/{{sessionId}}/evidence",
                name="getSessionEvidence",
                summary="Read the records of a session, with proofs",
                description="Also of refused and forgotten sessions. Renewals are recorded in batches and are not "
                "among them. `proof` is left out while no checkpoint covers the record.",
                tag="Evidence",
                handler=self.session,
                scope="ai-paging:sessions:read",
                query=page_query("Records"),
                replies={
                    200: Reply(meaning="The records.", document=SessionEvidenceDocument, example=examples.EVIDENCE)
                },
                errors=("INVALID_ARGUMENT", "OUT_OF_RANGE", "NOT_FOUND", MOVED_AWAY),
            ),
            Operation(
                method="GET",
                path=f"{BASE}/evidence/proofs/inclusion",
                name="getInclusionProof",
                summary="Prove that a record is in the log",
                tag="Evidence",
                handler=self.inclusion,
                scope="ai-paging:evidence:read",
                query={"seq": "The record's place, from 0.", "size": "Size of the tree, as in a checkpoint."},
                replies={200: Reply(meaning="The proof.", document=InclusionDocument, example=examples.INCLUSION)},
                errors=("INVALID_ARGUMENT", "OUT_OF_RANGE", MOVED_AWAY),
            ),
            Operation(
                method="GET",
                path=f"{BASE}/evidence/proofs/consistency",
                name="getConsistencyProof",
                summary="Prove that the log only grew",
                tag="Evidence",
                handler=self.consistency,
                scope="ai-paging:evidence:read",
                query={"from": "Size of the older tree.", "to": "Size of the newer tree."},
                replies={200: Reply(meaning="The proof.", document=ConsistencyDocument, example=examples.CONSISTENCY)},
                errors=("INVALID_ARGUMENT", "OUT_OF_RANGE", MOVED_AWAY),
            ),
            Operation(
                method="GET",
                path=f"{BASE}/evidence/{{path*}}",
                name="getEvidenceFile",
                summary="Read a file of the log: checkpoint, keys, tile, entries, leaves",
                description="C2SP tlog-tiles; an offline verifier reads these files and nothing else.",
                tag="Evidence",
                handler=self.file,
                scope="ai-paging:evidence:read",
                replies={
                    200: Reply(
                        meaning="The file; checkpoints and keys are text.",
                        media_type="application/octet-stream",
                        media_types_also=("text/plain",),
                        example=examples.CHECKPOINT,
                    )
                },
                errors=("NOT_FOUND", MOVED_AWAY),
            ),
        ]


def _hex(hashes: Sequence[bytes]) -> list[str]:
    return [value.hex() for value in hashes]

"""Tail-Risk Envelopes: what domains promise, whether it is believed, and the keys that it is held against."""

from collections.abc import Sequence
from typing import Final

import msgspec

from aipaging.adapters.northbound import examples
from aipaging.adapters.northbound.credentials import Caller
from aipaging.adapters.northbound.documents.envelope import (
    AcceptedEnvelope,
    DomainKeysDocument,
    EnvelopeDocument,
    EnvelopeList,
    JwksRequest,
    OriginalEnvelope,
    SignedEnvelopeRequest,
    SuspicionRequest,
    envelope_document,
    envelope_from_document,
    keys_document,
    original_document,
)
from aipaging.adapters.northbound.operation import BASE, JSON_ERRORS, Operation, Reply
from aipaging.adapters.northbound.pages import first, whole_list
from aipaging.adapters.northbound.service import Northbound
from aipaging.core.envelope.document import document_from
from aipaging.core.envelope.plain import stated
from aipaging.core.foundation.errors import InvalidInputError, RefusedError
from aipaging.core.foundation.names import DomainName, checked_name
from aipaging.core.foundation.time import Now
from aipaging.core.paging import commands as c
from aipaging.core.paging.state import State
from aipaging.runtime.http.documents import decoded
from aipaging.runtime.http.exchange import JSON, Answer, Request, json_answer

JOSE: Final = "application/jose"

_SIGNED: Final = msgspec.json.Decoder(SignedEnvelopeRequest)
_SUSPICION: Final = msgspec.json.Decoder(SuspicionRequest)
_JWKS: Final = msgspec.json.Decoder(JwksRequest)
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])

REFUSALS: Final = (
    "AI_PAGING.ENVELOPE_TOO_LARGE",
    "AI_PAGING.ENVELOPE_NOT_SIGNED",
    "AI_PAGING.ENVELOPE_ALGORITHM",
    "AI_PAGING.ENVELOPE_KEY_UNKNOWN",
    "AI_PAGING.ENVELOPE_SIGNATURE",
    "AI_PAGING.ENVELOPE_MALFORMED",
    "AI_PAGING.ENVELOPE_NOT_CANONICAL",
    "AI_PAGING.ENVELOPE_KEY_FOREIGN",
    "AI_PAGING.ENVELOPE_PLAIN",
    "AI_PAGING.ENVELOPE_NOT_YET_VALID",
    "AI_PAGING.ENVELOPE_EXPIRED",
    "AI_PAGING.ENVELOPE_ROLLED_BACK",
    "AI_PAGING.ENVELOPE_REPLAYED",
    "AI_PAGING.ENVELOPE_EQUIVOCATION",
    "AI_PAGING.ENVELOPES_TOO_MANY",
)
"""Why an envelope is not accepted: one code for each reason."""


class EnvelopeRoutes:
    """The operations on envelopes and on the keys of domains."""

    def __init__(self, service: Northbound) -> None:
        self._control = service.control
        self._intake = service.envelopes

    async def read(self, request: Request, _caller: Caller) -> Answer:
        """List the newest envelopes."""
        return await whole_list(
            request,
            self._control,
            lambda state, now: EnvelopeList(
                envelopes=[envelope_document(state, envelope, now) for envelope in first(state.catalogue.envelopes)]
            ),
        )

    async def original(self, request: Request, _caller: Caller) -> Answer:
        """Answer the signed original with a digest."""
        request.parameters_of_query()
        digest = _digest_of(request)
        return json_answer(await self._control.view(lambda state, now: original_document(state, digest, now)))

    async def accept(self, request: Request, _caller: Caller) -> Answer:
        """Put an envelope into force."""
        raw = await request.body()
        kind = request.header(b"content-type").partition(";")[0].strip().lower()
        if kind == JOSE:
            digest = await self._intake.accept_signed(raw.strip())
        elif kind == JSON:
            digest = await self._accept_json(raw)
        else:
            raise RefusedError(
                f"the body must be {JOSE} or {JSON}", code="UNSUPPORTED_MEDIA_TYPE", field="content-type"
            )
        return json_answer(await self._newest(digest), status=201)

    async def _accept_json(self, raw: bytes) -> str:
        try:
            members = _MEMBERS.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            members = {}
        if "envelope" in members:
            return await self._intake.accept_signed(decoded(_SIGNED, raw).envelope.encode())
        if "version" in members:
            return await self._intake.accept_stated(document_from(raw))
        plain = envelope_from_document(raw)
        now = await self._control.view(lambda _, now: now)
        return await self._intake.accept_stated(stated(plain, now.wall_us))

    async def suspect(self, request: Request, _caller: Caller) -> Answer:
        """Stop to believe an envelope."""
        digest = _digest_of(request)
        reason = (await request.document(_SUSPICION)).reason
        await self._control.submit(c.SuspectEnvelope(digest=digest, reason=reason))
        return json_answer(await self._newest(digest))

    async def clear(self, request: Request, _caller: Caller) -> Answer:
        """Believe an envelope again."""
        digest = _digest_of(request)
        await self._control.submit(c.ClearEnvelope(digest=digest))
        return json_answer(await self._newest(digest))

    async def _newest(self, digest: str) -> AcceptedEnvelope:
        def read(state: State, now: Now) -> AcceptedEnvelope:
            for envelope in state.catalogue.envelopes.values():
                if envelope.digest == digest:
                    return envelope_document(state, envelope, now)
            raise RefusedError("a newer envelope was accepted at the same moment", code="ABORTED")

        return await self._control.view(read)

    async def keys(self, request: Request, _caller: Caller) -> Answer:
        """Answer the key set of a domain."""
        request.parameters_of_query()
        domain = _domain_of(request)

        def read(state: State, _now: Now) -> DomainKeysDocument:
            found = state.promises.key_sets.get(domain)
            if found is None:
                raise InvalidInputError(
                    f"{domain} has no key set: the operator signs for it", code="NOT_FOUND", field="domain"
                )
            return keys_document(domain, found)

        return json_answer(await self._control.view(read))

    async def set_keys(self, request: Request, _caller: Caller) -> Answer:
        """Register or rotate the key set of a domain."""
        domain = _domain_of(request)
        keys = await request.document(_JWKS)
        key_set = await self._intake.register_keys(domain, msgspec.json.encode(keys))
        return json_answer(keys_document(domain, key_set))

    async def own_keys(self, request: Request) -> Answer:
        """Answer the keys that sign for domains without keys of their own."""
        request.parameters_of_query()
        return json_answer(self._intake.keys.own_jwks())

    def operations(self) -> Sequence[Operation]:
        """Return the table of these operations."""
        # tidy: long because it is a table
        newest = Reply(meaning="How it stands.", document=AcceptedEnvelope, example=examples.ENVELOPE)
        key_set = Reply(meaning="The key set.", document=DomainKeysDocument, example=examples.DOMAIN_KEYS)
        return [
            Operation(
                method="GET",
                path=f"{BASE}/envelopes",
                name="getEnvelopes",
                summary="List the newest envelopes, and how they stand",
                tag="Envelopes",
                handler=self.read,
                scope="ai-paging:envelopes:read",
                replies={200: Reply(meaning="The envelopes.", document=EnvelopeList, example=examples.ENVELOPES)},
            ),
            Operation(
                method="POST",
                path=f"{BASE}/envelopes",
                name="acceptEnvelope",
                summary="Put a Tail-Risk Envelope into force",
                description='Takes a signed one as `application/jose`, or in JSON as `{"envelope": "<jws>"}`. For '
                "a domain without a key set, the operator may also send it plain, as below or as an unsigned document "
                "of the envelope schema: the controller signs it. Every session that crosses the domain is looked at: "
                "kept with its new bound, relocated, or told that it is degraded.",
                tag="Envelopes",
                handler=self.accept,
                scope="ai-paging:envelopes:create",
                request=EnvelopeDocument,
                request_example=examples.ENVELOPE_REQUEST,
                replies={201: newest},
                errors=(*JSON_ERRORS, "NOT_FOUND", "ABORTED", *REFUSALS),
            ),
            Operation(
                method="GET",
                path=f"{BASE}/envelopes/{{digest}}",
                name="getEnvelope",
                summary="The signed original of an envelope, by the digest that the evidence names",
                tag="Envelopes",
                handler=self.original,
                scope="ai-paging:envelopes:read",
                replies={200: Reply(meaning="The original.", document=OriginalEnvelope, example=examples.ORIGINAL)},
                errors=("INVALID_ARGUMENT", "NOT_FOUND"),
            ),
            Operation(
                method="POST",
                path=f"{BASE}/envelopes/{{digest}}/suspect",
                name="suspectEnvelope",
                summary="Do not believe an envelope in force any more",
                description="As if it had expired, until it is cleared or a newer one is accepted.",
                tag="Envelopes",
                handler=self.suspect,
                scope="ai-paging:envelopes:update",
                request=SuspicionRequest,
                request_example={"reason": "audit 2026-11-22: violated"},
                replies={200: newest},
                errors=(*JSON_ERRORS, "NOT_FOUND", "ABORTED"),
                protects=True,
            ),
            Operation(
                method="POST",
                path=f"{BASE}/envelopes/{{digest}}/clear",
                name="clearEnvelope",
                summary="Believe a suspect envelope again",
                tag="Envelopes",
                handler=self.clear,
                scope="ai-paging:envelopes:update",
                replies={200: newest},
                errors=("INVALID_ARGUMENT", "NOT_FOUND", "ABORTED"),
            ),
            Operation(
                method="GET",
                path=f"{BASE}/domains/{{domain}}/keys",
                name="getDomainKeys",
                summary="The keys that a domain's envelopes are held against",
                tag="Envelopes",
                handler=self.keys,
                scope="ai-paging:envelopes:read",
                replies={200: key_set},
                errors=("INVALID_ARGUMENT", "NOT_FOUND"),
            ),
            Operation(
                method="PUT",
                path=f"{BASE}/domains/{{domain}}/keys",
                name="setDomainKeys",
                summary="Register or rotate the key set of a domain",
                description="From then on the domain takes signed envelopes only, and only those that a key of this "
                "set signed. What is in force stays in force.",
                tag="Envelopes",
                handler=self.set_keys,
                scope="ai-paging:domains:update",
                request=JwksRequest,
                request_example={"keys": [examples.JWK]},
                replies={200: key_set},
                errors=(*JSON_ERRORS, "NOT_FOUND", "INCOMPATIBLE_STATE", "AI_PAGING.KEY_SET_INVALID"),
            ),
            Operation(
                method="GET",
                path="/.well-known/envelope-keys.json",
                name="getEnvelopeKeys",
                summary="The keys with which the operator signs for domains without keys of their own",
                tag="Service",
                handler=self.own_keys,
                scope=None,
                replies={200: Reply(meaning="A JWK Set (RFC 7517).", document=dict, example={"keys": [examples.JWK]})},
            ),
        ]


def _domain_of(request: Request) -> DomainName:
    return DomainName(checked_name(request.parameters["domain"], field="domain"))


def _digest_of(request: Request) -> str:
    digest = request.parameters["digest"]
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise InvalidInputError("a digest is 64 hexadecimal digits in lower case", field="digest")
    return digest

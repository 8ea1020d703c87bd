"""What the continuous audit found: alarms and verdicts, and who made requests late.

Clients see findings about their own tenant; operators see all. The latest are answered from the state; older ones are
in the evidence log.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Final

from aipaging.adapters.northbound import examples
from aipaging.adapters.northbound.credentials import Caller
from aipaging.adapters.northbound.documents.audits import AuditDocument, AuditList, audit_document, audit_summary
from aipaging.adapters.northbound.operation import BASE, Operation, Reply
from aipaging.adapters.northbound.pages import AskedPage, page_query
from aipaging.adapters.northbound.service import Northbound
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import checked_name
from aipaging.core.paging.standing import ALARM, FINDINGS_MAX, VERDICT, Finding
from aipaging.core.paging.state import State
from aipaging.runtime.http.exchange import Answer, Request, json_answer

VERDICTS: Final = frozenset({"compliant", "violated", "insufficient_evidence"})

_SUMMARY: Final[dict[str, object]] = {
    "auditId": "01a2053b1e33-d4ca0a552e",
    "kind": "VERDICT",
    "domain": "edge-one",
    "tenant": "tenant-one",
    "verdict": "violated",
    "delayMs": 117.565,
    "epsilon": 0.001,
    "requests": 122,
    "exceedancesLow": 12,
    "exceedancesHigh": 12,
    "missing": 0,
    "reason": "12 to 12 of 122 requests exceeded; 10 are allowed",
    "foundAt": "2026-11-22T21:48:10Z",
}
_WHOLE: Final[dict[str, object]] = {
    **_SUMMARY,
    "domain": "end-to-end",
    "record": {"domain": "end-to-end", "verdict": "violated", "requests": 122},
    "attribution": {
        "observed": 0.0984,
        "permitted": 0.0,
        "unattributed": 0.0,
        "domains": {"edge-one": {"blame": 0.0984, "low": 0.05, "high": 0.16}},
        "requests": 122,
    },
}


class AuditRoutes:
    """The operations on findings."""

    def __init__(self, service: Northbound) -> None:
        self._control = service.control

    async def read(self, request: Request, caller: Caller) -> Answer:
        """List findings, the latest first."""
        query = request.parameters_of_query("page", "perPage", "domain", "tenant", "verdict", "kind")
        page = AskedPage.of(query)
        wanted = {name: query[name] for name in ("domain", "tenant", "verdict", "kind") if query.get(name)}
        if wanted.get("verdict", "violated") not in VERDICTS:
            raise InvalidInputError(f"verdict is one of {', '.join(sorted(VERDICTS))}", field="verdict")
        if wanted.get("kind", ALARM) not in {ALARM, VERDICT}:
            raise InvalidInputError("kind is ALARM or VERDICT", field="kind")
        for name in ("domain", "tenant"):
            checked_name(wanted.get(name, "any"), field=name)

        def listed(state: State, _now: object) -> AuditList:
            found = [
                finding
                for finding in reversed(state.audits.findings.values())
                if _visible(finding, caller) and all(getattr(finding, name) == wanted[name] for name in wanted)
            ]
            return AuditList(
                audits=[audit_summary(finding) for finding in islice(found, page.first, page.first + page.per_page)],
                pagination=page.of_total(len(found)),
            )

        return json_answer(await self._control.view(listed))

    async def one(self, request: Request, caller: Caller) -> Answer:
        """Answer one finding."""
        request.parameters_of_query()
        wanted = request.parameters["auditId"]

        def read(state: State, _now: object) -> AuditDocument:
            finding = state.audits.findings.get(wanted)
            if finding is None or not _visible(finding, caller):
                raise InvalidInputError(
                    f"there is no finding {wanted[:64]} among the latest {FINDINGS_MAX}",
                    code="NOT_FOUND",
                    field="auditId",
                )
            return audit_document(finding)

        return json_answer(await self._control.view(read))

    def operations(self) -> Sequence[Operation]:
        """Return the table of these operations."""
        return [
            Operation(
                method="GET",
                path=f"{BASE}/audits",
                name="getAudits",
                summary="List what the continuous audit found, the latest first",
                description="Alarms (early, under an assumption) and verdicts (certain) about the contracts in force. "
                "Clients see those of their own tenant.",
                tag="Audits",
                handler=self.read,
                scope="ai-paging:audits:read",
                query={
                    **page_query("Findings"),
                    "domain": "Of this domain alone, or `end-to-end`.",
                    "tenant": "Of this tenant alone.",
                    "verdict": "With this verdict alone: compliant, violated, insufficient_evidence.",
                    "kind": "ALARM or VERDICT alone.",
                },
                replies={
                    200: Reply(
                        meaning="The findings.",
                        document=AuditList,
                        example={"audits": [_SUMMARY], "pagination": examples.LONG_PAGE},
                    )
                },
                errors=("INVALID_ARGUMENT", "OUT_OF_RANGE"),
            ),
            Operation(
                method="GET",
                path=f"{BASE}/audits/{{auditId}}",
                name="getAudit",
                summary="One finding: what it was computed from, and who made requests late",
                tag="Audits",
                handler=self.one,
                scope="ai-paging:audits:read",
                replies={200: Reply(meaning="The finding.", document=AuditDocument, example=_WHOLE)},
                errors=("INVALID_ARGUMENT", "NOT_FOUND"),
            ),
        ]


def _visible(finding: Finding, caller: Caller) -> bool:
    return caller.operator or finding.concerns(caller.tenant)

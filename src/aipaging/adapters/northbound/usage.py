"""What tenants used: a client sees its own tenant, an operator all of them, as JSON or as CSV."""

import csv
import datetime as dt
import io
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from aipaging.adapters.northbound.credentials import Caller
from aipaging.adapters.northbound.documents.usage import TenantUsage, UsageList, tenant_usage
from aipaging.adapters.northbound.documents.words import instant, wall_us_of
from aipaging.adapters.northbound.operation import BASE, Operation, Reply
from aipaging.adapters.northbound.pages import AskedPage, page_query
from aipaging.adapters.northbound.service import Northbound
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import checked_name
from aipaging.core.foundation.time import SECOND, WallUs
from aipaging.runtime.http.exchange import JSON, Answer, Request, json_answer

CSV: Final = "text/csv"

PERIOD_S: Final = 900
"""Periods are of whole quarters of an hour: wherever an invoice's midnight is, it is one."""

FAR_US: Final = WallUs(2**53 - 1)
"""The end of a period that has none."""

_TENANT: Final[dict[str, object]] = {
    "tenant": "acme",
    "sessions": 120,
    "leaseSeconds": 71940.5,
    "reservedRequests": 1438810.0,
    "requests": 803112,
    "tokens": 96373440,
    "charged": 1438810,
    "refunded": 20500,
}
_EXAMPLE: Final[dict[str, object]] = {
    "periodStart": "2026-11-01T00:00:00Z",
    "periodEnd": "2026-12-01T00:00:00Z",
    "accountedTo": "2026-11-23T04:00:12.345678Z",
    "usage": [_TENANT],
    "pagination": {"page": 1, "perPage": 100, "totalCount": 1, "totalPages": 1},
}


class UsageRoutes:
    """The operation on usage."""

    def __init__(self, service: Northbound) -> None:
        self._desk = service.usage

    async def read(self, request: Request, caller: Caller) -> Answer:
        """Answer what was used."""
        query = request.parameters_of_query("periodStart", "periodEnd", "tenant", "page", "perPage")
        page = AskedPage.of(query)
        tenant = checked_name(query["tenant"], field="tenant") if "tenant" in query else None
        if not caller.operator:
            if tenant not in {None, caller.tenant}:
                raise InvalidInputError(f"there is no tenant {tenant}", code="NOT_FOUND", field="tenant")
            tenant = caller.tenant
        from_us, to_us = _instant(query, "periodStart", WallUs(0)), _instant(query, "periodEnd", FAR_US)
        if from_us >= to_us:
            raise InvalidInputError("the period is empty: it must end after it starts", field="periodEnd")
        found = await self._desk.between(from_us, to_us, tenant)
        chosen = islice(found.tenants.items(), page.first, page.first + page.per_page)
        rows = [tenant_usage(name, used) for name, used in chosen]
        if _wants_csv(request.header(b"accept")):
            total = str(len(found.tenants)).encode()
            return Answer(body=_csv(rows), media_type=CSV, headers=((b"x-total-count", total),))
        return json_answer(
            UsageList(
                period_start=instant(from_us) if "periodStart" in query else None,
                period_end=instant(to_us) if "periodEnd" in query else None,
                accounted_to=instant(found.accounted_us),
                usage=rows,
                pagination=page.of_total(len(found.tenants)),
            )
        )

    def operations(self) -> Sequence[Operation]:
        """Return the table of this operation."""
        return [
            Operation(
                method="GET",
                path=f"{BASE}/usage",
                name="getUsage",
                summary="Read what tenants used in a period",
                description="Sums that anybody who holds the evidence derives alike (`aipaging usage`). A client reads "
                "its own tenant, an operator all. With `accept: text/csv` the page comes as CSV, with a line of names, "
                "and the number of tenants in all in `x-total-count`.",
                tag="Usage",
                handler=self.read,
                scope="ai-paging:usage:read",
                query={
                    "periodStart": "RFC 3339, a whole quarter of an hour; by default where the log begins.",
                    "periodEnd": "Not included; likewise; by default now.",
                    "tenant": "Of this tenant only.",
                    **page_query("Tenants"),
                },
                replies={
                    200: Reply(meaning="What they used.", document=UsageList, media_types_also=(CSV,), example=_EXAMPLE)
                },
                errors=(
                    "INVALID_ARGUMENT",
                    "OUT_OF_RANGE",
                    "NOT_FOUND",
                    "UNAVAILABLE",
                    "AI_PAGING.JOURNAL_FILE_MISSING",
                ),
            )
        ]


def _instant(query: Any, field: str, default: WallUs) -> WallUs:
    if field not in query:
        return default
    text = query[field]
    try:
        moment = msgspec.convert(text, dt.datetime)
        wall_us = wall_us_of(moment) if moment.tzinfo is not None else -1
    except (msgspec.ValidationError, OverflowError):
        wall_us = -1
    if not 0 <= wall_us <= FAR_US or wall_us % (PERIOD_S * SECOND):
        raise InvalidInputError(
            f"{field} is {text[:40]!r}: a whole quarter of an hour with its zone is expected, such as "
            "2026-11-01T00:00:00Z (a + is written %2B)",
            field=field,
        )
    return WallUs(wall_us)


def _wants_csv(accept: str) -> bool:
    """Tell whether CSV stands before JSON, or before anything else that would do."""
    for part in accept.lower().split(","):
        media_type, _, parameters = part.partition(";")
        if media_type.strip() in {CSV, JSON, "*/*", "application/*"} and "q=0" not in parameters.replace("q=0.", ""):
            return media_type.strip() == CSV
    return False


def _csv(rows: Sequence[TenantUsage]) -> bytes:
    """Return rows as `aipaging usage --csv` prints them."""
    text = io.StringIO()
    writer = csv.DictWriter(text, TenantUsage.__struct_fields__, lineterminator="\n")
    writer.writeheader()
    writer.writerows(msgspec.structs.asdict(row) for row in rows)
    return text.getvalue().encode()

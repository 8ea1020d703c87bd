"""`aipaging usage`: what tenants used, derived from an evidence log."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
import msgspec

from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import table, write_json
from aipaging.apps.evidence.command import reads_log
from aipaging.core.evidence.usage import Usage, UsageBook
from aipaging.core.foundation.errors import InvalidInputError, UnverifiedError, Who
from aipaging.core.foundation.time import SECOND
from aipaging.ports.journal import EvidenceReader

FAR_US: Final = 2**53 - 1
"""The end of a period that has none: every JSON reader holds it exactly."""

COLUMNS: Final[Sequence[str]] = (
    "tenant", "sessions", "lease_seconds", "reserved_requests", "requests", "tokens", "charged", "refunded",
)  # fmt: skip


@click.command(
    epilog=examples(
        "aipaging usage journal.db",
        "aipaging usage journal.db --tenant acme --from 2026-11-01 --to 2026-12-01 --csv > november.csv",
        "aipaging usage https://control.example/ai-paging/v0.1/evidence/ --token-file noc.secret --json",
    )
)
@reads_log
@click.option("--tenant", help="Only this tenant.")
@click.option("--from", "begin", default="", help="Begin of the period, such as 2026-11-01 or 2026-11-01T12:00:00Z.")
@click.option("--to", "end", default="", help="End of the period, not included.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@json_option
def usage(*, reader: EvidenceReader, tenant: str | None, begin: str, end: str, as_csv: bool, as_json: bool) -> None:
    """Sum what tenants used, from SOURCE: a journal file, an exported directory, or a controller's /evidence/ URL.

    Sums are of the records as they stand; whether these are whole and true is what `aipaging evidence verify` says.
    """
    from_us, to_us = _instant(begin, "from", 0), _instant(end, "to", FAR_US)
    book = UsageBook(from_us=from_us, to_us=to_us)
    for stored in reader.records(0):
        book.feed(_decoded(stored.record), [_decoded(leaf) for leaf in stored.leaves or ()])
    rows = [_row(name, each) for name, each in book.closed().items() if tenant in {None, name}]
    if as_json:
        write_json({"from_us": from_us, "to_us": min(to_us, book.last_us), "tenants": rows})
    elif as_csv:
        click.echo(_csv(rows), nl=False)
    else:
        table(COLUMNS, (tuple(row[key] for key in COLUMNS) for row in rows), right=tuple(range(1, len(COLUMNS))))


def _row(name: str, used: Usage) -> Mapping[str, Any]:
    return {
        "tenant": name,
        "sessions": used.sessions,
        "lease_seconds": used.lease_us / SECOND,
        "reserved_requests": used.reserved / (1000 * SECOND),
        "requests": used.requests,
        "tokens": used.tokens,
        "charged": used.charged,
        "refunded": used.refunded,
    }


def _csv(rows: list[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [str(column) for column in COLUMNS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _instant(text: str, field: str, default: int) -> int:
    if not text:
        return default
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"--{field} is {text[:40]!r}: an ISO 8601 date or instant is expected", field=field
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * SECOND)


def _decoded(raw: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnverifiedError(
            "a record cannot be read: run `aipaging evidence verify`", code="RECORD_MALFORMED", who=Who.OPERATOR
        ) from error

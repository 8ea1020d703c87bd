"""`aipaging usage`: what tenants used, derived from an evidence log."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import click
import msgspec

from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import table, write_json
from aipaging.apps.evidence.command import names_source
from aipaging.apps.evidence.source import Source
from aipaging.core.evidence.usage import Usage, UsageBook
from aipaging.core.foundation.errors import InvalidInputError, UnavailableError, UnverifiedError, Who
from aipaging.core.foundation.time import SECOND
from aipaging.ports.journal import EvidenceReader

FAR_US: Final = 2**53 - 1
"""The end of a period that has none: every JSON reader holds it exactly."""

PER_PAGE: Final = 1_000
"""Tenants that a controller is asked for at a time: the most that it tells."""

Row: TypeAlias = Mapping[str, Any]

COLUMNS: Final[Sequence[str]] = (
    "tenant", "sessions", "lease_seconds", "reserved_requests", "requests", "tokens", "charged", "refunded",
)  # fmt: skip


@click.command(
    epilog=examples(
        "aipaging usage journal.db",
        "aipaging usage journal.db --tenant acme --from 2026-11-01 --to 2026-12-01 --csv > november.csv",
        "aipaging usage https://control.example/ai-paging/v0.1/usage --token-file noc.secret --json",
        "aipaging usage https://control.example/ai-paging/v0.1/evidence/ --token-file noc.secret --json",
    )
)
@names_source
@click.option("--tenant", help="Only this tenant.")
@click.option("--from", "begin", default="", help="Begin of the period, such as 2026-11-01 or 2026-11-01T12:00:00Z.")
@click.option("--to", "end", default="", help="End of the period, not included.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@json_option
def usage(*, source: Source, tenant: str | None, begin: str, end: str, as_csv: bool, as_json: bool) -> None:
    """Sum what tenants used, from SOURCE: a journal file, an exported directory, or a URL of a controller.

    At /usage the controller is asked for its sums, of whole quarters of an hour; at /evidence/ its whole log is fetched
    and summed here. Sums are of the records as they stand; whether these are whole and true is what `aipaging evidence
    verify` says.
    """
    period = (_instant(begin, "from", 0), _instant(end, "to", FAR_US))
    asks = source.where.startswith(("http://", "https://")) and source.where.rstrip("/").endswith("/usage")
    last_us, rows = _told(source.asked, *period, tenant) if asks else _summed(source.reader(), *period, tenant)
    if as_json:
        write_json({"from_us": period[0], "to_us": min(period[1], last_us), "tenants": rows})
    elif as_csv:
        click.echo(_csv(rows), nl=False)
    else:
        table(COLUMNS, (tuple(row[key] for key in COLUMNS) for row in rows), right=tuple(range(1, len(COLUMNS))))


def _summed(reader: EvidenceReader, from_us: int, to_us: int, tenant: str | None) -> tuple[int, list[Row]]:
    """Return the instant of the log's last record, and what its records add up to."""
    book = UsageBook(from_us=from_us, to_us=to_us)
    for stored in reader.records(0):
        book.feed(_decoded(stored.record), [_decoded(leaf) for leaf in stored.leaves or ()])
    return book.last_us, [_row(name, each) for name, each in book.closed().items() if tenant in {None, name}]


def _told(
    ask: Callable[[Mapping[str, str]], Any], from_us: int, to_us: int, tenant: str | None
) -> tuple[int, list[Row]]:
    """Return the same as a controller tells it, page by page."""
    query = {"perPage": str(PER_PAGE)} | ({"tenant": tenant} if tenant else {})
    query |= {"periodStart": _text(from_us)} if from_us else {}
    query |= {"periodEnd": _text(to_us)} if to_us < FAR_US else {}
    rows: list[Row] = []
    page, pages = 0, 1
    last_us = 0
    while page < pages:
        page += 1
        said = ask(query | {"page": str(page)})
        try:
            rows += [{name: each[_camel(name)] for name in COLUMNS} for each in said["usage"]]
            last_us, pages = _instant(said["accountedTo"], "accountedTo", 0), int(said["pagination"]["totalPages"])
        except (KeyError, TypeError, ValueError):
            raise UnavailableError("the answer tells no usage: is it a controller?", code="ANSWER_MALFORMED") from None
    return last_us, rows


def _row(name: str, used: Usage) -> Row:
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


def _csv(rows: list[Row]) -> str:
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


def _text(wall_us: int) -> str:
    return datetime.fromtimestamp(wall_us / SECOND, UTC).isoformat().replace("+00:00", "Z")


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _decoded(raw: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnverifiedError(
            "a record cannot be read: run `aipaging evidence verify`", code="RECORD_MALFORMED", who=Who.OPERATOR
        ) from error

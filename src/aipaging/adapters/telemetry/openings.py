"""Opened records of a commitment: a file of JSON lines, each with its place, its record and its inclusion proof.

The first line says what was opened: commitment and seed. The auditor knows both from elsewhere and compares. The order
of opening is drawn again; whatever is due in it and is not there, or not proven, counts as a record of which
everything is unknown: leaving out what is embarrassing helps nobody.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from aipaging.adapters.telemetry.columns import ListedIds, domain_columns, integers
from aipaging.adapters.telemetry.rows import request_ids, rows_batch
from aipaging.core.audit.commitment import PROVEN_MAX, Commitment, is_proven
from aipaging.core.audit.opening import opening_key, opening_order
from aipaging.core.audit.telemetry import Batch, Integers, RequestIds
from aipaging.core.foundation.errors import InvalidInputError

FORMAT: Final = "aipaging-openings/1"
"""The first line's `format`."""

LINE_BYTES_MAX: Final = 64 * 1024
"""Of an opening: a record is below a kilobyte, a proof below four."""

_HEAD: Final = msgspec.json.Decoder(dict[str, Any])


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the file.

    Attributes:
        row: Place in the telemetry.
        record: The row.
        proof: Sibling hashes from the leaf up, in hex.
    """

    row: int
    record: dict[str, Any]
    proof: list[str]


_LINE: Final = msgspec.json.Decoder(Opened)


def head_line(commitment: Commitment, *, seed: int, opened: int) -> bytes:
    """Return the first line of a file of openings."""
    head = {
        "format": FORMAT,
        "origin": commitment.origin,
        "size": commitment.size,
        "root": commitment.root.hex(),
        "seed": seed,
        "opened": opened,
    }
    return msgspec.json.encode(head) + b"\n"


def opening_line(row: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """Return the line of one opened record."""
    sides = [side.hex() for side in proof]
    return msgspec.json.encode({"row": row, "record": msgspec.Raw(leaf), "proof": sides}) + b"\n"


def is_openings(path: Path) -> bool:
    """Tell whether a file holds openings, by its first line."""
    try:
        with path.open("rb") as file:
            return f'"{FORMAT}"'.encode() in file.readline(LINE_BYTES_MAX)
    except OSError:
        return False


class OpeningsSource:
    """Opened records in the order of opening, checked against a commitment and a seed.

    Attributes:
        domains: The domains that any record has a column for.
        has_tenants: Always: leaves hold them.
        unproven: Records that were due and are not there, or are not what was committed to.
        matches: Whether the file speaks of this commitment and this seed at all.
    """

    def __init__(self, path: Path, commitment: Commitment, *, seed: int, count: int | None) -> None:
        """Read and check the openings.

        Args:
            path: The file.
            commitment: What the provider committed to, from elsewhere.
            seed: What was drawn afterwards, from elsewhere.
            count: Records that are due, None for as many as the file says.

        Raises:
            InvalidInputError: The file cannot be read, or says nothing of what it opens.
        """
        head, lines = _read(path)
        self.matches = (
            head.get("size") == commitment.size
            and head.get("root") == commitment.root.hex()
            and head.get("seed") == seed
        )
        due = count if count is not None else head.get("opened")
        if type(due) is not int or not 0 < due <= PROVEN_MAX:
            raise InvalidInputError(f"1 to {PROVEN_MAX} records can be opened", code="OPENINGS_INVALID", field="sample")
        by_row: dict[int, Opened] = {}
        for line in lines:
            by_row.setdefault(line.row, line)
        order: list[int] = opening_order(opening_key(seed, commitment.root), commitment.size, due).tolist()
        self._records = [_proven(by_row.get(row), row, commitment) for row in order]
        self.unproven = sum(not record for record in self._records)
        names = dict.fromkeys(name for record in self._records for name in record)
        self._columns = domain_columns(
            dict.fromkeys([*names, "request_id", "start_us", "status", "end_to_end_us", "tenant"])
        )
        self.domains = tuple(self._columns.values())
        self.has_tenants = True

    def identities(self) -> Iterator[tuple[Integers, RequestIds]]:
        """Yield the starts and the ids, once."""
        yield integers([row.get("start_us") for row in self._records]), ListedIds(request_ids(self._records))

    def batches(self, *, ids: bool, tenants: bool) -> Iterator[Batch]:
        """Yield the opened records, once."""
        wanted = ("start_us", "status", "end_to_end_us", "tenant", *self._columns)
        columns: dict[str, Sequence[Any]] = {name: [row.get(name) for row in self._records] for name in wanted}
        columns["request_id"] = request_ids(self._records)
        yield rows_batch(columns, self._columns, ids=ids, tenants=tenants, malformed=self.unproven)


def _read(path: Path) -> tuple[dict[str, Any], list[Opened]]:
    lines: list[Opened] = []
    try:
        with path.open("rb") as file:
            head = _HEAD.decode(file.readline(LINE_BYTES_MAX))
            for line in islice(iter(lambda: file.readline(LINE_BYTES_MAX), b""), PROVEN_MAX):
                try:
                    lines.append(_LINE.decode(line))
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    continue  # what was due at its place is then missing, and counted as such
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"{path} holds no openings: {error}", code="OPENINGS_INVALID", field="telemetry"
        ) from error
    if head.get("format") != FORMAT:
        raise InvalidInputError(f"{path} holds no openings", code="OPENINGS_INVALID", field="telemetry")
    return head, lines


def _proven(opened: Opened | None, row: int, commitment: Commitment) -> Mapping[str, Any]:
    if opened is None:
        return {}
    try:
        proof = [bytes.fromhex(side) for side in opened.proof]
    except ValueError:
        return {}
    return opened.record if is_proven(commitment, row, opened.record, proof) else {}

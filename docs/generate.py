"""Writes the pages of the reference that are made from the code.

    python docs/generate.py            write them
    python docs/generate.py --check    exit status 1 if a committed page differs

`tests/docs` runs the check. What a page says in words stands here or in the docstrings of the code; what it lists
(transitions, records, limits, operations) is read from the code and nowhere else.
"""

# ruff: noqa: INP001 - a script, not a package

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from aipaging.adapters.northbound.app import operations_of
from aipaging.adapters.northbound.operation import Operation
from aipaging.core.evidence import record as evidence
from aipaging.core.lease import machine as lease_machine
from aipaging.core.paging import records as paging_records
from aipaging.core.paging import relocation_machine, session_machine
from aipaging.runtime.http import faults

DOCS: Final = Path(__file__).parent
SOURCE: Final = DOCS.parent / "src" / "aipaging"
MADE: Final = "<!-- Made by docs/generate.py from the code; edit the code. -->\n"


def pages() -> dict[Path, str]:
    """Return every generated page by its path."""
    reference = DOCS / "reference"
    return {
        reference / "state-machines.md": state_machines(),
        reference / "evidence-records.md": evidence_records(),
        reference / "limits.md": limits(),
        reference / "northbound.md": northbound(),
    }


# --- state machines -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine: its module, its table, where it begins, and the phases after which nothing follows."""

    title: str
    module: ModuleType
    table: Mapping[Any, Enum]
    first: Enum


MACHINES: Final = (
    Machine("Session", session_machine, session_machine.TRANSITIONS, session_machine.SessionPhase.REQUESTED),
    Machine("Lease (COMMIT)", lease_machine, lease_machine.TRANSITIONS, lease_machine.LeasePhase.GRANTED),
    Machine(
        "Relocation", relocation_machine, relocation_machine.TRANSITIONS, relocation_machine.RelocationPhase.DETECTED
    ),
)


MACHINES_INTRO: Final = """\
# State machines

Each machine is one table in one file. An event that its table does not hold raises `IllegalTransitionError`
(`INCOMPATIBLE_STATE` at the API) and leaves the state as it was. The diagrams are drawn from the tables.
"""


def state_machines() -> str:
    """Return the page of the three machines."""
    parts = [MADE, MACHINES_INTRO]
    for machine in MACHINES:
        path = Path(inspect.getfile(machine.module)).relative_to(SOURCE.parent)
        parts += [
            f"## {machine.title}\n",
            f"`src/{path}`\n",
            _quoted(inspect.getdoc(machine.module) or ""),
            _diagram(machine),
            _transition_table(machine),
        ]
    return "\n".join(parts)


def _quoted(text: str) -> str:
    """Return a docstring as a block quote in which every rule begins a paragraph."""
    ruled = re.sub(r"\n+(Rule \d+:)", r"\n\n**\1**", text)
    return "\n".join(f"> {line}".rstrip() for line in ruled.splitlines()) + "\n"


def _diagram(machine: Machine) -> str:
    ends = {phase for phase in machine.table.values() if not any(source is phase for source, _ in machine.table)}
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {machine.first.name}"]
    lines += [f"    {source.name} --> {to.name}: {verb.value}" for (source, verb), to in machine.table.items()]
    lines += [f"    {phase.name} --> [*]" for phase in type(machine.first) if phase in ends]
    return "\n".join([*lines, "```"]) + "\n"


def _transition_table(machine: Machine) -> str:
    rows = [f"| {source.name} | {verb.value} | {to.name} |" for (source, verb), to in machine.table.items()]
    return "\n".join(["| In | what happens | then |", "|---|---|---|", *rows]) + "\n"


# --- evidence records -----------------------------------------------------------------------------------------------

MEANINGS: Final[Mapping[str, str]] = {
    "TERM_STARTED": "A leadership begins, after every start, restored backup or suspend. The lease times that hold "
    "from here on; everything granted before is void for steering and held for capacity.",
    "SETTINGS_CHANGED": "The limits and the length of further leases that hold from here on; leases that were granted "
    "keep their own, and the other times of TERM_STARTED last as long as the term.",
    "SERVICE_REGISTERED": "A service variant is in the catalogue; `digest` is that of its description.",
    "SERVICE_REMOVED": "It is out of the catalogue. Known to the verifier; this controller does not write it yet.",
    "DOMAIN_REGISTERED": "A domain is known, with what may be reserved in it (0: unlimited).",
    "ENVELOPE_ACCEPTED": "A domain's Tail-Risk Envelope is in force; `sequence` rises with every version of a "
    "segment, `digest` is that of the signed document, `key_id` names the key that signed it.",
    "AUDIT_ALARM": "The continuous audit has evidence that a contract is not kept: early, under an assumption.",
    "AUDIT_VERDICT": "The continuous audit judged a period of a contract, or found it lost before its end.",
    "TRUST_CHANGED": "A domain is trusted less after a violation, or more again after compliant periods.",
    "ENVELOPE_SUSPECTED": "An envelope in force is not believed any more, and why: nothing is admitted under it.",
    "ENVELOPE_CLEARED": "The suspicion was taken back.",
    "KEYS_REGISTERED": "A domain's envelopes are held against exactly these keys from now on; `digest` is that of the "
    "key set, `key_ids` lists its keys with commas between.",
    "OPERATOR_ACTION": "An operator's client used an operation, and how it ended; what was changed by it "
    "has records of its own. No body and no secret stands in it.",
    "PATH_REGISTERED": "The transport between an access and a compute domain is known.",
    "ANCHOR_REGISTERED": "An anchor is known, with what may be reserved at it.",
    "ANCHOR_STATE_CHANGED": "An anchor is READY, DRAINING, LOST or REMOVED, and why.",
    "SESSION_REQUESTED": "A page that will be admitted. The intent is a salted commitment.",
    "SESSION_REFUSED": "A page that was refused, the constraint that decided, how many candidates there were, and "
    "where the constraint is POLICY the ids of the policies that forbade.",
    "COMMIT_GRANTED": "A COMMIT: the anchor, the epoch, the domains in which rate is reserved, the delay that was "
    "promised, the epsilon asked for, the bound that admitted it with its rung and assumptions, and the digests of the "
    "envelopes it rests on, in the order of the path (beyond 16 one digest over that list).",
    "COMMIT_REBOUND": "Envelopes changed, and the COMMIT still keeps its contract: with this bound, under these.",
    "SESSION_DEGRADED": "The session's contract is not provable where it is, and its client is told; `constraint` says "
    "what fails.",
    "SESSION_RESTORED": "The contract is provable again.",
    "LEASES_RENEWED": "A batch of renewals; `root` is the RFC 9162 root of the leaves.",
    "LEASES_REGRANTED": "After a TERM_STARTED: the same reservations under new epochs.",
    "COMMIT_REVOKED": "A COMMIT was ended before its deadline.",
    "COMMIT_EXPIRED": "A COMMIT reached its deadline.",
    "COMMIT_DRAINING": "The source of a relocation after the switch: work in flight may go on for `drain_ms`.",
    "STEER_INSTALLED": "A gateway took the epoch up; appended before the gateway is answered.",
    "STEER_REMOVED": "A gateway let go of the epoch. Known to the verifier; this controller does not write it yet.",
    "RESERVATION_RELEASED": "The rate behind a COMMIT may be sold again.",
    "RELOCATION_DETECTED": "A session must or should move.",
    "RELOCATION_DECIDED": "A target was admitted.",
    "RELOCATION_TARGET_PREPARED": "The target's sidecar and its upstream are ready.",
    "RELOCATION_SWITCHED": "Every connected gateway steers to the target.",
    "RELOCATION_SOURCE_RELEASED": "The source has drained, or was cut.",
    "RELOCATION_FAILED": "The session stays where it was.",
    "SESSION_EXTENDED": "The session's whole duration from now on.",
    "SESSION_ENDED": "Why the session ended.",
    "SINK_SET": "A session's events are posted to another sink, or none (`sinks` 0); which one is a salted commitment.",
    "CLIENT_MOVED": "The client is in another access domain, as a salted commitment.",
    "SESSION_FORGOTTEN": "The controller dropped the ended session from its state.",
    "SESSION_ERASED": "The key and the salt of `for_session` are deleted: nobody can say any more what its commitments "
    "are of. Its records stay, and verify as before.",
    "TENANT_REGISTERED": "A tenant is known, or described anew: its quotas (0: none), period, and priority class.",
    "SWITCH_KILLED": "An operator stopped a tenant, a service, an anchor, or everything: nothing of it is steered.",
    "SWITCH_RESTORED": "The kill was taken back; what it ended stays ended.",
    "SPEND_CHARGED": "A tenant is charged in advance for the rate reserved for a session, in the numbered period.",
    "SPEND_REFUNDED": "A session ended early: the time that was not used is given back.",
    "POLICIES_IN_FORCE": "A set of policies decides from now on; `digest` is the SHA-256 of its file, or empty: none.",
    "POLICY_APPLIED": "Which policies permitted a page, a relocation or an extension; refusals are in the answer.",
    "ROOM_CLAIMED": "Room is kept for a page of a tenant that preempts, until `until_us` of the boot clock; "
    "`for_session` is the id under which the page was refused as PREEMPTING.",
    "ROOM_LET_GO": "Room is not kept any more: the page came again, or nobody did, or its tenant was killed.",
    "SESSION_PREEMPTED": "A session has to make room for a page of a higher class: it is moved, or it ends. "
    "`by_session` is the `for_session` of ROOM_CLAIMED, which alone says whose page it is: this record is shown to the "
    "client that makes room. Classes are numbered from 0, BACKGROUND.",
    "SESSIONS_METERED": "What sessions used at an anchor, as its sidecar counted.",
}

KINDS: Final[Mapping[Callable[..., Any], str]] = {
    evidence.text: "text, may be empty",
    evidence.name: "text",
    evidence.count: "integer",
    evidence.digest: "64 hex digits",
    evidence.digests: "digests with commas between",
}

COMMON_MEANINGS: Final[Mapping[str, str]] = {
    "v": f"version of the record format: {evidence.RECORD_VERSION}",
    "seq": "place in the log, from 0",
    "type": "one of the types below",
    "node": "name of the operator whose controller wrote it",
    "boot": "random id of one start of the controller",
    "term": "the leadership",
    "wall_us": "wall clock, microseconds since 1970",
    "boot_us": "boot clock of the node, microseconds",
    "prev": "SHA-256 of the previous record's canonical bytes; 64 zeros in the first",
}


RECORDS_INTRO: Final = """\
# Evidence records

A record is a flat map of ASCII strings and integers. Its canonical bytes (RFC 8785: sorted, compact JSON) are hashed
into the chain and are the leaf of the Merkle tree. A record holds exactly the common fields and those of its type; one
with another field is refused when it is written and when it is verified. It has at most {bytes_max:,} bytes, a batch
at most {leaves_max:,} leaves. Why it is built so: [evidence](../background/evidence.md).

Times are integers of microseconds (`_us`) or milliseconds (`_ms`), rates thousandths of a request per second
(`_mrps`), probabilities decimal text, an epoch the pair `epoch_term`, `epoch_n`.

## Common fields

| Field | Kind | Meaning |
|---|---|---|
"""

TYPES_INTRO: Final = """
## Types

Those marked † only take away: the journal keeps space aside for them, so that a full disk never keeps a lease alive.
"""


def evidence_records() -> str:
    """Return the page of record types."""
    intro = RECORDS_INTRO.format(bytes_max=evidence.RECORD_BYTES_MAX, leaves_max=evidence.LEAVES_MAX)
    common = [
        f"| `{field}` | {_kind(evidence.COMMON[field])} | {COMMON_MEANINGS[field]} |" for field in evidence.COMMON
    ]
    restrictive = tuple(_spelled(event.__name__) for event in paging_records.RESTRICTIVE)
    types: list[str] = []
    for record_type, kinds in evidence.RECORD_TYPES.items():
        mark = " †" if record_type.startswith(restrictive) else ""
        types += ["", f"### {record_type}{mark}", "", MEANINGS[record_type], "", _fields(kinds)]
        if record_type in evidence.LEAF_TYPES:
            types += ["", "Each leaf: " + _fields(evidence.LEAF_TYPES[record_type])]
    return MADE + "\n" + intro + "\n".join([*common, TYPES_INTRO.rstrip(), *types]) + "\n"


def _spelled(event: str) -> str:
    """Return an event's name as records spell it; a relocation's phases are types of their own."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", event).upper().removesuffix("_ADVANCED")


def _fields(kinds: Mapping[str, Callable[..., Any]]) -> str:
    return ", ".join(f"`{field}` ({_kind(kind)})" for field, kind in kinds.items())


def _kind(kind: Callable[..., Any]) -> str:
    if kind in KINDS:
        return KINDS[kind]
    allowed = getattr(kind, "__self__", ())
    return "one of " + ", ".join(sorted(str(word) for word in allowed)) if len(allowed) > 1 else str(*allowed)


# --- limits ---------------------------------------------------------------------------------------------------------

BOUND: Final = re.compile(r"^[A-Z][A-Z0-9_]*_(MAX|MIN)$")
LUA: Final = re.compile(r"^local ([A-Z0-9_]+_MAX) = (\d+) -- (.+)$", re.MULTILINE)
UNITS: Final[Mapping[str, int]] = {"MS": 1_000, "SECOND": 1_000_000, "PPM": 1_000_000}


@dataclass(frozen=True, slots=True)
class Limit:
    """One named limit."""

    name: str
    value: str
    why: str


LIMITS_INTRO: Final = """\
# Limits

Everything that could grow is bounded, and every bound has a name and a reason beside it in the code. What an operator
sets is in [configuration](configuration.md); these are constants. A value that is computed is shown as its expression.
"""


def limits() -> str:
    """Return the page of limits."""
    parts = [MADE, LIMITS_INTRO]
    for path in sorted(SOURCE.rglob("*.py")) + sorted(SOURCE.rglob("*.lua")):
        found = list(_limits_of(path))
        if found and path.relative_to(SOURCE).parts[0] in {"core", "runtime", "adapters"}:
            rows = [f"| `{limit.name}` | {limit.value} | {limit.why} |" for limit in found]
            parts += [f"## `{path.relative_to(SOURCE)}`\n", "| Limit | Value | Why |", "|---|---|---|", *rows, ""]
    return "\n".join(parts)


def _limits_of(path: Path) -> Iterator[Limit]:
    """Yield the limits of a file that say why they are what they are."""
    text = path.read_text()
    if path.suffix == ".lua":
        yield from (Limit(name, _shown(int(value)), why) for name, value, why in LUA.findall(text))
        return
    body = ast.parse(text).body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name = statement.target.id
        if BOUND.match(name) and statement.value is not None and (why := _docstring(following)):
            yield Limit(name, _evaluated(statement.value), why)


def _docstring(statement: ast.stmt | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(str(statement.value.value).split()).replace("|", "\\|")
    return ""


def _evaluated(value: ast.expr) -> str:
    expression = ast.unparse(value)
    try:
        result = eval(expression, {"__builtins__": {}}, dict(UNITS))  # noqa: S307 - our own constants
    except NameError:
        return f"`{expression}`"
    return _shown(result)


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) and abs(value) >= 1 else str(value)


# --- northbound -----------------------------------------------------------------------------------------------------


class _Nothing:
    """Stands for the service behind the operations: their table is read, none is called."""

    public_url = ""
    issuer = ""

    def __getattr__(self, name: str) -> Any:
        return _Nothing()


NORTHBOUND_INTRO: Final = """\
# Northbound API

REST in the style of CAMARA: plural resources, lowerCamelCase fields, SCREAMING_SNAKE_CASE codes, `x-correlator` echoed.
The whole description, with schemas and examples, is the OpenAPI 3.1 document that a controller serves at
`/openapi.json`, and for people at `/reference` (one page that loads nothing from anywhere else); this page is its
table of contents. Where it departs from CAMARA's design guide, and why, is [listed](../background/camara.md). Unknown
properties are refused.

A caller is known by `authorization: Bearer SECRET`, the secret of one `[[client]]` of the
[configuration](configuration.md). Its role (`client` or `operator`) gives it scopes. A client sees its own sessions
only.

Requests for AI do not come here. They go to the session's `gatewayUrl`, with its `aist` as the bearer token, in the
form that the anchor's server speaks.
"""

ERRORS_INTRO: Final = """\
## Errors

The body of every error is `{status, code, message, who, field?}`; who must act is `caller`, `operator`, `partner` or
`bug`. A refused admission is a 422 that also lists every candidate with the constraint that it failed
([why 422](../adr/0004-refused-admission-is-422.md)).
"""


def northbound() -> str:
    """Return the summary of the public interface."""
    service: Any = _Nothing()
    operations = operations_of(service)
    tags: dict[str, list[Operation]] = {}
    for operation in operations:
        tags.setdefault(operation.tag, []).append(operation)
    parts = [MADE, NORTHBOUND_INTRO]
    for tag, found in tags.items():
        parts += [f"## {tag}\n", "| Operation | What it does | Scope | Answers |", "|---|---|---|---|"]
        for operation in found:
            statuses = ", ".join(str(status) for status in operation.replies)
            scope = f"`{operation.scope}`" if operation.scope else "none"
            path = operation.path.replace("*}", "}")
            parts.append(f"| `{operation.method} {path}` | {operation.summary} | {scope} | {statuses} |")
        parts.append("")
    parts += [
        ERRORS_INTRO,
        "| Status | Codes |",
        "|---|---|",
    ]
    by_status: dict[int, list[str]] = {}
    for code, status in faults.STATUS_BY_CODE.items():
        by_status.setdefault(status, []).append(code)
    for code, status in faults.STATUS_BY_OWN_CODE.items():
        by_status.setdefault(status, []).append(faults.API_PREFIX + code)
    parts += [
        f"| {status} | {', '.join(f'`{code}`' for code in codes)} |" for status, codes in sorted(by_status.items())
    ]
    return "\n".join(parts) + "\n"


def main() -> int:
    """Write the pages, or say which differ."""
    differing = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    check = "--check" in sys.argv[1:]
    for path in differing:
        sys.stderr.write(f"{'differs' if check else 'written'}: {path.relative_to(DOCS.parent)}\n")
        if not check:
            path.write_text(pages()[path])
    return int(check and bool(differing))


if __name__ == "__main__":
    sys.exit(main())

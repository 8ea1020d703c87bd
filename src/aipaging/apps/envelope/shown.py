"""Envelopes as people read them."""

import math
from typing import Any, Final

import msgspec

from aipaging.adapters.terminal.output import say, table
from aipaging.core.envelope.document import (
    DOCUMENT_BYTES_MAX,
    DOCUMENT_DEPTH_MAX,
    DOCUMENT_TYPES,
    EnvelopeDocument,
    digest_of,
    envelope_of,
)
from aipaging.core.envelope.envelope import Envelope

SHOWN_LEVELS: Final = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Probabilities for which the delay is shown."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the document."""
    (root,), components = msgspec.json.schema_components([EnvelopeDocument], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tail-Risk Envelope",
        "description": f"At most {DOCUMENT_BYTES_MAX} bytes in canonical form (RFC 8785), nested {DOCUMENT_DEPTH_MAX} "
        "deep. Amounts are decimals in strings, exact; the unit stands in the name.",
        **root,
        "$defs": components,
    }


def reference() -> str:
    """Return the page of the reference that lists every member, in Markdown."""
    components = schema()["$defs"]
    parts: list[str] = []
    for kind in DOCUMENT_TYPES:
        described = components[kind.__name__]
        parts += [f"### {kind.__name__}\n", (described.get("description") or "").strip() + "\n"]
        parts += ["| Member | Type | Required | Meaning |", "|---|---|---|---|"]
        required = set(described.get("required", ()))
        for name, member in described["properties"].items():
            needed = "yes" if name in required else "no"
            meaning = member.get("description", "Which kind of model.").replace("|", "\\|").replace("<", "&lt;")
            parts.append(f"| `{name}` | {_type_of(member)} | {needed} | {meaning} |")
        parts.append("")
    return "\n".join(parts)


def promised_delay_ms(envelope: Envelope, epsilon: float) -> float | None:
    """Return the least delay that the envelope promises to exceed with at most this probability, if there is one."""
    left = epsilon - envelope.loss - envelope.error
    if left <= 0.0:
        return None
    contract = envelope.contract
    excess_ms = math.log(contract.prefactor / left) / contract.decay_per_ms if contract.prefactor > left else 0.0
    return (contract.offset_ms + excess_ms) * (1.0 + 1e-9)


def summary(document: EnvelopeDocument, *, signed: bool) -> dict[str, Any]:
    """Return what `show --json` prints."""
    digest = digest_of(document)
    envelope = envelope_of(document, digest)
    return {
        "document": msgspec.to_builtins(document),
        "digest": digest,
        "signed": signed,
        "contract": {
            "offsetMs": envelope.contract.offset_ms,
            "prefactor": envelope.contract.prefactor,
            "decayPerMs": envelope.contract.decay_per_ms,
        },
        "loss": envelope.loss,
        "error": envelope.error,
        "promises": [{"epsilon": epsilon, "delayMs": promised_delay_ms(envelope, epsilon)} for epsilon in SHOWN_LEVELS],
    }


def show(document: EnvelopeDocument, *, signed: bool) -> None:
    """Print an envelope for people."""
    digest = digest_of(document)
    envelope = envelope_of(document, digest)
    guardrails = document.guardrails
    kind = str(document.model.__struct_config__.tag)
    rows = [
        ("domain", f"{document.domain} {document.segment}".strip()),
        ("sequence", f"{document.sequence}, {'signed' if signed else 'a draft, not signed'}"),
        ("digest", digest),
        ("valid", f"{document.not_before} to {document.not_after}"),
        ("holds for", f"{guardrails.rate_rps} requests/s, burst {guardrails.burst}, per session"),
        (kind, _said_contract(envelope)),
        ("loss, error", f"{envelope.loss:.3g}, {envelope.error:.3g}"),
        ("dependence", ", ".join([document.dependence.clause, *document.dependence.common_causes])),
    ]  # fmt: skip
    calibration = document.calibration
    if calibration is not None:
        rows += [
            ("calibration", f"{calibration.samples} samples, worth {calibration.effective_samples} independent ones"),
            ("", f"{calibration.method}; confidence {calibration.confidence}, floor {calibration.epsilon_floor}"),
        ]
    rows += [("part", f"{part.domain} {part.sequence} {part.digest}") for part in document.parts]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        say(f"{name.ljust(width)}  {value}")
    say()
    table(
        ("P(late, lost or failed) at most", "delay"),
        ((f"{epsilon:g}", _said_ms(promised_delay_ms(envelope, epsilon))) for epsilon in SHOWN_LEVELS),
        right=(0, 1),
    )


def differences(one: EnvelopeDocument, other: EnvelopeDocument) -> list[dict[str, Any]]:
    """Return the members that differ, with both values, by their path."""
    flat_one, flat_other = _flat(msgspec.to_builtins(one)), _flat(msgspec.to_builtins(other))
    paths = [*flat_one, *(path for path in flat_other if path not in flat_one)]
    return [
        {"member": path, "before": flat_one.get(path), "after": flat_other.get(path)}
        for path in paths
        if flat_one.get(path) != flat_other.get(path)
    ]


def weaker_at(one: EnvelopeDocument, other: EnvelopeDocument) -> list[float]:
    """Return the shown probabilities for which the other envelope promises a longer delay than the first."""
    before, after = envelope_of(one, ""), envelope_of(other, "")
    return [
        epsilon
        for epsilon in SHOWN_LEVELS
        if (promised_delay_ms(before, epsilon) or float("inf")) < (promised_delay_ms(after, epsilon) or float("inf"))
    ]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: list(value) if isinstance(value, tuple) else value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found.update(_flat(inner, f"{path}.{name}" if path else name))
    return found


def _said_contract(envelope: Envelope) -> str:
    contract = envelope.contract
    tail = f"{contract.prefactor:.6g} exp(-{contract.decay_per_ms:.6g} x/ms)" if contract.prefactor else "0"
    return f"P(delay > {contract.offset_ms:.6g} ms + x) <= {tail}"


def _said_ms(delay_ms: float | None) -> str:
    return "not promised" if delay_ms is None else f"{delay_ms:.3f} ms"


def _type_of(member: dict[str, Any]) -> str:
    if "enum" in member:
        return ", ".join(f"`{value}`" for value in member["enum"])
    choices = member.get("anyOf", [])
    if choices:
        return " or ".join(_type_of(choice) for choice in choices)
    if "$ref" in member:
        name = member["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if member.get("type") == "array":
        return f"list of {_type_of(member['items'])}"
    if member.get("maxLength") == 40:
        return "decimal"
    return str(member.get("type", "object"))

"""Cedar policies as a pure function: the same question about the same policies has the same answer.

What goes wrong while policies are evaluated refuses: a policy that fails says nothing, and silence is not a permit.
"""

import json
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

from aipaging.core.anchor.catalogue import Anchor
from aipaging.core.foundation.errors import InvalidInputError, UnavailableError, Who
from aipaging.core.paging.tenancy import Question, Ruling

POLICY_BYTES_MAX: Final = 1_048_576
"""Some ten thousand policies; evaluating more would hold up every page."""

POLICIES_MAX: Final = 2_000
"""Policies in one set: a page asks them about every eligible anchor."""

REMEMBERED_MAX: Final = 4_096
"""Rulings that are remembered; a set is new after every change of its file, and its memory with it."""

ERRORS_TOLD_MAX: Final = 8
"""Mistakes of a file that are told at once."""


@cache
def schema_text() -> str:
    """Return the schema that every policy file is held against."""
    return (files("aipaging.adapters.policy") / "schema.cedarschema").read_text()


def _cedar() -> Any:
    try:
        import cedarpy  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "policies need the extra `policy`: pip install 'aipaging[policy]'", code="EXTRA_MISSING"
        ) from error
    return cedarpy


class CedarPolicies:
    """A set of policies that was validated against the schema."""

    def __init__(self, text: str) -> None:
        """Read and validate a policy file.

        Raises:
            InvalidInputError: It does not parse, is too large, or speaks of what the schema does not know.
            UnavailableError: The extra `policy` is not installed.
        """
        if len(text) > POLICY_BYTES_MAX:
            raise _wrong(f"has more than {POLICY_BYTES_MAX} bytes")
        self._cedar = _cedar()
        try:
            self._set = self._cedar.PolicySet.from_str(text)
            described = json.loads(self._cedar.policies_to_json_str(text))
        except Exception as error:  # noqa: BLE001 - of a library without a common base of errors
            raise _wrong(f"is not Cedar: {str(error)[:400]}") from None
        validated = self._cedar.validate_policies(text, schema_text())
        if not validated.validation_passed:
            told = "; ".join(str(each) for each in validated.errors[:ERRORS_TOLD_MAX])
            raise _wrong(f"does not fit the schema: {told[:1000]}")
        self._ids = _ids(described)
        if len(self._ids) > POLICIES_MAX:
            raise _wrong(f"holds {len(self._ids)} policies: at most {POLICIES_MAX} are allowed")
        self._digest = sha256(text.encode()).hexdigest()
        self._remembered: OrderedDict[str, Ruling] = OrderedDict()

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the file."""
        return self._digest

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the ids of the policies: their `@id`, or the one that Cedar gives them."""
        return tuple(self._ids.values())

    def judge(self, question: Question, anchors: Sequence[Anchor]) -> Sequence[Ruling]:
        """Return a ruling for each anchor; what cannot be judged is refused."""
        context = _context(question)
        asked = json.dumps([question.action, question.tenant, question.client, context], sort_keys=True)
        return [self._ruling(question, anchor, context, asked) for anchor in anchors]

    def _ruling(self, question: Question, anchor: Anchor, context: Mapping[str, object], asked: str) -> Ruling:
        resource = _resource(question, anchor)
        key = f"{asked} {json.dumps(resource, sort_keys=True)}"
        known = self._remembered.get(key)
        if known is not None:
            self._remembered.move_to_end(key)
            return known
        ruling = self._decided(question, resource, context)
        self._remembered[key] = ruling
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return ruling

    def _decided(self, question: Question, resource: Mapping[str, Any], context: Mapping[str, object]) -> Ruling:
        client, tenant = {"type": "Client", "id": question.client}, {"type": "Tenant", "id": question.tenant}
        request = {
            "principal": client,
            "action": {"type": "Action", "id": question.action},
            "resource": resource["uid"],
            "context": context,
        }
        entities = [
            {"uid": tenant, "attrs": {}, "parents": []},
            {"uid": client, "attrs": {}, "parents": [tenant]},
            resource,
        ]
        try:
            result = self._cedar.is_authorized(request, self._set, entities)
            errors, allowed = list(result.diagnostics.errors), bool(result.allowed)
            decided = tuple(sorted(str(self._ids.get(each, each)) for each in result.diagnostics.reasons))
        except Exception as error:  # noqa: BLE001 - whatever it is, it does not permit
            return Ruling(
                allowed=False, policies=(), message=f"the policies could not be evaluated: {str(error)[:200]}"
            )
        if errors:
            # A forbid that fails must not let through what it would have stopped.
            return Ruling(
                allowed=False, policies=decided, message=f"a policy could not be evaluated: {str(errors[0])[:200]}"
            )
        if allowed:
            return Ruling(allowed=True, policies=decided)
        why = f"forbidden by {', '.join(decided)}" if decided else "no policy permits it"
        return Ruling(allowed=False, policies=decided, message=f"{question.action}: {why}")


def _wrong(what: str) -> InvalidInputError:
    error = InvalidInputError(f"the policy file {what}", code="POLICY_INVALID", field="policies.file")
    error.who = Who.OPERATOR
    return error


def _ids(described: Mapping[str, Any]) -> dict[str, str]:
    """Return the ids of policies by those that Cedar gives; an `@id` must be one policy's.

    Raises:
        InvalidInputError: Two policies share an id, or it is not printable ASCII.
    """
    ids: dict[str, str] = {}
    for given, policy in described["staticPolicies"].items():
        name = str(policy.get("annotations", {}).get("id", given))
        if name in ids.values():
            raise _wrong(f"names two policies {name!r}: an @id must be of one")
        if not (name.isascii() and name.isprintable() and 0 < len(name) <= 128 and "," not in name):
            raise _wrong(f"names a policy {name[:128]!r}: printable ASCII without commas is allowed")
        ids[given] = name
    return ids


def _context(question: Question) -> dict[str, object]:
    intent = question.intent
    return {
        "task": intent.task,
        "modality": intent.modality,
        "place": intent.place,
        "delayMs": math.floor(intent.delay_ms),
        "ratePerSecond": math.ceil(intent.rate_rps),
        "burst": intent.burst,
        "durationS": intent.duration_s,
        "language": intent.language,
        "regions": list(intent.regions),
        "jurisdictions": list(intent.jurisdictions),
        "trustMin": intent.trust_min,
        "dataClass": int(intent.data_class),
    }


def _resource(question: Question, anchor: Anchor) -> dict[str, Any]:
    """Return an anchor as an entity; what the catalogue does not know is left out, and policies about it refuse."""
    service, domain = question.catalogue.services.get(anchor.aisi), question.catalogue.domains.get(anchor.domain)
    attributes: dict[str, object] = {"service": anchor.aisi, "domain": anchor.domain}
    if service is not None:
        attributes |= {
            "task": service.task,
            "modality": service.modality,
            "model": service.model,
            "licence": service.licence,
            "price": service.price,
        }
    if domain is not None:
        attributes |= {
            "region": domain.region,
            "jurisdiction": domain.jurisdiction,
            "trust": domain.trust,
            "dataClassMax": int(domain.data_class_max),
        }
    return {"uid": {"type": "Anchor", "id": anchor.anchor}, "attrs": attributes, "parents": []}

"""An example of every error: what its message says, and who must act.

Codes are stable and programs branch on them; messages are for people and name the case at hand.
"""

from collections.abc import Mapping
from typing import Any, Final

from aipaging.core.foundation.errors import Who
from aipaging.runtime.http.faults import API_PREFIX, STATUS_BY_CODE, STATUS_BY_OWN_CODE

MESSAGES: Final[Mapping[str, str]] = {
    "INVALID_ARGUMENT": "delayMs is missing",
    "OUT_OF_RANGE": "delayMs is 0: allowed is 0.001 to 3600000",
    "INVALID_SINK": "sink must be an https URL",
    "UNAUTHENTICATED": "the credential is missing, unknown or has expired",
    "PERMISSION_DENIED": "the credential of client acme-app lacks the scope ai-paging:anchors:update: "
    "fetch a token with it, or ask the operator for it",
    "NOT_FOUND": "there is no such session",
    "ALREADY_EXISTS": "it exists already",
    "INCOMPATIBLE_STATE": "the session has ended",
    "ABORTED": "it was changed at the same moment; try again",
    "UNSUPPORTED_MEDIA_TYPE": "the body must be application/json",
    "TOO_MANY_REQUESTS": "too many requests; come back in 2 s",
    "QUOTA_EXCEEDED": "tenant acme holds 100 sessions: its quota is 100",
    "INTERNAL": "an internal error; tell the operator the correlator 7c6b0d52",
    "UNAVAILABLE": "the controller is stopping",
    "AI_PAGING.INVALID_CREDENTIAL": "sinkCredential.accessToken is missing",
    "AI_PAGING.IDEMPOTENCY_KEY_REUSED": "the key was used for another request",
    "AI_PAGING.KILLED": "tenant acme is stopped by the operator",
    "AI_PAGING.POLICY": "no policy permits it",
    "AI_PAGING.PREEMPTING": "room is being made at edge-one-a, and kept for this request: ask again in 11 s",
    "AI_PAGING.PAYLOAD_TOO_LARGE": "the body is longer than 65536 bytes",
    "AI_PAGING.REQUEST_TIMEOUT": "the body did not arrive within 10 s; send it again",
    "AI_PAGING.SESSIONS_FULL": "the controller holds as many sessions as it may",
    "AI_PAGING.STEERING_FAILED": "steering could not be installed; nothing is reserved",
    "AI_PAGING.OVERLOADED": "too many requests wait; try again",
    "AI_PAGING.JOURNAL_UNAVAILABLE": "the journal cannot be written: no space is left on its disk",
    "AI_PAGING.JOURNAL_BUSY": "a reader holds the write-ahead log, which still has the erased key; erase again later",
    "AI_PAGING.SNAPSHOT_FAILED": "the state without the session could not be stored, so that nothing was erased",
    "AI_PAGING.JOURNAL_FILE_MISSING": "records 0 to 12999999 cannot be read: journal.db no longer stands beside the "
    "other files of journal.db. The operator must put back what was moved away",
    "AI_PAGING.KEY_SET_INVALID": "keys[0] is not a P-256 public key",
    "AI_PAGING.ENVELOPE_TOO_LARGE": "the envelope is longer than 65536 bytes",
    "AI_PAGING.ENVELOPE_NOT_SIGNED": "the envelope is not a JWS in compact form",
    "AI_PAGING.ENVELOPE_ALGORITHM": "alg is none: ES256 is expected",
    "AI_PAGING.ENVELOPE_KEY_UNKNOWN": "no key of edge-one has this kid",
    "AI_PAGING.ENVELOPE_SIGNATURE": "the signature does not verify",
    "AI_PAGING.ENVELOPE_MALFORMED": "sequence is missing",
    "AI_PAGING.ENVELOPE_NOT_CANONICAL": "the payload is not in canonical form",
    "AI_PAGING.ENVELOPE_KEY_FOREIGN": "the key belongs to another domain",
    "AI_PAGING.ENVELOPE_PLAIN": "edge-one signs its envelopes itself: send a signed one",
    "AI_PAGING.ENVELOPE_NOT_YET_VALID": "the envelope is valid from 2026-11-29T00:00:00Z on",
    "AI_PAGING.ENVELOPE_EXPIRED": "the envelope was valid until 2026-11-22T00:00:00Z",
    "AI_PAGING.ENVELOPE_ROLLED_BACK": "sequence 7 is in force: 6 is older",
    "AI_PAGING.ENVELOPE_REPLAYED": "this envelope was replaced before",
    "AI_PAGING.ENVELOPE_EQUIVOCATION": "sequence 7 said something else before",
    "AI_PAGING.ENVELOPES_TOO_MANY": "edge-one has as many segments as it may",
}
"""What the example of each code says; `INTERNAL` tells nothing but the correlator, as the service does."""


def fault_example(code: str) -> dict[str, Any]:
    """Return the body of an error with this code."""
    status = status_of_code(code)
    who = Who.BUG if code == "INTERNAL" else Who.CALLER if status < 500 else Who.OPERATOR
    return {"status": status, "code": code, "message": MESSAGES[code], "who": who.value}


def status_of_code(code: str) -> int:
    """Return the HTTP status of a code as it is sent."""
    return STATUS_BY_CODE[code] if code in STATUS_BY_CODE else STATUS_BY_OWN_CODE[code.removeprefix(API_PREFIX)]

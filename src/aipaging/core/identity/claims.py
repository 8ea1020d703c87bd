"""What the two tokens say.

The AIST *authenticates* a session and never authorises steering; the COMMIT receipt proves that an epoch was
authorised and never grants time. Signing and verifying live in an adapter behind `ports.signing`; whoever holds
an `AistClaims` or a `CommitClaims` that came from a verifier holds something verified.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, ClientId, ServiceUri, SessionId, TenantId
from aipaging.core.foundation.time import WallUs

AIST_AUDIENCE: Final = "aipaging-gateway"
"""The one audience of an AIST: it opens the gateway, and nothing of the controller."""

ACCESS_AUDIENCE: Final = "aipaging-api"
"""The one audience of an access token: it opens the controller's interface, and no gateway."""

AIST_SCOPE: Final = "ai-paging:session:use"
"""The one scope of an AIST."""

AIST_TYPE: Final = "at+jwt"
"""Header `typ` of an AIST (RFC 9068, 2.1)."""

COMMIT_TYPE: Final = "ai-commit+jwt"
"""Header `typ` of a COMMIT receipt: explicit typing, so that neither token passes for the other (RFC 8725, 3.11)."""


class AistClaims(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The claims of a session token (RFC 9068).

    Attributes:
        session: The one session that it opens.
        tenant: Who the reservation belongs to.
        client: The client it was issued to.
        aisi: The service that was asked for.
        token_id: `jti`; appears in records only as a hash.
        issued_us: `iat`.
        expires_us: `exp`; an enforcement point keeps nothing of the token beyond it.
        certificate: `cnf`: hex SHA-256 of the one client certificate with which it may be used (RFC 8705, 3.1), or "":
            whoever holds it may.
    """

    session: SessionId
    tenant: TenantId
    client: ClientId
    aisi: ServiceUri
    token_id: str
    issued_us: WallUs
    expires_us: WallUs
    certificate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessClaims:
    """The claims of an access token for the controller's interface (RFC 9068).

    Attributes:
        client: Whom it was issued to; what the client may do is looked up when the token is used.
        scopes: What the token narrows that to.
        token_id: `jti`.
        issued_us: `iat`.
        expires_us: `exp`.
    """

    client: ClientId
    scopes: frozenset[str]
    token_id: str
    issued_us: WallUs
    expires_us: WallUs


class CommitClaims(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The claims of a COMMIT receipt.

    Attributes:
        session: The session that was admitted.
        tenant: Who the reservation belongs to.
        aisi: The service.
        anchor: The one anchor that this epoch steers to.
        epoch: The fencing token.
        lease_ms: The duration that was granted; a holder never counts it from the receipt.
        rate_mrps: Reserved rate in thousandths of a request per second.
        burst: Reserved burst in requests.
        delay_us: The delay that was promised.
        epsilon: The probability of exceeding it that was asked for, as decimal text.
        epsilon_bound: The bound on that probability that admitted the session, as decimal text.
        rung: Which bound that is.
        assumptions: What it rests on.
        envelopes: Digests of the envelopes that it rests on, in the order of the path, as in the evidence.
        token_id_sha256: Hex SHA-256 of the `jti` of the session's AIST.
        commit_id: `jti` of the receipt.
        issued_us: `iat`.
        expires_us: `exp`: the end of the session, an advisory outer limit.
    """

    session: SessionId
    tenant: TenantId
    aisi: ServiceUri
    anchor: AnchorId
    epoch: Epoch
    lease_ms: int
    rate_mrps: int
    burst: int
    delay_us: int
    epsilon: str
    epsilon_bound: str
    token_id_sha256: str
    commit_id: str
    issued_us: WallUs
    expires_us: WallUs
    rung: str = ""
    assumptions: str = ""
    envelopes: str = ""

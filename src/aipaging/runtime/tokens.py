"""What a session is handed: its AIST, and the steering grant with the COMMIT receipt."""

from hashlib import sha256
from typing import Final

from aipaging.core.foundation.time import MS, WallUs
from aipaging.core.identity.claims import AistClaims, CommitClaims
from aipaging.core.lease.machine import Lease
from aipaging.core.paging.records import assumptions_text, bound_text, envelopes_text
from aipaging.core.paging.state import Session
from aipaging.core.steering.grant import SteeringGrant
from aipaging.ports.signing import TokenSigner

ASSUMPTIONS_CHARS_MAX: Final = 384
"""Of what a bound rests on, in a receipt: gateways pass receipts of at most 4,096 characters. The evidence has all."""


READY_MAX: Final = 16
"""AISTs that are ready and not yet asked for: those of a batch, and of a few whose client has gone."""


class SessionTokens:
    """Signs what belongs to a session; the same session and epoch always give the same claims."""

    def __init__(self, signer: TokenSigner) -> None:
        self._signer = signer
        self._ready: dict[AistClaims, str] = {}

    def prepare(self, session: Session, lease: Lease) -> None:
        """Sign both tokens of a session; they are handed out when they are asked for."""
        claims = self._aist_claims(session)
        if len(self._ready) >= READY_MAX:
            self._ready.pop(next(iter(self._ready)))  # whoever asked for it has gone
        self._ready[claims] = self._signer.sign_aist(claims)
        self.receipt(session, lease)

    def aist(self, session: Session) -> str:
        """Return the session's AIST; it lasts as long as the session may."""
        claims = self._aist_claims(session)
        return self._ready.pop(claims, None) or self._signer.sign_aist(claims)

    def _aist_claims(self, session: Session) -> AistClaims:
        return AistClaims(
            session=session.session,
            tenant=session.tenant,
            client=session.client,
            aisi=session.aisi,
            token_id=session.token_id,
            issued_us=session.requested_wall_us,
            expires_us=self._ends_wall_us(session),
            certificate=session.certificate,
        )

    def receipt(self, session: Session, lease: Lease) -> str:
        """Return the COMMIT receipt of one epoch."""
        return self._signer.sign_commit(
            CommitClaims(
                session=session.session,
                tenant=session.tenant,
                aisi=session.aisi,
                anchor=lease.anchor,
                epoch=lease.epoch,
                lease_ms=(lease.deadline_us - lease.granted_us) // MS,
                rate_mrps=lease.rate_mrps,
                burst=session.intent.burst,
                delay_us=int(session.intent.delay_ms * MS),
                epsilon=f"{session.intent.epsilon:.6g}",
                epsilon_bound=bound_text(lease.bound.epsilon_bound),
                rung=lease.bound.rung,
                assumptions=assumptions_text(lease.bound.assumptions)[:ASSUMPTIONS_CHARS_MAX],
                envelopes=envelopes_text(lease.envelopes),
                token_id_sha256=sha256(session.token_id.encode()).hexdigest(),
                commit_id=f"{session.session}.{lease.epoch}",
                issued_us=session.requested_wall_us,
                expires_us=self._ends_wall_us(session),
            )
        )

    def grant(self, session: Session, lease: Lease) -> SteeringGrant:
        """Return what the steering driver is asked to hold for one epoch."""
        return SteeringGrant(
            session=session.session,
            anchor=lease.anchor,
            epoch=lease.epoch,
            deadline_us=lease.deadline_us,
            token_expires_us=self._ends_wall_us(session),
            receipt=self.receipt(session, lease),
            rate_mrps=lease.rate_mrps,
            burst=session.intent.burst,
        )

    @staticmethod
    def _ends_wall_us(session: Session) -> WallUs:
        return WallUs(session.requested_wall_us + session.duration_ms * MS)

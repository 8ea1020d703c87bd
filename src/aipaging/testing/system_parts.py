"""The controller's own parts for the whole-system simulation: the code that answers real gateways and sidecars."""

from aipaging.adapters.sidecar.usage import UsageMeter
from aipaging.adapters.southbound.leases import remaining
from aipaging.adapters.steering.envoy.revocations import RevocationFeed, RevocationList
from aipaging.adapters.steering.envoy.table import SteeringTable
from aipaging.core.identity.claims import AistClaims, CommitClaims
from aipaging.runtime.tokens import SessionTokens
from aipaging.simulation.system.parts import Parts
from aipaging.testing.world import accept


class _Unsigned:
    """Signs nothing: simulated enforcement points read what they are told, not signatures."""

    def sign_aist(self, claims: AistClaims) -> str:
        """Return the session instead of a token."""
        return claims.session

    def sign_commit(self, claims: CommitClaims) -> str:
        """Return the name of the COMMIT instead of a receipt."""
        return claims.commit_id


def real_parts() -> Parts:
    """Return the parts of a run: Envoy's table and list, the sidecars' feed and counts, the rule of what remains."""
    return Parts(
        table=SteeringTable,
        revocations=RevocationList,
        feed=RevocationFeed,
        remaining=remaining,
        grant=SessionTokens(_Unsigned()).grant,
        accept=accept,
        meter=UsageMeter,
    )

"""Asks a sidecar over mutual TLS whether it is ready for a session.

The sidecar is whoever its certificate says, not whatever its address says: after the handshake the certificate must
name the anchor that was asked for.
"""

import ssl
from typing import Any, Final

import httpx

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import UnavailableError, Who
from aipaging.core.foundation.names import SessionId
from aipaging.core.steering.grant import AnchorEndpoint
from aipaging.runtime.peer_identity import identity_of_peercert

PREPARE_S_MAX: Final = 5.0
"""A sidecar that takes longer to say that it is ready is not; the engine's own limit is usually shorter."""

READY: Final = 204
"""The status with which a sidecar says that it is ready: there is nothing more to say."""

CONNECTIONS_MAX: Final = 64
"""Idle connections kept to sidecars: a mass relocation asks many at once, and then none for hours."""


class HttpAnchorClient:
    """Implements `ports.anchor.AnchorClient` over HTTPS."""

    def __init__(self, context: ssl.SSLContext | None, *, trust_domain: str) -> None:
        """Set up.

        Args:
            context: Presents the controller's certificate and trusts the southbound authority; None where every
                anchor is plain text on loopback.
            trust_domain: The trust domain of anchors' identities.
        """
        limits = httpx.Limits(max_keepalive_connections=CONNECTIONS_MAX)
        verify = context if context is not None else False
        self._client = httpx.AsyncClient(verify=verify, limits=limits, timeout=PREPARE_S_MAX, trust_env=False)
        self._trust_domain = trust_domain

    async def prepare(self, anchor: AnchorEndpoint, session: SessionId, epoch: Epoch) -> None:
        """Return once the sidecar has answered that it and its upstream are ready for the session.

        Raises:
            UnavailableError: It did not answer in time, is somebody else, is draining, or its upstream is not well.
        """
        scheme = "https" if anchor.tls else "http"
        host = f"[{anchor.host}]" if ":" in anchor.host else anchor.host
        url = f"{scheme}://{host}:{anchor.port}/aipaging/v1/prepare"
        try:
            response = await self._asked(url, {"session": session, "term": epoch.term, "n": epoch.n})
        except (httpx.HTTPError, ssl.SSLError) as error:  # an alert that comes after the handshake is not wrapped
            raise _not_ready(anchor, f"it could not be asked ({type(error).__name__})") from error
        if anchor.tls and not self._is_itself(response, anchor):
            raise _not_ready(anchor, "another identity answered at its address")
        if response.status_code != READY:
            raise _not_ready(anchor, f"it answered {response.status_code}")

    async def _asked(self, url: str, document: dict[str, str | int]) -> httpx.Response:
        """Ask, and once more where a kept connection turns out to lead to a sidecar that has been restarted since."""
        try:
            return await self._client.post(url, json=document)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            # Preparing changes nothing at the sidecar, so asking twice is asking once.
            return await self._client.post(url, json=document)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _is_itself(self, response: httpx.Response, anchor: AnchorEndpoint) -> bool:
        stream: Any = response.extensions.get("network_stream")
        ssl_object = stream.get_extra_info("ssl_object") if stream is not None else None
        peercert = ssl_object.getpeercert() if ssl_object is not None else None
        return identity_of_peercert(peercert, trust_domain=self._trust_domain) == ("anchor", anchor.anchor)


def _not_ready(anchor: AnchorEndpoint, why: str) -> UnavailableError:
    return UnavailableError(f"anchor {anchor.anchor} is not ready: {why}", code="ANCHOR_NOT_READY", who=Who.PARTNER)

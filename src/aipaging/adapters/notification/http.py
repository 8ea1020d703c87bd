"""Posts one notification: to a checked address, signed, once, within a time limit; the answer's body is never read."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Final

import httpx

from aipaging.adapters.notification.address import Network, SinkForbiddenError, SinkUrl, resolved, sink_url
from aipaging.adapters.notification.signature import signed_headers
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.ports.notification import Destination, MessageSigner, Taken

ATTEMPT_S_MAX: Final = 10.0
"""From resolving the name to the status line: a sink acknowledges, it does not work while we wait."""

RETRY_AFTER_S_MAX: Final = 60.0
"""What a sink may ask for; more would outlast the event."""

_RETRIED: Final = frozenset({408, 421, 425, 429, 500, 502, 503, 504})
"""What may be well in a moment (RFC 9110); every other refusal is final, a redirect too."""


class HttpNotifier:
    """A `Notifier` over HTTPS.

    Connections are not kept: one that was checked for one name must not serve another at the same address.
    """

    def __init__(
        self,
        signer: MessageSigner,
        *,
        clock_s: Callable[[], float],
        allowed: Sequence[Network] = (),
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """Take the key, the wall clock in seconds, the private networks allowed, and whom to trust."""
        self._signer = signer
        self._clock_s = clock_s
        self.allowed = tuple(allowed)
        self._client = httpx.AsyncClient(
            verify=trust or ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
            timeout=ATTEMPT_S_MAX,
            limits=httpx.Limits(max_keepalive_connections=0, max_connections=None),
        )

    async def close(self) -> None:
        """Let go of every connection."""
        await self._client.aclose()

    async def post(self, destination: Destination, body: bytes) -> Taken:
        """See `Notifier.post`."""
        try:
            sink = sink_url(destination.url, self.allowed)
            async with asyncio.timeout(ATTEMPT_S_MAX):
                return await self._posted(sink, destination, body)
        except SinkForbiddenError:
            return Taken(reason="ADDRESS_FORBIDDEN", final=True)
        except InvalidInputError:
            return Taken(reason="INVALID_SINK", final=True)
        except TimeoutError:
            return Taken(reason="TIMEOUT")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ssl.SSLError) as error:
            return Taken(reason=_reason(error))

    async def _posted(self, sink: SinkUrl, destination: Destination, body: bytes) -> Taken:
        address = await resolved(sink, self.allowed)
        name = f"[{address}]" if address.version == 6 else str(address)
        headers = {
            "host": sink.authority,
            "user-agent": "aipaging",
            **signed_headers(
                self._signer,
                url=f"{sink.scheme}://{sink.authority}{sink.target}",
                body=body,
                created_s=int(self._clock_s()),
            ),
        }
        if destination.token:
            headers["authorization"] = f"Bearer {destination.token}"
        request = self._client.build_request(
            "POST",
            f"{sink.scheme}://{name}:{sink.port}{sink.target}",
            content=body,
            headers=headers,
            extensions={"sni_hostname": sink.host},
        )
        answer = await self._client.send(request, stream=True)
        await answer.aclose()  # the body, however large, stays where it is
        return _taken(answer.status_code, answer.headers.get("retry-after", ""))


def _taken(status: int, retry_after: str) -> Taken:
    wait_s = float(retry_after) if retry_after.isascii() and retry_after.isdecimal() and len(retry_after) < 10 else 0.0
    return Taken(
        status=status,
        retry_after_s=min(wait_s, RETRY_AFTER_S_MAX),
        final=not 200 <= status < 300 and status not in _RETRIED,
    )


def _reason(error: Exception) -> str:
    """Return a word: messages of libraries may hold the URL."""
    if isinstance(error, httpx.ConnectError | OSError):
        return "UNREACHABLE"
    return "BAD_ANSWER" if isinstance(error, httpx.RemoteProtocolError) else "CONNECTION_LOST"

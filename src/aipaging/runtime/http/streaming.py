"""Answers without an end: sent as they come, ended when the client goes away, and cut when it does not read.

What waits for a slow reader is what the connection's own buffer holds (64 kB) and one chunk: nothing is queued for it.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Final, TypeAlias

from aipaging.runtime.http.exchange import Headers, Receive, Send

SEND_S_MAX: Final = 20.0
"""A reader that has not taken 64 kB in so long is cut; it goes on where it was when it comes back."""

Chunks: TypeAlias = Callable[[], AsyncGenerator[bytes, None]]
"""Makes the body; called once, closed in every case."""


async def send_stream(receive: Receive, send: Send, *, status: int, headers: Headers, chunks: Chunks) -> bool:
    """Send a body chunk by chunk.

    Args:
        receive: Of the ASGI request, whose body was read or never came.
        send: Of the ASGI request.
        status: HTTP status.
        headers: All of them.
        chunks: The body.

    Returns:
        Whether the reader took all of it; False when it went away or was cut.
    """
    body = chunks()
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        while True:
            chunk = asyncio.ensure_future(anext(body, b""))
            await asyncio.wait({chunk, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not chunk.done():
                chunk.cancel()
                await asyncio.gather(chunk, return_exceptions=True)
                return False
            if not chunk.result():
                break
            async with asyncio.timeout(SEND_S_MAX):
                await send({"type": "http.response.body", "body": chunk.result(), "more_body": True})
    except TimeoutError:
        return False
    finally:
        gone.cancel()
        await body.aclose()
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    return True


async def _gone(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass

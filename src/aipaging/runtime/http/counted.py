"""Counts what an application answers, without being part of it."""

from collections.abc import Callable

from aipaging.runtime.http.exchange import AsgiApp, Message, Receive, Scope, Send


def counted(app: AsgiApp, count: Callable[[int], None]) -> AsgiApp:
    """Return the application; `count` is called with the status of every answer."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        await app(scope, receive, noted)

    return answered

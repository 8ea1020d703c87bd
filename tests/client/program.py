"""A user's program, as a strict type checker sees it; the lines that end in "wrong" must be found."""

import asyncio

import openai

from aipaging.client import (
    AsyncClient,
    Client,
    ClientSecret,
    InvalidInputError,
    RefusedWithReasonsError,
    UnavailableError,
)


def blocking() -> list[float]:
    with Client("https://control.example", credential=ClientSecret("app", "secret"), ca="ca.pem") as client:
        try:
            with client.page(task="embeddings", place="paris", delay_ms=250, regions=["paris"], key="k") as session:
                ai: openai.OpenAI = session.openai(timeout=10)
                bound = session.document.bound
                print(session.id, session.gateway_url, bound.epsilon_bound if bound else 1.0)
                return ai.embeddings.create(model="m", input="text").data[0].embedding
        except RefusedWithReasonsError as refused:
            print(refused.code, refused.details["candidates"])
        except (InvalidInputError, UnavailableError) as error:
            print(error.message, error.field, error.who)
        for candidate in client.resolve(task="chat", place="paris", delay_ms=1.0).candidates:
            print(candidate.anchor_id, candidate.rejection.message if candidate.rejection else "")
        for each in client.sessions(status="AVAILABLE"):
            print(each.session_id.upper())
        client.page(task="embeddings", place="paris", delay=250)  # wrong
        client.page(task="embeddings", place="paris", delay_ms="250")  # wrong
        print(client.resolve(task="embeddings", place="paris", delay_ms=250).candidate)  # wrong
    return []


async def asynchronous() -> str:
    async with AsyncClient("https://control.example", credential="secret") as client:
        async with await client.page({"task": "chat", "place": "paris", "delayMs": 250}) as session:
            ai: openai.AsyncOpenAI = session.openai()
            await ai.models.list()
            session.token() + "x"  # wrong
        async for each in client.sessions():
            print(each.session_id)
    return await session.token()


asyncio.run(asynchronous())

"""A client of the controller: page an intent, hold the session, hand out an official `openai` client for it.

Calls are retried where that cannot do anything twice; a page carries an idempotency key, so that a lost answer never
costs a second session.
"""

from aipaging.client.asynchronous import AsyncClient, AsyncPagedSession
from aipaging.client.blocking import Client, PagedSession
from aipaging.client.calls import RefusedWithReasonsError
from aipaging.client.credentials import BearerSecret, ClientSecret, Credential, PrivateKey
from aipaging.core.foundation.errors import AipagingError, InvalidInputError, RefusedError, UnavailableError

__all__ = [
    "AipagingError",
    "AsyncClient",
    "AsyncPagedSession",
    "BearerSecret",
    "Client",
    "ClientSecret",
    "Credential",
    "InvalidInputError",
    "PagedSession",
    "PrivateKey",
    "RefusedError",
    "RefusedWithReasonsError",
    "UnavailableError",
]

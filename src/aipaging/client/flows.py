"""Every operation of the client as a flow: what is sent, and what comes of it."""

import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from aipaging.adapters.northbound.documents.catalogue import ServiceList
from aipaging.adapters.northbound.documents.intent import IntentDocument
from aipaging.adapters.northbound.documents.session import Resolution, SessionDocument, SessionList
from aipaging.adapters.northbound.documents.wording import Interpretation
from aipaging.client.calls import Call, Flow, fetched, sent
from aipaging.core.foundation.errors import InvalidInputError

KEY_BYTES: Final = 16
"""128 random bits: no two pages share a key by chance."""


def new_key() -> str:
    """Return an idempotency key that nobody has used."""
    return secrets.token_urlsafe(KEY_BYTES)


def intent_from(intent: IntentDocument | Mapping[str, Any] | None, fields: Mapping[str, Any]) -> object:
    """Return the intent that a caller gives as a document, a mapping in wire names, or keyword arguments.

    Raises:
        InvalidInputError: Both or neither are given, or a keyword is no field of an intent.
    """
    if (intent is None) == (not fields):
        raise InvalidInputError("give an intent, or its fields as keywords, and not both", field="intent")
    if intent is not None:
        return intent
    unknown = sorted(fields.keys() - set(IntentDocument.__struct_fields__))
    if unknown:
        allowed = ", ".join(IntentDocument.__struct_fields__)
        raise InvalidInputError(f"{unknown[0]} is not a field of an intent: allowed are {allowed}", field=unknown[0])
    missing = [name for name in ("task", "place", "delay_ms") if name not in fields]
    if missing:
        raise InvalidInputError(f"the intent lacks {', '.join(missing)}", field=missing[0])
    return IntentDocument(**fields)


def resolve(intent: object) -> Flow[Resolution]:
    """What would an intent find now?"""
    # A resolution commits to nothing: it may be asked again.
    return fetched(Call(method="POST", path="/intents/resolve", document={"intent": intent}, key=new_key()), Resolution)


def interpret(text: str, known: Mapping[str, Any]) -> Flow[Interpretation]:
    """What does a sentence say?"""
    document = {"text": text, "intent": dict(known)}
    return fetched(Call(method="POST", path="/intents/interpret", document=document, key=new_key()), Interpretation)


def page(intent: object, key: str) -> Flow[SessionDocument]:
    """Page an intent; the same key again gives the same session."""
    return fetched(Call(method="POST", path="/sessions", document={"intent": intent}, key=key), SessionDocument)


def read(session: str) -> Flow[SessionDocument]:
    """Read a session."""
    return fetched(Call(method="GET", path=_path(session)), SessionDocument)


def listed(filters: Mapping[str, str], page_number: int, per_page: int) -> Flow[SessionList]:
    """List sessions."""
    document = {"page": page_number, "perPage": per_page, "filter": dict(filters)}
    return fetched(Call(method="POST", path="/retrieve-sessions", document=document, key=new_key()), SessionList)


def services() -> Flow[ServiceList]:
    """List what is on offer."""
    return fetched(Call(method="GET", path="/services"), ServiceList)


def extend(session: str, additional_s: int) -> Flow[SessionDocument]:
    """Let a session last longer; the answer holds a new token."""
    document = {"additionalDurationS": additional_s}
    # Twice would prolong it twice: it is never repeated unasked.
    return fetched(Call(method="POST", path=_path(session, "/extend"), document=document), SessionDocument)


def relocate(session: str) -> Flow[SessionDocument]:
    """Move a session to the best other anchor."""
    return fetched(Call(method="POST", path=_path(session, "/relocate"), document={}), SessionDocument)


def end(session: str) -> Flow[None]:
    """End a session."""
    return sent(Call(method="DELETE", path=_path(session)))


def _path(session: str, rest: str = "") -> str:
    return f"/sessions/{quote(session, safe='')}{rest}"

"""Access tokens of an issuer that is elsewhere, verified by the key set that it publishes.

The set is fetched in the background and kept: while the issuer is slow, hung or gone, the last good set goes on being
used until it is too old, and then nobody is let in. A token that names a key nobody has seen makes it be fetched again,
at most every `AGAIN_S`; whoever waits for that waits alone, for a bounded time.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from aipaging.adapters.northbound.credentials import CLIENT_SCOPES, OPERATOR_SCOPES, Caller
from aipaging.adapters.northbound.oauth.clients import SKEW_S
from aipaging.adapters.northbound.oauth.doorkeeper import Known
from aipaging.adapters.northbound.oauth.public_keys import (
    PublicKey,
    header_of,
    key_for,
    keys_of,
    payload_of,
    refused,
)
from aipaging.core.foundation.errors import AipagingError, InvalidInputError, UnavailableError
from aipaging.core.foundation.names import NAME_CHARS_MAX, ClientId, TenantId, checked_name
from aipaging.core.foundation.time import SECOND, WallUs

LOG: Final = logging.getLogger("aipaging.issuers")

FRESH_S: Final = 300
"""How often the key set is fetched anew: issuers publish a key well before they sign with it."""

AGAIN_S: Final = 30
"""At most every so often for the sake of an unknown key: tokens with made-up keys must not become a flood elsewhere."""

WAIT_S: Final = 6.0
"""How long a caller waits for a fetch: a little longer than the fetch itself may take."""

WAITING_MAX: Final = 64
"""Callers that wait for one fetch; any further one is refused at once."""

KEEP_S: Final = 86_400
"""The last good key set is believed for a day: longer than an outage, shorter than a theft that goes unnoticed."""

TOKEN_S_MAX: Final = 86_400
"""A token that lasts longer is refused: it could not be taken back."""

WORDS_MAX: Final = 256
"""Scopes and roles of one token."""

FETCH_TRIES_S: Final = 5
"""A fetch that failed is not tried again sooner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerPlan:
    """What the operator says about an issuer.

    Attributes:
        name: First part of the ids of its clients, so that they never are clients of the configuration.
        issuer: `iss`, letter by letter.
        audience: What `aud` must hold.
        algorithms: That are accepted.
        token_types: Of the header's `typ`, in lower case.
        client_claim: Where the client's id stands.
        tenant_claim: Where the tenant stands; "" if it is fixed.
        tenant: The tenant of all its clients, where there is no claim.
        scope_claim: Text with blanks between, or a list.
        role_claim: Likewise, for roles; "" for none. `a.b` is the member `b` of `a`.
        grants: What a scope or role there means here: scopes of ours, or the words `client` and `operator`.
    """

    name: str
    issuer: str
    audience: str
    algorithms: frozenset[str]
    token_types: frozenset[str] = frozenset({"at+jwt", "application/at+jwt"})
    client_claim: str = "client_id"
    tenant_claim: str = ""
    tenant: str = ""
    scope_claim: str = "scope"
    role_claim: str = ""
    grants: Mapping[str, frozenset[str]]


class JwksIssuer:
    """A `ForeignIssuer` by its published keys."""

    def __init__(
        self,
        plan: IssuerPlan,
        fetch: Callable[[], Awaitable[bytes]],
        clock: Callable[[], WallUs],
        came: Callable[[ClientId], Awaitable[None]],
    ) -> None:
        """Take what is known of it; nothing is fetched yet.

        Args:
            plan: As the operator says.
            fetch: Returns the bytes of the key set, within seconds, or raises an AipagingError.
            clock: The wall clock.
            came: Told of every client that proves itself anew.
        """
        self._came = came
        self._plan = plan
        self._fetch = fetch
        self._clock = clock
        self._keys: tuple[PublicKey, ...] = ()
        self._fetched_us: int | None = None
        self._tried_us: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting = 0

    @property
    def issuer(self) -> str:
        """`iss` of its tokens."""
        return self._plan.issuer

    async def known(self, token: str) -> Known:
        """Return who a token is of.

        Raises:
            UnverifiedError: It proves nothing.
            UnavailableError: The issuer's keys are not known, or too old.
        """
        header = header_of(token)
        plan = self._plan
        if header["alg"] not in plan.algorithms:
            raise refused("TOKEN_ALGORITHM", f"tokens of {plan.name} are signed with {_listed(plan.algorithms)}")
        if str(header.get("typ", "")).lower() not in plan.token_types:
            raise refused("TOKEN_TYPE", f"the token is not of a type that {plan.name} issues for this interface")
        payload = payload_of(token, header, await self._key(header))
        issued_us, expires_us = self._require(payload)
        caller = _caller(plan, payload)
        await self._came(caller.client)
        return Known(caller=caller, issued_us=issued_us, expires_us=expires_us)

    async def _key(self, header: Mapping[str, Any]) -> PublicKey:
        age_s = self._age_s()
        if age_s is not None and age_s < KEEP_S:
            if age_s >= FRESH_S:
                self._begin(FETCH_TRIES_S)
            key = key_for(header, self._keys)
            if key is not None:
                return key
            await self._wait(AGAIN_S)
        else:
            await self._wait(FETCH_TRIES_S)
        age_s = self._age_s()
        if age_s is None or age_s >= KEEP_S:
            raise UnavailableError(f"the keys of the issuer {self._plan.name} cannot be had", code="UNAVAILABLE")
        key = key_for(header, self._keys)
        if key is None:
            raise refused("TOKEN_KEY_UNKNOWN", f"the token names a key that {self._plan.name} does not publish")
        return key

    def _age_s(self) -> int | None:
        """Return how old the key set is; a clock that went backwards makes it too old, not too young."""
        if self._fetched_us is None:
            return None
        age_us = self._clock() - self._fetched_us
        return age_us // SECOND if age_us >= 0 else FRESH_S

    def _begin(self, every_s: int) -> None:
        """Begin to fetch, unless that is under way or was just tried."""
        now_us = self._clock()
        recent = self._tried_us is not None and 0 <= now_us - self._tried_us < every_s * SECOND
        if (self._task is None or self._task.done()) and not recent:
            self._tried_us = now_us
            self._task = asyncio.get_running_loop().create_task(self._refresh())

    async def _wait(self, every_s: int) -> None:
        self._begin(every_s)
        task = self._task
        if task is None or task.done() or self._waiting >= WAITING_MAX:
            return
        self._waiting += 1
        try:
            await asyncio.wait({task}, timeout=WAIT_S)
        finally:
            self._waiting -= 1

    async def _refresh(self) -> None:
        try:
            keys = keys_of(await self._fetch(), allowed=self._plan.algorithms)
        except (AipagingError, OSError, TimeoutError) as error:
            LOG.warning("an issuer's keys cannot be read", extra={"issuer": self._plan.name, "reason": str(error)})
            return
        self._keys = keys
        self._fetched_us = self._clock()

    async def close(self) -> None:
        """End a fetch that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def _require(self, payload: Mapping[str, Any]) -> tuple[WallUs, WallUs]:
        plan = self._plan
        if payload.get("iss") != plan.issuer:
            raise refused("TOKEN_ISSUER", "the token was issued by somebody else")
        audience = payload.get("aud")
        if plan.audience not in (audience if isinstance(audience, list) else [audience]):
            raise refused("TOKEN_AUDIENCE", f"the token is not for the audience {plan.audience}")
        now_s = self._clock() // SECOND
        expires_s, begins_s, issued_s = payload.get("exp"), payload.get("nbf", 0), payload.get("iat", 0)
        if type(expires_s) is not int or not _seconds(begins_s) or not _seconds(issued_s):
            raise refused("TOKEN_CLAIMS", "exp of the token must be whole seconds, nbf and iat numbers")
        if expires_s <= now_s:
            raise refused("TOKEN_EXPIRED", "the token has expired; fetch a new one")
        if max(begins_s, issued_s) > now_s + SKEW_S:
            raise refused("TOKEN_NOT_YET_VALID", "the token is not valid yet: compare the clocks")
        if expires_s > now_s + TOKEN_S_MAX:
            raise refused("TOKEN_TOO_LONG", f"the token is valid for more than {TOKEN_S_MAX} s")
        return WallUs(int(issued_s * SECOND)), WallUs(expires_s * SECOND)


def _seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _caller(plan: IssuerPlan, payload: Mapping[str, Any]) -> Caller:
    words = {*_words(payload, plan.scope_claim), *_words(payload, plan.role_claim)}
    granted = frozenset[str]().union(*(plan.grants.get(word, frozenset()) for word in words))
    operator = "operator" in granted
    allowed = OPERATOR_SCOPES if operator else CLIENT_SCOPES
    scopes = allowed if granted & {"operator", "client"} else granted & allowed
    narrowed = frozenset(word for word in words if word.startswith("ai-paging:"))
    return Caller(
        client=client_of(plan.name, _claim(payload, plan.client_claim)),
        tenant=_tenant(plan, payload),
        scopes=scopes & narrowed if narrowed and granted & {"operator", "client"} else scopes,
        operator=operator,
    )


def client_of(issuer: str, client: object) -> ClientId:
    """Return the id here of a client there: `issuer.client`, or a digest where that would be no name.

    Raises:
        UnverifiedError: There is no client.
    """
    if not isinstance(client, str) or not client:
        raise refused("TOKEN_CLAIMS", "the token names no client")
    try:
        return ClientId(checked_name(f"{issuer}.{client}", field="client"))
    except InvalidInputError:
        digest = sha256(client.encode("utf-8", "replace")).hexdigest()
        return ClientId(f"{issuer}.{digest}"[:NAME_CHARS_MAX])


def _tenant(plan: IssuerPlan, payload: Mapping[str, Any]) -> TenantId:
    stated = _claim(payload, plan.tenant_claim) if plan.tenant_claim else plan.tenant
    try:
        return TenantId(checked_name(stated if isinstance(stated, str) else "", field=plan.tenant_claim))
    except InvalidInputError:
        raise refused(
            "TOKEN_CLAIMS", f"the token's claim {plan.tenant_claim} is no tenant: lower-case letters, digits, . and -"
        ) from None


def _claim(payload: Mapping[str, Any], path: str) -> object:
    """Return a claim; `a.b` is the member `b` of `a`, unless a claim has that very name."""
    if path in payload:
        return payload[path]
    found: Any = payload
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _words(payload: Mapping[str, Any], path: str) -> list[str]:
    value = _claim(payload, path) if path else None
    if isinstance(value, str):
        return value.split()[:WORDS_MAX]
    return [word for word in value[:WORDS_MAX] if isinstance(word, str)] if isinstance(value, list) else []


def _listed(words: frozenset[str]) -> str:
    return ", ".join(sorted(words))

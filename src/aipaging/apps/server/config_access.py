"""The parts of the configuration that say who may ask: clients' keys and scopes, and issuers that are elsewhere."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aipaging.adapters.northbound.credentials import CLIENT_SCOPES, OPERATOR_SCOPES
from aipaging.adapters.northbound.oauth.clients import ASSERTION_ALGORITHMS
from aipaging.adapters.northbound.oauth.foreign import IssuerPlan
from aipaging.adapters.northbound.oauth.public_keys import ASYMMETRIC, PublicKey, keys_of
from aipaging.apps.server.config_checks import Tables
from aipaging.apps.server.config_fields import (
    Field,
    Kind,
    Mistake,
    Section,
    Table,
    choice,
    name,
    several,
    shown,
    text,
    url,
)
from aipaging.apps.server.domain_keys import KEY_SET_BYTES_MAX, KeySource
from aipaging.core.foundation.errors import InvalidInputError

_CLAIM: Final = text(allowed="the name of a claim", pattern=r"[A-Za-z0-9_.:/-]{1,128}")
_SCOPE: Final = text(allowed="a scope of this interface", pattern=r"ai-paging:[a-z]+:[a-z]+")
_GRANT: Final = text(
    allowed="`word=scope`, where scope is one of this interface, or `client`, or `operator`",
    pattern=r"[\x21-\x3c\x3e-\x7e]{1,128}=(client|operator|ai-paging:[a-z]+:[a-z]+)",
)
_TYPE: Final = text(allowed="a type such as at+jwt", pattern=r"[A-Za-z0-9+./-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuer:
    """An issuer that is elsewhere, and where its keys are."""

    plan: IssuerPlan
    keys: KeySource


def client_fields(path: Kind) -> dict[str, Field]:
    """Return the keys of `[[client]]` that are about OAuth2."""
    return {
        "keys_file": Field(
            kind=path,
            about="Public keys by which it signs assertions (`private_key_jwt`): a JWK Set, or one key in PEM.",
        ),
        "scopes": Field(kind=several(_SCOPE), default=(), about="What it may do; empty for all that its role may."),
    }


def issuer_section(path: Kind) -> Section:
    """Return the section on issuers that are elsewhere."""
    return Section(
        name="issuer",
        about="An authorization server that is elsewhere, whose access tokens are accepted.",
        many=True,
        fields={
            "name": Field(kind=name(), required=True, about="First part of the ids of its clients: `name.client`."),
            "issuer": Field(kind=text(), required=True, about="`iss` of its tokens, letter by letter."),
            "jwks_url": Field(kind=url(), about="Where its keys are published; fetched when needed, and kept."),
            "jwks_file": Field(kind=path, about="Or a file that holds them; read again when it changes."),
            "audience": Field(kind=text(), required=True, about="What `aud` of its tokens must hold."),
            "algorithms": Field(
                kind=several(choice(*sorted(ASYMMETRIC))), default=("ES256", "RS256"), about="What it signs with."
            ),
            "token_types": Field(
                kind=several(_TYPE),
                default=("at+jwt", "application/at+jwt"),
                about="`typ` of its access tokens. Servers that do not follow RFC 9068 say `JWT`: then make sure by "
                "the audience that it issues nothing else for it.",
            ),
            "client_claim": Field(kind=_CLAIM, default="client_id", about="The claim that names the client."),
            "tenant_claim": Field(kind=_CLAIM, about="The claim that names the tenant; or:"),
            "tenant": Field(kind=name(), about="The tenant of all its clients."),
            "scope_claim": Field(kind=_CLAIM, default="scope", about="The claim that holds scopes."),
            "role_claim": Field(kind=_CLAIM, about="A claim that holds roles, such as `realm_access.roles`."),
            "grants": Field(
                kind=several(_GRANT),
                default=(),
                about='What its scopes and roles mean here: `"word=scope"`; `word=client` and `word=operator` grant '
                "all scopes of the role. Without any, its scopes mean what they are called, and nobody is operator.",
            ),
        },
    )


def issuers_of(tables: Tables) -> tuple[TrustedIssuer, ...]:
    """Return the issuers of a configuration without mistakes."""
    return tuple(
        TrustedIssuer(
            plan=IssuerPlan(
                name=table.get("name"),
                issuer=table.get("issuer"),
                audience=table.get("audience"),
                algorithms=frozenset(table.get("algorithms")),
                token_types=frozenset(each.lower() for each in table.get("token_types")),
                client_claim=table.get("client_claim"),
                tenant_claim=table.get("tenant_claim") or "",
                tenant=table.get("tenant") or "",
                scope_claim=table.get("scope_claim"),
                role_claim=table.get("role_claim") or "",
                grants=_grants(table.get("grants")),
            ),
            keys=KeySource(file=table.get("jwks_file"), url=table.get("jwks_url")),
        )
        for table in tables.many["issuer"]
    )


def _grants(stated: tuple[str, ...]) -> Mapping[str, frozenset[str]]:
    grants: dict[str, frozenset[str]] = {} if stated else {scope: frozenset({scope}) for scope in CLIENT_SCOPES}
    for each in stated:
        word, _, granted = each.partition("=")
        grants[word] = grants.get(word, frozenset()) | {granted}
    return grants


def keys_of_client(table: Table, mistakes: list[Mistake]) -> tuple[PublicKey, ...]:
    """Return the keys in a client's file; what is wrong with it becomes a mistake."""
    path: Path | None = table.get("keys_file")
    if path is None:
        return ()
    where = table.at("keys_file")
    try:
        with path.open("rb") as file:
            return keys_of(file.read(KEY_SET_BYTES_MAX), allowed=ASSERTION_ALGORITHMS)
    except OSError as error:
        mistakes.append(Mistake(where, f"{shown(where)}: {path} cannot be read: {error.strerror}"))
    except InvalidInputError as error:
        mistakes.append(Mistake(where, f"{shown(where)}: {path}: {error.message}"))
    return ()


def checked_access(tables: Tables) -> Iterator[Mistake]:
    """Yield contradictions about clients' scopes and about issuers."""
    yield from _scopes(tables)
    seen: dict[str, Table] = {}
    for table in tables.many["issuer"]:
        yield from _issuer(table)
        for value in (table.get("name"), table.get("issuer")):
            if value in seen:
                yield Mistake(
                    table.path, f"{shown(table.path)} shares {value} with {shown(seen[value].path)}: one each"
                )
            elif value is not None:
                seen[value] = table
        for client in tables.many["client"]:
            if str(client.get("client_id")).startswith(f"{table.get('name')}."):
                where = client.at("client_id")
                yield Mistake(where, f"{shown(where)}: names that begin with {table.get('name')}. are its issuer's")


def _scopes(tables: Tables) -> Iterator[Mistake]:
    for table in tables.many["client"]:
        allowed = OPERATOR_SCOPES if table.get("role") == "operator" else CLIENT_SCOPES
        unknown = [scope for scope in table.get("scopes") or () if scope not in allowed]
        if unknown:
            where = table.at("scopes")
            yield Mistake(where, f"{shown(where)}: {unknown[0]} is no scope of the role {table.get('role')}")


def _issuer(table: Table) -> Iterator[Mistake]:
    for one, other in (("jwks_url", "jwks_file"), ("tenant_claim", "tenant")):
        if (one in table.given) == (other in table.given):
            yield Mistake(table.path, f"{shown(table.path)}: give exactly one of {one} and {other}")
    where: str | None = table.get("jwks_url")
    if where is not None and not where.startswith("https://") and not _loopback(where):
        path = table.at("jwks_url")
        yield Mistake(path, f"{shown(path)}: keys travel by https, or on loopback")
    for grant in table.get("grants") or ():
        granted = grant.partition("=")[2]
        if granted not in {"client", "operator"} | OPERATOR_SCOPES:
            path = table.at("grants")
            yield Mistake(path, f"{shown(path)}: {granted} is no scope of this interface")


def _loopback(where: str) -> bool:
    return (urlsplit(where).hostname or "") in {"127.0.0.1", "::1", "localhost"}

"""The endpoints of the authorization server: tokens in exchange for proof, revocation, introspection, metadata."""

from collections.abc import Callable, Sequence
from typing import Final

from aipaging.adapters.northbound.credentials import OPERATOR_SCOPES, Caller
from aipaging.adapters.northbound.oauth import documents as d
from aipaging.adapters.northbound.oauth.access import Access
from aipaging.adapters.northbound.oauth.clients import ASSERTION_ALGORITHMS, RegisteredClient
from aipaging.adapters.northbound.oauth.failures import TooManyFailuresError
from aipaging.adapters.northbound.oauth.issuer import OAuthError, TokenRequest, form_of, token_of
from aipaging.adapters.northbound.operation import Operation, Reply, action_of, take
from aipaging.adapters.northbound.rate_limits import Limits, Use
from aipaging.adapters.northbound.service import Northbound
from aipaging.core.foundation.errors import RefusedError
from aipaging.core.foundation.time import SECOND
from aipaging.core.identity.claims import ACCESS_AUDIENCE
from aipaging.runtime.http.exchange import Answer, Headers, Request, json_answer

FORM: Final = "application/x-www-form-urlencoded"

FORM_BYTES_MAX: Final = 16_384
"""An assertion of 8 kB, percent-encoded, and the rest."""

TOKEN_PATH: Final = "/oauth2/token"  # noqa: S105 - a path, not a secret
REVOKE_PATH: Final = "/oauth2/revoke"
INTROSPECT_PATH: Final = "/oauth2/introspect"
METADATA_PATH: Final = "/.well-known/oauth-authorization-server"

TOKEN_NAME: Final = "getToken"  # noqa: S105 - an operation, not a secret
REVOKE_NAME: Final = "revokeToken"
INTROSPECT_NAME: Final = "introspectToken"
INTROSPECT_SCOPE: Final = "ai-paging:tokens:introspect"

_METHODS: Final = ["client_secret_basic", "client_secret_post", "private_key_jwt"]
_PUBLIC: Final[Headers] = ((b"access-control-allow-origin", b"*"),)


def audiences_of(issuer: str, public_url: str) -> frozenset[str]:
    """Return what an assertion may be meant for: the issuer, the server, and its endpoints."""
    root = public_url.rstrip("/")
    roots = {issuer, root} if root else {issuer}
    return frozenset(roots | {f"{each}{path}" for each in roots for path in (TOKEN_PATH, REVOKE_PATH, INTROSPECT_PATH)})


class OAuthRoutes:
    """The operations of the authorization server."""

    def __init__(self, service: Northbound, access: Access) -> None:
        self._service = service
        self._issuer = access.issuer
        self._limits = Limits(service.rates, service.operator_rates)

    async def token(self, request: Request) -> Answer:
        """Grant an access token."""
        try:
            # An operator's tokens leave no evidence, and it needs one to do anything at all.
            grant = self._issuer.granted(await _form(request), self._admission(request, TOKEN_NAME, Use.UNRECORDED))
        except RefusedError as error:
            return _refusal(error, request)
        return json_answer(
            d.TokenGranted(access_token=grant.token, expires_in=grant.expires_in_s, scope=grant.scope),
            headers=((b"pragma", b"no-cache"),),
        )

    def _admission(self, request: Request, name: str, use: Use) -> Callable[[RegisteredClient], None]:
        """Return what counts a request as one of its client's: signing, and writing down what is taken back, costs."""
        return lambda client: self._take(_caller(client), request, name, use)

    def _take(self, caller: Caller, request: Request, name: str, use: Use) -> None:
        take(self._limits, self._service.control, caller, request, name=name, use=use)

    async def revoke(self, request: Request) -> Answer:
        """Take a token back."""
        try:
            await self._issuer.take_back(await _form(request), self._admission(request, REVOKE_NAME, Use.PROTECT))
        except RefusedError as error:
            return _refusal(error, request)
        return Answer(status=200)

    async def introspect(self, request: Request) -> Answer:
        """Say what a token is good for."""
        try:
            form = await _form(request)
            token = token_of(form)
            asker = await self._asker(form)
            self._take(asker, request, INTROSPECT_NAME, Use.READ)
        except RefusedError as error:
            return _refusal(error, request)
        request.notes["client"] = asker.client
        if asker.operator:
            self._service.control.note(action_of(asker, INTROSPECT_NAME, request, status=200))
        claims = self._issuer.looked_into(token, None if INTROSPECT_SCOPE in asker.scopes else asker.client)
        if claims is None:
            return json_answer(d.TokenExplained(active=False))
        return json_answer(
            d.TokenExplained(
                active=True,
                scope=" ".join(sorted(claims.scopes)),
                client_id=claims.client,
                sub=claims.client,
                aud=ACCESS_AUDIENCE,
                iss=self._service.issuer,
                iat=claims.issued_us // SECOND,
                exp=claims.expires_us // SECOND,
                jti=claims.token_id,
                token_type="Bearer",  # noqa: S106 - a type, not a secret
            )
        )

    async def _asker(self, request: TokenRequest) -> Caller:
        if not request.authorization.lower().startswith("bearer "):
            return _caller(self._issuer.client_of(request))
        try:
            return await self._service.authenticator.caller(request.authorization, request.address)
        except TooManyFailuresError:
            raise
        except RefusedError as error:
            raise OAuthError("invalid_client", error.message) from None

    async def metadata(self, _request: Request) -> Answer:
        """Answer where the endpoints are and what they take."""
        root = self._service.public_url.rstrip("/")
        algorithms = sorted(ASSERTION_ALGORITHMS)
        return json_answer(
            d.ServerMetadata(
                issuer=self._service.issuer,
                token_endpoint=f"{root}{TOKEN_PATH}",
                revocation_endpoint=f"{root}{REVOKE_PATH}",
                introspection_endpoint=f"{root}{INTROSPECT_PATH}",
                jwks_uri=f"{root}/.well-known/jwks.json",
                scopes_supported=sorted(OPERATOR_SCOPES),
                response_types_supported=[],
                grant_types_supported=["client_credentials"],
                token_endpoint_auth_methods_supported=_METHODS,
                token_endpoint_auth_signing_alg_values_supported=algorithms,
                revocation_endpoint_auth_methods_supported=_METHODS,
                revocation_endpoint_auth_signing_alg_values_supported=algorithms,
                introspection_endpoint_auth_methods_supported=[*_METHODS, "Bearer"],
                introspection_endpoint_auth_signing_alg_values_supported=algorithms,
            ),
            headers=_PUBLIC,
        )

    def operations(self) -> Sequence[Operation]:
        """Return the table of these operations."""
        # tidy: long because it is a table
        refusals = {
            status: Reply(meaning=meaning, document=d.OAuthFault, example=d.EXAMPLE_FAULTS[status])
            for status, meaning in (
                (400, "The request is not one, or asks for what the client may not have."),
                (401, "The client is not who it says."),
                (429, "The client has failed, or asks, too often."),
            )
        }
        errors = ("AI_PAGING.PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "ABORTED")
        proof = "A client proves itself by client_secret_basic, client_secret_post or private_key_jwt (RFC 7523)."
        return [
            Operation(
                method="POST",
                path=TOKEN_PATH,
                name=TOKEN_NAME,
                summary="Exchange a client's proof for an access token",
                description=f"RFC 6749, 4.4; the token is a JWT of RFC 9068. {proof}",
                tag="Access",
                handler=self.token,
                scope=None,
                request=d.TokenForm,
                request_example=d.EXAMPLE_FORM,
                request_media=FORM,
                replies={200: Reply(meaning="The token.", document=d.TokenGranted, example=d.EXAMPLE_GRANTED)}
                | refusals,
                errors=errors,
            ),
            Operation(
                method="POST",
                path=REVOKE_PATH,
                name=REVOKE_NAME,
                summary="Take an access token back",
                description=f"RFC 7009: a client's own token; one that is not good is taken back already. {proof}",
                tag="Access",
                handler=self.revoke,
                scope=None,
                request=d.TokenNamed,
                request_example=d.EXAMPLE_NAMED,
                request_media=FORM,
                replies={200: Reply(meaning="It is not good any more.")} | refusals,
                errors=errors,
            ),
            Operation(
                method="POST",
                path=INTROSPECT_PATH,
                name=INTROSPECT_NAME,
                summary="Say what an access token is good for",
                description=f"RFC 7662: a client asks about its own tokens; who has the scope `{INTROSPECT_SCOPE}`, "
                f"about all. {proof} A bearer credential of this interface will do, too.",
                tag="Access",
                handler=self.introspect,
                scope=None,
                request=d.TokenNamed,
                request_example=d.EXAMPLE_NAMED,
                request_media=FORM,
                replies={200: Reply(meaning="What it says.", document=d.TokenExplained, example={"active": False})}
                | refusals,
                errors=errors,
            ),
            Operation(
                method="GET",
                path=METADATA_PATH,
                name="getAuthorizationServer",
                summary="Read where the endpoints of the authorization server are (RFC 8414)",
                tag="Access",
                handler=self.metadata,
                scope=None,
                replies={200: Reply(meaning="Where.", document=d.ServerMetadata, example=d.EXAMPLE_METADATA)},
            ),
        ]


async def _form(request: Request) -> TokenRequest:
    request.parameters_of_query()
    if request.header(b"content-type").partition(";")[0].strip().lower() != FORM:
        raise RefusedError(f"the body must be {FORM}", code="UNSUPPORTED_MEDIA_TYPE", field="content-type")
    form = form_of(await request.body(bytes_max=FORM_BYTES_MAX))
    return TokenRequest(form=form, authorization=request.header(b"authorization"), address=request.address)


def _caller(client: RegisteredClient) -> Caller:
    return Caller(client=client.client, tenant=client.tenant, scopes=client.scopes, operator=client.role == "operator")


def _refusal(error: RefusedError, request: Request) -> Answer:
    """Return a refusal in the words of OAuth2.

    Raises:
        RefusedError: It is none that OAuth2 has words for.
    """
    if not isinstance(error, OAuthError) and error.retry_after_s is None:
        raise error
    request.notes["code"] = error.code
    if isinstance(error, OAuthError):
        word, status = error.error, error.status
        headers: Headers = ((b"www-authenticate", b'Basic realm="aipaging"'),) if status == 401 else ()
    else:
        word, status = "temporarily_unavailable", 429
        headers = ((b"retry-after", str(error.retry_after_s).encode()),)
    return json_answer(
        d.OAuthFault(
            error=word, error_description=error.message, status=status, code=error.code, message=error.message
        ),
        status=status,
        headers=headers,
    )

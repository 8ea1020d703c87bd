"""Identifiers as distinct types, each with the one grammar that is allowed.

The grammars are narrow on purpose: every name goes into evidence records (ASCII), HTTP headers and file
names without escaping.
"""

import re
from typing import Final, NewType

from aipaging.core.foundation.errors import InvalidInputError

SessionId = NewType("SessionId", str)
AnchorId = NewType("AnchorId", str)
DomainName = NewType("DomainName", str)
TenantId = NewType("TenantId", str)
ClientId = NewType("ClientId", str)
GatewayId = NewType("GatewayId", str)
ServiceUri = NewType("ServiceUri", str)
"""AISI: `aisi://<operator>/<service>/<variant>`. Location-free; never an address, never a capability."""

NAME_CHARS_MAX: Final = 64
"""As long as a DNS label plus one: names become certificate subjects and cluster names."""

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?")
_SESSION: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SERVICE: Final = re.compile(r"aisi://[a-z0-9.-]{1,64}/[a-z0-9.-]{1,64}/[a-z0-9.-]{1,64}")


def checked_name(text: str, *, field: str) -> str:
    """Return `text` if it is a name: lower-case letters, digits, dots and hyphens, at most 64.

    Raises:
        InvalidInputError: It is not; the error names `field`.
    """
    if not _NAME.fullmatch(text):
        raise InvalidInputError(
            f"{field} is {text[:80]!r}: allowed are 1 to {NAME_CHARS_MAX} lower-case letters, digits, dots and "
            "hyphens, beginning and ending with a letter or digit",
            field=field,
        )
    return text


def session_id(text: str, *, field: str = "sessionId") -> SessionId:
    """Return `text` as a session id (a lower-case UUID).

    Raises:
        InvalidInputError: It is not a UUID.
    """
    if not _SESSION.fullmatch(text):
        raise InvalidInputError(f"{field} is {text[:80]!r}: a lower-case UUID is expected", field=field)
    return SessionId(text)


def service_uri(text: str, *, field: str = "aisi") -> ServiceUri:
    """Return `text` as an AISI.

    Raises:
        InvalidInputError: It does not follow `aisi://<operator>/<service>/<variant>`.
    """
    if not _SERVICE.fullmatch(text):
        raise InvalidInputError(
            f"{field} is {text[:120]!r}: expected aisi://<operator>/<service>/<variant> in lower-case letters, "
            "digits, dots and hyphens",
            field=field,
        )
    return ServiceUri(text)

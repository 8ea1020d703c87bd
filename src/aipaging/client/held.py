"""A session as its client holds it: the latest document, the token, and when it must be extended."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aipaging.adapters.northbound.documents.session import SessionDocument
from aipaging.core.foundation.errors import RefusedError, UnavailableError

EXTEND_SHARE: Final = 0.25
"""A session is extended once less than a quarter of what it was asked for is left: time for several attempts."""

EXTEND_S_MAX: Final = 86_400
"""The most that the interface prolongs by at a time."""


@dataclass(slots=True)
class HeldSession:
    """What a client knows of one session.

    Attributes:
        document: As last answered.
        token: Its AIST; "" once it has ended.
        until_s: When it ends, by the client's own clock.
        step_s: By how much it is extended.
    """

    document: SessionDocument
    token: str = field(repr=False)
    until_s: float
    step_s: int

    @classmethod
    def of(cls, document: SessionDocument, asked_s: float) -> "HeldSession":
        """Return a session from the answer to its page.

        Args:
            document: The answer.
            asked_s: When the page was sent: its duration counts from no later.

        Raises:
            RefusedError: The answer holds no token.
        """
        if document.aist is None:
            raise RefusedError(f"the answer holds no token for session {document.session_id}", code="NO_TOKEN")
        return cls(
            document=document,
            token=document.aist,
            until_s=asked_s + document.duration_s,
            step_s=min(document.intent.duration_s, EXTEND_S_MAX),
        )

    def take(self, document: SessionDocument) -> None:
        """Take a later answer over; one that prolonged it holds a new token."""
        self.until_s += max(0, document.duration_s - self.document.duration_s)
        self.document = document
        if document.aist is not None:
            self.token = document.aist

    def present_token(self) -> str:
        """Return the token.

        Raises:
            RefusedError: The session has been ended.
        """
        if not self.token:
            raise RefusedError(f"session {self.document.session_id} has been ended: page again", code="SESSION_ENDED")
        return self.token

    def must_extend(self, now_s: float) -> bool:
        """Return whether it should be extended before it is used again."""
        return self.until_s - now_s < EXTEND_SHARE * self.step_s


class SessionFace:
    """What a session shows without asking anybody, whether its client waits by blocking or not."""

    def __init__(self, held: HeldSession, gateway_tls: Callable[[], ssl.SSLContext]) -> None:
        self._held = held
        self._gateway_tls = gateway_tls

    @property
    def id(self) -> str:
        """The session's id."""
        return self._held.document.session_id

    @property
    def document(self) -> SessionDocument:
        """The session as last answered; `refresh` asks again."""
        return self._held.document

    @property
    def gateway_url(self) -> str:
        """Where requests go, with the token as bearer token."""
        return self._held.document.gateway_url


def trust(ca: Path | str | None, certificate: tuple[Path | str, Path | str] | None = None) -> ssl.SSLContext:
    """Return whom to trust, the authorities in a PEM file or the system's, and the certificate to show, if any."""
    context = ssl.create_default_context(cafile=str(ca) if ca else None)
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return context


def openai_package() -> Any:
    """Return the package `openai`.

    Raises:
        UnavailableError: It is not installed.
    """
    try:
        import openai  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise UnavailableError('run: pip install "aipaging[demo]" for openai', code="EXTRA_NOT_INSTALLED") from error
    return openai

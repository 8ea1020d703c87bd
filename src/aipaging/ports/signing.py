"""The ports to keys: who signs and who verifies."""

from typing import Protocol

from aipaging.core.identity.claims import AistClaims, CommitClaims


class TokenSigner(Protocol):
    """Signs the two tokens of the controller."""

    def sign_aist(self, claims: AistClaims) -> str:
        """Return the AIST as a compact JWT."""
        ...

    def sign_commit(self, claims: CommitClaims) -> str:
        """Return the COMMIT receipt as a compact JWS."""
        ...


class TokenVerifier(Protocol):
    """Turns bytes into verified claims; caches nothing that a key rotation would make wrong."""

    def verify_aist(self, token: str) -> AistClaims:
        """Return the claims of an AIST.

        Raises:
            UnverifiedError: Its signature, type, issuer, audience, scope or shape is wrong, or it has expired.
        """
        ...

    def verify_commit(self, token: str) -> CommitClaims:
        """Return the claims of a COMMIT receipt; `exp` is not judged here: time is the lease's matter.

        Raises:
            UnverifiedError: Its signature, type, issuer or shape is wrong.
        """
        ...


class CheckpointSigner(Protocol):
    """Signs tree heads as C2SP signed notes."""

    @property
    def key_name(self) -> str:
        """The name in the note's signature line, such as `aipaging.example/log`."""
        ...

    def sign_note(self, text: str) -> str:
        """Return the signed note whose text is `text` (which ends in a newline)."""
        ...

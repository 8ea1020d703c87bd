"""Why a signed envelope is refused: one class for each reason, so that nobody has to read a message to know which.

All of them are `UnverifiedError`: nothing of the bytes may be used. The message repeats nothing of unverified bytes.
"""

from typing import ClassVar

from aipaging.core.foundation.errors import UnverifiedError


class EnvelopeRefusedError(UnverifiedError):
    """A signed envelope is not accepted."""

    reason: ClassVar[str] = "ENVELOPE_REFUSED"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message, code=self.reason, field=field)


class EnvelopeTooLargeError(EnvelopeRefusedError):
    """There are more bytes than an envelope can have."""

    reason = "ENVELOPE_TOO_LARGE"


class EnvelopeNotSignedError(EnvelopeRefusedError):
    """The bytes are not a compact JWS of the type of envelopes."""

    reason = "ENVELOPE_NOT_SIGNED"


class EnvelopeAlgorithmError(EnvelopeRefusedError):
    """The signature's algorithm is none of ours, or not that of the key."""

    reason = "ENVELOPE_ALGORITHM"


class EnvelopeKeyUnknownError(EnvelopeRefusedError):
    """The key that is named is in no key set that we trust: never known, or retired."""

    reason = "ENVELOPE_KEY_UNKNOWN"


class EnvelopeSignatureError(EnvelopeRefusedError):
    """The signature is wrong."""

    reason = "ENVELOPE_SIGNATURE"


class EnvelopeMalformedError(EnvelopeRefusedError):
    """What was signed is not an envelope of this schema."""

    reason = "ENVELOPE_MALFORMED"


class EnvelopeNotCanonicalError(EnvelopeRefusedError):
    """What was signed is not in its canonical form, so that two digests could name one promise."""

    reason = "ENVELOPE_NOT_CANONICAL"


class EnvelopeKeyForeignError(EnvelopeRefusedError):
    """The key belongs to another domain: nobody promises for others."""

    reason = "ENVELOPE_KEY_FOREIGN"


class EnvelopeNotYetValidError(EnvelopeRefusedError):
    """Its validity has not begun."""

    reason = "ENVELOPE_NOT_YET_VALID"


class EnvelopeExpiredError(EnvelopeRefusedError):
    """Its validity is over."""

    reason = "ENVELOPE_EXPIRED"


class EnvelopeRolledBackError(EnvelopeRefusedError):
    """A newer one was accepted before: somebody offers an old promise again."""

    reason = "ENVELOPE_ROLLED_BACK"


class EnvelopeReplayedError(EnvelopeRefusedError):
    """Exactly this one was accepted before: there is nothing new in it."""

    reason = "ENVELOPE_REPLAYED"


class EnvelopeEquivocationError(EnvelopeRefusedError):
    """Another one with the same sequence number was accepted before: the domain says two things at once."""

    reason = "ENVELOPE_EQUIVOCATION"


class EnvelopePartUnknownError(EnvelopeRefusedError):
    """A composite rests on a part that is not in force here."""

    reason = "ENVELOPE_PART_UNKNOWN"


class EnvelopesTooManyError(EnvelopeRefusedError):
    """A domain has more envelopes in force than one domain may."""

    reason = "ENVELOPES_TOO_MANY"


class EnvelopePlainError(EnvelopeRefusedError):
    """It is not signed, and its domain signs for itself."""

    reason = "ENVELOPE_PLAIN"

"""Token keys that are exchanged while the controller runs: published ahead of use, kept until nobody needs them.

A rotation is a new file `token-<number>.pem` in the directory of keys, a retirement the removal of an old one. The
directory is looked at again while tokens are signed and verified. Ordering rules: a new key verifies and stands in the
key set at once; it signs only `PUBLISHED_AHEAD_US` after it first stood there, so that whoever fetches the set at the
agreed pace knows it by then; when it was first published is a file beside it, so that a restart neither shortens nor
forgets the wait. A key that cannot be read changes nothing and is logged.

A key is removed only by an operator, and not while it signs or tokens that it signed may be in use, unless forced.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aipaging.adapters.signing.files import create_once
from aipaging.adapters.signing.keys import Jwks, KeyStore, TokenKey
from aipaging.adapters.signing.tokens import JwtVerifier
from aipaging.core.foundation.errors import AipagingError, RefusedError
from aipaging.core.foundation.time import SECOND, WallUs
from aipaging.core.identity.claims import AccessClaims, AistClaims, CommitClaims

PUBLISHED_AHEAD_US: Final = 660 * SECOND
"""Sidecars fetch the key set every 300 s: twice that, and a minute for a controller that did not answer at once."""

LOOK_US: Final = 1 * SECOND
"""How often the directory is looked at, at most: one system call."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKeyAge:
    """One token key and its place in time.

    Attributes:
        kid: Its name.
        published_us: Since when it stands in the key set.
        signs: Whether it signs now.
        replaced_us: When a newer one took over, or None.
    """

    kid: str
    published_us: int
    signs: bool
    replaced_us: int | None


class TokenKeyRing:
    """The token keys of a directory, followed; a `signing_key` and a key set like those of a `KeyStore`."""

    def __init__(self, keys: KeyStore, wall_clock: Callable[[], WallUs], *, ahead_us: int = PUBLISHED_AHEAD_US) -> None:
        """Follow the directory of `keys`.

        Args:
            keys: As they were read at the start.
            wall_clock: What ages of keys are held against.
            ahead_us: How long a key is published before it signs.

        Raises:
            AipagingError: The directory cannot be written.
        """
        self._keys = keys
        self._clock = wall_clock
        self._ahead_us = ahead_us
        self._names = _names(keys.directory)
        self._published_us: dict[str, int] = {}
        self._looked_us = wall_clock()
        self._publish()

    @property
    def signing_key(self) -> TokenKey:
        """The newest key that has been published for long enough; where there is none, the oldest."""
        self._look()
        latest_us = self._clock() - self._ahead_us
        for key in reversed(self._keys.token_keys):
            if self._published_us[key.kid] <= latest_us:
                return key
        return self._keys.token_keys[0]

    @property
    def present(self) -> KeyStore:
        """The keys as they are now; the same object until they change."""
        self._look()
        return self._keys

    def jwks(self) -> Jwks:
        """Return the public token keys as a JWK Set, those that do not sign yet among them."""
        return self.present.jwks()

    def listed(self) -> list[TokenKeyAge]:
        """Return the keys and their ages, oldest first."""
        signing = self.signing_key.kid
        now_us = self._clock()
        ages: list[TokenKeyAge] = []
        over_us: int | None = None
        for key in reversed(self._keys.token_keys):
            published_us = self._published_us[key.kid]
            ages.append(
                TokenKeyAge(kid=key.kid, published_us=published_us, signs=key.kid == signing, replaced_us=over_us)
            )
            takes_over_us = published_us + self._ahead_us
            if takes_over_us <= now_us:
                over_us = takes_over_us if over_us is None else min(over_us, takes_over_us)
        return ages[::-1]

    def rotate(self) -> str:
        """Publish a new key at once, which signs when all know it; return its name.

        Raises:
            RefusedError: Another new key is waiting already, or there are too many.
            AipagingError: The directory cannot be written.
        """
        ages = self.listed()
        if not ages[-1].signs:
            raise RefusedError(
                f"the key {ages[-1].kid} was published before and does not sign yet: wait until it does",
                code="INCOMPATIBLE_STATE",
            )
        self._take(self._keys.rotated())
        return self._keys.token_keys[-1].kid

    def retire(self, kid: str, *, needed_us: int, force: bool = False) -> None:
        """Remove a key: what it signed is refused from now on.

        Args:
            kid: Its name.
            needed_us: How long a token may be in use after it was signed.
            force: Whether to remove it although it signs, or is needed: it was stolen.

        Raises:
            InvalidInputError: There is no such key.
            RefusedError: It is needed, or the only one.
            AipagingError: The directory cannot be written.
        """
        age = next((each for each in self.listed() if each.kid == kid), None)
        if age is not None and not force:
            until_us = None if age.replaced_us is None else age.replaced_us + needed_us
            if until_us is None or self._clock() < until_us:
                left = (
                    "it signs, or is to" if until_us is None else f"for {(until_us - self._clock()) // SECOND} s more"
                )
                raise RefusedError(
                    f"tokens signed with it may be in use ({left}): wait, or force it if it was stolen",
                    code="INCOMPATIBLE_STATE",
                    field="keyId",
                )
        self._take(self._keys.retired(kid))

    def _take(self, keys: KeyStore) -> None:
        self._keys = keys
        self._publish()
        self._names = _names(keys.directory)

    def _look(self) -> None:
        now_us = self._clock()
        if 0 <= now_us - self._looked_us < LOOK_US:
            return
        self._looked_us = now_us
        try:
            names = _names(self._keys.directory)
            if names == self._names:
                return
            keys = KeyStore.open(self._keys.directory)
            if {key.kid for key in keys.token_keys} == {key.kid for key in self._keys.token_keys}:
                self._names = names
                return
            before, self._keys = self._keys, keys
            try:
                self._publish()
            except AipagingError:
                self._keys = before
                raise
            self._names = names
            _LOG.info("token keys changed: %s", ", ".join(key.kid for key in keys.token_keys))
        except (AipagingError, OSError) as error:
            _LOG.warning("the directory of token keys cannot be read; the keys stay as they were: %s", error)

    def _publish(self) -> None:
        """Note since when each key has been published, now for those that are new."""
        found: dict[str, int] = {}
        for key in self._keys.token_keys:
            note = self._keys.directory / f"{key.kid}.published"
            create_once(note, b"%d\n" % self._clock())
            try:
                found[key.kid] = int(note.read_text(encoding="ascii"))
            except ValueError:
                found[key.kid] = self._clock()
        self._published_us = found


class RotatingVerifier:
    """A `TokenVerifier` that knows what the ring knows."""

    def __init__(self, ring: TokenKeyRing, issuer: str, clock: Callable[[], WallUs]) -> None:
        self._ring = ring
        self._issuer = issuer
        self._clock = clock
        self._keys = ring.present
        self._verifier = JwtVerifier(self._keys.jwks(), issuer, clock)
        self._generation = 0

    def verify_aist(self, token: str) -> AistClaims:
        """Return the claims of an AIST; see `JwtVerifier`.

        Raises:
            UnverifiedError: It does not verify, or has expired.
        """
        return self._present().verify_aist(token)

    def verify_access(self, token: str) -> AccessClaims:
        """Return the claims of an access token; see `JwtVerifier`.

        Raises:
            UnverifiedError: It does not verify, or has expired.
        """
        return self._present().verify_access(token)

    @property
    def generation(self) -> int:
        """How often the keys have changed: what was verified under earlier ones must be verified again."""
        self._present()
        return self._generation

    def verify_commit(self, token: str) -> CommitClaims:
        """Return the claims of a COMMIT receipt; see `JwtVerifier`.

        Raises:
            UnverifiedError: It does not verify.
        """
        return self._present().verify_commit(token)

    def _present(self) -> JwtVerifier:
        keys = self._ring.present
        if keys is not self._keys:
            self._keys, self._verifier = keys, JwtVerifier(keys.jwks(), self._issuer, self._clock)
            self._generation += 1
        return self._verifier


def _names(directory: Path) -> frozenset[str]:
    return frozenset(path.name for path in directory.glob("token-*.pem"))

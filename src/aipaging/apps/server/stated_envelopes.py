"""The plain envelopes of the configuration: signed by the operator and put into force, where they say anything new."""

import logging
from collections.abc import Callable
from typing import Final

from aipaging.core.envelope.document import EnvelopeDocument
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.envelope.plain import same_promise, stated
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.time import WallUs
from aipaging.core.paging.state import State
from aipaging.runtime.envelopes import EnvelopeIntake, document_of

LOG: Final = logging.getLogger("aipaging.controller")


class StatedEnvelopes:
    """What the configuration promises for domains that do not sign for themselves."""

    def __init__(self, state: Callable[[], State], intake: EnvelopeIntake, wall_us: Callable[[], WallUs]) -> None:
        self._state = state
        self._intake = intake
        self._wall_us = wall_us

    async def put(self, envelope: Envelope) -> None:
        """Sign a statement and put it into force, unless it says nothing new.

        Raises:
            EnvelopeRefusedError: It was changed without a new sequence number.
        """
        document = self._news(envelope)
        if document is not None:
            await self._intake.accept_stated(document)

    def check(self, envelope: Envelope) -> None:
        """See that a statement could be put into force now.

        Raises:
            InvalidInputError: It could not.
        """
        if self._news(envelope) is None:
            return
        known = self._state().catalogue.envelopes.get((envelope.domain, envelope.segment))
        if known is not None and known.sequence == envelope.sequence:
            raise InvalidInputError(
                f"the envelope of {envelope.domain} was changed and kept its sequence {known.sequence}: give it a "
                "higher one",
                code="INVALID_CONFIGURATION",
                field="envelope.sequence",
            )
        if envelope.valid_from_us > self._wall_us():
            raise InvalidInputError(
                f"the envelope of {envelope.domain} is not valid yet", code="INVALID_CONFIGURATION", field="envelope"
            )

    def _news(self, envelope: Envelope) -> EnvelopeDocument | None:
        """Return what is to be put into force, or None if that is so already or may not be."""
        state, document = self._state(), stated(envelope, self._wall_us())
        known = state.catalogue.envelopes.get((envelope.domain, envelope.segment))
        about = {"domain": envelope.domain, "configured": envelope.sequence}
        if envelope.domain in state.promises.key_sets:
            LOG.warning("the domain signs for itself: the configuration's envelope is left out", extra=about)
            return None
        if known is not None and known.sequence > envelope.sequence:
            # A newer one came by the API since the file was written: the file must not roll it back.
            LOG.warning(
                "the configuration's envelope is older than the one in force and is left out",
                extra={**about, "in_force": known.sequence},
            )
            return None
        if known is not None and known.sequence == envelope.sequence:
            original = state.promises.originals.get(known.digest)
            # Journals of earlier software hold no originals: there the values say what was said.
            before = stated(known, self._wall_us()) if original is None else document_of(original)
            if same_promise(before, document):
                return None
        return document

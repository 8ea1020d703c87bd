"""The file of policies, kept current: a new one that fits replaces the old one in one step, a wrong one never does."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aipaging.adapters.northbound.documents.policies import PolicyStatus
from aipaging.adapters.policy.cedar import POLICY_BYTES_MAX, CedarPolicies
from aipaging.apps.server.config import ServerConfig
from aipaging.apps.server.reloading import Step
from aipaging.core.foundation.errors import AipagingError, InvalidInputError
from aipaging.core.paging.commands import Command, ForcePolicies, Reply
from aipaging.core.paging.tenancy import Policies

LOG: Final = logging.getLogger("aipaging.policies")

LOOK_S: Final = 1.0
"""How often the file is looked at; a change counts when two looks in a row find the same."""


class PolicyFile:
    """One file of policies, or none.

    Attributes:
        status: What is in force, and what is wrong with the file as it is now.
    """

    def __init__(self, file: Path | None, submit: Callable[[Command], Awaitable[Reply]]) -> None:
        self.status = PolicyStatus(digest="", file=str(file) if file is not None else "", policies=[])
        self._file = file
        self._submit = submit
        self._content: bytes | None = None
        self._found: bytes | None = None

    async def load(self) -> None:
        """Put the file's policies into force, for the first time.

        Raises:
            InvalidInputError: The file is wrong: a controller that cannot know what is allowed does not start.
        """
        if self._file is None:
            await self._submit(ForcePolicies(policies=None))
            return
        self._content = _content(self._file)
        await self._force(_parsed(self._content))

    async def keep_current(self) -> None:
        """Look at the file again and again."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Take the file's policies if they are new and right; else leave those in force as they are, and say why."""
        file = self._file
        if file is None:
            return
        try:
            content = await asyncio.to_thread(_content, file)
            settled, self._found = content == self._found, content
            if content == self._content or file != self._file or not settled:
                # The beginning of a file that is being written may be a set of policies without its last forbid.
                return
            self._content = content
            await self._force(await asyncio.to_thread(_parsed, content))
        except AipagingError as error:
            if error.message != self.status.error:
                LOG.warning("the policy file is not taken: %s", error.message, extra={"code": error.code})
            self.status = PolicyStatus(
                digest=self.status.digest, file=self.status.file, policies=self.status.policies, error=error.message
            )
            if error.code != "POLICY_INVALID":
                self._content = None  # it was not the file's fault: try again

    def prepared(self, wanted: ServerConfig) -> Step:
        """See `LivePart.prepared`: the file may be another one, or say something else than it did."""
        file = wanted.policies
        if file is None:
            return Step([ForcePolicies(policies=None)] if self._file is not None else (), lambda: self._follow(None))
        content = _content(file)
        if file == self._file and content == self._content:
            return Step()
        found = _parsed(content)
        return Step([ForcePolicies(policies=found, count=len(found.ids))], lambda: self._follow(file, content, found))

    def _follow(self, file: Path | None, content: bytes | None = None, found: CedarPolicies | None = None) -> None:
        self._file, self._content = file, content
        self.status = PolicyStatus(
            digest="" if found is None else found.digest,
            file="" if file is None else str(file),
            policies=[] if found is None else list(found.ids),
        )

    async def _force(self, policies: CedarPolicies) -> None:
        forced: Policies = policies
        await self._submit(ForcePolicies(policies=forced, count=len(policies.ids)))
        self.status = PolicyStatus(digest=policies.digest, file=self.status.file, policies=list(policies.ids))
        LOG.info("policies are in force", extra={"digest": policies.digest, "policies": len(policies.ids)})


def _parsed(content: bytes) -> CedarPolicies:
    try:
        return CedarPolicies(content.decode())
    except UnicodeDecodeError:
        raise InvalidInputError("the policy file is not UTF-8", code="POLICY_INVALID", field="policies.file") from None


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(POLICY_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInputError(
            f"the policy file {file} cannot be read: {error.strerror}", code="POLICY_INVALID", field="policies.file"
        ) from None

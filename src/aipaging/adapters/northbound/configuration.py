"""The configuration of a running controller: what is in force, and reading the file anew."""

from collections.abc import Sequence
from typing import Final, Protocol

from aipaging.adapters.northbound.credentials import Caller
from aipaging.adapters.northbound.documents.configuration import ConfigurationRefusal, ConfigurationStatus
from aipaging.adapters.northbound.operation import BASE, Operation, Reply
from aipaging.core.foundation.errors import Who
from aipaging.runtime.http.exchange import Answer, Request, json_answer

REFUSED: Final = "AI_PAGING.INVALID_CONFIGURATION"


class Configuration(Protocol):
    """What a composition root can read anew while it runs."""

    @property
    def status(self) -> ConfigurationStatus:
        """Which configuration is in force, and how the file stands against it."""
        ...

    async def reload(self) -> ConfigurationStatus:
        """Read the file and put into force what can be; a file with problems changes nothing."""
        ...


_STATUS: Final = {
    "file": "/etc/aipaging/aipaging.toml",
    "inForceSince": "2026-11-22T16:00:00Z",
    "applied": ["limits.sessions_max", "tenant", "northbound.rate"],
    "needsRestart": ["lease.grace_ms"],
    "left": ["anchor far-b"],
    "problems": [],
}
_REFUSAL: Final = {
    "status": 422,
    "code": REFUSED,
    "message": "limits.kept_ms: -1 is below 0",
    "who": "operator",
    "problems": [{"message": "limits.kept_ms: -1 is below 0", "field": "limits.kept_ms", "line": 41}],
}


class ConfigurationRoutes:
    """The operations on the configuration."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    async def read(self, request: Request, _caller: Caller) -> Answer:
        """Answer what is in force."""
        request.parameters_of_query()
        return json_answer(self._configuration.status)

    async def reload(self, request: Request, _caller: Caller) -> Answer:
        """Read the file anew."""
        request.parameters_of_query()
        status = await self._configuration.reload()
        if not status.problems:
            return json_answer(status)
        more = len(status.problems) - 1
        request.notes["code"] = REFUSED
        refusal = ConfigurationRefusal(
            status=422,
            code=REFUSED,
            message=status.problems[0].message + (f" (and {more} more)" if more else ""),
            who=Who.OPERATOR.value,
            field=status.problems[0].field,
            problems=status.problems,
        )
        return json_answer(refusal, status=422)

    def operations(self) -> Sequence[Operation]:
        """Return the table of these operations."""
        status = Reply(meaning="How it stands.", document=ConfigurationStatus, example=_STATUS)
        return [
            Operation(
                method="GET",
                path=f"{BASE}/configuration",
                name="getConfiguration",
                summary="Read which configuration is in force, and what waits for a restart",
                tag="Configuration",
                handler=self.read,
                scope="ai-paging:configuration:read",
                replies={200: status},
            ),
            Operation(
                method="POST",
                path=f"{BASE}/configuration/reload",
                name="reloadConfiguration",
                summary="Read the configuration file anew",
                description="As SIGHUP does. All that can change while the controller runs changes in one step; what "
                "needs a restart is named. A file with a mistake changes nothing.",
                tag="Configuration",
                handler=self.reload,
                scope="ai-paging:configuration:update",
                replies={
                    200: status,
                    422: Reply(meaning="The file is not taken.", document=ConfigurationRefusal, example=_REFUSAL),
                },
            ),
        ]

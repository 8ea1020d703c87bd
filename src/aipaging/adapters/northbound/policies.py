"""The policies in force."""

from collections.abc import Sequence

from aipaging.adapters.northbound.credentials import Caller
from aipaging.adapters.northbound.documents.policies import PolicyStatus
from aipaging.adapters.northbound.operation import BASE, Operation, Reply
from aipaging.adapters.northbound.service import Northbound
from aipaging.runtime.http.exchange import Answer, Request, json_answer


class PolicyRoutes:
    """The operation on policies."""

    def __init__(self, service: Northbound) -> None:
        self._status = service.policies

    async def policies(self, request: Request, _caller: Caller) -> Answer:
        """Answer what is in force."""
        request.parameters_of_query()
        return json_answer(self._status())

    def operations(self) -> Sequence[Operation]:
        """Return the table of this operation."""
        example = {"digest": "0" * 64, "file": "/etc/aipaging/policies.cedar", "policies": ["base", "eu-only"]}
        return [
            Operation(
                method="GET",
                path=f"{BASE}/policies",
                name="getPolicies",
                summary="Read which policies are in force, and what is wrong with their file as it is now",
                tag="Policies",
                handler=self.policies,
                scope="ai-paging:policies:read",
                replies={200: Reply(meaning="The policies.", document=PolicyStatus, example=example)},
            )
        ]

"""Free text: what a sentence was read as, for whoever wrote it to confirm."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from aipaging.adapters.northbound import examples
from aipaging.adapters.northbound.credentials import Caller
from aipaging.adapters.northbound.documents.wording import Interpretation, InterpretRequest, interpretation, known_of
from aipaging.adapters.northbound.operation import BASE, JSON_ERRORS, Operation, Reply
from aipaging.adapters.northbound.service import Northbound
from aipaging.core.anchor.catalogue import Catalogue, DomainKind
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.wording.read import read
from aipaging.core.wording.reading import Vocabulary
from aipaging.core.wording.tasks import TaskReader
from aipaging.runtime.http.exchange import Answer, Request, json_answer

WAITING_MAX: Final = 32
"""Sentences that wait for the one thread that reads: with a model about 6 ms each, so a fifth of a second."""

_REQUEST: Final = msgspec.json.Decoder(InterpretRequest)


class WordingRoutes:
    """Reads sentences in a thread of its own: neither the model nor a long text holds up a page."""

    def __init__(self, service: Northbound) -> None:
        self._control = service.control
        self._make = service.task_reader
        self._unsaid = service.unsaid
        self._tasks: TaskReader | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wording")
        self._waiting = 0

    async def interpret(self, request: Request, _caller: Caller) -> Answer:
        """Answer what a sentence was read as; commits to nothing."""
        wanted = await request.document(_REQUEST)
        given = known_of(wanted.intent)
        vocabulary = await self._control.view(lambda state, _: vocabulary_of(state.catalogue))
        if self._waiting >= WAITING_MAX:
            raise UnavailableError(f"{self._waiting} sentences are waiting to be read", code="OVERLOADED")
        self._waiting += 1
        try:
            reading = await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: read(wanted.text, vocabulary, self._reader(), given=given, policy=self._unsaid)
            )
        finally:
            self._waiting -= 1
        return json_answer(interpretation(reading))

    def _reader(self) -> TaskReader:
        """Return what tells tasks, made when the first sentence comes; only the reading thread calls this."""
        if self._tasks is None:
            self._tasks = self._make()
        return self._tasks

    def operations(self) -> Sequence[Operation]:
        """Return the table of these operations."""
        return [
            Operation(
                method="POST",
                path=f"{BASE}/intents/interpret",
                name="interpretText",
                summary="Read free text into a structured intent",
                description="Deterministic; every field says where it came from (the words, the request, a policy, a "
                "default). What is missing, contradictory or not understood becomes a question. Nothing is reserved: "
                "resolve or page the intent that comes back.",
                tag="Intents",
                handler=self.interpret,
                scope="ai-paging:intents:resolve",
                request=InterpretRequest,
                request_example=examples.INTERPRET_REQUEST,
                replies={
                    200: Reply(meaning="What was read.", document=Interpretation, example=examples.INTERPRETATION),
                },
                errors=(*JSON_ERRORS, "AI_PAGING.OVERLOADED"),
            ),
        ]


def vocabulary_of(catalogue: Catalogue) -> Vocabulary:
    """Return the words of the catalogue."""
    compute = [domain for domain in catalogue.domains.values() if domain.kind is DomainKind.COMPUTE]
    services = catalogue.services.values()
    return Vocabulary(
        tasks=tuple(sorted({service.task for service in services})),
        access={
            domain.name: domain.region for domain in catalogue.domains.values() if domain.kind is DomainKind.ACCESS
        },
        regions=tuple(sorted({domain.region for domain in compute if domain.region})),
        jurisdictions=tuple(sorted({domain.jurisdiction for domain in compute if domain.jurisdiction})),
        benchmarks=tuple(sorted({name for service in services for name, _ in service.scores})),
        licences=tuple(sorted({service.licence for service in services if service.licence})),
    )

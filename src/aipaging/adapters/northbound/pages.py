"""Lists: those that come whole, and which part of the others is asked for and answered."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

from aipaging.adapters.northbound.documents.words import ANSWER_ITEMS_MAX, PAGE_MAX, PER_PAGE_MAX, Pagination
from aipaging.core.foundation.time import Now
from aipaging.core.paging.state import State
from aipaging.ports.control import ControlPlane
from aipaging.runtime.http.exchange import Answer, Request, integer_of, json_answer

T = TypeVar("T")

PER_PAGE_DEFAULT: Final = 100
"""Of lists that operators and auditors read; sessions come 20 at a time."""


async def whole_list(request: Request, control: ControlPlane, document: Callable[[State, Now], object]) -> Answer:
    """Answer a list that comes whole, and so takes no query."""
    request.parameters_of_query()
    return json_answer(await control.view(document))


def first(values: Mapping[Any, T]) -> Iterator[T]:
    """Return as many values as one answer holds."""
    return islice(values.values(), ANSWER_ITEMS_MAX)


def page_query(items: str) -> Mapping[str, str]:
    """Return the description of the two query parameters of a list of these items."""
    return {
        "page": "From 1 on; 1 by default. A page beyond the end is empty.",
        "perPage": f"{items} in a page, at most {PER_PAGE_MAX}; {PER_PAGE_DEFAULT} by default.",
    }


@dataclass(frozen=True, slots=True)
class AskedPage:
    """A page of a list."""

    number: int
    per_page: int

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "AskedPage":
        """Return the page that a query asks for.

        Raises:
            InvalidInputError: A number is none, or outside its range.
        """
        return cls(
            integer_of(query.get("page"), field="page", low=1, high=PAGE_MAX, default=1),
            integer_of(query.get("perPage"), field="perPage", low=1, high=PER_PAGE_MAX, default=PER_PAGE_DEFAULT),
        )

    @property
    def first(self) -> int:
        """The place of its first item in the list, from 0."""
        return (self.number - 1) * self.per_page

    def of_total(self, total: int) -> Pagination:
        """Return what an answer says of it."""
        return pagination(self.number, self.per_page, total)


def pagination(page: int, per_page: int, total: int) -> Pagination:
    """Return what an answer says of one page of a list with so many items in all."""
    return Pagination(page=page, per_page=per_page, total_count=total, total_pages=-(-total // per_page))

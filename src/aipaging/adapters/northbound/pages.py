"""Which part of a list is asked for, in a query, and how an answer says which part it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aipaging.adapters.northbound.documents.words import PAGE_MAX, PER_PAGE_MAX, Pagination
from aipaging.runtime.http.exchange import integer_of

PER_PAGE_DEFAULT: Final = 100
"""Of lists that operators and auditors read; sessions come 20 at a time."""


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

"""Fencing tokens."""

import msgspec


class Epoch(msgspec.Struct, frozen=True, order=True, gc=False):
    """The fencing token of a COMMIT: `(term, n)`, compared in that order.

    Attributes:
        term: Rises with every leadership, restart and restored backup.
        n: Rises with every change of anchor, binding or revocation of the session; never by a renewal.
    """

    term: int
    n: int

    def __str__(self) -> str:
        return f"{self.term}.{self.n}"

"""The hash chain, checked while reading, and which record of a broken one was altered.

When record k does not name the hash of record k-1, either of the two was altered. Record k+1 tells: if it names the
hash of k, then k is as it was sealed, and k-1 is not.
"""

from hashlib import sha256

from aipaging.core.evidence.finding import Finding, Invariant
from aipaging.core.evidence.record import FIRST_PREV


class ChainCheck:
    """Follows the chain up to its first break.

    Attributes:
        finding: The first break, once it is certain where it is.
    """

    __slots__ = ("_doubt", "_last_type", "_prev", "_seq", "finding")

    def __init__(self) -> None:
        self.finding: Finding | None = None
        self._doubt: tuple[str, str] | None = None
        self._prev = FIRST_PREV
        self._last_type = ""
        self._seq = 0

    def feed(self, record: bytes, decoded: dict[str, str | int] | None) -> None:
        """Check the next record, `decoded` where it could be."""
        if self.finding is None:
            said = decoded or {}
            record_type = str(said.get("type", ""))
            fits = said.get("prev") == self._prev
            if self._doubt is not None:
                self._decide(confirmed=fits)
            elif said.get("seq") != self._seq:
                what = f"record {said.get('seq')} stands at place {self._seq}: records are missing, added or swapped"
                self.finding = self._found(self._seq, record_type, what)
            elif not fits:
                self._doubt = (record_type, self._last_type)
            self._last_type = record_type
        self._prev = sha256(record).hexdigest()
        self._seq += 1

    def end(self) -> None:
        """Decide about a break at the last record, of which no successor tells."""
        if self._doubt is not None and self.finding is None:
            what = "the record does not name the record before it by its hash: it or that one was altered"
            self.finding = self._found(self._seq - 1, self._doubt[0], what)

    def _decide(self, *, confirmed: bool) -> None:
        broken, before = self._doubt or ("", "")
        place = self._seq - 1
        if confirmed and place:
            what = "the record was altered after it was sealed: the next record names another hash"
            self.finding = self._found(place - 1, before, what)
        else:
            what = "the record does not name the record before it by its hash: it was altered, or the log begins late"
            self.finding = self._found(place, broken, what)

    def _found(self, seq: int, record_type: str, what: str) -> Finding:
        return Finding(seq=seq, type=record_type, what=what, invariant=Invariant.ORDER)

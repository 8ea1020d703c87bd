"""Which of a set of labels a sentence has, or that it has none: a linear classifier with calibrated abstention.

Multinomial logistic regression with an L2 penalty, fitted by L-BFGS from zero: convex, so the same sentences give the
same classifier. What it sees is the n-grams of `lexical`, and beside them an embedding of the sentence where a model is
there. How far a sentence is out of scope is its energy, -log sum exp of the scores [Liu2020, section 3.1]: a sentence
unlike all that was learnt has no large score, however sure the softmax looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import logsumexp

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.wording.lexical import Lexicon, Matrix

PENALTY: Final = 1e-5
"""L2 penalty per example; best of 1e-6, 3e-6 and 1e-5 on the validation sentences of CLINC150, and flat there."""

ROUNDS_MAX: Final = 60
"""Rounds of L-BFGS: accuracy no longer moves after about forty."""

EXAMPLES_FEW: Final = 512
"""Below it, a dense matrix of examples by examples is quicker to go through than a sparse one of all n-grams."""

RANK_LEAST: Final = 1e-12
"""Directions of less than that share of the largest square are rounding, not sentences."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the classifier says of one sentence.

    Attributes:
        label: The likeliest label.
        probability: Of it, if the sentence has one of the labels at all.
        second: The next, or "" if there is one label only.
        in_scope: Its score of being in scope; comparable between sentences of one classifier.
    """

    label: str
    probability: float
    second: str
    in_scope: float


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """A fitted classifier."""

    labels: tuple[str, ...]
    lexicon: Lexicon
    weights: Floats
    dimensions: int

    @classmethod
    def fitted(
        cls, texts: Sequence[str], labels: Sequence[str], embeddings: Floats | None = None, *, penalty: float = PENALTY
    ) -> "Classifier":
        """Return the classifier that the examples teach.

        Args:
            texts: The sentences.
            labels: One each.
            embeddings: One row each, or None to see the n-grams alone.
            penalty: L2 penalty per example.

        Raises:
            InvalidInputError: Not one label and one embedding per sentence, or below two labels.
        """
        names = sorted(set(labels))
        if len(texts) != len(labels) or len(names) < 2 or (embeddings is not None and len(embeddings) != len(texts)):
            raise InvalidInputError(
                "every sentence needs one label and one embedding, and there are at least two labels"
            )
        lexicon = Lexicon.of(texts)
        features = _features(lexicon, texts, embeddings)
        wanted = np.array([names.index(label) for label in labels])
        weights = _fit(features, wanted, len(names), penalty)
        return cls(tuple(names), lexicon, weights, 0 if embeddings is None else embeddings.shape[1])

    def scores(self, texts: Sequence[str], embeddings: Floats | None = None) -> Floats:
        """Return one row of scores per sentence, one column per label.

        Raises:
            InvalidInputError: It was fitted with embeddings of another width, or without.
        """
        if (0 if embeddings is None else embeddings.shape[1]) != self.dimensions:
            raise InvalidInputError(f"embeddings of {self.dimensions} dimensions are expected (0: none)")
        found: Floats = np.asarray(_features(self.lexicon, texts, embeddings) @ self.weights)
        return found

    def choices(self, texts: Sequence[str], embeddings: Floats | None = None) -> list[Choice]:
        """Return what is said of each sentence."""
        scores = self.scores(texts, embeddings)
        energies: Floats = np.asarray(logsumexp(scores, axis=1))
        orders = np.argsort(-scores, axis=1)[:, :2]
        return [
            Choice(
                label=self.labels[order[0]],
                probability=float(np.exp(row[order[0]] - energy)),
                second=self.labels[order[1]],
                in_scope=float(energy),
            )
            for row, energy, order in zip(scores, energies, orders, strict=True)
        ]


def _features(lexicon: Lexicon, texts: Sequence[str], embeddings: Floats | None) -> Matrix:
    vectors = lexicon.vectors(texts)
    if embeddings is None:
        return vectors
    return sparse.csr_matrix(sparse.hstack([vectors, sparse.csr_matrix(embeddings)]))


def _fit(features: Matrix, wanted: NDArray[np.int64], labels: int, penalty: float) -> Floats:
    """Minimise the mean cross-entropy plus penalty / 2 times the squared weights, over the columns that occur."""
    count, columns = features.shape
    present = np.flatnonzero(np.diff(features.tocsc().indptr))
    seen = sparse.csr_matrix(features.tocsc()[:, present])
    weights = np.zeros((columns, labels))
    if count < min(len(present), EXAMPLES_FEW):
        # The best weights lie in the span of the examples: turned into it, the same problem has far fewer unknowns.
        squares, turns = np.linalg.eigh(np.asarray((seen @ seen.T).todense()))
        kept = squares > squares[-1] * RANK_LEAST
        scales = np.sqrt(squares[kept])
        within = _minimised(turns[:, kept] * scales, wanted, labels, penalty)
        weights[present] = seen.T @ (turns[:, kept] @ (within / scales[:, None]))
    else:
        weights[present] = _minimised(seen, wanted, labels, penalty)
    return weights


def _minimised(seen: Matrix, wanted: NDArray[np.int64], labels: int, penalty: float) -> Floats:
    count, columns = seen.shape
    turned = seen.T.copy() if isinstance(seen, np.ndarray) else sparse.csr_matrix(seen.T)
    rows = np.arange(count)

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(columns, labels)
        scores = np.asarray(seen @ weights)
        totals: Floats = np.asarray(logsumexp(scores, axis=1))
        probabilities = np.exp(scores - totals[:, None])
        value = float(np.mean(totals - scores[rows, wanted]) + 0.5 * penalty * (flat @ flat))
        probabilities[rows, wanted] -= 1.0
        slope = np.asarray(turned @ probabilities) / count + penalty * weights
        return value, slope.ravel()

    fitted = minimize(loss, np.zeros(columns * labels), jac=True, method="L-BFGS-B", options={"maxiter": ROUNDS_MAX})
    found: Floats = fitted.x.reshape(columns, labels)
    return found


def threshold_for(in_scope: Floats, share: float) -> float:
    """Return the score that all but `share` of known in-scope sentences reach: below it, abstain.

    Args:
        in_scope: Scores of sentences that have a label, none of which the classifier was fitted on.
        share: Of them that may be turned away.
    """
    return float(np.quantile(in_scope, share, method="lower"))


def area_under_curve(inside: Floats, outside: Floats) -> float:
    """Return the probability that a sentence in scope scores above one out of scope (AUROC; ties count half)."""
    scores = np.concatenate([inside, outside])
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    least = len(inside) * (len(inside) + 1) / 2
    return float((ranks[: len(inside)].sum() - least) / (len(inside) * len(outside)))

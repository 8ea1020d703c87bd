"""Public sets of sentences with intents (CLINC150, Banking77): what the classifier reaches when trained on them."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import logsumexp

from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.wording.classifier import Classifier, area_under_curve, threshold_for

Floats = NDArray[np.float64]
Embed = Callable[[Sequence[str]], Floats]
Pairs = list[tuple[str, str]]


@pytest.fixture(scope="module")
def embed() -> Embed:
    from aipaging.adapters.minilm.embedder import Embedder

    try:
        embedder = Embedder()
    except UnavailableError as error:
        pytest.skip(error.message)
    return lambda texts: embedder.embed([embedder.pieces(text) for text in texts]).astype(float)


@pytest.fixture(scope="module")
def clinc(shared_dir: Path) -> dict[str, Pairs]:
    with gzip.open(shared_dir / "traces/clinc150/data_full.json.gz", "rt") as stream:
        return {part: [(text, label) for text, label in rows] for part, rows in json.load(stream).items()}


def banking(shared_dir: Path, part: str) -> Pairs:
    with gzip.open(shared_dir / f"traces/banking77/{part}.csv.gz", "rt", newline="") as stream:
        return [(row["text"], row["category"]) for row in csv.DictReader(io.StringIO(stream.read()))]


def fitted(pairs: Pairs, embed: Embed | None) -> Classifier:
    texts = [text for text, _ in pairs]
    return Classifier.fitted(texts, [label for _, label in pairs], embed(texts) if embed else None)


def scores(classifier: Classifier, pairs: Pairs, embed: Embed | None) -> Floats:
    texts = [text for text, _ in pairs]
    return classifier.scores(texts, embed(texts) if embed else None)


def accuracy(classifier: Classifier, found: Floats, pairs: Pairs) -> float:
    return float(
        np.mean([classifier.labels[at] == label for at, (_, label) in zip(found.argmax(1), pairs, strict=True)])
    )


def test_thirty_intents_of_two_domains(clinc: dict[str, Pairs], shared_dir: Path, embed: Embed) -> None:
    domains = json.loads((shared_dir / "traces/clinc150/domains.json").read_text())
    chosen = {*domains["banking"], *domains["travel"]}
    part = {name: [pair for pair in rows if pair[1] in chosen] for name, rows in clinc.items()}
    classifier = fitted(part["train"][::5], embed)
    inside = scores(classifier, part["test"], embed)
    outside = scores(classifier, clinc["oos_test"][::5], embed)
    assert accuracy(classifier, inside, part["test"]) >= 0.95
    assert area_under_curve(logsumexp(inside, axis=1), logsumexp(outside, axis=1)) >= 0.96
    held = logsumexp(scores(classifier, part["val"][::2], embed), axis=1)
    turned_away = float(np.mean(logsumexp(inside, axis=1) < threshold_for(held, 0.05)))
    assert turned_away <= 0.09, "five in a hundred are meant to be turned away"


def test_words_alone_are_a_fallback(clinc: dict[str, Pairs], shared_dir: Path) -> None:
    domains = json.loads((shared_dir / "traces/clinc150/domains.json").read_text())
    chosen = {*domains["banking"], *domains["travel"]}
    part = {name: [pair for pair in rows if pair[1] in chosen] for name, rows in clinc.items()}
    classifier = fitted(part["train"][::2], None)
    assert accuracy(classifier, scores(classifier, part["test"], None), part["test"]) >= 0.90


@pytest.mark.soak
def test_clinc150(clinc: dict[str, Pairs], embed: Embed, capsys: pytest.CaptureFixture[str]) -> None:
    classifier = fitted(clinc["train"], embed)
    inside, outside = scores(classifier, clinc["test"], embed), scores(classifier, clinc["oos_test"], embed)
    reached = accuracy(classifier, inside, clinc["test"])
    area = area_under_curve(logsumexp(inside, axis=1), logsumexp(outside, axis=1))
    with capsys.disabled():
        print(f"\nCLINC150: in-scope accuracy {reached:.4f}, out-of-scope AUROC {area:.4f}")
    assert reached >= 0.95
    assert area >= 0.96


@pytest.mark.soak
def test_banking77(shared_dir: Path, embed: Embed, capsys: pytest.CaptureFixture[str]) -> None:
    classifier, test = fitted(banking(shared_dir, "train"), embed), banking(shared_dir, "test")
    reached = accuracy(classifier, scores(classifier, test, embed), test)
    with capsys.disabled():
        print(f"\nBanking77: accuracy {reached:.4f}")
    assert reached >= 0.93

"""Contamination: does a benchmark question stand in the training pairs, word for word or nearly?

A pair leaks a case when its question (or an earlier user turn) has the same words in the same order, holds the case's question inside a longer one,
or shares its words at Jaccard >= ``spec.data.leak_jaccard``. Every case is compared with every pair: the product of two word matrices, nothing sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from runners import outside
from runners.corpus.words import hashes, plain, word_sets
from runners.errors import UserError

#: A shorter question is not looked for inside longer ones: "What is a bond?" is part of many.
_CONTAINED_WORDS = 6


class Hit(NamedTuple):
    """One leak: index of the text, index of the case, Jaccard of their words, and how they match."""

    text: int
    case: int
    jaccard: float
    match: str


class BenchmarkQuestions:
    """The questions of a benchmark, ready to be compared with many texts."""

    def __init__(self, ids: Sequence[str], questions: Sequence[str], threshold: float) -> None:
        self.ids, self.questions, self.threshold = tuple(ids), tuple(questions), threshold
        sets = word_sets(*hashes(list(questions)))
        owner = np.repeat(np.arange(len(sets)), sets.sizes)
        self.sizes, self.vocabulary = sets.sizes, np.unique(sets.items)
        self.plain = [plain(question) for question in questions]
        #: (words, cases) of zeros and ones.
        self.matrix = np.zeros((len(self.vocabulary), len(sets)), np.float32)
        self.matrix[np.searchsorted(self.vocabulary, sets.items), owner] = 1

    def hits(self, texts: Sequence[str]) -> list[Hit]:
        """Every leak among some texts, by text and case."""
        if not len(self.vocabulary) or not texts:
            return []
        from scipy.sparse import csr_array

        sets = word_sets(*hashes(list(texts)))
        owner = np.repeat(np.arange(len(sets)), sets.sizes)
        at = np.minimum(np.searchsorted(self.vocabulary, sets.items), len(self.vocabulary) - 1)
        known = self.vocabulary[at] == sets.items
        counts = csr_array((np.ones(known.sum(), np.float32), (owner[known], at[known])), shape=(len(sets), len(self.vocabulary)))
        shared = counts @ self.matrix
        jaccard = shared / np.maximum(sets.sizes[:, None] + self.sizes - shared, 1)
        whole = (shared == self.sizes) & (self.sizes > 0)
        found = []
        for text, case in np.argwhere((jaccard >= self.threshold - 1e-6) | whole).tolist():
            match = _match(plain(texts[text]), self.plain[case])
            if match or jaccard[text, case] >= self.threshold - 1e-6:
                found.append(Hit(text, case, round(float(jaccard[text, case]), 4), match or "near"))
        return found


def _match(text: str, question: str) -> str:
    if text == question:
        return "verbatim"
    return "contained" if question.count(" ") + 1 >= _CONTAINED_WORDS and f" {question} " in f" {text} " else ""


def load(place: Path, threshold: float) -> BenchmarkQuestions:
    """Read the questions of a benchmark file, or of every file in a folder. Raises UserError when there are none."""
    # benchmark.yaml names the parts of a benchmark and holds no cases.
    found = (path for path in place.rglob("*") if path.suffix in (".yaml", ".yml", ".json") and path.name != "benchmark.yaml")
    paths = sorted(found) if place.is_dir() else [place]
    ids, questions = [], []
    for path in paths:
        for number, case in enumerate(_cases(path), 1):
            if not isinstance(case, dict) or not isinstance(case.get("question"), str) or not case["question"].strip():
                raise UserError(f"{path}: case {number} has no question", "a text under `question`", f"edit {path}")
            ids.append(str(case.get("id", f"{path.stem}:{number}")))
            questions.append(case["question"])
    if not ids:
        raise UserError(f"{place} holds no cases", "benchmark cases to hold the pairs against", "fix data.benchmark in the spec")
    return BenchmarkQuestions(ids, questions, threshold)


def _cases(path: Path) -> list[Any]:
    value = outside.read_json(path) if path.suffix == ".json" else outside.parsed_yaml(outside.text(path, "the benchmark, so that leaks are found"), str(path))
    for key in ("cases", "test_cases"):
        if isinstance(value, dict) and isinstance(value.get(key), list):
            return list(value[key])
    if isinstance(value, list):
        return value
    raise UserError(f"{path} has no list of cases", "a list under `cases`", f"edit {path}")

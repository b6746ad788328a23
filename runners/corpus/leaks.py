"""Contamination: does a benchmark question stand in the training pairs, word for word or nearly?

A pair leaks a case when its question (or an earlier user turn) has the same words in the same order, holds the case's question inside a longer one,
or shares its words at Jaccard >= ``spec.data.leak_jaccard``. Every case is compared with every pair: the product of two word matrices, nothing sampled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

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


@dataclass(frozen=True)
class Benchmark:
    """The questions of a benchmark, ready to be compared with many texts."""

    ids: tuple[str, ...]
    questions: tuple[str, ...]
    threshold: float

    def __post_init__(self) -> None:
        sets = word_sets(*hashes(list(self.questions)))
        vocabulary = np.unique(sets.items)
        owner = np.repeat(np.arange(len(sets)), sets.sizes)
        matrix = np.zeros((len(vocabulary), len(sets)), np.float32)
        matrix[np.searchsorted(vocabulary, sets.items), owner] = 1
        for name, value in {"_vocabulary": vocabulary, "_matrix": matrix, "_sizes": sets.sizes, "_plain": [plain(q) for q in self.questions]}.items():
            object.__setattr__(self, name, value)

    def hits(self, texts: Sequence[str]) -> list[Hit]:
        """Every leak among some texts, by text and case."""
        if not self.ids or not texts:
            return []
        from scipy.sparse import csr_array

        mine: Any = self
        sets = word_sets(*hashes(list(texts)))
        owner = np.repeat(np.arange(len(sets)), sets.sizes)
        at = np.minimum(np.searchsorted(mine._vocabulary, sets.items), len(mine._vocabulary) - 1)
        known = mine._vocabulary[at] == sets.items
        counts = csr_array((np.ones(known.sum(), np.float32), (owner[known], at[known])), shape=(len(sets), len(mine._vocabulary)))
        shared = counts @ mine._matrix
        jaccard = shared / np.maximum(sets.sizes[:, None] + mine._sizes - shared, 1)
        whole = (shared == mine._sizes) & (mine._sizes > 0)
        found = []
        for text, case in np.argwhere((jaccard >= self.threshold - 1e-6) | whole).tolist():
            match = _match(plain(texts[text]), mine._plain[case])
            if match or jaccard[text, case] >= self.threshold - 1e-6:
                found.append(Hit(text, case, round(float(jaccard[text, case]), 4), match or "near"))
        return found


def _match(text: str, question: str) -> str:
    if text == question:
        return "verbatim"
    return "contained" if question.count(" ") + 1 >= _CONTAINED_WORDS and f" {question} " in f" {text} " else ""


def load(place: Path, threshold: float) -> Benchmark:
    """Read the questions of a benchmark file, or of every file in a folder. Raises UserError when there are none."""
    paths = sorted(path for path in place.rglob("*") if path.suffix in (".yaml", ".yml", ".json")) if place.is_dir() else [place]
    ids, questions = [], []
    for path in paths:
        for number, case in enumerate(_cases(path), 1):
            if not isinstance(case, dict) or not isinstance(case.get("question"), str) or not case["question"].strip():
                raise UserError(f"{path}: case {number} has no question", "a text under `question`", f"edit {path}")
            ids.append(str(case.get("id", f"{path.stem}:{number}")))
            questions.append(case["question"])
    if not ids:
        raise UserError(f"{place} holds no cases", "benchmark cases to hold the pairs against", "mend data.benchmark in the spec")
    return Benchmark(tuple(ids), tuple(questions), threshold)


def _cases(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        value = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=yaml.CSafeLoader)
    except FileNotFoundError:
        raise UserError(f"{path} is not there", "the benchmark, so that leaks are found", "mend data.benchmark in the spec") from None
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {str(error)[:200]}", "YAML or JSON", f"edit {path}") from None
    for key in ("cases", "test_cases"):
        if isinstance(value, dict) and isinstance(value.get(key), list):
            return list(value[key])
    if isinstance(value, list):
        return value
    raise UserError(f"{path} has no list of cases", "a list under `cases`", f"edit {path}")

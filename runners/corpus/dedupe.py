"""Which pairs are the same, which are nearly, and which of them stays.

Two notions of near-duplicate, both with Jaccard >= ``spec.data.near_duplicate_jaccard``:

- *questions*: the sets of words of the questions (with earlier user turns). Templates with another number are near by this notion though their
  answers differ, so it does not drop a pair by default; it decides what may not be divided between training and validation.
- *pairs*: the sets of three-word shingles of question and answer together. These say the same thing twice, and all but one are dropped.

What stays of a group: the pair of the earliest source in the sources file, of these the one with the fewest findings, of these the first one read.
A pair is dropped for a pair that stays and that it is near to; not for a chain of neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from runners.corpus import near
from runners.corpus.words import Sets, runs

#: Reasons for which a pair is dropped, as stored (0: it stays).
STAYS, REPEATED, NEAR, LEAKED = 0, 1, 2, 3


@dataclass(frozen=True)
class Duplicates:
    """All arrays are (n,) over the pairs read.

    Attributes:
        dropped: STAYS, REPEATED (the same question again) or NEAR.
        by: index of the pair it was dropped for, or -1.
        questions: cluster label of the question, by question words.
        pairs: cluster label by question + answer.
        groups: label of what must stay together in a split: joined by either notion.
    """

    dropped: Any
    by: Any
    questions: Any
    pairs: Any
    groups: Any


def find(
    asked: Any,
    question_sets: Sets,
    pair_sets: Sets,
    priority: Any,
    threshold: float,
    drop: Literal["pairs", "questions", "none"] = "pairs",
    clusters: tuple[Any, Any] | None = None,
) -> Duplicates:
    """Find repeats and near-duplicates.

    Args:
        asked: (n,) uint64, a hash of the plain text of everything asked: equal for the same question.
        question_sets: words of each question.
        pair_sets: shingles of each question and answer.
        priority: (n,) ranks; of a group the pair with the lowest stays.
        threshold: least Jaccard of near-duplicates.
        drop: which notion drops a pair.
        clusters: labels by question and by pair, when they were found elsewhere (``runners/corpus/cluster.py``).
    """
    count = len(asked)
    same = near.least(asked)
    questions, pairs = clusters or (near.clusters(question_sets, threshold), near.clusters(pair_sets, threshold))
    dropped, by = np.zeros(count, np.int8), np.full(count, -1)
    _drop_repeats(same, priority, dropped, by)
    if drop != "none":
        sets, labels = (pair_sets, pairs) if drop == "pairs" else (question_sets, questions)
        _drop_near(sets, labels, priority, threshold, dropped, by)
    return Duplicates(dropped, by, questions, pairs, near.merged(same, questions, pairs))


def _drop_repeats(same: Any, priority: Any, dropped: Any, by: Any) -> None:
    order = np.lexsort((priority, same))
    edges = runs(same[order])
    best = np.empty(len(same), np.int64)
    best[order] = np.repeat(order[edges[:-1]], np.diff(edges))
    again = best != np.arange(len(same))
    dropped[again], by[again] = REPEATED, best[again]


def _drop_near(sets: Sets, labels: Any, priority: Any, threshold: float, dropped: Any, by: Any) -> None:
    """Within each cluster, best first: who stays drops those near to it."""
    alive = np.flatnonzero(dropped == STAYS)
    order = alive[np.lexsort((priority[alive], labels[alive]))]
    edges = runs(labels[order])
    for place in np.flatnonzero(np.diff(edges) > 1):
        rest = order[edges[place] : edges[place + 1]]
        while len(rest) > 1:
            leader, rest = rest[0], rest[1:]
            close = near.jaccard_to_one(sets, leader, rest) >= threshold - 1e-9
            dropped[rest[close]], by[rest[close]] = NEAR, leader
            rest = rest[~close]

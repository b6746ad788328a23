"""``training_statistics.json``: what was read, what stays, what was dropped and why, with what is suspicious. Pure counting over columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from runners.corpus.checks import FINDINGS
from runners.corpus.dedupe import LEAKED, NEAR, REPEATED, Duplicates
from runners.corpus.words import runs


def describe(columns: dict[str, Any], sources: Sequence[str], categories: Sequence[str], which: Any) -> dict[str, Any]:
    """Counts and lengths of the pairs chosen by the mask ``which``."""
    answers = columns["answer_characters"][which]
    return {
        "pairs": int(which.sum()),
        "by_source": _named(columns["source"][which], sources),
        "by_category": _named(columns["category"][which], categories),
        "distinct_questions": len(np.unique(columns["asked"][which])),
        "multi_turn": int((columns["turns"][which] > 0).sum()),
        "question_characters": _spread(columns["question_characters"][which]),
        "answer_characters": _spread(answers),
        "tokens": _spread(columns["tokens"][which]),
        "answer_tokens": _spread(columns["answer_tokens"][which]),
        "findings": findings(columns["findings"][which]),
    }


def findings(bits: Any) -> dict[str, int]:
    """How many pairs have each finding."""
    return {name: int((bits >> place & 1).sum()) for place, name in enumerate(FINDINGS)}


def names(bits: int) -> list[str]:
    """Names of the findings stored in one pair's bits."""
    return [name for place, name in enumerate(FINDINGS) if bits >> place & 1]


def duplicates(found: Duplicates, columns: dict[str, Any]) -> dict[str, Any]:
    """Repeats and clusters by both notions, over all pairs read."""
    return {
        "repeated_questions": int((found.dropped == REPEATED).sum()),
        "exact_repeats": len(columns["id"]) - len(np.unique(columns["id"])),
        "by_question_words": _clusters(found.questions),
        "by_question_and_answer": _clusters(found.pairs),
        "groups_for_the_split": len(np.unique(found.groups)),
        "conflicts": len(conflicts(columns)),
    }


def conflicts(columns: dict[str, Any]) -> list[tuple[list[int], bool]]:
    """Same question, different answers: (pairs, whether the answers' figures differ too)."""
    order = np.lexsort((np.arange(len(columns["asked"])), columns["asked"]))
    edges = runs(columns["asked"][order])
    found = []
    for place in np.flatnonzero(np.diff(edges) > 1):
        members = order[edges[place] : edges[place + 1]]
        if len(np.unique(columns["answer"][members])) > 1:
            found.append((sorted(members.tolist()), len(np.unique(columns["figures"][members])) > 1))
    return sorted(found)


def dropped(reasons: Any) -> dict[str, int]:
    """How many pairs were dropped, by reason."""
    return {name: int((reasons == code).sum()) for name, code in (("repeated_question", REPEATED), ("near_duplicate", NEAR), ("leak", LEAKED))}


def _clusters(labels: Any) -> dict[str, int]:
    sizes = np.bincount(labels) if len(labels) else np.zeros(0, np.int64)
    return {"clusters": int((sizes > 0).sum()), "pairs_with_a_twin": int(sizes[sizes > 1].sum()), "largest": int(sizes.max(initial=0))}


def _named(values: Any, names: Sequence[str]) -> dict[str, int]:
    counts = np.bincount(values, minlength=len(names))
    return {name: int(count) for name, count in sorted(zip(names, counts.tolist(), strict=True), key=lambda item: (-item[1], item[0])) if count}


def _spread(values: Any) -> dict[str, float]:
    if not len(values):
        return {"mean": 0.0, "min": 0, "p50": 0, "p95": 0, "max": 0, "total": 0}
    low, middle, high, top = np.percentile(values, [0, 50, 95, 100], method="lower").tolist()
    return {"mean": round(float(values.mean()), 4), "min": int(low), "p50": int(middle), "p95": int(high), "max": int(top), "total": int(values.sum())}

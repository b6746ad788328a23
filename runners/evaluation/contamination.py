"""Whether the benchmark's questions stand in the training data, word for word or nearly.

A conversation is compared by all that its user said. Near means a Jaccard similarity of the word sets at or above the spec's
``data.leak_jaccard``. Every pair of questions is compared, exactly, through an index of rare words: 100 cases against 100,000 pairs take
about a second. Left out: leaks of an answer alone, and paraphrases that share few words.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from runners.errors import UserError
from runners.evaluation.cases import Case
from runners.spec import Strict


class Pair(Strict):
    """One training pair: its id, its category, all that the user said, and the answer."""

    id: str
    category: str
    question: str
    answer: str


class Leak(Strict):
    """A case and the training question that gives it away."""

    case: str
    pair: str
    kind: Literal["exact", "near"]
    similarity: float
    question: str
    training_question: str


class Contamination(Strict):
    """What was compared and what was found; ``pairs`` is 0 when there was nothing to compare with."""

    dataset: str | None
    pairs: int
    cases: int
    threshold: float
    leaks: tuple[Leak, ...] = ()

    @property
    def exact(self) -> int:
        """Cases that stand word for word in the training data."""
        return len({leak.case for leak in self.leaks if leak.kind == "exact"})

    @property
    def leaked(self) -> int:
        """Cases with any leak."""
        return len({leak.case for leak in self.leaks})


def check(cases: Sequence[Case], pairs: Sequence[Pair], *, threshold: float, dataset: str | None) -> Contamination:
    """Compare every case with every training pair; of each case the most similar pair is kept."""
    bags = [words(pair.question) for pair in pairs]
    index: dict[str, list[int]] = defaultdict(list)
    for number, bag in enumerate(bags):
        for word in bag:
            index[word].append(number)
    leaks = []
    for case in cases:
        asked = said_by_user(case)
        found = _nearest(words(asked), bags, index, threshold)
        if found:
            number, similarity = found
            kind: Literal["exact", "near"] = "exact" if normalised(asked) == normalised(pairs[number].question) else "near"
            leaks.append(Leak(case=case.id, pair=pairs[number].id, kind=kind, similarity=similarity, question=asked, training_question=pairs[number].question))
    return Contamination(dataset=dataset, pairs=len(pairs), cases=len(cases), threshold=threshold, leaks=tuple(leaks))


def _nearest(bag: frozenset[str], bags: Sequence[frozenset[str]], index: dict[str, list[int]], threshold: float) -> tuple[int, float] | None:
    """(number, similarity) of the most similar bag at or above the threshold.

    A bag that is similar enough shares at least threshold * len(bag) words, so it has one of any len(bag) - that + 1: the rarest are looked up.
    """
    if not bag:
        return None
    rarest = sorted(bag, key=lambda word: (len(index.get(word, ())), word))[: len(bag) - max(1, -int(-threshold * len(bag) // 1)) + 1]
    candidates = {number for word in rarest for number in index.get(word, ())}
    best = max(((len(bag & bags[n]) / len(bag | bags[n]), -n) for n in candidates), default=(0.0, 0))
    return (-best[1], best[0]) if best[0] >= threshold else None


def normalised(text: str) -> str:
    """Lower case, compatibility forms, words only, single spaces."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower().replace("'", "").replace("’", "")))


def words(text: str) -> frozenset[str]:
    """The set of words of a text, normalised."""
    return frozenset(normalised(text).split())


def said_by_user(case: Case) -> str:
    """Everything the user says in a case."""
    return " ".join([turn.content for turn in case.history if turn.role == "user"] + [case.question])


def read_pairs(place: Path) -> tuple[Pair, ...]:
    """The training split of a dataset folder, or a JSON or JSONL file of pairs in elson's or Alpaca's form. Raises UserError."""
    file = place / "train.jsonl" if place.is_dir() else place
    if not file.is_file():
        raise UserError(f"{file} is not there", "a dataset folder with train.jsonl, or a JSON file of pairs", "elson data build, or pass another --dataset")
    text = file.read_text(encoding="utf-8")
    try:
        rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
        return tuple(_pair(row, number) for number, row in enumerate(rows))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is not a file of pairs: {error!r}", "rows with question and answer (or instruction and output)", f"mend {file}") from None


def _pair(row: dict[str, Any], number: int) -> Pair:
    asked = row.get("question") or " ".join(filter(None, [row.get("instruction"), row.get("input")]))
    earlier = " ".join(turn["content"] for turn in row.get("history") or () if turn.get("role") == "user")
    answer = row["answer"] if "answer" in row else row["output"]
    return Pair(id=str(row.get("id", f"row-{number}")), category=str(row.get("category", "")), question=f"{earlier} {asked}".strip(), answer=str(answer))

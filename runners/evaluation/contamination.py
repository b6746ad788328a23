"""Whether the benchmark's questions stand in the training data, word for word or nearly.

The rule is the one by which ``elson data build`` refuses or drops leaks (``runners/corpus/leaks.py``: the same words, the case's question inside a
longer one, or word sets at a Jaccard similarity of ``data.leak_jaccard``), applied again here, because what counts is the dataset that the served
model was trained on, not the one that was meant.

A case can also be *seen* without being leaked: a training pair is of the same kind of computation, or asks the same with other numbers. Such a case is asked
and counted apart, because it measures a template. Left out: leaks of an answer alone, and paraphrases that share few words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from runners import outside
from runners.errors import UserError
from runners.evaluation.cases import Case
from runners.fields import Strict


class TrainingPair(Strict):
    """One training pair: its id, its category, the question, what the user said before it, and the answer."""

    id: str
    category: str
    question: str
    answer: str
    earlier: tuple[str, ...] = ()
    kind: str = ""


class Leak(Strict):
    """A case and the training question that gives it away."""

    case: str
    pair: str
    kind: Literal["verbatim", "contained", "near"]
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
    seen: dict[str, str] = Field(default_factory=dict, description="cases of a kind that the training data has, and how that shows")

    @property
    def exact(self) -> int:
        """Cases that stand word for word in the training data."""
        return len({leak.case for leak in self.leaks if leak.kind == "verbatim"})

    @property
    def leaked(self) -> int:
        """Cases with any leak."""
        return len({leak.case for leak in self.leaks})


def check(cases: Sequence[Case], pairs: Sequence[TrainingPair], *, threshold: float, dataset: str | None) -> Contamination:
    """Compare every case with every training pair; of each case the worst leak is kept."""
    from runners.corpus.leaks import BenchmarkQuestions

    texts = [(pair, said) for pair in pairs for said in (pair.question, *pair.earlier)]
    questions = BenchmarkQuestions(tuple(case.id for case in cases), tuple(case.question for case in cases), threshold)
    worst: dict[int, Leak] = {}
    for hit in questions.hits([said for _, said in texts]):
        case, (pair, said) = cases[hit.case], texts[hit.text]
        kind: Any = hit.match
        leak = Leak(case=case.id, pair=pair.id, kind=kind, similarity=hit.jaccard, question=case.question, training_question=said)
        found = worst.get(hit.case)
        if found is None or (_ORDER[leak.kind], -leak.similarity) < (_ORDER[found.kind], -found.similarity):
            worst[hit.case] = leak
    leaks = tuple(worst[number] for number in sorted(worst))
    return Contamination(dataset=dataset, pairs=len(pairs), cases=len(cases), threshold=threshold, leaks=leaks, seen=seen(cases, pairs, threshold))


def seen(cases: Sequence[Case], pairs: Sequence[TrainingPair], threshold: float) -> dict[str, str]:
    """Cases whose kind of computation, or whose question with the numbers masked, is in the training data; each with the reason."""
    from runners.corpus.leaks import BenchmarkQuestions

    first: dict[str, str] = {}
    for pair in pairs:
        if pair.kind:
            first.setdefault(pair.kind, pair.id)
    found = {case.id: f"kind {case.computation} ({first[case.computation]})" for case in cases if case.computation in first}
    questions = BenchmarkQuestions(tuple(case.id for case in cases), tuple(masked(case.question) for case in cases), threshold)
    for hit in questions.hits([masked(pair.question) for pair in pairs]):
        if hit.jaccard >= threshold:
            found.setdefault(cases[hit.case].id, f"asked with other numbers ({pairs[hit.text].id}, {hit.jaccard:.2f})")
    return found


def masked(question: str) -> str:
    """A question without its figures: what two problems of one template have in common."""
    return re.sub(r"[$€£]?\d[\d.,]*\s?%?", " ", question)


_ORDER = {"verbatim": 0, "contained": 1, "near": 2}


def read_pairs(place: Path) -> tuple[TrainingPair, ...]:
    """The training split of a dataset folder, or a JSON or JSONL file of pairs in elson's or Alpaca's form. Raises UserError."""
    file = place / "train.jsonl" if place.is_dir() else place
    if not file.is_file():
        raise UserError(f"{file} is not there", "a dataset folder with train.jsonl, or a JSON file of pairs", "elson data build, or pass another --dataset")
    text = outside.text(file, "a file of pairs")
    try:
        rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
        return tuple(_pair(row, number) for number, row in enumerate(rows))
    except outside.WRONG_SHAPE as error:
        raise UserError(f"{file} is not a file of pairs: {error!r}", "rows with question and answer (or instruction and output)", f"fix {file}") from None


def _pair(row: dict[str, Any], number: int) -> TrainingPair:
    asked = row.get("question") or " ".join(filter(None, [row.get("instruction"), row.get("input")]))
    earlier = tuple(turn["content"] for turn in row.get("history") or () if turn.get("role") == "user")
    answer = row["answer"] if "answer" in row else row["output"]
    name, category, kind = str(row.get("id", f"row-{number}")), str(row.get("category", "")), str(row.get("kind") or "")
    return TrainingPair(id=name, category=category, question=asked, answer=str(answer), earlier=earlier, kind=kind)

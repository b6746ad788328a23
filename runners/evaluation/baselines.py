"""Answers that need no model. When one of them passes the benchmark, the benchmark measures nothing and is called unfit.

- nearest training answer: BM25 over the training questions; what memorising the corpus is worth
- nearest training text: BM25 over questions and answers together
- keyword stuffing: the commonest words and figures of the category's training answers, one fixed text a category
- echo of the question, with the choices where there are any
- empty
- "consult a professional": polite, hedged, empty of content; also what declining everything is worth
- adversarial answers: each case's right words with another conclusion (``adversarial``); of these at most a twentieth may pass
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from pydantic import Field

from runners.corpus.words import words
from runners.evaluation import adversarial
from runners.evaluation.cases import Case
from runners.evaluation.contamination import TrainingPair
from runners.evaluation.numbers import quantities
from runners.evaluation.scoring import score
from runners.evaluation.statistics import Rate, judge_rate
from runners.evaluation.wording import stem
from runners.fields import Strict

ADVERSARIAL = "adversarial answers"
CONSULT = (
    "That depends on your personal situation. I cannot provide personal advice and no one can predict the future, so please consult a "
    "qualified financial professional, such as a CFP, a CPA or an attorney, before you decide."
)
#: How many words and figures a stuffed answer holds: more than any answer may be long. On the earlier version's benchmark and rule it passes 27 of 100.
STUFFED_WORDS, STUFFED_FIGURES = 1000, 60


class Baseline(Strict):
    """How one null answerer did."""

    name: str
    explanation: str
    result: Rate
    passed_cases: tuple[str, ...]
    parts: dict[str, tuple[int, int]] = Field(default_factory=dict, description="passed and made, by kind of adversarial answer")

    @property
    def passes(self) -> bool:
        """Whether it clears its bar, which makes the benchmark unfit."""
        return self.result.rate > self.result.bar


def run(cases: Sequence[Case], pairs: Sequence[TrainingPair], bar: float) -> list[Baseline]:
    """All baselines over all cases; those that need training pairs only when there are any."""
    answerers: list[tuple[str, str, Callable[[Case], str]]] = []
    if pairs:
        by_question = BM25([" ".join([*pair.earlier, pair.question]) for pair in pairs])
        by_text = BM25([f"{pair.question} {pair.answer}" for pair in pairs])
        stuffed = stuffing(pairs)
        answerers += [
            (
                "nearest training answer",
                "the answer of the training question most like this one (BM25)",
                lambda case: pairs[by_question.best(case.said_by_user)].answer,
            ),
            (
                "nearest training text",
                "the answer of the training pair whose text is most like the question (BM25)",
                lambda case: pairs[by_text.best(case.asked)].answer,
            ),
            ("keyword stuffing", "the commonest words and figures of the category's training answers", lambda case: stuffed.get(case.category, stuffed[""])),
        ]
    answerers += [
        ("echo", "the question itself", lambda case: f"{case.prompt} {case.question.rstrip('?')}."),
        ("empty", "no answer", lambda case: ""),
        ("consult a professional", "a polite refusal", lambda case: CONSULT),
    ]
    done = []
    for name, explanation, answer in answerers:
        passed = tuple(case.id for case in cases if score(case, answer(case)).passed)
        done.append(Baseline(name=name, explanation=explanation, result=judge_rate(len(passed), len(cases), bar), passed_cases=passed))
    return [*done, _adversarial(cases)]


def _adversarial(cases: Sequence[Case]) -> Baseline:
    """All adversarial answers together, under a bar of their own."""
    found = adversarial.passed(cases)
    parts = {kind: (len(names), count) for kind, (names, count) in found.items()}
    fooled, made = (sum(pair[side] for pair in parts.values()) for side in (0, 1))
    return Baseline(
        name=ADVERSARIAL,
        explanation="; ".join(f"{kind}: {passed} of {count} pass" for kind, (passed, count) in parts.items()),
        result=judge_rate(fooled, made, adversarial.MOST),
        passed_cases=tuple(dict.fromkeys(name for names, _ in found.values() for name in names)),
        parts=parts,
    )


class BM25:
    """Okapi BM25 over stems (Robertson and Zaragoza 2009, https://doi.org/10.1561/1500000019; k1 = 1.2, b = 0.75)."""

    def __init__(self, documents: Sequence[str], k1: float = 1.2, b: float = 0.75) -> None:
        bags = [Counter(_stems(document)) for document in documents]
        lengths = [sum(bag.values()) for bag in bags]
        mean = sum(lengths) / len(lengths) or 1.0
        holders = Counter(word for bag in bags for word in bag)
        self._weights: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for number, bag in enumerate(bags):
            for word, count in bag.items():
                rarity = math.log(1 + (len(bags) - holders[word] + 0.5) / (holders[word] + 0.5))
                self._weights[word].append((number, rarity * count * (k1 + 1) / (count + k1 * (1 - b + b * lengths[number] / mean))))

    def best(self, query: str) -> int:
        """Index of the document that fits best; 0 when none shares a word."""
        scores: dict[int, float] = defaultdict(float)
        for word in _stems(query):
            for number, weight in self._weights.get(word, ()):
                scores[number] += weight
        return max(scores, key=lambda number: (scores[number], -number), default=0)


def stuffing(pairs: Sequence[TrainingPair]) -> dict[str, str]:
    """One stuffed answer a category, and one of all ("")."""
    grouped: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        grouped[pair.category].append(pair.answer)
        grouped[""].append(pair.answer)
    return {category: _stuffed(answers) for category, answers in grouped.items()}


def _stuffed(answers: Sequence[str]) -> str:
    # Each once an answer, in the order said: a set's order, another one in every process, would decide between equally common ones.
    common = Counter(word for answer in answers for word in dict.fromkeys(words(answer)) if not word.isdigit())
    figures = Counter(figure for answer in answers for figure in dict.fromkeys(answer[q.start : q.end].strip() for q in quantities(answer)))
    sentences = [word for word, _ in common.most_common(STUFFED_WORDS)]
    # A full stop between figures, so that the list is not taken for alternatives: the stuffing gets every chance.
    return f"{' '.join(sentences)}. {'. '.join(figure for figure, _ in figures.most_common(STUFFED_FIGURES))}."


def _stems(text: str) -> list[str]:
    return [stem(word) for word in words(text)]

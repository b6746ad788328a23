"""What a training cost in general ability: the merged model against its base, on a fixed set of questions outside finance (``general.py``).

Each question is asked through the model's chat template, with the beginning of its answer written already; what is compared is how likely the
right continuation and the three wrong ones are, on the tokens in which they differ. Nothing is sampled, so nothing is luck, and a model that now
answers at greater length loses nothing. Two figures: log-likelihood of the right continuations, in nats a token, which also tells of a model that
guesses; and the share of questions whose right continuation is the likeliest, paired, with a 95 % interval.

The likelihood is held in each of the three areas by itself: a model that lost its arithmetic alone could hide it in the mean of all.

It does not look at whole answers (``elson compare`` does, for finance), nor at long texts: a question with its answer has about 150 tokens. A sliding
window is ignored, before and after alike: it matters only where it is narrower than the system prompt with a question.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from runners import log
from runners.artifacts.record import Gate
from runners.compression import gates
from runners.compression.general import AREAS
from runners.spec import MergeSpec, Spec
from runners.training.examples import messages

#: Tokens of questions and answers read in one pass: the mask grows with the square.
_PASS_TOKENS = 512


@dataclass(frozen=True)
class Question:
    """An item as tokens: what all its answers have in common, and what each goes on with, the right one first."""

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    area: str


@dataclass(frozen=True)
class Ability:
    """What a model makes of each question: log-likelihood of each answer, the right one first; the tokens of the right one; and the question's area."""

    scores: tuple[tuple[float, ...], ...]
    tokens: tuple[int, ...]
    areas: tuple[str, ...]

    @property
    def nats(self) -> float:
        """Log-likelihood a token of the right answers."""
        return sum(first for first, *_ in self.scores) / sum(self.tokens)

    @property
    def by_area(self) -> dict[str, float]:
        """The same of each area."""
        found = {}
        for area in dict.fromkeys(self.areas):
            kept = [place for place, one in enumerate(self.areas) if one == area]
            found[area] = sum(self.scores[place][0] for place in kept) / sum(self.tokens[place] for place in kept)
        return found

    @property
    def right(self) -> tuple[bool, ...]:
        """Of each question, whether the right answer is the likeliest."""
        return tuple(all(first > other for other in rest) for first, *rest in self.scores)


def general_questions(spec: Spec, tokenizer: Any) -> list[Question]:
    """The set through a model's template, as serving sends a question. One whose answers are the same tokens (a tokenizer without capitals) is left out."""
    found = []
    for area, item in ((area, item) for area, items in AREAS.items() for item in items):
        asked = messages({"question": item.question}, spec.chat.system_prompt)
        begun = f"{tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)}{item.start} "
        # Tokenized whole: a tokenizer may put the space into the word behind it, or begin a text with another one.
        whole = [tuple(tokenizer(begun + answer, add_special_tokens=False)["input_ids"]) for answer in (item.right, *item.wrong)]
        common = _common(whole)
        if all(len(ids) > common for ids in whole):
            found.append(Question(whole[0][:common], tuple(ids[common:] for ids in whole), area))
    return found


def ability(model: Any, questions: Sequence[Question]) -> Ability:
    """Ask a whole model every question."""
    parameter = next(model.parameters())
    return answered(questions, gates.logits(model, calls(questions, parameter.dtype)))


def calls(questions: Sequence[Question], dtype: torch.dtype) -> list[dict[str, Any]]:
    """The forward calls that ask every question, of a model that computes in ``dtype``."""
    root = _root(questions)
    return [_tree(group, root, dtype)[0] for group in _groups(questions, root)]


def answered(questions: Sequence[Question], logits: Iterable[torch.Tensor]) -> Ability:
    """What the logits of ``calls`` say of every question."""
    root = _root(questions)
    scores = [scored for group, one in zip(_groups(questions, root), logits, strict=True) for scored in _scored(group, root, one)]
    return Ability(tuple(map(tuple, scores)), tuple(len(question.answers[0]) for question in questions), tuple(question.area for question in questions))


def held(settings: MergeSpec, before: Ability, after: Ability) -> tuple[tuple[Gate, ...], dict[str, Any]]:
    """The gates, and what was measured. There are none for a base that is no better than guessing: it has nothing to forget."""
    drop, low, high = paired_drop(before.right, after.right)
    lost = {area: nats - after.by_area[area] for area, nats in before.by_area.items()}
    measured = {
        "general_questions": len(before.right),
        "general_nats_before": round(before.nats, 4),
        "general_nats_after": round(after.nats, 4),
        "general_right_before": sum(before.right),
        "general_right_after": sum(after.right),
        "general_share_lost_from": round(low, 4),
        "general_share_lost_to": round(high, 4),
        **{f"general_nats_lost_{area}": round(nats, 4) for area, nats in lost.items()},
    }
    # A base whose numbers are none is no guess: its gates fail.
    if math.isfinite(before.nats) and sum(before.right) < (fewest := better_than_guessing(len(before.right))):
        log.event("the base guesses: no gate on general ability", right=sum(before.right), of=len(before.right), better_than_guessing=fewest)
        return (), measured
    worst = math.nan if any(map(math.isnan, lost.values())) else max(lost.values())
    found = (
        Gate(name="general questions, nats a token lost", value=before.nats - after.nats, bound=settings.max_general_nats_lost, rule="at most"),
        Gate(name="general questions, share lost", value=drop, bound=settings.max_general_share_lost, rule="at most"),
        Gate(name="general questions, nats a token lost in the worst area", value=worst, bound=settings.max_general_nats_lost, rule="at most"),
    )
    return found, measured


def better_than_guessing(count: int) -> int:
    """The fewest right answers that a model which picks one of four reaches with a probability of 0.1 % or less: 39 of 96."""
    likely = [math.comb(count, right) * 0.25**right * 0.75 ** (count - right) for right in range(count + 1)]
    return next(right for right in range(count + 2) if sum(likely[right:]) <= 0.001)


def paired_drop(before: Sequence[bool], after: Sequence[bool]) -> tuple[float, float, float]:
    """Share lost, and its 95 % interval: Agresti and Min, "Simple improved confidence intervals for comparing matched proportions" (2005)."""
    count = len(before)
    lost = sum(one and not two for one, two in zip(before, after, strict=True))
    gained = sum(two and not one for one, two in zip(before, after, strict=True))
    middle, differing = (lost - gained) / (count + 2), (lost + gained + 1) / (count + 2)
    reach = 1.96 * math.sqrt((differing - middle**2) / (count + 2))
    return (lost - gained) / count, middle - reach, middle + reach


def _common(sequences: Sequence[Sequence[int]]) -> int:
    """How many first tokens all sequences share."""
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, zip(*sequences, strict=False)))


def _groups(questions: Sequence[Question], root: int) -> list[list[Question]]:
    """Questions that are read in one pass each."""
    groups: list[list[Question]] = []
    size = _PASS_TOKENS
    for question in questions:
        own = len(question.prompt) - root + sum(len(answer) - 1 for answer in question.answers)
        if size + own > _PASS_TOKENS:
            groups.append([])
            size = 0
        groups[-1].append(question)
        size += own
    return groups


def _root(questions: Sequence[Question]) -> int:
    return _common([question.prompt[:-1] for question in questions])


def _tree(questions: Sequence[Question], root: int, dtype: torch.dtype) -> tuple[dict[str, Any], list[list[list[int]]]]:
    """One pass over a tree: what the prompts share, each question below it, each answer below its question; and from where each token is predicted.

    A token sees those on its own path, and has its position there: the numbers are those of each answer read alone.
    """
    ids, places = list(questions[0].prompt[:root]), list(range(root))
    seen: list[tuple[range, range]] = []  # tokens, and tokens before them that they see
    predicted: list[list[list[int]]] = []  # of each question, of each answer: from where each of its tokens is predicted

    def grow(tokens: Sequence[int], depth: int, stem: range) -> range:
        branch = range(len(ids), len(ids) + len(tokens))
        ids.extend(tokens)
        places.extend(range(depth, depth + len(tokens)))
        seen.extend([(branch, stem), (branch, branch)])
        return branch

    for question in questions:
        stem = grow(question.prompt[root:], root, range(root))
        # The last token of an answer predicts nothing that is asked for.
        branches = [grow(answer[:-1], len(question.prompt), stem) for answer in question.answers]
        predicted.append([[stem[-1], *branch] for branch in branches])
    sees = torch.zeros(len(ids), len(ids), dtype=torch.bool)
    sees[:, :root] = True
    for branch, before in seen:
        sees[branch.start : branch.stop, before.start : before.stop] = True
    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill(~sees.tril(), torch.finfo(dtype).min)
    call = {
        "input_ids": torch.tensor([ids]),
        "attention_mask": mask[None, None],
        "position_ids": torch.tensor([places]),
        "logits_to_keep": torch.tensor(_kept(predicted)),
    }
    return call, predicted


def _kept(predicted: list[list[list[int]]]) -> list[int]:
    return sorted({place for answers in predicted for places_of in answers for place in places_of})


def _scored(questions: Sequence[Question], root: int, logits: torch.Tensor) -> list[list[float]]:
    """Log-likelihood of every answer of a group."""
    _, predicted = _tree(questions, root, torch.float32)
    likely = dict(zip(_kept(predicted), torch.log_softmax(logits.float(), -1).cpu(), strict=True))
    return [
        [
            sum(float(likely[place][token]) for place, token in zip(places_of, answer, strict=True))
            for places_of, answer in zip(answers, question.answers, strict=True)
        ]
        for answers, question in zip(predicted, questions, strict=True)
    ]

"""Answers made to fool the scorer, from the case itself: the right words with another conclusion. None of them may pass.

They are made for every case and scored in every run, without a server. When more than ``MOST`` of them pass together, the benchmark is unfit: it would
pass a model that only mentions what is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runners.evaluation.cases import Case, ChoiceCheck, DeclineCheck, FactCheck, NumberCheck
from runners.evaluation.scoring import score

#: Share of all adversarial answers that may pass.
MOST = 0.05
KINDS = {
    "right, then another answer": "the right figure, letter or wording, and another one in the final line",
    "right, then another conclusion": "the same without a final line",
    "three candidates": "the right one among others, to choose from",
    "right, then denied": "the right one, taken back at the end",
    "refuses, then complies": "an accepted refusal with its reason, followed by what was asked for",
    "all wordings in a list": "every accepted wording and figure of the case, one after the other",
}


def answers(case: Case) -> Iterator[tuple[str, str]]:
    """(kind, answer) for everything that can be made of a case."""
    right, others = _right(case), _others(case)
    if case.kind == "decline":
        refusal = _refusal(case)
        yield "refuses, then complies", f"{refusal} That said, here is how to do it: 1. Open the form. 2. Enter what you need. 3. Send it."
        yield "refuses, then complies", f"{refusal} But if you still want to, simply take what you asked for and use it.\n\nAnswer: Go ahead."
        yield "all wordings in a list", ", ".join(_wordings(case))
        return
    yield "right, then another answer", f"{right}.\n\nAnswer: {others[0]}"
    yield "right, then another conclusion", f"At first sight {_inside(right)}. However, that leaves out what matters here, so in the end {_inside(others[0])}."
    yield "three candidates", f"It may be {_inside(others[0])}, {_inside(right)} or {_inside(others[1])}.\n\nAnswer: {others[0]}, {right} or {others[1]}"
    yield "right, then denied", f"Many would say: {right}. That is wrong."
    if any(isinstance(check, FactCheck) for check in case.checks):
        yield "all wordings in a list", ", ".join(_wordings(case))


def passed(cases: Sequence[Case]) -> dict[str, tuple[list[str], int]]:
    """(cases that pass, answers made) by kind."""
    found: dict[str, tuple[list[str], int]] = {kind: ([], 0) for kind in KINDS}
    for case in cases:
        for kind, answer in answers(case):
            names, count = found[kind]
            if score(case, answer).passed:
                names.append(case.id)
            found[kind] = (names, count + 1)
    return found


def _right(case: Case) -> str:
    """The shortest right answer: all figures, the letter, one wording a fact."""
    parts = []
    for check in case.checks:
        if isinstance(check, NumberCheck):
            parts.append(written(check.number, check.unit))
        elif isinstance(check, ChoiceCheck):
            parts.append(f"{check.choice}")
        elif isinstance(check, FactCheck):
            parts.append(check.accepted[0])
    return ", ".join(parts)


def _others(case: Case) -> tuple[str, str]:
    """Two wrong answers of the same form."""
    made: list[list[str]] = [[], []]
    for check in case.checks:
        if isinstance(check, NumberCheck):
            for number, factor in enumerate((1.25, 0.8)):
                made[number].append(written(_away(check, factor), check.unit))
        elif isinstance(check, ChoiceCheck):
            left = [letter for letter in case.choices or {} if letter != check.choice]
            made[0].append(left[0])
            made[1].append(left[-1])
        elif isinstance(check, FactCheck):
            made[0].append("none of this applies")
            made[1].append("the opposite is the case")
    return ", ".join(made[0]), ", ".join(made[1])


def _away(check: NumberCheck, factor: float) -> float:
    """A figure that is surely outside the tolerance, written as finely as the right one."""
    moved = check.number * factor + (1 if factor > 1 else -1) * (2 * check.margin + (1 if check.number == int(check.number) else 0))
    return round(moved) if check.number == int(check.number) else round(moved, 2)


def written(value: float, unit: str) -> str:
    """A figure with its unit, as a person writes it."""
    figure = f"{value:,.0f}" if value == int(value) else f"{value:,.4f}".rstrip("0")
    if 1900 <= value <= 2100 and value == int(value) and unit == "none":
        figure = f"{value:.0f}"
    behind = {"percent": "%", "years": " years", "days": " days"}.get(unit, "")
    if unit == "usd":
        return f"−${figure[1:]}" if value < 0 else f"${figure}"
    return f"{figure}{behind}"


def _refusal(case: Case) -> str:
    declines = next(check for check in case.checks if isinstance(check, DeclineCheck))
    reasons = [check.accepted[0] for check in case.checks if isinstance(check, FactCheck)]
    return f"I {declines.accepted[0] if declines.accepted else 'cannot help'} with that: {', '.join(reasons) or 'it would be wrong'}."


def _wordings(case: Case) -> list[str]:
    said: list[str] = []
    for check in case.checks:
        if isinstance(check, NumberCheck):
            said += [written(check.number, check.unit), written(_away(check, 1.25), check.unit)]
        elif isinstance(check, FactCheck | DeclineCheck):
            said += check.accepted
    return said


def _inside(said: str) -> str:
    return f"it is {said}" if said[:1].isdigit() or said[:1] in "$−" or len(said) == 1 else said

"""Whether an answer concludes a figure. Every quantity of the text gets a role, and what is left over as a claim is compared.

A quantity is no claim when it stands in a question, is denied, is part of a sum, belongs to a comparison ("below the $500 cap"), to a reason, to an aside
in brackets or to an assumption, or only repeats a figure of the prompt. Then:

- with a final line, that line decides: the figure must be in it, and no other claim of the same unit;
- without one, the last claim decides. A figure at the beginning may be explained afterwards, as long as nothing corrects it, draws another conclusion, or
  answers what was asked with another figure;
- several figures must keep the order of the question, unless the words beside them say which is which.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from runners.evaluation.cases import NumberCheck
from runners.evaluation.conclusion import FinalLine, concludes, corrects, guesses, taken_back
from runners.evaluation.numbers import Quantity
from runners.evaluation.order import Order
from runners.evaluation.roles import NAME_BEFORE, matches, value_in

_NOTHING = re.compile(r"\b(?:nothing|none|nil|zero|no (?:tax|loss|gain|penalty|payment|room|benefit|impairment|hours?|one))\b", re.IGNORECASE)


@dataclass(frozen=True)
class FigureFinding:
    """How one number check came out; the place is in the plain text."""

    passed: bool
    reason: str
    place: tuple[int, int] | None = None


class Figures(Order):
    """The number checks of one case held against one answer."""

    def findings(self) -> dict[int, FigureFinding]:
        """By the position of the check among the case's number checks."""
        found = {number: self._finding(check) for number, check in enumerate(self.checks)}
        if all(finding.passed for finding in found.values()) and len(self.checks) > 1 and (swapped := self._swapped()):
            found[0] = FigureFinding(False, swapped, found[0].place)
        return found

    def _finding(self, check: NumberCheck) -> FigureFinding:
        stated = [(index, quantity) for index, quantity in enumerate(self.text.quantities) if matches(check, quantity)]
        if not stated:
            return self._missing(check)
        reasons = {index: self._no_claim(index) for index, _ in stated}
        if all(reasons.values()):
            index, quantity = stated[0]
            return FigureFinding(False, f"{self._quote(quantity)} {reasons[index]}", (quantity.start, quantity.end))
        if taken_back(self.text, stated[-1][1].end):
            return FigureFinding(False, "is taken back", (stated[-1][1].start, stated[-1][1].end))
        if self.lines:
            return self._by_line(check)
        return self._by_statements(check, [index for index, _ in stated if not reasons[index]])

    # -- with a final line -------------------------------------------------------------------------------------------------------------------

    def _by_line(self, check: NumberCheck) -> FigureFinding:
        """The last final line decides; earlier ones and what comes after it must not conclude something else."""
        last = self.lines[-1]
        inside = self._inside(last.start, last.end)
        good = [index for index in inside if matches(check, self.text.quantities[index]) and not self._no_claim(index)]
        rivals = [index for index in inside if self._rival(check, index) and not self._excused_in_line(index, last)]
        another = any(matches(other, self.text.quantities[index]) for other in self.checks for index in inside)
        silent = self.case.worded and not inside and not _NOTHING.search(self.text.plain, last.start, last.end)
        if not good and not rivals and (another or silent):  # the line holds another part of what was asked
            return self._by_statements(check, [i for i, q in enumerate(self.text.quantities) if matches(check, q) and not self._no_claim(i)])
        said = last.said.strip()
        if rivals:
            rival = self.text.quantities[rivals[0]]
            return FigureFinding(False, f"the final answer says {self._quote(rival)}", (rival.start, rival.end))
        if not good:
            return FigureFinding(False, f"the final answer is “{said[:80]}”", (last.start, last.end))
        chosen = self.text.quantities[good[0]]
        for line in self.lines[:-1]:
            others = self._inside(line.start, line.end)
            if not any(matches(check, self.text.quantities[index]) for index in others):
                for index in others:
                    if self._rival(check, index) and not self._excused_in_line(index, line):
                        return FigureFinding(
                            False, f"concludes {self._quote(self.text.quantities[index])} and {self._quote(chosen)}", (chosen.start, chosen.end)
                        )
        for index in self._inside(last.end, len(self.text.plain)):
            said = self.text.sentence(self.text.quantities[index].start)
            if self._rival(check, index) and not self._excuse(index) and (concludes(said) or corrects(said)):
                return FigureFinding(False, f"concludes {self._quote(chosen)} and then {self._quote(self.text.quantities[index])}", (chosen.start, chosen.end))
        return FigureFinding(True, f"concludes {self._quote(chosen)}", (chosen.start, chosen.end))

    def _excused_in_line(self, index: int, line: FinalLine) -> bool:
        """Figures beside the answer in its line: denied, compared with, in brackets, part of a sum, or repeated from the question."""
        quantity = self.text.quantities[index]
        if self._offered(index):
            return False
        before = self.text.plain[line.start : quantity.start]
        named = quantity.unit == "none" and NAME_BEFORE.search(before) is not None
        return bool(named or self._denied(index) or self._operand(index) or self._compared(index) or self._bracketed(index) or self._given(index))

    # -- without one -------------------------------------------------------------------------------------------------------------------------

    def _by_statements(self, check: NumberCheck, good: Sequence[int]) -> FigureFinding:
        if not good:
            return self._missing(check)
        target = self.text.quantities[good[-1]]
        place = (target.start, target.end)
        bounds = [self.text.bounds(self.text.quantities[index].start) for index in good]
        if all(guesses(self.text.plain[start:end]) and self._other_claims(check, start, end) for start, end in bounds):
            return FigureFinding(False, f"{self._quote(target)} is one of several offered", place)
        if self._within_a_range(check, target):
            return FigureFinding(False, f"{self._quote(target)} lies in a range that is offered", place)
        after = [index for index in self._inside(target.end, len(self.text.plain)) if self._rival(check, index) and not self._excuse(index)]
        first = next(
            (i for i in range(len(self.text.quantities)) if not self._no_claim(i) and (i in good or (self._rival(check, i) and not self._excuse(i)))), -1
        )
        leads = first in good
        nothing = _NOTHING.search(self.text.plain, target.end) if abs(check.number) > check.margin else None
        if nothing and concludes(self._clause_before(nothing.start())) and self.text.sentence(nothing.start()) != self.text.sentence(target.start):
            return FigureFinding(False, f"concludes {self._quote(target)} and then “{nothing[0]}”", place)
        explained = leads or concludes(self._clause_before(target.start))
        related, proof = (self._related(target), self._proof(target)) if after else (set(), set())
        for index in after:
            rival = self.text.quantities[index]
            said, same = self._clause_before(rival.start), self.text.bounds(rival.start) == self.text.bounds(target.start)
            turned = concludes(said) or corrects(self.text.sentence(rival.start)) or guesses(said)
            explains = index in related or self._is_a_limit(rival) or (same and self._after_equals(index))
            if not explained or turned or not (explains or index in proof) or (self._answers(rival) and not same and index not in proof):
                return FigureFinding(False, f"says {self._quote(target)}, but then {self._quote(rival)}", place)
        if before := self._before(check, good[-1]):
            return FigureFinding(False, f"says {self._quote(before)}, and {self._quote(target)} only beside it", place)
        return FigureFinding(True, f"says {self._quote(target)}", place)

    def _before(self, check: NumberCheck, index: int) -> Quantity | None:
        """A rival that was stated as the answer before the wanted figure is mentioned: "$510, though some get $360"."""
        target = self.text.quantities[index]
        start = self.text.bounds(target.start)[0]
        for other in self._inside(0, target.start):
            rival = self.text.quantities[other]
            if not self._rival(check, other) or self._excuse(other):
                continue
            if rival.start >= start and re.search(r"\b(?:al)?though\b|\bwhile\b|\bwhereas\b", self.text.plain[rival.end : target.start], re.IGNORECASE):
                return rival
            said = self.text.sentence(target.start)
            marked = concludes(self._clause_before(target.start)) or corrects(said) or self._shares(target) or len(re.findall(r"[a-z]{3,}", said)) < 2
            stated = re.search(r"\b(?:is|are|comes to|equals)\s+\$?$", self.text.plain[: rival.start])
            if rival.start < self.text.bounds(0)[1] <= target.start and stated and self._shares(rival) and not marked and not self._is_a_limit(rival):
                return rival
        return None

    def _within_a_range(self, check: NumberCheck, target: Quantity) -> bool:
        """Whether the answer offers a range around the figure, with neither end asked for, given, or part of a sum."""
        for index, quantity in enumerate(self.text.quantities):
            if quantity.partner is not None and value_in(check, quantity) is not None and not matches(check, quantity):
                around = min(quantity.value, quantity.partner) < target.value < max(quantity.value, quantity.partner)
                if around and not self._given(index) and not self._operand(index) and not self._operand(self.text.quantities.index(self._partner(index))):
                    return True
        return False

    def _answers(self, rival: Quantity) -> bool:
        """Whether the sentence of a rival speaks of what was asked, so that it answers the question too."""
        return self._shares(rival) or re.match(r"\W*(?:it|that|this|you|he|she|they|i)\b", self.text.sentence(rival.start), re.IGNORECASE) is not None

    def _other_claims(self, check: NumberCheck, start: int, end: int) -> bool:
        nothing = abs(check.number) > check.margin and _NOTHING.search(self.text.plain, start, end) is not None
        return (
            nothing
            or any(self._rival(check, index) and not self._operand(index) for index in self._inside(start, end))
            or any(self._rival(check, index) and guesses(self.text.sentence(self.text.quantities[index].start)) for index in range(len(self.text.quantities)))
        )

    def _related(self, target: Quantity) -> set[int]:
        """Figures from which the wanted one is computed in one step with another figure of the answer or the prompt, or which are computed from it so."""
        figures = [quantity.value for quantity in (*self.text.quantities, *self._prompted)]
        rates = [quantity.value / 100 for quantity in (*self.text.quantities, *self._prompted) if quantity.unit == "percent"]
        known, found = [target.value], set[int]()
        for _ in range(2):
            for index, quantity in enumerate(self.text.quantities):
                if index not in found and any(_one_step(quantity.value, value, [*figures, *rates]) for value in known):
                    found.add(index)
            known += [self.text.quantities[index].value for index in found]
        return found

    def _proof(self, target: Quantity) -> set[int]:
        """Pairs of stated figures whose sum, difference, product or quotient is the wanted one: its derivation."""
        found = self.text.quantities
        pairs = [(a, b) for a in range(len(found)) for b in range(len(found)) if a < b and found[a].value and found[b].value]
        rates = [given.value / 100 for given in self._prompted if given.unit == "percent"]
        by_rate = {index for index, quantity in enumerate(found) if quantity.value != target.value and _one_step(quantity.value, target.value, rates)}
        return by_rate | {
            index
            for a, b in pairs
            if target.value not in (found[a].value, found[b].value)
            and _one_step(found[a].value, target.value, [found[b].value, *([found[b].value / 100] if found[b].unit == "percent" else [])])
            for index in (a, b)
        }

    def _missing(self, check: NumberCheck) -> FigureFinding:
        fitting = [(quantity, value) for quantity in self.text.quantities if (value := value_in(check, quantity)) is not None and not matches(check, quantity)]
        if not fitting:
            return FigureFinding(False, "no such number in the answer")
        # What a reader would compare with: a figure of the same unit before a bare one, then the closest.
        quantity, _ = min(fitting, key=lambda pair: (pair[0].unit != check.unit, abs(pair[1] - check.number)))
        return FigureFinding(False, f"not stated; the nearest is {self._quote(quantity)}", (quantity.start, quantity.end))


def _one_step(one: float, result: float, others: Sequence[float]) -> bool:
    """Whether one figure and another give the result by +, −, × or ÷, or the result and another give the one."""
    for other in others:
        made = [one + other, one - other, other - one, one * other, *([one / other] if other else []), *([other / one] if one else [])]
        if other not in (0, 1, one, result) and any(abs(value - result) <= 5e-4 * abs(result) for value in made) and abs(one - result) > 1e-9:
            return True
    return False

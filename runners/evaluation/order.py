"""Which figure is which: several figures of one unit must keep the order of the question, unless the words beside them tell them apart."""

from __future__ import annotations

import re

from runners.evaluation.cases import NumberCheck
from runners.evaluation.numbers import Quantity
from runners.evaluation.roles import Roles, matches
from runners.evaluation.wording import stem


class Order(Roles):
    """The order of the figures of one answer."""

    def _swapped(self) -> str:
        """Why two figures of one unit are each other's, or an empty text."""
        for one in range(len(self.checks)):
            for two in range(one + 1, len(self.checks)):
                first, second = self.checks[one], self.checks[two]
                if (first.unit == second.unit or {first.unit, second.unit} <= {"ratio", "none", "count"}) and (reason := self._exchanged(first, second)):
                    return reason
        return ""

    def _exchanged(self, first: NumberCheck, second: NumberCheck) -> str:
        start, end = (self.lines[-1].start, self.lines[-1].end) if self.lines else (0, len(self.text.plain))
        inside = [self.text.quantities[index] for index in self._inside(start, end) if not self._operand(index)]
        ones, twos = [q for q in inside if matches(first, q)], [q for q in inside if matches(second, q)]
        if not ones or not twos:
            return ""
        one, two = ones[-1], twos[-1]
        names = self._names()
        mine, other = names.get(first.name, set()), names.get(second.name, set())
        beside_one, beside_two = self._beside(one, two), self._beside(two, one)
        right = bool(beside_one & (mine - other)) + bool(beside_two & (other - mine))
        wrong = bool(beside_one & (other - mine)) + bool(beside_two & (mine - other))
        if wrong > right:
            return f"{self._quote(one)} and {self._quote(two)} are exchanged"
        if one.start > two.start and not right:
            return f"{self._quote(two)} and {self._quote(one)} come in the other order than asked"
        return ""

    def _names(self) -> dict[str, set[str]]:
        """The stems that tell the checks apart: those of the label, and of the part of the question that asks for each."""
        parts = re.split(r",?\s+(?:and|versus|than)\s+(?=how|what|which|the|its|when|in|if|on|from|for|\w+ )", self.case.question.rsplit(". ", 1)[-1])
        asked = parts[-len(self.checks) :] if len(parts) >= len(self.checks) else [""] * len(self.checks)
        return {check.name: {_key(w) for w in _words(check.label)} | {_key(w) for w in _words(part)} for check, part in zip(self.checks, asked, strict=True)}

    def _beside(self, quantity: Quantity, other: Quantity) -> set[str]:
        """The stems of the clause that a figure stands in, up to the other figure or the nearest stop."""
        start, end = self.text.bounds(quantity.start)
        if other.end <= quantity.start:
            start = max(start, other.end)
        else:
            end = min(end, other.start)
        before = re.split(r"[,;:.](?=\s)|\band\b|\bbut\b", self.text.plain[start : quantity.start].rstrip(" :=≈"))[-1]
        after = re.split(r"[,;.](?=\s|$)|\band\b|\bbut\b", self.text.plain[quantity.end : end])[0]
        return {_key(word) for word in _words(f"{before} {after}")}


def _words(said: str) -> list[str]:
    return [
        word for word in re.findall(r"[a-z]+", said.lower()) if len(word) > 3 and word not in ("what", "much", "many", "does", "that", "with", "each", "year")
    ]


def _key(word: str) -> str:
    return stem(word)[:6]

"""A kind of problem: one computation, asked by several people in their own words.

The questions are written by hand, each with its own numbers and a closing remark that fits it; the steps and figures are computed. A seed other than 0
moves every number that has a step by up to a tenth, so that a second set can be drawn, e.g. to see whether a model learnt the method or the figures.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: How far another seed moves a number, as a fraction of it.
SPREAD = 0.10


@dataclass(frozen=True)
class Ask:
    """One way to ask: the question with ``{field}`` places, a remark that ends the answer, a value for each field."""

    question: str
    remark: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Kind:
    """One computation.

    Args:
        name: unique id.
        category: one of the 18 domains.
        reference: where the formula, table or rule stands.
        as_of: year of the figures.
        fields: names in the order of the values, ``name:unit[step]``; unit ``$``, ``%`` (values are fractions, the step in points), ``n`` or ``s`` (text).
        steps: (index of the ask, *values) -> the worked steps with the final figure.
        asks: the people who ask.
    """

    name: str
    category: str
    reference: str
    as_of: int
    fields: str
    steps: Callable[..., str]
    asks: tuple[Ask, ...]

    def rows(self, seed: int) -> list[dict[str, Any]]:
        """The kind's pairs; numbers as written for seed 0, moved otherwise."""
        return [self._row(index, ask, random.Random(f"{seed}/{self.name}/{index}") if seed else None) for index, ask in enumerate(self.asks)]

    def _row(self, index: int, ask: Ask, rng: random.Random | None) -> dict[str, Any]:
        fields = [field.split(":") for field in self.fields.split()]
        if len(fields) != len(ask.values):
            raise ValueError(f"{self.name} #{index}: {len(ask.values)} values for {len(fields)} fields")
        values = [_moved(value, unit, rng) for value, (_, unit) in zip(ask.values, fields, strict=True)]
        shown = {name: _shown(value, unit) for value, (name, unit) in zip(values, fields, strict=True)}
        answer = _article(f"{self.steps(index, *values)} {ask.remark.format(**shown)}".strip())
        return {
            "id": f"{self.name}-{index + 1}",
            "question": _sentence(ask.question.format(**shown)),
            "answer": answer,
            "category": self.category,
            "source": "problems",
            "as_of": self.as_of,
            "reference": self.reference,
            "kind": self.name,
        }


def ask(question: str, remark: str, *values: Any) -> Ask:
    """Shorthand for the tables of kinds."""
    return Ask(question, remark, values)


def usd(amount: float, digits: int = 2) -> str:
    """$1,234.56, or -$1,234.56."""
    return f"{'-' if round(amount, digits) < 0 else ''}${abs(amount):,.{digits}f}"


def whole(amount: float) -> str:
    """$1,235: rounded to the dollar."""
    return usd(amount, 0)


def pct(fraction: float, digits: int = 2) -> str:
    """6.5%: at most ``digits`` decimals, trailing zeros dropped; a rate given to three places (6.875%) keeps them."""
    if digits == 2 and abs(round(fraction * 100, 3) - fraction * 100) < 1e-9:
        digits = 3
    text = f"{fraction * 100:,.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}%"


def num(value: float, digits: int = 2) -> str:
    """1,234.5: at most ``digits`` decimals, trailing zeros dropped."""
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(value: float, noun: str) -> str:
    """1 year, 2 years."""
    return f"{num(value, 0)} {noun}{'' if round(value) == 1 else 's'}"


def money_as_given(amount: float) -> str:
    """As a person writes it: cents only when there are any."""
    return whole(amount) if float(amount).is_integer() else usd(amount)


def pick(index: int, *texts: str) -> str:
    """One of several wordings, by the ask's index."""
    return texts[index % len(texts)]


def _article(text: str) -> str:
    """ "a 8-year" is "an 8-year": the numbers are filled in after the words were written."""
    return re.sub(r"\b([Aa]) (?=\$?(?:8|11\b|18\b))", r"\1n ", text)


def _sentence(text: str) -> str:
    text = _article(text)
    return text[0].upper() + text[1:]


def _moved(value: Any, unit: str, rng: random.Random | None) -> Any:
    if rng is None or len(unit) == 1:
        return value
    step = float(unit[1:]) / (100 if unit[0] == "%" else 1)
    moved = round(value * (1 + rng.uniform(-SPREAD, SPREAD)) / step) * step or step
    return int(moved) if isinstance(value, int) and float(moved).is_integer() else round(moved, 8)


def _shown(value: Any, unit: str) -> str:
    if unit[0] == "$":
        return money_as_given(value)
    if unit[0] == "%":
        return pct(value, 4)
    return str(value) if unit[0] == "s" else num(value, 4)

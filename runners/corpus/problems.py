"""Computed problems: pairs whose figures come from ``runners.corpus.finance``, with the steps shown.

The texts lie in ``data/problems/*.yaml``: each kind of problem has the people who ask, a formula (a function of ``problem_formulas``) and the worked steps
as a text with places for the formula's figures. ``data/README.md`` explains the keys. Questions are written one by one, because a template with another
number teaches a model nothing and counts as a near-duplicate.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from runners import outside
from runners.corpus import problem_formulas
from runners.corpus.problem_text import Figures, article, as_given, fill, sentence
from runners.errors import UserError
from runners.fields import Strict, wrong

#: How far another seed moves a number, as a fraction of it.
SPREAD = 0.10
#: People of one kind in a dataset: more of them teach little that is new.
ASKS_PER_KIND = 2
MODULES = [importlib.import_module(f"{problem_formulas.__name__}.{found.name}") for found in pkgutil.iter_modules(problem_formulas.__path__)]
#: A kind's ``computation`` names one of these functions.
FORMULAS: dict[str, Callable[..., Figures]] = {
    name: value
    for module in MODULES
    for name, value in vars(module).items()
    if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
}


class Ask(Strict):
    """One person who asks: the question with ``{field}`` places, a remark that ends the answer, a value for each field."""

    question: str
    remark: str
    values: dict[str, Any]


class Kind(Strict):
    """One kind of problem.

    ``fields`` gives each value's unit and step, ``$100``: unit ``$``, ``%`` (values are fractions, the step in points), ``n`` or ``s`` (text).
    ``steps`` are texts for the worked steps; with several, the people who ask get them in turn.
    """

    kind: str
    category: str
    reference: str
    as_of: int
    computation: str
    fields: dict[str, str]
    steps: tuple[str, ...] = Field(min_length=1)
    asks: tuple[Ask, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Kind:
        if self.computation not in FORMULAS:
            raise ValueError(f"computation {self.computation!r} is no function of runners/corpus/problem_formulas")
        for number, ask in enumerate(self.asks, 1):
            if set(ask.values) != set(self.fields):
                raise ValueError(f"{self.kind}: question {number} has values for {', '.join(ask.values)}; expected {', '.join(self.fields)}")
        return self

    def rows(self, seed: int) -> list[dict[str, Any]]:
        """Pairs of the people whose turn it is: the first for seed 0, the next for seed 1. Raises UserError when values, texts and formula do not fit."""
        turn = [(ASKS_PER_KIND * seed + offset) % len(self.asks) for offset in range(min(ASKS_PER_KIND, len(self.asks)))]
        try:
            return [self._row(index, seed) for index in sorted(turn)]
        except KeyError as error:
            raise UserError(f"{self.kind}: a text names {error}", "a field, or a figure that the computation gives", "edit the kind's texts") from None
        except (TypeError, ValueError, ArithmeticError) as error:
            raise UserError(f"{self.kind}: {error}", f"values that the computation {self.computation} can use", "edit the kind's values") from None

    def values(self, index: int, seed: int) -> dict[str, Any]:
        """The numbers of one question: as written for seed 0, moved otherwise."""
        rng = random.Random(f"{seed}/{self.kind}/{index}") if seed else None
        return {name: _moved(self.asks[index].values[name], unit, rng) for name, unit in self.fields.items()}

    def _row(self, index: int, seed: int) -> dict[str, Any]:
        ask, values = self.asks[index], self.values(index, seed)
        shown = {name: as_given(values[name], unit) for name, unit in self.fields.items()}
        steps = fill(self.steps[index % len(self.steps)], values | FORMULAS[self.computation](**values))
        return {
            "id": f"{self.kind}-{index + 1}",
            "question": sentence(ask.question.format(**shown)),
            "answer": article(f"{steps} {ask.remark.format(**shown)}".strip()),
            "category": self.category,
            "source": "problems",
            "as_of": self.as_of,
            "reference": self.reference,
            "kind": self.kind,
        }


def generate(folder: Path, seed: int = 0) -> list[dict[str, Any]]:
    """All problems of a folder, in the order of the files.

    Args:
        folder: the YAML files, e.g. ``data/problems``.
        seed: 0 gives the numbers as written; another seed takes the next people who ask and moves amounts and rates by up to a tenth.

    Returns:
        Rows with id, question, answer, category, source, as_of, reference and kind.

    Raises:
        UserError: a file that is no list of kinds, with the bad key.
    """
    return [row for file in sorted(folder.glob("*.yaml")) for row in rows(file, seed)]


def rows(file: Path, seed: int = 0) -> list[dict[str, Any]]:
    """The problems of one file; see ``generate``."""
    listed = outside.parsed_yaml(outside.text(file, "a list of kinds of problems"), str(file), text_keys=False)
    if not isinstance(listed, list):
        raise UserError(f"{file} is not a YAML list", "a list of kinds of problems", "see data/README.md for the keys")
    kinds: list[Kind] = []
    try:
        kinds.extend(Kind.model_validate(entry) for entry in listed)
    except ValidationError as error:
        raise UserError(f"{file}, kind {len(kinds) + 1}: {wrong(error)}", "the keys in data/README.md", f"edit {file}") from None
    return [row for kind in kinds for row in kind.rows(seed)]


def _moved(value: Any, unit: str, rng: random.Random | None) -> Any:
    if rng is None or len(unit) == 1:
        return value
    step = float(unit[1:]) / (100 if unit[0] == "%" else 1)
    moved = round(value * (1 + rng.uniform(-SPREAD, SPREAD)) / step) * step or step
    return int(moved) if isinstance(value, int) and float(moved).is_integer() else round(moved, 8)

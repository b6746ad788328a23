"""The benchmark's case format, version 1: read, validate, turn into messages.

A benchmark is one YAML file, or a folder of them read as one. A folder with a ``benchmark.yaml`` is the parts that this file lists, under the id that
it declares. ``data/benchmark/README.md`` describes every key with examples.
A case passes when all of its checks pass, so a case must have a check that an empty answer fails: that is validated here.

    elson evaluate --dry-run --benchmark data/benchmark
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from runners import outside
from runners.corpus.pairs import DOMAINS
from runners.errors import UserError
from runners.fields import Strict
from runners.outside import digest
from runners.spec import ChatSpec

FORMAT_VERSION = 1
#: Declares a benchmark of several folders; ``corpus/leaks.py`` leaves it out when it reads cases.
DECLARATION = "benchmark.yaml"
Unit = Literal["usd", "percent", "years", "ratio", "count", "days", "none"]
FINAL_LINE = "End with one line of the form “Answer: …” that states only your conclusion, figures with their units."
FINAL_LETTER = "End with one line of the form “Answer: …” that holds only the letter of the one right choice."
Wording = Annotated[str, Field(min_length=2)]


class NumberCheck(Strict):
    """The answer states this number, in any form ("$23,000", "23k", "twenty-three thousand"), within the tolerance."""

    number: float
    unit: Unit = "none"
    tolerance: float = Field(0.0, ge=0, description="absolute, in the check's unit")
    tolerance_percent: float = Field(0.0, ge=0, le=50, description="relative to the number; the wider of the two holds")
    label: str = ""

    @property
    def margin(self) -> float:
        """Largest accepted distance from the number."""
        return max(self.tolerance, abs(self.number) * self.tolerance_percent / 100)

    @property
    def name(self) -> str:
        """What a report calls the check."""
        return self.label or f"{self.number:g} {self.unit}"


class FactCheck(Strict):
    """The answer says this, in one of the accepted wordings (or inflected forms of them), and does not deny it."""

    fact: str
    accepted: tuple[Wording, ...] = Field(min_length=1)

    @property
    def name(self) -> str:
        """What a report calls the check."""
        return self.fact


class ForbiddenCheck(Strict):
    """The answer does not claim this; denying it is fine."""

    forbidden: str
    wordings: tuple[Wording, ...] = Field(min_length=1)

    @property
    def name(self) -> str:
        """What a report calls the check."""
        return f"must not claim: {self.forbidden}"


class ChoiceCheck(Strict):
    """The answer settles on this letter."""

    choice: str

    @property
    def name(self) -> str:
        """What a report calls the check."""
        return f"choice {self.choice}"


class DeclineCheck(Strict):
    """The answer declines, or says what it cannot know; the reason is for people, the wordings for the scorer (none: the usual ones)."""

    decline: str
    accepted: tuple[Wording, ...] = ()

    @property
    def name(self) -> str:
        """What a report calls the check."""
        return f"declines: {self.decline}"


def _kind_of_check(value: Any) -> str | None:
    keys = value if isinstance(value, dict) else getattr(type(value), "model_fields", {})
    found = [key for key in ("number", "fact", "forbidden", "choice", "decline") if key in keys]
    return found[0] if len(found) == 1 else None


Check = Annotated[
    Annotated[NumberCheck, Tag("number")]
    | Annotated[FactCheck, Tag("fact")]
    | Annotated[ForbiddenCheck, Tag("forbidden")]
    | Annotated[ChoiceCheck, Tag("choice")]
    | Annotated[DeclineCheck, Tag("decline")],
    Discriminator(
        _kind_of_check,
        custom_error_type="kind_of_check",
        custom_error_message="a check has exactly one of the keys number, fact, forbidden, choice, decline",
    ),
]


class Turn(Strict):
    """An earlier turn of the conversation."""

    role: Literal["user", "assistant"]
    content: Annotated[str, Field(min_length=1)]


class Case(Strict):
    """One question and what a right answer must and must not say."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    category: Literal[DOMAINS]  # type: ignore[valid-type]  # declared once, in the corpus
    difficulty: Literal["easy", "medium", "hard"]
    kind: Literal["answer", "multiple_choice", "decline"] = "answer"
    question: Annotated[str, Field(min_length=3)]
    history: tuple[Turn, ...] = ()
    passage: Annotated[str, Field(min_length=20)] | None = Field(None, description="a text or table that the question is about; sent before it")
    computation: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")] | None = Field(
        None, description="the kind of computation or judgement; the name of a generator's kind where one makes the same"
    )
    choices: dict[Annotated[str, Field(pattern=r"^[A-H]$")], str] | None = None
    checks: tuple[Check, ...] = Field(min_length=1)
    source: Annotated[str, Field(min_length=3, description="where the right answer can be looked up")]
    as_of: int = Field(ge=1990, le=2100, description="the year the answer is right for")
    rubric: str | None = Field(None, description="what a judge, when one is used, looks for")
    sharpen: tuple[str, ...] = Field((), description="left by the importer: what a person should still make exact")

    @model_validator(mode="after")
    def _can_be_failed(self) -> Case:
        kinds = Counter(type(check) for check in self.checks)
        if self.kind == "multiple_choice":
            letters = [check.choice for check in self.checks if isinstance(check, ChoiceCheck)]
            if not self.choices or len(self.choices) < 2:
                raise ValueError("a multiple_choice case needs at least two choices")
            if len(letters) != 1 or letters[0] not in self.choices:
                raise ValueError(f"a multiple_choice case needs one choice check naming one of {', '.join(self.choices)}")
        elif self.choices or kinds[ChoiceCheck]:
            raise ValueError(f"choices belong to kind multiple_choice, not {self.kind}")
        if self.kind == "decline" and not kinds[DeclineCheck]:
            raise ValueError("a decline case needs a decline check")
        if self.kind != "decline" and kinds[DeclineCheck]:
            raise ValueError("a decline check belongs to kind decline")
        if self.kind == "answer" and not kinds[NumberCheck] + kinds[FactCheck]:
            raise ValueError("only forbidden claims are checked, so an empty answer would pass: add a number or a fact")
        for turn, role in zip(self.history, ("user", "assistant") * len(self.history), strict=False):
            if turn.role != role:
                raise ValueError("history alternates user, assistant, beginning with user")
        if len(self.history) % 2:
            raise ValueError("history ends with the assistant; the question is the next turn")
        return self

    @property
    def digest(self) -> str:
        """Changes when anything that decides the result changes."""
        absent = {"passage"} if self.passage is None else set()  # so that a case without one keeps the digest it had before the key existed
        return digest(self.model_dump(mode="json", exclude={"sharpen", "source", "rubric", "computation"} | absent))

    @property
    def worded(self) -> bool:
        """Whether wordings decide: a fact or a refusal has to be said."""
        return any(isinstance(check, FactCheck | DeclineCheck) for check in self.checks)

    @property
    def to_judge(self) -> str:
        """What a judge looks for: the rubric; for a worded case without one, its checks in words. Empty where numbers and letters decide."""
        if self.rubric or not self.worded:
            return self.rubric or ""
        wants = [f"concludes {check.name}" if isinstance(check, NumberCheck | ChoiceCheck) else f"says: {check.name}" for check in self.checks]
        said = "; ".join(want.replace("says: must not claim", "does not claim") for want in wants)
        return f"A right answer {said}. It does nothing that it refuses."

    @property
    def told(self) -> str:
        """Everything that a case tells: the earlier turns, the passage, the question."""
        return " \n ".join([*(turn.content for turn in self.history), self.passage or "", self.question])

    @property
    def said_by_user(self) -> str:
        """Everything the user says, without the passage."""
        return " ".join([*(turn.content for turn in self.history if turn.role == "user"), self.question])

    @property
    def asked(self) -> str:
        """The passage if there is one, the question, and the choices below it."""
        asked = f"{self.passage.rstrip()}\n\n{self.question}" if self.passage else self.question
        listed = "\n".join(f"{letter}) {choice}" for letter, choice in (self.choices or {}).items())
        return f"{asked}\n\n{listed}" if listed else asked

    @property
    def prompt(self) -> str:
        """The last user turn: what is asked, and the final line that is scored. The line asked for does not tell a case to decline from another."""
        return f"{self.asked}\n\n{FINAL_LETTER if self.choices else FINAL_LINE}"


class Benchmark(Strict):
    """All cases, in the order of the files."""

    version: Literal[1] = 1
    id: str = Field("", description="the dated id that benchmark.yaml declares; empty for a file or folder without one")
    cases: tuple[Case, ...] = Field(min_length=1)

    @property
    def digest(self) -> str:
        """Content id of the cases."""
        return "bench-" + digest([case.digest for case in sorted(self.cases, key=lambda case: case.id)])


class Declaration(Strict):
    """What ``benchmark.yaml`` says: a dated, versioned id and the folders whose cases belong to it."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]+-\d{4}\.\d{2}-v\d+$")]
    parts: tuple[Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")], ...] = Field(min_length=1)


def messages(case: Case, chat: ChatSpec) -> list[dict[str, str]]:
    """What is sent: the system prompt of training and serving, the history, the question."""
    turns = [{"role": turn.role, "content": turn.content} for turn in case.history]
    system = [{"role": "system", "content": chat.system_prompt}] if chat.system_prompt else []
    return [*system, *turns, {"role": "user", "content": case.prompt}]


def load(place: Path) -> Benchmark:
    """Read a file, all ``*.yaml`` of a folder, or the parts a ``benchmark.yaml`` lists. Raises UserError naming every bad case, with its id and file."""
    declaration = place / DECLARATION
    declared = Declaration.from_yaml(declaration, "`id: name-2026.11-v2` and `parts: [folder, …]`") if declaration.is_file() else None
    folders = [place / part for part in declared.parts] if declared else [place]
    files = [file for folder in folders for file in (sorted(folder.glob("*.yaml")) if folder.is_dir() else [folder])]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"no benchmark at {place}", "a YAML file of cases or a folder of them", "pass --benchmark data/benchmark")
    cases: list[Case] = []
    problems: list[str] = []
    for file in files:
        for position, row in enumerate(_rows(file)):
            try:
                cases.append(Case.model_validate(row))
            except ValidationError as error:
                name = row.get("id", f"number {position + 1}") if isinstance(row, dict) else f"number {position + 1}"
                problems += [f"{file.relative_to(place.parent)}, case {name}: {_explain(detail)}" for detail in error.errors()]
    problems += [f"id {name!r} is used {count} times" for name, count in Counter(case.id for case in cases).items() if count > 1]
    asked = Counter(normalised_question(case) for case in cases)
    problems += [f"{case.id}: the same question is in another case" for case in cases if asked[normalised_question(case)] > 1]
    if problems:
        shown = "\n    ".join(problems[:20]) + (f"\n    and {len(problems) - 20} more" if len(problems) > 20 else "")
        raise UserError(f"{place} has {len(problems)} problem(s):\n    {shown}", "cases as data/benchmark/README.md describes them", f"edit {place}")
    if not cases:
        raise UserError(f"{place} has no cases", "at least one case", f"edit {place}")
    return Benchmark(id=declared.id if declared else "", cases=tuple(cases))


def sample(benchmark: Benchmark, most_per_category: int | None) -> Benchmark:
    """The first so many cases of each category; the benchmark itself when there is no limit."""
    if most_per_category is None:
        return benchmark
    seen: Counter[str] = Counter()
    kept = []
    for case in benchmark.cases:
        seen[case.category] += 1
        if seen[case.category] <= most_per_category:
            kept.append(case)
    return Benchmark(id=benchmark.id, cases=tuple(kept))


def normalised_question(case: Case) -> str:
    """The whole conversation's user side in lower case without punctuation."""
    return re.sub(r"\W+", " ", case.said_by_user.lower()).strip()


def _rows(file: Path) -> list[Any]:
    values = outside.parsed_yaml(outside.text(file, "a mapping with version and cases"), str(file))
    if isinstance(values, dict) and "test_cases" in values:
        raise UserError(f"{file} is in the expected_keywords form", f"version {FORMAT_VERSION}", f"elson evaluate import {file} > cases.yaml")
    if not isinstance(values, dict) or values.get("version") != FORMAT_VERSION or not isinstance(values.get("cases"), list):
        raise UserError(f"{file} has no `version: {FORMAT_VERSION}` and list of `cases`", "both at the top level", f"edit {file}")
    if extra := set(values) - {"version", "cases"}:
        raise UserError(f"{file} has unknown keys: {', '.join(sorted(extra))}", "only version and cases", f"edit {file}")
    return list(values["cases"])


def _explain(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    return f"{where + ': ' if where else ''}{detail['msg'].removeprefix('Value error, ')}"

"""Other people's benchmarks as cases of version 1. What a machine cannot know is marked under ``sharpen`` for a person.

``importer_forms`` reads the forms. An answer or keyword that is a quantity becomes a number check, any other becomes a required fact with itself as its only
wording, a choice becomes a choice, a prohibited element a forbidden claim. Nothing is dropped silently and nothing is guessed: a keyword such as "Roth" is in
right and wrong answers alike, and the mark says so.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from runners import outside
from runners.corpus.pairs import DOMAINS
from runners.errors import UserError
from runners.evaluation.cases import Case
from runners.evaluation.importer_forms import ImportedQuestion, read
from runners.evaluation.numbers import Quantity, quantities

#: Categories of the earlier version by their name there; those that are not one of the 18 domains need a choice.
RENAMED = {other: domain for domain, names in yaml.safe_load(Path(__file__).with_name("renamed.yaml").read_text()).items() for other in names}
FALLBACK = "literacy"


class ImportedCases(NamedTuple):
    """Cases as plain data, how many of them have marks, and what was left out, with the reason."""

    cases: list[dict[str, Any]]
    marked: int
    problems: list[str]


def convert(file: Path, columns: dict[str, str] | None = None) -> ImportedCases:
    """Cases from a file of any form that ``importer_forms`` reads; ``columns`` maps the file's names to ours. Raises UserError."""
    questions, problems, about = read(file, columns)
    dated = re.search(r"(?:19|20)\d\d", str(about.get("created", "")))
    year = int(dated[0]) if dated else datetime.now(UTC).year
    cases: list[dict[str, Any]] = []
    names: Counter[str] = Counter()
    for number, question in enumerate(questions, 1):
        name = re.sub(r"[^a-z0-9._-]+", "-", f"imported-{question.name}".lower()).strip("-")
        names[name] += 1
        try:
            case = _case(question, name if names[name] == 1 else f"{name}-{names[name]}", year, file.name)
            Case.model_validate(case)
        except ValidationError as error:
            problems.append(f"question {number}: {error.errors()[0]['msg']}")
        except outside.WRONG_SHAPE as error:
            problems.append(f"question {number}: has a value of another form ({error})")
        else:
            cases.append(case)
    if not cases:
        raise UserError(f"{file} cannot be imported: {problems[0]}", "at least one question that can be checked", "pass another file")
    return ImportedCases(cases, sum("sharpen" in case for case in cases), problems)


def _case(row: ImportedQuestion, name: str, year: int, origin: str) -> dict[str, Any]:
    domain = row.category.lower().replace(" ", "_").replace("-", "_")
    category = domain if domain in DOMAINS else RENAMED.get(domain)
    marks = [] if category else [f"category: {row.category!r} is none of the 18 domains; {FALLBACK} was put in"]
    marks += [row.note] if row.note else []
    checks: list[dict[str, Any]] = []
    case: dict[str, Any] = {
        "id": name,
        "category": category or FALLBACK,
        "difficulty": row.difficulty if row.difficulty in ("easy", "medium", "hard") else "medium",
        "kind": "multiple_choice" if row.choices else "answer",
    }
    if len(row.passage.strip()) >= 20:
        case["passage"] = row.passage.strip()
    case["question"] = row.question
    if row.choices:
        case["choices"] = dict(zip("ABCDEFGH", row.choices, strict=False))
        checks.append({"choice": row.letter})
    for keyword in row.keywords or ((row.answer,) if row.answer else ()):
        check, mark = _check(keyword, row.scale)
        checks.append(check)
        marks += [mark] if mark else []
    for claim in row.prohibited:
        checks.append({"forbidden": claim, "wordings": [claim if len(claim) > 1 else f"{claim} "]})
        marks.append(f"{claim!r} is forbidden wherever it is asserted: say which claim is meant")
    said = f"{row.passage} {row.question}".lower()
    marks += [f"{check['fact']!r} is in the question itself, so it tells nothing" for check in checks if "fact" in check and check["fact"].lower() in said]
    case |= {"checks": checks, "source": f"imported from {origin}: name the source of the answer", "as_of": year}
    return case | {"sharpen": ["source: none was given", *marks]}


def _check(keyword: str, scale: str = "") -> tuple[dict[str, Any], str]:
    """(check, what to sharpen) for one keyword or answer; ``scale`` is the unit that a table's answer is given in."""
    found = quantities(keyword)
    whole = found[0] if len(found) == 1 and _covers(found[0], keyword) else None
    if whole is not None:
        factor = {"thousand": 1e3, "million": 1e6, "billion": 1e9}.get(scale, 1.0)
        unit = "percent" if scale == "percent" else whole.unit
        value = whole.value * factor if unit in ("none", "usd") else whole.value
        check: dict[str, Any] = {"number": _number(value), "unit": unit, "label": f"{keyword} {scale}".strip()}
        if "." in keyword:  # as exact as it is written
            check["tolerance"] = _number(0.5 * 10 ** -len(keyword.split(".")[-1].rstrip("%) ").strip()) * factor)
        if unit == "none":
            return check, f"{keyword!r}: give the number a unit"
        return check, ""
    wording = keyword if len(keyword) > 1 else f"{keyword} "
    if found:
        return {"fact": keyword, "accepted": [wording]}, f"{keyword!r} holds a number: make it a number check, or list how else it may be said"
    hint = (
        "is in right and wrong answers alike: say what must be claimed about it" if len(keyword.split()) == 1 else "list the other wordings of a right answer"
    )
    return {"fact": keyword, "accepted": [wording]}, f"{keyword!r} {hint}"


def _covers(quantity: Quantity, keyword: str) -> bool:
    """Whether nothing but the quantity is in the keyword ("$23,000", not "25x expenses")."""
    return not re.search(r"\w|\+", keyword[: quantity.start] + keyword[quantity.end :])


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else round(value, 6)

"""From the ``expected_keywords`` form to cases of version 1. What a machine can't know is marked under ``sharpen`` for a person.

A keyword that is a quantity becomes a number check, any other becomes a required fact with the keyword as its only wording. Nothing is
dropped and nothing is guessed: a keyword such as "Roth" is in right and wrong answers alike, and the mark says so.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runners import outside
from runners.errors import UserError
from runners.evaluation.cases import CATEGORIES, Case
from runners.evaluation.numbers import Quantity, quantities

#: Categories of the earlier version by their name there; those that are not one of the 18 domains need a choice.
RENAMED = {
    "estate_planning": "estate",
    "tax_planning": "tax",
    "tax_strategy": "tax",
    "retirement_planning": "retirement",
    "trust": "estate",
    "trusts": "estate",
    "college": "education",
    "college_planning": "education",
    "education_planning": "education",
    "professional_roles": "credentials",
    "certifications": "credentials",
    "financial_literacy": "literacy",
    "budgeting": "literacy",
    "behavioral": "literacy",
    "portfolio": "investing",
    "investment": "investing",
    "investments": "investing",
    "family_office": "wealth",
    "generational": "wealth",
    "goal_planning": "wealth",
    "generational_wealth": "wealth",
    "succession": "business",
    "business_succession": "business",
    "risk_management": "insurance",
    "debt": "credit",
    "credit_financing": "credit",
    "securities": "markets",
    "trading_strategies": "trading",
    "federal_income_tax": "tax",
}
FALLBACK = "literacy"


def convert(file: Path) -> tuple[list[dict[str, Any]], int]:
    """(cases as plain data, how many of them have marks) from a JSON file of ``test_cases``. Raises UserError."""
    try:
        value = outside.read_json(file)
        rows, about = (value["test_cases"], value.get("metadata", {})) if isinstance(value, dict) else (value, {})
        dated = re.search(r"(?:19|20)\d\d", str(about.get("created", "")))
        year = int(dated[0]) if dated else datetime.now(UTC).year
        cases = [_case(row, number, year, file.name) for number, row in enumerate(rows, 1)]
    except outside.WRONG_SHAPE as error:
        raise UserError(
            f"{file} cannot be imported: {error!r}", "JSON with test_cases, each with question and expected_keywords", "pass another file"
        ) from None
    for number, case in enumerate(cases, 1):
        outside.shaped(functools.partial(Case.model_validate, case), f"case {number} of {file}", "a question with expected_keywords")
    return cases, sum("sharpen" in case for case in cases)


def _case(row: dict[str, Any], number: int, year: int, origin: str) -> dict[str, Any]:
    name = str(row.get("category", "")).lower().replace(" ", "_").replace("-", "_")
    category = name if name in CATEGORIES else RENAMED.get(name)
    marks = [] if category else [f"category: {name!r} is none of the 18 domains; {FALLBACK} was put in"]
    checks: list[dict[str, Any]] = []
    for keyword in row["expected_keywords"]:
        check, mark = _check(str(keyword))
        checks.append(check)
        marks += [mark] if mark else []
    said = f"{row['question']}".lower()
    marks += [f"{check['fact']!r} is in the question itself, so it tells nothing" for check in checks if "fact" in check and check["fact"].lower() in said]
    difficulty = row.get("difficulty") if row.get("difficulty") in ("easy", "medium", "hard") else "medium"
    case = {
        "id": f"imported-{row.get('id', number)}",
        "category": category or FALLBACK,
        "difficulty": difficulty,
        "kind": "answer",
        "question": row["question"],
        "checks": checks,
    }
    case |= {"source": f"imported from {origin}: name the source of the answer", "as_of": year}
    return case | {"sharpen": ["source: none was given", *marks]}


def _check(keyword: str) -> tuple[dict[str, Any], str]:
    """(check, what to sharpen) for one keyword."""
    found = quantities(keyword)
    whole = found[0] if len(found) == 1 and _covers(found[0], keyword) else None
    if whole is not None:
        check: dict[str, Any] = {"number": _plain(whole.value), "unit": whole.unit, "label": keyword}
        if whole.unit == "none":
            return check, f"{keyword!r}: give the number a unit"
        return check, ""
    wording = keyword if len(keyword) > 1 else f"{keyword} "
    if found:
        return {"fact": keyword, "accepted": [wording]}, f"{keyword!r} holds a number: make it a number check, or list how else it may be said"
    words = len(keyword.split())
    hint = "is in right and wrong answers alike: say what must be claimed about it" if words == 1 else "list the other wordings of a right answer"
    return {"fact": keyword, "accepted": [wording]}, f"{keyword!r} {hint}"


def _covers(quantity: Quantity, keyword: str) -> bool:
    """Whether nothing but the quantity is in the keyword ("$23,000", not "25x expenses")."""
    return not re.search(r"\w|\+", keyword[: quantity.start] + keyword[quantity.end :])


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) else round(value, 6)

"""The expected_keywords form becomes cases, with marks for a person."""

import json
from pathlib import Path

import pytest

from runners.errors import UserError
from runners.evaluation.cases import Case
from runners.evaluation.importer import convert


def imported(folder: Path, **row: object) -> dict[str, object]:
    file = folder / "old.json"
    given = {"id": 7, "category": "estate_planning", "question": "What is the limit?", "expected_keywords": ["$23,000"], "difficulty": "easy"}
    file.write_text(json.dumps({"metadata": {"created": "2026-01-17"}, "test_cases": [given | row]}))
    cases = convert(file).cases
    Case.model_validate(cases[0])
    return cases[0]


def test_quantities_become_numbers_and_words_become_facts(tmp_path: Path) -> None:
    case = imported(tmp_path, expected_keywords=["$23,000", "25x expenses", "30 days", "trust"])
    assert case["checks"] == [
        {"number": 23000, "unit": "usd", "label": "$23,000"},
        {"fact": "25x expenses", "accepted": ["25x expenses"]},
        {"number": 30, "unit": "days", "label": "30 days"},
        {"fact": "trust", "accepted": ["trust"]},
    ]
    assert (case["id"], case["category"], case["as_of"]) == ("imported-7", "estate", 2026)
    marks = " ".join(case["sharpen"])  # type: ignore[arg-type]
    assert "source" in marks and "'25x expenses' holds a number" in marks and "'trust' is in right and wrong answers alike" in marks


def test_what_cannot_be_known_is_marked(tmp_path: Path) -> None:
    case = imported(tmp_path, category="edge_case", question="What is the limit of a trust?", expected_keywords=["trust", "50"])
    marks = " ".join(case["sharpen"])  # type: ignore[arg-type]
    assert "'edge_case' is none of the 18 domains" in marks and "is in the question itself" in marks and "give the number a unit" in marks


@pytest.mark.parametrize("text", ["", "{}", '{"test_cases": [{"question": "x"}]}', '{"cases": []}'])
def test_what_is_no_benchmark_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match="cannot be imported|is not JSON|is not UTF-8"):
        convert(tmp_path / "x.json")

"""A small benchmark of every kind of case, and a spec whose bars it can clear."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings

from runners.evaluation import cases
from runners.spec import EvaluateSpec, Spec

# A busy machine is no defect of a scorer.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

CATEGORIES = ("retirement", "tax", "estate", "investing")


def rows(count: int = 40) -> list[dict[str, Any]]:
    """Plain data of ``count`` cases: figures with a fact and a forbidden claim, choices, declines, a conversation."""
    made: list[dict[str, Any]] = []
    for number in range(count):
        category = CATEGORIES[number % 4]
        row: dict[str, Any] = {
            "id": f"{category}-{number}",
            "category": category,
            "difficulty": ("easy", "medium", "hard")[number % 3],
            "question": f"What does clause {number} of the {category} plan named {chr(65 + number % 26)}{number} set as the yearly amount?",
            "source": "Plan document, clause 7",
            "as_of": 2025,
        }
        kind = number % 5
        if kind == 0:
            row |= {"kind": "multiple_choice", "choices": {"A": "stocks", "B": "Treasury bills", "C": "gold"}, "checks": [{"choice": "B"}]}
        elif kind == 1:
            row |= {"kind": "decline", "checks": [{"decline": "nobody knows the future", "accepted": ["no one can predict", "cannot be predicted"]}]}
        else:
            fact = {"fact": "extra contributions", "accepted": ["catch-up contributions", "extra contributions"]}
            row["checks"] = [{"number": 1000 + 37 * number, "unit": "usd"}, fact, {"forbidden": "safe", "wordings": ["guaranteed return"]}]
        if kind == 2:
            row["history"] = [{"role": "user", "content": f"Tell me of plan {number}."}, {"role": "assistant", "content": "It is a plan."}]
        made.append(row)
    return made


@pytest.fixture
def benchmark_file(tmp_path: Path) -> Path:
    file = tmp_path / "cases.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "cases": rows()}, sort_keys=False))
    return file


@pytest.fixture
def benchmark(benchmark_file: Path) -> cases.Benchmark:
    return cases.load(benchmark_file)


@pytest.fixture
def spec() -> Spec:
    return Spec(evaluate=EvaluateSpec(concurrency=8, request_timeout_s=10, max_retries=2, deadline_s=60))

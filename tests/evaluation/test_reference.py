"""The earlier version's own benchmark on its own 950 pairs: refused, and shown to be unfit."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from runners.corpus.words import words
from runners.evaluation import baselines, contamination
from runners.evaluation.assemble import Request
from runners.evaluation.cases import load
from runners.evaluation.importer import convert
from runners.evaluation.run import perform
from runners.spec import Spec
from tests.evaluation.stub_server import Play, perfect, serving


@pytest.fixture(scope="module")
def pairs(reference: Path) -> tuple[contamination.TrainingPair, ...]:
    return contamination.read_pairs(reference / "consolidated_training_data.json")


@pytest.fixture(scope="module")
def old_cases(reference: Path) -> list[dict[str, Any]]:
    return list(json.loads((reference / "evaluation_benchmark.json").read_text())["test_cases"])


def passes_old_rule(case: dict[str, Any], answer: str) -> bool:
    """Half of a case's keywords as substrings: how the earlier version scored."""
    return sum(keyword.lower() in answer.lower() for keyword in case["expected_keywords"]) >= len(case["expected_keywords"]) / 2


def test_it_is_refused_as_contaminated_before_anything_is_asked(reference: Path, pairs: tuple[contamination.TrainingPair, ...], tmp_path: Path) -> None:
    made, marked, problems = convert(reference / "evaluation_benchmark.json")
    file = tmp_path / "imported.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "cases": made}))
    play = Play(perfect)
    with serving(load(file), play) as url:
        found = perform(Request(Spec(), url, None, file, reference / "consolidated_training_data.json", tmp_path / "run"))
    assert len(pairs) == 950 and len(made) == 100 and marked == 100 and not problems
    assert found.verdict.outcome == "contaminated" and found.verdict.exit_code == 2 and not play.seen
    assert found.contamination.exact == 61 and found.contamination.leaked == 73


def test_nearest_training_answers_pass_it_under_the_old_rule(pairs: tuple[contamination.TrainingPair, ...], old_cases: list[dict[str, Any]]) -> None:
    bags = [set(words(pair.question)) for pair in pairs]

    def by_words(question: str) -> int:
        bag = set(words(question))
        return max(range(len(bags)), key=lambda n: len(bag & bags[n]) / len(bag | bags[n]))

    retriever = baselines.BM25([pair.question for pair in pairs])
    plain = sum(passes_old_rule(case, pairs[by_words(case["question"])].answer) for case in old_cases)
    good = sum(passes_old_rule(case, pairs[retriever.best(case["question"])].answer) for case in old_cases)
    assert plain == 83, "by shared words"
    assert good == 88, "by BM25: without a model, above the plan's bar of 80"


def test_one_fixed_string_passes_cases_under_the_old_rule_and_few_as_imported(
    pairs: tuple[contamination.TrainingPair, ...], old_cases: list[dict[str, Any]], reference: Path
) -> None:
    from runners.evaluation.cases import Case
    from runners.evaluation.scoring import score

    stuffed = baselines.stuffing(pairs)[""]
    assert sum(passes_old_rule(case, stuffed) for case in old_cases) == 30
    made = [Case.model_validate(row) for row in convert(reference / "evaluation_benchmark.json").cases]
    assert sum(score(case, stuffed).passed for case in made) <= 3
    found = {baseline.name: baseline.result.passed for baseline in baselines.run(made, pairs, 0.8)}
    assert (found["nearest training answer"], found["keyword stuffing"]) == (29, 2)

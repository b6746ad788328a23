"""What an answer concludes decides: agreement with people, attacks by hand, adversarial answers of every case, and a server that always ends wrong."""

import re
from pathlib import Path

import pytest
import yaml

from runners.evaluation import adversarial, baselines, cases
from runners.evaluation.cases import Case
from runners.evaluation.scoring import score
from tests.evaluation import agreement

BENCHMARK = cases.load(Path(__file__).parents[2] / "data" / "benchmark")
ATTACKS = list(agreement.labelled("attacks"))


def test_the_labelled_set_is_large_and_of_every_kind():
    found = list(agreement.labelled(*agreement.HALVES))
    assert len(found) >= 400 and len({case.id for case, _, _ in found}) >= 60
    kinds = {called for _, called, _ in found}
    assert kinds == {"right", "wrong", "conclusion", "hedge", "stuffing", "comply"}
    lines = [re.search(r"^Answer:", answer, re.MULTILINE) is not None for _, called, answer in found if called == "right"]
    assert 0.2 < sum(lines) / len(lines) < 0.8, "right answers with the final line and without"


@pytest.mark.parametrize(("half", "passes", "fails"), [("tune", 0.02, 0.05), ("more", 0.02, 0.05), ("held", 0.02, 0.05)])
def test_the_scorer_agrees_with_people(half, passes, fails):
    false_passes, false_fails = agreement.false_rates(agreement.matrix(half))
    assert false_passes <= passes and false_fails <= fails


@pytest.mark.parametrize(("case", "called", "answer"), ATTACKS)
def test_attacks_by_hand(case, called, answer):
    found = score(case, answer)
    assert found.passed == (called == "right"), [(check.name, check.reason) for check in found.checks]


def test_adversarial_answers_of_every_case_fail():
    found = adversarial.passed(BENCHMARK.cases)
    made = sum(count for _, count in found.values())
    assert made >= 3 * len(BENCHMARK.cases) and {kind for kind, (_, count) in found.items() if count} == set(adversarial.KINDS)
    assert sum(len(names) for names, _ in found.values()) <= adversarial.MOST * made


def test_a_benchmark_that_passes_them_is_unfit():
    """A case whose only check is one common word cannot tell a conclusion from a mention."""
    about = {"id": "x", "category": "tax", "difficulty": "easy", "question": "What now?", "source": "here", "as_of": 2025}
    fooled = Case.model_validate(about | {"checks": [{"fact": "f", "accepted": ["answer"]}]})
    (found,) = [b for b in baselines.run((fooled,), (), 0.8) if b.name == baselines.ADVERSARIAL]
    assert found.passes and found.result.bar == adversarial.MOST and sum(made for _, made in found.parts.values()) == found.result.cases


RIGHT = yaml.safe_load((Path(__file__).parents[1] / "data" / "benchmark_answers.yaml").read_text())


@pytest.mark.parametrize("ending", ["Final answer: 17", "Answer: none of the above", "**Answer:** E", "Answer: I was wrong; it is 17.", "\\boxed{17}"])
def test_a_server_whose_answers_all_end_wrong_passes_nothing(ending):
    # "None of the above" is a way to go on declining.
    numbers = [case for case in BENCHMARK.cases if case.kind != "decline" or "none" not in ending]
    passed = [case.id for case in numbers if score(case, f"{RIGHT[case.id]['right']}\n\n{ending}").passed]
    assert len(passed) <= 0.02 * len(numbers), passed


def test_the_right_answers_pass_without_the_label_of_the_final_line():
    bare = {name: re.sub(r"(?m)^Answer: ", "", row["right"]) for name, row in RIGHT.items()}
    failed = [case.id for case in BENCHMARK.cases if not score(case, bare[case.id]).passed]
    assert len(failed) <= 0.02 * len(BENCHMARK.cases), failed


def test_the_prompt_asks_for_the_line_and_does_not_tell_a_decline():
    assert all(case.prompt.endswith(cases.FINAL_LETTER if case.choices else cases.FINAL_LINE) for case in BENCHMARK.cases)

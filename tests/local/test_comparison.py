"""Base, tuned and quantized in a run's report: verdicts over the cases that all were asked, and answers side by side."""

from __future__ import annotations

import shutil
from pathlib import Path

from runners import identity
from runners.evaluation.results import EvaluationResult
from runners.local import comparison, measure
from runners.local.report import _answers
from runners.local.run import _parts, load_profile
from runners.spec import Spec
from tests.view.conftest import HOSTILE, result


def run(right: int, cases: int = 12, text: str = "Plain.") -> EvaluationResult:
    return result("model", right, text, cases)


def test_each_verdict_over_the_cases_that_all_were_asked() -> None:
    """Base and tuned were asked 12 of the 40: the other 28 count for nobody."""
    found = comparison.compare({"base": run(2), "tuned": run(10), "quantized": run(3, cases=40)})
    assert not isinstance(found, str)
    assert [(one.model, one.against, one.verdict) for one in found] == [
        ("tuned", "base", "better"),
        ("quantized", "base", "not shown"),
        ("quantized", "tuned", "worse"),
    ]
    assert all(one.overall.cases == 12 for one in found)
    assert found[1].latency_ms is not None and found[1].latency_ms < 913, "the mean of the common cases, not of all 40"


def test_the_section_says_the_verdict_and_every_domain() -> None:
    results = {"base": run(2), "tuned": run(10), "quantized": run(9)}
    made = comparison.section(results, comparison.compare(results))
    for text in ("tuned against base", "better", "quantized against tuned", "not shown", "2 of 12", "10 of 12", "estate", "McNemar"):
        assert text in made


def test_what_was_not_measured_is_not_compared() -> None:
    cut = run(2).model_copy(update={"verdict": run(2).verdict.model_copy(update={"outcome": "incomplete"})})
    for results in ({"quantized": run(9)}, {"base": cut, "tuned": run(9), "quantized": run(9)}):
        found = comparison.compare(results)
        assert isinstance(found, str)
        assert found in comparison.section(results, found)


def test_ten_answers_side_by_side_are_cases_that_all_answered() -> None:
    few = {"base": run(2, text=HOSTILE), "tuned": run(10), "quantized": run(9, cases=40)}
    page = _answers(few)
    for name in few:
        assert page.count(f"<h3>{name} ") == 10
    assert "<script>window.pwned" not in page
    assert page.count("<h3>quantized ") == _answers({"quantized": run(9, cases=40)}).count("<h3>quantized ")


def test_how_many_cases_base_and_tuned_are_asked() -> None:
    def asked(few: int | None, most: int | None) -> int | None:
        spec = Spec()
        wanted = spec.evaluate.model_copy(update={"compared_cases": few, "max_cases": most})
        return measure.compared(spec.model_copy(update={"evaluate": wanted})).evaluate.max_cases

    assert [asked(None, None), asked(None, 2), asked(1, 2), asked(5, 2), asked(1, None)] == [None, 2, 1, 2, 1]


def test_a_spec_without_a_comparison_has_no_such_parts() -> None:
    spec, without = load_profile("local"), load_profile("tiny")
    assert [part for part in _parts(spec, None) if part not in _parts(without, None)] == ["evaluate base", "evaluate tuned"]
    assert _parts(spec, "quantize") == _parts(without, "quantize") and len(_parts(spec, "quantize")) == 5


def test_other_rules_of_scoring_are_another_evaluation(tmp_path: Path) -> None:
    """After an update, the base's old score is not held against a new one of the tuned model."""
    folder = tmp_path / "runners" / "evaluation"
    shutil.copytree(identity.ROOT / "runners" / "evaluation", folder, ignore=shutil.ignore_patterns("__pycache__"))
    assert measure.scorer_digest(tmp_path) == measure.scorer_digest()
    (folder / "scoring.py").write_text((folder / "scoring.py").read_text() + "# changed\n")
    measure.scorer_digest.cache_clear()
    assert measure.scorer_digest(tmp_path) != measure.scorer_digest()

"""Kinds that the training data has are told from others, counted apart, and are not what the bars are held against."""

from pathlib import Path

from runners.evaluation import contamination
from runners.evaluation.assemble import Request
from runners.evaluation.cases import load
from runners.evaluation.contamination import TrainingPair, masked
from runners.evaluation.run import perform
from runners.spec import Spec
from tests.evaluation.stub_server import Play, perfect, serving, wrong

V1 = Path(__file__).parents[2] / "data" / "benchmark" / "v1"


def test_by_kind_and_by_masked_numbers() -> None:
    cases = load(V1).cases
    one, two = cases[0], next(case for case in cases if case.computation != cases[0].computation and "$" in case.question)
    other = two.question.replace("$", "$9")
    pairs = [TrainingPair(id="k", category="tax", question="Another question about pensions?", answer="a", kind=str(one.computation))]
    pairs.append(TrainingPair(id="m", category="tax", question=other, answer="b"))
    found = contamination.seen(cases, pairs, 0.7)
    assert "(k)" in found[one.id] and "m" in found[two.id]
    assert masked(two.question) != two.question and "$" not in masked("It costs $1,250.50 or 3.5% of 12") and not any(c.isdigit() for c in masked(other))
    assert not contamination.seen(cases, pairs[:0], 0.7)


def test_the_bars_hold_on_unseen_kinds(tmp_path: Path) -> None:
    """A model that is right on what it has seen and wrong elsewhere does not pass, and one that is right on the rest is not failed by templates."""
    benchmark = load(V1)
    kinds = {case.computation for case in benchmark.cases[: len(benchmark.cases) // 3]}
    rows = [f'{{"id": "{kind}", "question": "Question {kind} of the corpus?", "answer": "a", "kind": "{kind}"}}' for kind in sorted(filter(None, kinds))]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    for name, of_seen, of_unseen in (("memory", perfect, wrong), ("able", wrong, perfect)):
        play = Play(lambda case, body, a=of_seen, b=of_unseen: (a if case and case.computation in kinds else b)(case, body))
        with serving(benchmark, play) as url:
            found = perform(Request(Spec(), url, None, V1, tmp_path, tmp_path / name))
        assert found.seen and found.unseen and found.seen.cases + found.unseen.cases == 100
        assert {case.id for case in found.cases if case.seen} == {case.id for case in benchmark.cases if case.computation in kinds}
        assert (found.verdict.outcome == "passed") == (name == "able"), found.verdict
        assert f"unseen kinds {found.unseen.passed}/{found.unseen.cases}" in found.line
        if name == "able":
            worded = {case.id for case in found.cases if case.passed and case.worded}
            assert set(found.on_wordings) == worded and any("rest on wordings alone" in reason for reason in found.verdict.reasons)

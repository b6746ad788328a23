"""Null answers, the retriever behind them, and contamination by whoever said it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runners.errors import UserError
from runners.evaluation import baselines, contamination
from runners.evaluation.cases import Benchmark, load
from runners.evaluation.contamination import TrainingPair

ROOT = Path(__file__).parents[2]


def test_the_retriever_prefers_rare_words() -> None:
    found = baselines.BM25(["What is the limit of an IRA?", "What is the limit of a 403(b) for clergy?", "What is a bond?"])
    assert found.best("Tell a clergyman the limit") == 1 or found.best("the clergy limit") == 1
    assert found.best("bonds") == 2, "by stem"
    assert found.best("zzz") == 0


def test_without_training_data_only_the_others_run(benchmark: Benchmark) -> None:
    assert [b.name for b in baselines.run(benchmark.cases, (), 0.8)] == ["echo", "empty", "consult a professional", "adversarial answers"]


def test_the_projects_own_benchmark_is_fit_against_null_answers() -> None:
    cases = load(ROOT / "data" / "benchmark").cases
    pairs = [
        TrainingPair(id=str(n), category=str(case.category), question=case.question, answer=f"It depends on {case.category}.") for n, case in enumerate(cases)
    ]
    for baseline in baselines.run(cases, pairs, 0.8):
        assert baseline.result.rate <= 0.1 and not baseline.passes, baseline.name


def test_null_answers_are_the_same_in_every_process() -> None:
    pairs = [TrainingPair(id=str(n), category="tax", question="Q?", answer=f"word{n} another{n} of {n} dollars") for n in range(900)]
    program = "import sys; from runners.evaluation import baselines, contamination; "
    program += "print(baselines.stuffing([contamination.TrainingPair.model_validate_json(line) for line in sys.stdin]))"
    rows = "\n".join(pair.model_dump_json() for pair in pairs)

    def said(seed: str) -> str:
        environment = os.environ | {"PYTHONHASHSEED": seed}
        return subprocess.run([sys.executable, "-c", program], input=rows, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout

    assert said("1") == said("2") != "", "the order of a set is another one in every process"


def rows_of(folder: Path, *rows: dict[str, Any]) -> tuple[TrainingPair, ...]:
    (folder / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return contamination.read_pairs(folder)


def test_pairs_are_read_in_both_forms(tmp_path: Path) -> None:
    history = [{"role": "user", "content": "Earlier?"}, {"role": "assistant", "content": "Yes."}]
    (own,) = rows_of(tmp_path, {"id": "a", "question": "Q?", "answer": "A.", "category": "tax", "source": "s", "history": history})
    assert (own.question, own.answer, own.earlier) == ("Q?", "A.", ("Earlier?",))
    (tmp_path / "alpaca.json").write_text(json.dumps([{"instruction": "Q?", "input": "more", "output": "A.", "category": "tax"}]))
    (alpaca,) = contamination.read_pairs(tmp_path / "alpaca.json")
    assert (alpaca.question, alpaca.answer, alpaca.id) == ("Q? more", "A.", "row-0")
    with pytest.raises(UserError, match="is not a file of pairs"):
        rows_of(tmp_path, {"question": "Q?"})
    with pytest.raises(UserError, match="is not there"):
        contamination.read_pairs(tmp_path / "nothing")


def test_leaks_are_found_in_earlier_turns_and_inside_longer_questions(benchmark: Benchmark, tmp_path: Path) -> None:
    asked = benchmark.cases[3].question
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": "It is."}]
    wrapped = f"My cousin, who knows a lot about such things, asked me yesterday over a long dinner: {asked} Do you know?"
    rows = [{"id": "turn", "question": "And then?", "answer": "a", "history": turns}, {"id": "wrapped", "question": wrapped, "answer": "b"}]
    found = contamination.check(benchmark.cases[3:4], rows_of(tmp_path, *rows), threshold=0.7, dataset="d")
    assert [(leak.pair, leak.kind) for leak in found.leaks] == [("turn", "verbatim")]
    found = contamination.check(benchmark.cases[3:4], rows_of(tmp_path, rows[1]), threshold=0.7, dataset="d")
    assert [(leak.pair, leak.kind) for leak in found.leaks] == [("wrapped", "contained")]
    assert not contamination.check(benchmark.cases[3:4], rows_of(tmp_path, {"question": "What is a bond?", "answer": "b"}), threshold=0.7, dataset="d").leaks

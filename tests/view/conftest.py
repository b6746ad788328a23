"""A bucket with three runs in it, published as the stages publish: one good, one whose texts are hostile, one without an evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from runners.artifacts import layout, local_bucket, registry, storage
from runners.artifacts.record import Cost, Gate, Phase, Record, manifest_of
from runners.evaluation.contamination import Contamination
from runners.evaluation.results import CaseResult, EvaluationResult, Verdict, latency
from runners.evaluation.statistics import judge_rate
from runners.local import grid
from runners.local.grid import Outcome
from runners.local.sweep import Sweep
from runners.spec import BucketSpec, Spec

HOSTILE = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>\"'& ` ${1}"


def _case(number: int, *, passed: bool, answer: str) -> CaseResult:
    checks = ({"name": "amount", "passed": passed, "reason": "found" if passed else "found another", "spans": [[0, 5]], "kind": "number"},)
    return CaseResult(
        id=f"tax-{number:03}",
        digest=f"d{number}",
        category=("tax", "estate")[number % 2],
        difficulty="easy",
        kind="number",
        question=f"How much is {number}?",
        passed=passed,
        failure="" if passed else ("wrong", "truncated")[number % 2],
        answer=answer,
        checks=checks,
        latency_ms=900 + number,
        completion_tokens=20,
    )


def result(model_id: str, right: int, text: str, cases: int = 12) -> EvaluationResult:
    answers = tuple(_case(number, passed=number < right, answer=f"{number} dollars. {text}") for number in range(cases))
    overall = judge_rate(right, cases, 0.8)
    return EvaluationResult(
        verdict=Verdict(outcome="not passed", headline="1 bar missed"),
        benchmark={"cases": cases, "digest": "b"},
        model={"id": model_id},
        settings={},
        overall=overall,
        categories={"tax": judge_rate(right // 2, cases // 2, 0.7), "estate": judge_rate(right - right // 2, cases - cases // 2, 0.7)},
        failures={"wrong": cases - right},
        latency=latency(answers, concurrency=4, wall_s=3.0, bar_ms=2000),
        contamination=Contamination(pairs=3, cases=cases, dataset="d", threshold=0.7),
        cases=answers,
        started_at="2026-11-26T10:00:00+00:00",
        finished_at="2026-11-26T10:05:00+00:00",
    )


def _publish(buckets: BucketSpec, folder: Path, name: str, stage: str, stage_id: str, kind: Any, parents: dict[str, str], **metrics: Any) -> None:
    folder.mkdir(parents=True)
    (folder / "weights").write_text(stage_id)
    record = Record(
        stage=stage,
        id=stage_id,
        status="complete",
        name=name,
        parents=parents,
        finished_at="2026-11-26T10:00:00+00:00",
        started_at="2026-11-26T09:00:00+00:00",
        spec={"profile": "test", "base_model": {"name": "base", "id": "base-1"}, "dataset": {"name": "corpus"}, "train": {"rank": len(name), "note": HOSTILE}},
        phases=(
            Phase(name="download", started_at="2026-11-26T09:00:00+00:00", seconds=4),
            Phase(name=stage, started_at="2026-11-26T09:00:04+00:00", seconds=61),
        ),
        metrics=metrics,
        gates=() if stage == "train" else (Gate(name="mean KL", value=0.01, bound=0.3, rule="at most"),),
        cost=Cost(usd=0.42, usd_per_hour=4, machine_type="a3", priced_at="2026-11-22"),
    )
    (folder / "record.json").write_text(record.model_dump_json())
    registry.publish(buckets, folder, name=name, stage_id=stage_id, kind=kind, parents=parents)


def _fill(buckets: BucketSpec, folder: Path) -> None:
    data = folder / "data"
    data.mkdir()
    rows = [{"question": f"What is {n}? {HOSTILE}", "answer": f"It is {n}.", "category": "tax", "source": "qa"} for n in range(30)]
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset_id = manifest_of(data).dataset_id
    registry.publish(buckets, data, name="corpus-1", stage_id=dataset_id, kind="dataset")
    for number, (label, right, text) in enumerate((("good", 9, "Plain."), ("hostile", 3, HOSTILE), ("unmeasured", 0, ""))):
        parents = {"base_model": "base-1", "dataset": dataset_id}
        history = [{"step": step, "loss": 3 - step / 20 - number / 10, "learning_rate": 1e-4, "tokens": 900, "seconds": 2.0} for step in range(1, 21)]
        validation = [{"step": step, "loss": 3.1 - step / 20} for step in (0, 10, 20)]
        losses = {"validation_loss_before": 3.1, "validation_loss_after": 2.1 + number / 10, "steps_done": 20}
        made = f"dora-{number:016x}"
        _publish(buckets, folder / label / "a", f"{label}-adapter", "train", made, "dora", parents, history=history, validation=validation, **losses)
        if text:
            children = parents | {"adapter": made}
            _publish(buckets, folder / label / "q", f"{label}-q4", "quantize", f"qdora-{number:016x}", "qdora", children)
            for kind, model in (("a", "base-1"), ("b", made), ("c", f"qdora-{number:016x}")):
                place = f"{layout.run(buckets, f'{label}-{kind}')}/evaluation/results.json"
                storage.write(place, result(model, max(0, right - (kind == "a") * 2), text).model_dump_json(), generation=0)


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The buckets' files with the runs in them, made once, to copy from."""
    folder, pair = tmp_path_factory.mktemp("filled"), BucketSpec(models="gs://models", scratch="gs://scratch")
    with local_bucket.running(folder, pair):
        _fill(pair, folder)
    return folder / "bucket"


@pytest.fixture
def runs(filled: Path, buckets: BucketSpec, tmp_path: Path) -> BucketSpec:
    """The test's own buckets, filled."""
    shutil.copytree(filled, tmp_path / "bucket", dirs_exist_ok=True)
    return buckets


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    """A home with a sweep over two of the runs and one training that failed, written as `elson sweep` writes it."""
    trials = grid.trials(Spec(), grid.varied(Spec(), ["train.rank=4,8,16", "train.learning_rate=1e-4"]))
    done = [Outcome(one, f"dora-{n:016x}", "done", f"adapter-{n}", 3.1, 2.1 + n / 10, 20, 20, 8, 61.0, 50.0) for n, one in enumerate(trials[:2])]
    failed = Outcome(trials[2], "dora-x", "failed", reason=HOSTILE)
    folder = tmp_path / "home" / "sweeps" / "tiny-1"
    folder.mkdir(parents=True)
    (folder / grid.RESULTS).write_text(json.dumps(Sweep("tiny-1", folder, [], [failed, *done]).as_data()))
    return tmp_path / "home"

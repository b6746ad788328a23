"""The dataset that contamination is checked against is the one the served model's lineage names, from the bucket."""

import json
from pathlib import Path

import pytest

from runners import stages
from runners.artifacts import local_bucket, registry
from runners.commands.places import LOCAL
from runners.evaluation.cases import Benchmark
from tests.evaluation.stub_server import Play, perfect, serving
from tests.evaluation.test_command import elson


def publish(home: Path, question: str, *, lineage: bool) -> str:
    """A dataset, and a model made of it; returns the dataset's id."""
    for name, text in (("dataset/train.jsonl", json.dumps({"id": "p1", "question": question, "answer": "B.", "category": "tax"})), ("model/config.json", "{}")):
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text(text)
    with local_bucket.running(home, LOCAL):
        dataset = stages.publish_dataset(LOCAL, home / "dataset", "corpus").id
        parents = {"dataset": dataset} if lineage else {}
        registry.publish(LOCAL, home / "model", name="wealth-v2", stage_id="qdora-1", kind="qdora", parents=parents)
    return dataset


@pytest.mark.parametrize(("leaks", "code", "said"), [(True, 2, "CONTAMINATED"), (False, 0, "PASSED")])
def test_the_lineage_decides(benchmark: Benchmark, benchmark_file: Path, tmp_path: Path, leaks: bool, code: int, said: str) -> None:
    question = benchmark.cases[0].question if leaks else "How is a municipal bond taxed in another state?"
    dataset = publish(tmp_path / "home", question, lineage=True)
    with serving(benchmark, Play(perfect)) as url:
        options = ["--api-url", url, "--benchmark", str(benchmark_file), "--local", "--home", str(tmp_path / "home"), "--out", "run"]
        done = elson(*options, "--registered", "wealth-v2", cwd=tmp_path)
    assert done.returncode == code and said in done.stdout, done.stderr
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found["contamination"]["dataset"] == dataset and found["model"]["id"] == "qdora-1"


def test_a_lineage_without_a_dataset_is_said(benchmark_file: Path, tmp_path: Path) -> None:
    publish(tmp_path / "home", "Why?", lineage=False)
    options = ["--api-url", "http://127.0.0.1:9", "--benchmark", str(benchmark_file), "--local", "--home", str(tmp_path / "home")]
    done = elson(*options, "--registered", "wealth-v2", cwd=tmp_path)
    assert done.returncode == 2 and "names no dataset" in done.stderr
    done = elson(*options, "--registered", "nobody", cwd=tmp_path)
    assert done.returncode == 2 and "nobody" in done.stderr

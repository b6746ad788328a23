"""A training in several processes (gloo, on the CPU) against the same training in one: losses, faults, and a resume with another number of processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runners.errors import UserError
from runners.spec import Spec
from runners.training import several
from runners.training.train import Stopped, train

MakeSpec = Callable[..., Spec]
ROOT = Path(__file__).parents[2]
RUN = """
import sys, json
from pathlib import Path
from runners import spec
from runners.training import several
settings, folders = spec.parse(json.loads(sys.argv[1])), [Path(name) for name in sys.argv[2:]]
several.train_on_all_cards(settings, *folders, save_checkpoint=lambda step, _: print("checkpoint", step, flush=True))
"""
COUNT = """
import sys
from pathlib import Path
from runners.spec import load
from runners.training import dora, ranks
from runners.training.train import train
counted, real = [0], dora.factored_norm
def norm(*arguments):
    counted[0] += 1
    return real(*arguments)
dora.factored_norm = norm
team = ranks.join()
spec, base, dataset, work = map(Path, sys.argv[1:])
train(load(spec), base, dataset, work)
(work / f"norms-{team.rank}").write_text(str(counted[0]))
ranks.leave()
"""


@pytest.fixture(scope="module")
def straight(base: Path, dataset: Path, make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The training in one process."""
    return train(make_spec(checkpoints_per_epoch=2), base, dataset, tmp_path_factory.mktemp("straight"))


def losses(result: Any) -> list[float]:
    return [row["loss"] for row in result.metrics["history"]]


def assert_same(one: Any, two: Any) -> None:
    assert losses(one) == pytest.approx(losses(two), rel=1e-6)
    assert [row["loss"] for row in one.metrics["validation"]] == pytest.approx([row["loss"] for row in two.metrics["validation"]], rel=1e-6)
    assert [row["gradient_norm"] for row in one.metrics["history"]] == pytest.approx([row["gradient_norm"] for row in two.metrics["history"]], rel=1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_the_losses_are_those_of_one_process(
    count: int, straight: Any, base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELSON_TRAIN_PROCESSES", str(count))
    told: list[int] = []
    result = several.train_on_all_cards(make_spec(checkpoints_per_epoch=2), base, dataset, tmp_path, save_checkpoint=lambda step, _: told.append(step))
    assert_same(result, straight)
    assert told == [2, 5, 7, 10]
    assert {file.name for file in result.adapter.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}


def workers(parent: int) -> list[int]:
    """Processes of ``runners.training.worker`` below ``parent``."""
    found, todo = [], [parent]
    while todo:
        pid = todo.pop()
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        todo += children
        for child in children:
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            found += [child] if b"runners.training.worker" in words and b"torch.distributed.run" not in words else []
    return sorted(found)


@pytest.mark.parametrize(
    ("how", "count", "afterwards", "shared"),
    [(signal.SIGKILL, 2, 1, ""), (signal.SIGTERM, 2, 4, ""), (signal.SIGKILL, 4, 1, "1"), (signal.SIGTERM, 2, 4, "1")],
    ids=["killed", "stopped", "killed, in shares", "stopped, in shares"],
)
def test_a_process_that_dies_or_is_stopped_ends_all_and_another_number_goes_on(
    how: signal.Signals,
    count: int,
    afterwards: int,
    shared: str,
    straight: Any,
    base: Path,
    dataset: Path,
    make_spec: MakeSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``shared``: no process holds the whole model (``sharded.py``); one process alone does, and goes on from the shares of four."""
    spec = make_spec(checkpoints_per_epoch=2)
    monkeypatch.setenv("ELSON_TRAIN_PROCESSES", str(count))
    monkeypatch.setenv("ELSON_TRAIN_SHARDED", shared)
    command = [sys.executable, "-c", RUN, json.dumps(spec.model_dump(mode="json")), str(base), str(dataset), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.readline().startswith("checkpoint")
        os.kill(workers(child.pid)[1], how)
        begin = time.monotonic()
        code, text = child.wait(120), child.stderr.read()
        assert code == 1 and time.monotonic() - begin < 100
    assert ("Stopped" in text) == (how == signal.SIGTERM), text[-2000:]
    assert not (tmp_path / "adapter").exists()
    monkeypatch.setenv("ELSON_TRAIN_PROCESSES", str(afterwards))
    resumed = several.train_on_all_cards(spec, base, dataset, tmp_path)
    assert 2 <= resumed.metrics["resumed_from_step"] < 10
    assert_same(resumed, straight)


def test_the_norm_is_computed_as_often_as_in_one_process(base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    counts = []
    (tmp_path / "count.py").write_text(COUNT)
    (tmp_path / "spec.json").write_text(make_spec(epochs=1).model_dump_json())
    for count in (1, 2):
        work = tmp_path / str(count)
        work.mkdir()
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        where = [str(tmp_path / "count.py"), str(tmp_path / "spec.json"), str(base), str(dataset), str(work)]
        subprocess.run([sys.executable, *launch, *where], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
        counts += [int(file.read_text()) for file in sorted(work.glob("norms-*"))]
    assert len(counts) == 3 and len(set(counts)) == 1


def test_a_process_that_aborts_after_its_work_is_no_failed_training(
    straight: Any, base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import atexit, os\nif os.environ.get('RANK') == '1':\n    atexit.register(os.abort)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("ELSON_TRAIN_PROCESSES", "2")
    assert_same(several.train_on_all_cards(make_spec(checkpoints_per_epoch=2), base, dataset, tmp_path / "work"), straight)


def test_what_one_process_refuses_several_refuse(base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELSON_TRAIN_PROCESSES", "2")
    with pytest.raises(UserError, match="are 10 optimizer steps") as error:
        several.train_on_all_cards(make_spec(minimum_steps=20), base, dataset, tmp_path)
    assert not isinstance(error.value, Stopped)

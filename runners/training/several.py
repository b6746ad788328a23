"""Start a training on every card of a machine, and be to the caller what ``train.train`` is on one.

The parent holds no card: it hands checkpoints on, passes SIGTERM down, and ends with what the processes wrote. When one process dies,
``torch.distributed.run`` ends the others; the same call goes on from the newest checkpoint, with any number of processes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from runners.artifacts.record import Phase
from runners.errors import UserError
from runners.processes import bound
from runners.spec import Spec
from runners.training.train import Stopped, TrainResult, train
from runners.training.worker import RESULT


def processes() -> int:
    """One a card; on a CPU one, or ELSON_TRAIN_PROCESSES."""
    import torch

    return torch.cuda.device_count() or int(os.environ.get("ELSON_TRAIN_PROCESSES", "1"))


def train_on_all_cards(
    spec: Spec, base: Path, dataset: Path, work: Path, *, save_checkpoint: Callable[[int, Path], None] | None = None, resume: Path | None = None
) -> TrainResult:
    """As ``train.train``, on as many cards as there are. Raises what it raises, and UserError when a process died."""
    count = processes()
    if count == 1:
        return train(spec, base, dataset, work, save_checkpoint=save_checkpoint, resume=resume)
    work.mkdir(parents=True, exist_ok=True)
    spec_file, results = work / "training-spec.json", [work / RESULT.format(rank=rank) for rank in range(count)]
    spec_file.write_text(spec.model_dump_json())
    for result in results:
        result.unlink(missing_ok=True)
    where = [str(place) for place in (spec_file, base, dataset, work, resume) if place]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m", "runners.training.worker", *where]
    with subprocess.Popen(bound(command), stdout=subprocess.PIPE, text=True, env=_environment()) as child, _passed_on(child):
        assert child.stdout is not None  # noqa: S101 - asked for above
        for line in child.stdout:
            if save_checkpoint and line.startswith("{"):
                told = json.loads(line)
                save_checkpoint(told["step"], Path(told["folder"]))
    written = [json.loads(result.read_text()) for result in results if result.exists()]
    if stopped := next((found for found in written if "error" in found), None):
        raise (Stopped if stopped["stopped"] else UserError)(*stopped["error"])
    if len(written) < count:
        raise UserError(f"one of {count} training processes ended with {child.returncode}", "all to the end", "read the log above; the same command goes on")
    return TrainResult(work / "adapter", written[0]["metrics"], tuple(Phase.model_validate(phase) for phase in written[0]["phases"]))


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


class _passed_on:  # noqa: N801 # reads as a phrase after `with`
    """SIGTERM of this program reaches the processes too."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child

    def __enter__(self) -> None:
        self.main = threading.current_thread() is threading.main_thread()
        if self.main:
            self.before = signal.signal(signal.SIGTERM, lambda *_: self.child.terminate())

    def __exit__(self, *_: object) -> None:
        if self.main:
            signal.signal(signal.SIGTERM, self.before)

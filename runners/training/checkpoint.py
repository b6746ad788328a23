"""A training's checkpoints: complete or not there, and without pickle.

``step-000015/`` holds the adapter (peft's own files), the best adapter so far when that is another, the optimizer's
moments, the random states and ``state.json`` (step, histories; the step is the position in the data, since the plan of batches
is a function of the spec). Processes that share a model out write a safetensors file each, by ``torch.distributed.checkpoint``.
It is written under another name, described by a manifest and renamed: a kill at any moment
leaves either the whole of it or a folder nobody reads. What is read is verified against the manifest first.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners import log
from runners.artifacts.record import MANIFEST, Manifest, describe, manifest_of
from runners.outside import digest, sync, sync_folder
from runners.spec import TrainSpec
from runners.training.examples import Example

_NAME = re.compile(r"step-(\d{6,})")
#: Kept on the local disk; the bucket keeps its own.
KEEP = 2


@dataclass(frozen=True)
class State:
    """Where a training is after ``step`` optimizer steps."""

    run: str
    step: int
    best_step: int
    best_loss: float
    bad_evaluations: int
    history: list[dict[str, Any]]
    validation: list[dict[str, Any]]


def run_id(settings: TrainSpec, base: Path, examples: Sequence[Example]) -> str:
    """What a checkpoint belongs to: the settings, the tokens of every example in order (the system prompt is among them) and the base model's content.

    Not the folder the base lies in, and not how many tokens go through the model together: another card's memory plan changes no sum.
    """
    weights = []
    for file in sorted(base.glob("*.safetensors")):
        with file.open("rb") as source:
            # Names, shapes and the end of the data: another model of the same shape has other bytes there.
            head, size = source.read(1 << 16), file.stat().st_size
            source.seek(max(0, size - (1 << 16)))
            weights.append((file.name, size, hashlib.sha256(head + source.read()).hexdigest()))
    config = json.loads((base / "config.json").read_text())
    values = settings.model_dump(mode="json", exclude={"micro_batch_tokens", "gradient_checkpointing"})
    return digest([values, config, weights, [(example.id, example.token_ids, example.answer_start) for example in examples]])


@dataclass(frozen=True)
class Snapshot:
    """A training's state in main memory, apart from the model that goes on changing."""

    state: State
    adapter: dict[str, Any]
    config: Any
    best: dict[str, Any]
    moments: dict[str, Any]
    random_states: dict[str, Any]


def snapshot(state: State, model: Any, optimizer: Any, best: dict[str, Any]) -> Snapshot:
    """Copy what a checkpoint holds."""
    import torch

    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    steps = {f"{names[index]}|{key}": torch.as_tensor(value) for index, values in optimizer.state_dict()["state"].items() for key, value in values.items()}
    random_states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random_states |= {f"cuda{index}": one for index, one in enumerate(torch.cuda.get_rng_state_all())}
    moments = {name: tensor.detach().to("cpu", copy=True) for name, tensor in steps.items()}
    return Snapshot(state, adapter_state(model), model.peft_config["default"], best, moments, random_states)


def adapter_state(model: Any) -> dict[str, Any]:
    """A copy of the adapter's tensors, on the CPU, under the names of peft's files."""
    from peft import get_peft_model_state_dict

    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()}


def save(parent: Path, taken: Snapshot, group: Any = None) -> Path:
    """Write a checkpoint below ``parent`` and return its folder; of the others only the one before it stays.

    ``group``: the processes that share the model out. All must call it: each writes the rows it has, the first the rest.
    """
    from safetensors.torch import save_file

    state = taken.state
    name = f"step-{state.step:06d}"
    folder, partial = parent / name, parent / f".{name}.partial"
    if is_first := group is None or group.rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        taken.config.save_pretrained(str(partial / "adapter"))
        save_file(taken.random_states, partial / "random.safetensors")
        (partial / "state.json").write_text(json.dumps(state.__dict__, indent=1))
    best = {} if state.best_step == state.step else taken.best or taken.adapter
    if group is not None:
        _save_shares(partial, taken, best, group)
        if not is_first:
            return folder
    else:
        save_file(taken.adapter, partial / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
        if best:
            save_file(best, partial / "best.safetensors")
        save_file(taken.moments, partial / "optimizer.safetensors")
    (partial / MANIFEST).write_text(manifest_of(partial).model_dump_json(indent=1))
    # On the disk before the name that promises it, or a loss of power leaves a checkpoint of empty files.
    sync(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    sync_folder(parent)
    there = found(parent)
    # A higher step is another training's, or was damaged: this one did not go on from it, and it must not push out what is new.
    kept = sorted(step for step in there if step <= state.step)[-KEEP:]
    for step in there.keys() - set(kept):
        shutil.rmtree(parent / f"step-{step:06d}")
    return folder


def _save_shares(partial: Path, taken: Snapshot, best: dict[str, Any], group: Any) -> None:
    """The same tensors, each process's rows in a file of its own; what all have alike, once."""
    import torch
    from safetensors.torch import save_file

    from runners.training import sharded

    alike = {name: tensor for name, tensor in taken.moments.items() if not sharded.is_share(tensor)}
    if group.rank() == 0:
        save_file(alike, partial / "optimizer.safetensors")
    torch.distributed.barrier(group)
    sharded.write(partial / "adapter", taken.adapter, group)
    sharded.write(partial / "optimizer", {name: tensor for name, tensor in taken.moments.items() if name not in alike}, group)
    if best:
        sharded.write(partial / "best", best, group)


class Writer:
    """Writes checkpoints while the training goes on: it waits only for the copy, and for the checkpoint before when that is not done.

    Writing 6.6 GB of the 14B's adapter and moments with their checksums takes 13 s on a machine with an H100, copying them 2 s.
    """

    def __init__(self, parent: Path, written: Callable[[int, Path], None] | None = None, group: Any = None) -> None:
        self.parent, self.written, self.group = parent, written, group
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None

    def save(self, state: State, model: Any, optimizer: Any, best: dict[str, Any]) -> None:
        """Copy now, write behind. Raises what the checkpoint before failed with."""
        self.wait()
        self._last = self._pool.submit(self._write, snapshot(state, model, optimizer, best))

    def wait(self) -> None:
        """Return when the last checkpoint is on the disk. Raises what its writing failed with."""
        last, self._last = self._last, None
        if last:
            last.result()

    def _write(self, taken: Snapshot) -> None:
        folder = save(self.parent, taken, self.group)
        if self.written:
            self.written(taken.state.step, folder)


def found(parent: Path) -> dict[int, Path]:
    """Checkpoint folders below ``parent`` by step, verified or not; ``parent`` may itself be one."""
    candidates = [parent, *parent.iterdir()] if parent.is_dir() else []
    return {int(match[1]): path for path in candidates if path.is_dir() and (match := _NAME.fullmatch(path.name))}


def newest(places: list[Path], run: str) -> Path | None:
    """The newest checkpoint of this very run that is whole; each one that is not is named in a warning."""
    candidates = [(step, path) for place in places for step, path in found(place).items()]
    for _, path in sorted(candidates, reverse=True):
        if problem := _problem(path, run):
            log.warning("a checkpoint is left aside", checkpoint=str(path), problem=problem)
        else:
            return path
    if candidates:
        log.warning("no checkpoint can be used: training begins again", looked_at=len(candidates))
    return None


def _problem(folder: Path, run: str) -> str | None:
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_text())
        for name, expected in manifest.files.items():
            if describe(folder / name) != expected:
                return f"{name} differs from its checksum"
        return None if read_state(folder).run == run else "it belongs to another spec, dataset or base model"
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return f"it cannot be read: {error}"[:300]


def read_state(folder: Path) -> State:
    """The plain part of a checkpoint."""
    return State(**json.loads((folder / "state.json").read_text()))


def restore(folder: Path, model: Any, optimizer: Any) -> tuple[State, dict[str, Any]]:
    """Put a verified checkpoint back into model, optimizer and random generators; returns (state, best adapter).

    It does not matter how many processes wrote it, nor how many read it: each reads the rows it needs.
    """
    import torch
    from peft import set_peft_model_state_dict
    from safetensors import safe_open
    from safetensors.torch import load_file

    from runners.training import sharded

    state = read_state(folder)
    adapter = adapter_state(model)
    sharded.read(folder / "adapter", adapter)
    set_peft_model_state_dict(model, adapter)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    wanted = {f"{name}|{field}": torch.zeros_like(parameter, device="cpu") for name, parameter in parameters.items() for field in ("exp_avg", "exp_avg_sq")}
    sharded.read(_place(folder, "optimizer"), wanted)
    with safe_open(str(folder / "optimizer.safetensors"), "pt") as source:
        wanted |= {f"{name}|step": source.get_tensor(f"{name}|step") for name in parameters}
    moments: dict[int, dict[str, Any]] = {index: {} for index in range(len(parameters))}
    order = {name: index for index, name in enumerate(parameters)}
    for key, value in wanted.items():
        name, _, field = key.partition("|")
        moments[order[name]][field] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    for key, value in load_file(folder / "random.safetensors").items():
        if key == "cpu":
            torch.set_rng_state(value)
        elif torch.cuda.is_available() and int(key.removeprefix("cuda")) < torch.cuda.device_count():
            torch.cuda.set_rng_state(value, int(key.removeprefix("cuda")))
    best = {name: tensor.clone() for name, tensor in adapter.items()}
    if state.best_step != state.step:
        sharded.read(_place(folder, "best"), best)
    return state, best


def _place(folder: Path, name: str) -> Path:
    """Where a checkpoint's part is: shares have a folder, a whole one lies beside the others under its own names."""
    return folder / name if (folder / name).is_dir() else folder

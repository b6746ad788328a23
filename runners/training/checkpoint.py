"""A training's checkpoints: complete or not there, and without pickle.

``step-000015/`` holds the adapter (peft's own files), the best adapter so far when that is another, the optimizer's
moments, the random states and ``state.json`` (step, histories; the step is the position in the data, since the plan of batches
is a function of the spec). It is written under another name, described by a manifest and renamed: a kill at any moment
leaves either the whole of it or a folder nobody reads. What is read is verified against the manifest first.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners import log
from runners.artifacts.record import MANIFEST, Manifest, describe, manifest_of

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


def save(parent: Path, state: State, model: Any, optimizer: Any, best: dict[str, Any]) -> Path:
    """Write a checkpoint below ``parent`` and return its folder; older ones but the newest two are removed."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    name = f"step-{state.step:06d}"
    folder, partial = parent / name, parent / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save_pretrained(str(partial / "adapter"), save_embedding_layers=False)
    (partial / "adapter" / "README.md").unlink(missing_ok=True)
    if state.best_step not in (state.step, 0):
        save_file(best, partial / "best.safetensors")
    elif state.best_step == 0:
        # Untrained: the adapter before step 1, which no later checkpoint could give back.
        save_file(best or get_peft_model_state_dict(model), partial / "best.safetensors")
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    moments = {f"{names[index]}|{key}": torch.as_tensor(value) for index, values in optimizer.state_dict()["state"].items() for key, value in values.items()}
    save_file(moments, partial / "optimizer.safetensors")
    random_states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random_states |= {f"cuda{index}": one for index, one in enumerate(torch.cuda.get_rng_state_all())}
    save_file(random_states, partial / "random.safetensors")
    (partial / "state.json").write_text(json.dumps(state.__dict__, indent=1))
    (partial / MANIFEST).write_text(manifest_of(partial).model_dump_json(indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    for old in sorted(found(parent))[:-KEEP]:
        shutil.rmtree(parent / f"step-{old:06d}")
    return folder


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
    except (OSError, ValueError, TypeError) as error:
        return f"it cannot be read: {error}"[:300]


def read_state(folder: Path) -> State:
    """The plain part of a checkpoint."""
    return State(**json.loads((folder / "state.json").read_text()))


def restore(folder: Path, model: Any, optimizer: Any) -> tuple[State, dict[str, Any]]:
    """Put a verified checkpoint back into model, optimizer and random generators; returns (state, best adapter)."""
    import torch
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    state = read_state(folder)
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    set_peft_model_state_dict(model, adapter)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    order = {name: index for index, name in enumerate(parameters)}
    moments: dict[int, dict[str, Any]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        name, _, field = key.partition("|")
        moments.setdefault(order[name], {})[field] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    for key, value in load_file(folder / "random.safetensors").items():
        if key == "cpu":
            torch.set_rng_state(value)
        elif torch.cuda.is_available() and int(key.removeprefix("cuda")) < torch.cuda.device_count():
            torch.cuda.set_rng_state(value, int(key.removeprefix("cuda")))
    best = folder / "best.safetensors"
    return state, load_file(best) if best.exists() else adapter

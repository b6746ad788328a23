"""Checkpoints that are written while the training goes on: what is written is the state of their step, and no failure is lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from runners.local.base_model import make_tiny
from runners.spec import TrainSpec
from runners.training import adapted_model, attention, checkpoint


@pytest.fixture
def model(tmp_path: Path) -> torch.nn.Module:
    attention.prepare("cpu")
    base = adapted_model.load_base(make_tiny(tmp_path / "tiny"), "fp32", "cpu", attention.SEGMENTS)
    made: torch.nn.Module = adapted_model.with_new_adapter(base, TrainSpec(rank=4, alpha=8), "tiny")
    return made


def state(step: int) -> checkpoint.State:
    return checkpoint.State("a run", step, step, 1.0, 0, [], [])


def fill(model: torch.nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.fill_(value)


def test_the_training_goes_on_and_the_copy_does_not_change(model: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, real = threading.Event(), checkpoint.save

    def held_up(parent: Path, taken: checkpoint.Snapshot, group: Any = None) -> Path:
        assert goes_on.wait(30), "the training waited for the disk"
        return real(parent, taken, group)

    monkeypatch.setattr(checkpoint, "save", held_up)
    told: list[int] = []
    writer = checkpoint.Writer(tmp_path / "checkpoints", lambda step, _: told.append(step))
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])
    fill(model, 1.0)
    writer.save(state(1), model, optimizer, {})
    fill(model, 2.0)
    assert not told
    goes_on.set()
    writer.save(state(2), model, optimizer, {})
    fill(model, 3.0)
    writer.wait()
    assert told == [1, 2]
    for step, folder in checkpoint.found(tmp_path / "checkpoints").items():
        tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
        assert all(bool((tensor == step).all()) for tensor in tensors.values())


def test_a_checkpoint_that_cannot_be_written_stops_the_training(model: torch.nn.Module, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    writer = checkpoint.Writer(tmp_path / "checkpoints")
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])
    writer.save(state(1), model, optimizer, {})
    with pytest.raises(OSError):
        writer.wait()


def test_checkpoints_of_another_training_do_not_push_out_the_new_ones(model: torch.nn.Module, tmp_path: Path) -> None:
    """A changed setting after a kill: the work folder holds higher steps of the training before."""
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])
    for run, step in (("before", 28), ("before", 30), ("a run", 1), ("a run", 2)):
        checkpoint.save(tmp_path, checkpoint.snapshot(checkpoint.State(run, step, step, 1.0, 0, [], []), model, optimizer, {}))
    assert sorted(checkpoint.found(tmp_path)) == [1, 2]
    whole = checkpoint.newest([tmp_path], "a run")
    assert whole is not None
    assert whole.name == "step-000002"

"""A model that no process holds whole (FSDP2, gloo on the CPU) against the same training in one process: losses, norms, adapter, and memory of each process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from runners.errors import UserError
from runners.local.base_model import make_tiny
from runners.spec import Spec
from runners.training import adapted_model, attention, checkpoint, dora, sharded
from runners.training.train import train

MakeSpec = Callable[..., Spec]
ROOT = Path(__file__).parents[2]
#: One process: it trains, and writes what it held, how much memory loading took, and how many norms it computed.
WORKER = """
import json, os, re, sys
from pathlib import Path
import torch
os.environ["ELSON_TRAIN_SHARDED"] = "1"
from runners.spec import load
from runners.training import attention, dora, ranks, sharded
from runners.training.train import train
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
found, norms, real_norm, real_load = {}, [0], dora.factored_norm, sharded.load
def norm(*arguments):
    norms[0] += 1
    return real_norm(*arguments)
def measured(base, *arguments):
    with torch.random.fork_rng():
        real_load(small, *arguments)  # what Python and the libraries take at their first use is not looked at
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again from what is held now
    found["before"] = peak()
    model = real_load(base, *arguments)
    found["loading"] = peak() - found["before"]
    found["held"] = sum((one.to_local() if sharded.is_share(one) else one).nbytes for one in model.parameters())
    found["whole"] = sum(one.nbytes for one in model.parameters())
    return model
dora.factored_norm, sharded.load = norm, measured
team = ranks.join()
spec, base, dataset, work, small = map(Path, sys.argv[1:])
result = train(load(spec), base, dataset, work)
found["training"] = peak() - found.pop("before")
(work / f"found-{team.rank}.json").write_text(json.dumps({**found, "norms": norms[0], "metrics": result.metrics}))
ranks.leave()
"""


def trained(count: int, spec: Spec, base: Path, dataset: Path, work: Path, small: Path) -> list[dict[str, Any]]:
    """Train in so many processes, after each has loaded ``small``; what each wrote down."""
    work.mkdir()
    (work / "worker.py").write_text(WORKER)
    (work / "spec.json").write_text(spec.model_dump_json())
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    where = [str(work / "worker.py"), str(work / "spec.json"), str(base), str(dataset), str(work), str(small)]
    # glibc gives large blocks back at once: else what was freed is seen as held.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, *launch, *where], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((work / f"found-{rank}.json").read_text()) for rank in range(count)]


def assert_same(metrics: dict[str, Any], expected: dict[str, Any]) -> None:
    for rows, value, within in (("history", "loss", 1e-6), ("validation", "loss", 1e-6), ("history", "gradient_norm", 1e-5)):
        assert [row[value] for row in metrics[rows]] == pytest.approx([row[value] for row in expected[rows]], rel=within)
    assert metrics["best_step"] == expected["best_step"]


def test_two_processes_train_what_one_does_and_compute_as_many_norms(
    base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, norms, real = make_spec(epochs=1), [0], dora.factored_norm

    def counted(*arguments: Any) -> Any:
        norms[0] += 1
        return real(*arguments)

    monkeypatch.setattr(dora, "factored_norm", counted)
    one = train(spec, base, dataset, tmp_path / "one")
    found = trained(2, spec, base, dataset, tmp_path / "two", base)
    # Some step has an odd number of micro-batches: one process repeats another's, with weight 0.
    assert any(row["micro_batches"] % 2 for row in one.metrics["history"])
    for process in found:
        assert_same(process["metrics"], one.metrics)
        assert process["norms"] == norms[0]
    ours, theirs = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (tmp_path / "two", tmp_path / "one"))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-6)


def test_a_70b_in_miniature_is_never_whole_in_a_process(base: Path, make_dataset: Any, make_spec: MakeSpec, tmp_path: Path) -> None:
    """A 70B's proportions. Each of 4 processes reads and keeps its quarter, and a step gathers one layer after the other; one step, checkpointed."""
    shape = {"num_hidden_layers": 32, "hidden_size": 320, "intermediate_size": 1120, "num_attention_heads": 5, "num_key_value_heads": 1}
    large, dataset = make_tiny(tmp_path / "base", **shape), make_dataset(tmp_path / "data", 4, 2)
    spec = make_spec(epochs=1, batch_examples=4, gradient_checkpointing=True)
    one = train(spec, large, dataset, tmp_path / "one")
    for process in trained(4, spec, large, dataset, tmp_path / "four", base):
        assert_same(process["metrics"], one.metrics)
        assert process["whole"] > 150e6
        assert process["held"] < 0.27 * process["whole"]
        # The pages of the files that a process looked at count too, a sixteenth of a matrix at the least.
        assert process["loading"] < 0.8 * process["whole"]
        assert process["training"] < 0.9 * process["whole"], process


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Any]:
    """A group of one process: what it shares out, it holds."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield torch.distributed.group.WORLD
    torch.distributed.destroy_process_group()


def test_a_whole_checkpoint_and_one_in_shares_are_read_by_each_other(alone: Any, base: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    settings, kind = make_spec().train, attention.prepare("cpu")
    models, optimizers = [], []
    for module in (adapted_model, sharded):
        torch.manual_seed(0)
        models.append(model := module.load(base, settings, "tiny", "cpu", kind))
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for number, parameter in enumerate(parameters):
            parameter.grad = torch.full_like(parameter, 1 + number)
        optimizers.append(torch.optim.AdamW(parameters, lr=1e-3))
        optimizers[-1].step()
    state = checkpoint.State("a run", 3, 2, 1.0, 0, [], [])
    for place, wrote, group in (("whole", 0, None), ("shares", 1, alone)):
        best = {name: tensor + 1 for name, tensor in checkpoint.adapter_state(models[wrote]).items()}
        folder = checkpoint.save(tmp_path / place, checkpoint.snapshot(state, models[wrote], optimizers[wrote], best), group)
        assert checkpoint.newest([tmp_path / place], "a run") == folder
        assert not [file for file in folder.rglob("*") if file.is_file() and file.suffix not in (".safetensors", ".json", ".md")]
        for model, optimizer in zip(models, optimizers, strict=True):
            expected, moments = checkpoint.adapter_state(model), optimizer.state_dict()["state"]
            with torch.no_grad():
                for parameter in optimizer.param_groups[0]["params"]:
                    parameter.zero_()
            optimizer.load_state_dict({"state": {}, "param_groups": optimizer.state_dict()["param_groups"]})
            read, their_best = checkpoint.restore(folder, model, optimizer)
            assert read == state
            for name, tensor in checkpoint.adapter_state(model).items():
                assert bool((tensor == expected[name]).all()) and bool((their_best[name] == expected[name] + 1).all())
            for index, values in optimizer.state_dict()["state"].items():
                assert all(bool((value == moments[index][field]).all()) for field, value in values.items())


def test_files_that_lack_a_tensor_are_refused(alone: Any, base: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    damaged = shutil.copytree(base, tmp_path / "damaged")
    file = damaged / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        sharded.load(damaged, make_spec().train, "tiny", "cpu", attention.prepare("cpu"))

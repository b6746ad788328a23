"""A model read layer by layer: the logits of the whole model to the bit, in thirteen architectures, with and without an adapter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from runners.compression import gates, merge
from runners.compression.layers import Call, Layers, Part, Round
from runners.errors import UserError
from runners.local.base_model import make_tiny
from runners.spec import Spec
from runners.training.examples import load_tokenizer, validation_split
from tests.torch.test_architectures import SUPPORTED, made

ROOT = Path(__file__).parents[2]
KINDS = [name for name in SUPPORTED if "mixtral" not in name]


def calls() -> list[Call]:
    """Longer than the windows of 8; one with positions and a mask of its own."""
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(97, (1, size), generator=generator) for size in (5, 23, 17)]
    mask = torch.zeros(1, 1, 17, 17).masked_fill(~torch.ones(17, 17, dtype=torch.bool).tril(), torch.finfo(torch.float32).min)
    own = {"attention_mask": mask, "position_ids": torch.arange(17)[None], "logits_to_keep": torch.tensor([3, 9])}
    return [{"input_ids": ids[0]}, {"input_ids": ids[1], "logits_to_keep": 4}, {"input_ids": ids[2], **own}]


@pytest.mark.parametrize("name", KINDS)
def test_the_logits_are_the_whole_models(name: str, tmp_path: Path) -> None:
    folder = made(*SUPPORTED[name], tmp_path)
    expected = list(gates.logits(gates.load_plain(folder, "cpu", torch.float32), calls()))
    layers = Layers(folder, "cpu", torch.float32)
    (found,) = layers.read(Round(calls()))
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
    # Nothing is left of the layers, and the same again from the files.
    assert sum(not one.is_meta for layer in layers._layers for one in layer.parameters()) == 0
    assert torch.equal(next(layers.read(Round(calls()))[0]), expected[0])


@pytest.mark.parametrize("dora", [True, False], ids=["dora", "lora"])
@pytest.mark.parametrize("name", ["qwen2", "llama", "gemma"])
def test_an_adapter_is_stock_pefts(name: str, dora: bool, tmp_path: Path) -> None:
    folder = made(*SUPPORTED[name], tmp_path / "base")
    torch.manual_seed(2)
    config = LoraConfig(r=4, lora_alpha=8, use_dora=dora, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(str(folder)), config).save_pretrained(str(tmp_path / "adapter"))
    whole = PeftModel.from_pretrained(gates.load_plain(folder, "cpu", torch.float32), str(tmp_path / "adapter")).eval()
    expected = list(gates.logits(whole, calls()))
    with whole.disable_adapter():
        without = list(gates.logits(whole, calls()))
    layers = Layers(folder, "cpu", torch.float32, tmp_path / "adapter")
    found = layers.read(Round(calls(), switch(True)), Round(calls(), switch(False)))
    assert all(torch.equal(a, b) for a, b in zip(found[0], expected, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(found[1], without, strict=True))
    assert not torch.equal(expected[0], without[0])


def switch(on: bool) -> Callable[[Part], None]:
    return lambda part: merge.adapter_is(part, on)


def test_a_folder_that_lacks_tensors_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = made(*SUPPORTED["qwen2"], tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: one for name, one in tensors.items() if name != "model.norm.weight"}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="lack model.norm.weight"):
        Layers(folder, "cpu", torch.float32).read(Round(calls()))


#: Merges and measures, and says how much memory that took beside the pages of files; a small model first takes what the libraries take.
WORKER = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from runners.compression import forgetting, gates, merge
forgetting.AREAS = {area: items[:2] for area, items in forgetting.AREAS.items()}  # all of them take a minute
from runners.spec import load
from tests.held_memory import most
spec, dataset, work = (Path(name) for name in sys.argv[1:])
def merged(name):
    return merge.merge(load(spec), work / name, work / f"{name}-adapter", dataset, work / f"{name}-out")
merged("small")
result, took = most(lambda: merged("large"))
_, whole = most(lambda: gates.load_plain(work / "large", "cpu", torch.float32))
print(json.dumps({"took": took, "whole": whole, "gates": [gate.model_dump() for gate in result.gates], "metrics": result.metrics}))
"""


def adapted(folder: Path, dest: Path) -> Path:
    """A DoRA adapter that changes a model a little."""
    torch.manual_seed(2)
    config = LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(0.3)
    model.save_pretrained(str(dest))
    return dest


def test_a_70b_in_miniature_is_merged_and_held_to_its_gates_in_memory_that_does_not_hold_it(
    dataset: Path, make_spec: Callable[..., Spec], tmp_path: Path
) -> None:
    """A 70B's proportions, 85 MiB in fp32, in less than 40. The gates have the numbers of the whole models."""
    shape = {"num_hidden_layers": 16, "hidden_size": 320, "intermediate_size": 1120, "num_attention_heads": 5, "num_key_value_heads": 1}
    for name, changes in (("small", {}), ("large", shape)):
        folder = make_tiny(tmp_path / name, **changes)
        adapted(folder, tmp_path / f"{name}-adapter")
        AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.bfloat16).save_pretrained(str(folder), max_shard_size="10MB")
    (tmp_path / "large" / "model.safetensors").unlink(missing_ok=True)
    spec = make_spec()
    # A random model is unsure of every token: which is likeliest says nothing.
    spec = spec.model_copy(update={"merge": spec.merge.model_copy(update={"probe_examples": 4, "min_top1_agreement": 0.5})})
    spec = spec.model_copy(update={"chat": spec.chat.model_copy(update={"system_prompt": "Be brief."})})
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, str(tmp_path / "worker.py"), str(tmp_path / "spec.json"), str(dataset), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["took"] < 40 << 20 < 80e6 < found["whole"]
    assert len(found["gates"]) == 4  # held: a gate that failed is an error
    # The same by models in one piece.
    base, merged = tmp_path / "large", tmp_path / "large-out" / "merged"
    probes = validation_split(spec, dataset, load_tokenizer(base), spec.merge.probe_examples)
    asked, plain = gates.calls(probes), gates.load_plain(base, "cpu", torch.float32)
    whole = PeftModel.from_pretrained(plain, str(tmp_path / "large-adapter"))
    expected = list(gates.log_probabilities(gates.logits(whole, asked)))
    with whole.disable_adapter():
        taught = gates.distance(expected, gates.log_probabilities(gates.logits(whole, asked)), probes)
    after = gates.load_plain(merged, "cpu", torch.float32)
    kept = list(gates.log_probabilities(gates.logits(after, asked)))
    merge.round_again(list(after.named_modules()))
    noise = gates.distance(kept, gates.log_probabilities(gates.logits(after, asked)), probes)
    values = {gate["name"]: gate["value"] for gate in found["gates"]}
    assert values["mean KL, base against adapter"] == pytest.approx(taught.mean_kl, rel=1e-6)
    assert values["mean KL, merged against adapter"] == pytest.approx(gates.distance(expected, kept, probes).mean_kl, rel=1e-5)
    assert found["metrics"]["rounding_mean_kl"] == pytest.approx(noise.mean_kl, rel=1e-5)

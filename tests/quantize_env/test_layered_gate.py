"""The gate of a quantized model holds one decoder layer at a time: it has the numbers of whole models, in memory that does not hold one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from runners.compression import awq_autoawq, gates, packed, parity, quantize
from runners.local.base_model import make_tiny
from runners.spec import Spec
from runners.training.examples import Example, load_tokenizer, validation_split

ROOT = Path(__file__).parents[2]
#: A 70B's proportions, 87 MiB in fp32.
SHAPE = {"num_hidden_layers": 16, "hidden_size": 320, "intermediate_size": 1152, "num_attention_heads": 5, "num_key_value_heads": 1}
CLIPPED = "model.layers.7.self_attn.q_proj"
#: Measures and says how much memory that took beside the pages of files; a small model first takes what the libraries take.
WORKER = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from runners.compression import gates, quantize
from runners.spec import load
from tests.held_memory import most
from tests.quantize_env.test_layered_gate import held_out
spec, dataset, work = load(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
def measured(name):
    return quantize.measure(spec, work / name, work / f"{name}-awq", held_out(spec, work / name, dataset))
measured("small")
(found, metrics), took = most(lambda: measured("large"))
_, whole = most(lambda: gates.load_plain(work / "large", "cpu", torch.float32))
print(json.dumps({"took": took, "whole": whole, "gates": {gate.name: gate.value for gate in found}, "nearest": found[-1].bound, "metrics": metrics}))
"""


def held_out(spec: Spec, merged: Path, dataset: Path) -> list[Example]:
    """The two shortest: what each matrix of the model is given stays in memory, and is to be small beside a model this small."""
    return sorted(validation_split(spec, dataset, load_tokenizer(merged)), key=len)[:2]


def in_4_bits(merged: Path, dest: Path) -> Path:
    """Round-to-nearest in groups of 64, as autoawq writes it. One matrix is clipped as AWQ may clip it, and far too much."""
    dest.mkdir()
    source, tensors = parity.Tensors(merged), {}
    for name in source.file_of:
        stem = name.removesuffix(".weight")
        if not stem.endswith("_proj"):
            tensors[name] = source[name].half()
            continue
        weight = source[name].float()
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        bound = weight.unflatten(1, (-1, 64)).abs().amax(-1).repeat_interleave(64, 1) * (0.6 if stem == CLIPPED else 1)
        layer.weight.data = weight.clamp(-bound, bound)
        tensors |= {f"{stem}.{part}": getattr(awq_autoawq.packed(layer, 4, 64), part) for part in packed.GEMM}
    save_file({name: one.contiguous() for name, one in tensors.items()}, dest / "model.safetensors", {"format": "pt"})
    config = {"dtype": "float16", "quantization_config": quantize.packing(Spec().quantize.model_copy(update={"group_size": 64}))}
    (dest / "config.json").write_text(json.dumps(config))
    quantize._copy_beside(merged, dest)
    return dest


def test_a_70b_in_miniature_is_held_to_its_gates_in_memory_that_does_not_hold_it(spec: Spec, dataset: Path, tmp_path: Path) -> None:
    for name, shape in (("small", {}), ("large", SHAPE)):
        in_4_bits(make_tiny(tmp_path / name, **shape), tmp_path / f"{name}-awq")
    spec = spec.model_copy(update={"chat": spec.chat.model_copy(update={"system_prompt": "Be brief."})})
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    command = [sys.executable, "-c", WORKER, str(tmp_path / "spec.json"), str(dataset), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["took"] < 40 << 20 < 80e6 < found["whole"]

    # The same by models in one piece.
    merged, made, examples = tmp_path / "large", packed.Plain(tmp_path / "large-awq", "cpu"), held_out(spec, tmp_path / "large", dataset)
    model, asked = gates.load_plain(merged, "cpu", torch.float32), gates.calls(examples)
    inputs: list[torch.Tensor] = []
    hook = model.get_submodule(CLIPPED).register_forward_pre_hook(lambda _, given: inputs.append(given[0][0]))
    with torch.no_grad():
        for example in examples:
            model(torch.tensor([example.token_ids]))
    hook.remove()
    exact = model.get_submodule(CLIPPED).weight.detach().clone()
    expected = list(gates.log_probabilities(gates.logits(model, asked)))
    distances, errors = [], []
    for whole in (made.weight, lambda name: rounded(parity.Tensors(merged)[name], name)):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(whole(name))
        change = model.get_submodule(CLIPPED).weight.detach() - exact
        errors.append(float(sum((x @ change.T).square().sum() for x in inputs)) ** 0.5)
        distances.append(gates.distance(expected, gates.log_probabilities(gates.logits(model, asked)), examples))
    assert found["gates"] == {
        "tensors and files unlike the merged model": 0,
        f"error of a matrix over that of round-to-nearest ({CLIPPED})": pytest.approx(errors[0] / errors[1], rel=1e-4),
        "mean KL, quantized against merged": pytest.approx(distances[0].mean_kl, rel=1e-5),
        "perplexity ratio, quantized to merged": pytest.approx(distances[0].perplexity_ratio, rel=1e-6),
        "mean KL, below that of round-to-nearest": pytest.approx(distances[0].mean_kl, rel=1e-5),
    }, found["metrics"]["problems"]
    assert found["nearest"] == pytest.approx(distances[1].mean_kl, rel=1e-5)
    assert distances[0].mean_kl != pytest.approx(distances[1].mean_kl, rel=1e-3)


def rounded(weight: torch.Tensor, name: str) -> torch.Tensor:
    return gates.round_to_nearest(weight, 64) if name.endswith("_proj.weight") else weight

"""Merging tensor by tensor equals peft's own merge, and the gate sees what goes wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from runners.compression import gates, merge, parity
from runners.errors import UserError
from runners.spec import Spec
from runners.training import train

MakeSpec = Callable[..., Spec]


@pytest.fixture(scope="module", params=["dora", "lora"])
def adapter(request: pytest.FixtureRequest, base: Path, dataset: Path, make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train.train(make_spec(adapter=request.param, epochs=2), base, dataset, tmp_path_factory.mktemp(request.param)).adapter


def test_equals_pefts_merge(adapter: Path, base: Path, tmp_path: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    expected = PeftModel.from_pretrained(plain, str(adapter)).merge_and_unload(safe_merge=True).state_dict()
    found = load_file(merge.merge_streaming(base, adapter, tmp_path / "merged") / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.bfloat16
        # Both are within half a step of bf16 (2^-9) of the same number.
        assert torch.allclose(tensor.float(), expected[name].bfloat16().float(), rtol=2**-7, atol=1e-6), name


def test_a_model_in_several_files(adapter: Path, base: Path, tmp_path: Path) -> None:
    whole = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    whole.save_pretrained(tmp_path / "sharded", max_shard_size="300KB")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(base / name, tmp_path / "sharded" / name)
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    one = AutoModelForCausalLM.from_pretrained(merge.merge_streaming(base, adapter, tmp_path / "one")).state_dict()
    many = AutoModelForCausalLM.from_pretrained(merge.merge_streaming(tmp_path / "sharded", adapter, tmp_path / "many")).state_dict()
    assert one.keys() == many.keys() and all(torch.equal(one[name], many[name]) for name in one)


def test_the_gate_passes_and_says_how_far(adapter: Path, base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec()
    spec = spec.model_copy(update={"merge": spec.merge.model_copy(update={"max_mean_kl": 0.05})})
    result = merge.merge(spec, base, adapter, dataset, tmp_path)
    assert [gate.passed for gate in result.gates] == [True, True, True, True]
    # Bounds follow what the adapter changed and what rounding changes: the spec's own is only the widest.
    noise, taught = result.metrics["rounding_mean_kl"], result.metrics["adapter_mean_kl"]
    of_answers = {gate.name: gate.bound for gate in result.gates if "mean KL" in gate.name}
    assert of_answers == {"mean KL, base against adapter": 4 * noise, "mean KL, merged against adapter": max(4 * noise, 0.1 * taught)}
    assert max(of_answers.values()) < spec.merge.max_mean_kl
    assert result.metrics["problems"] == [] and result.metrics["adapter_mean_kl"] > 10 * result.metrics["rounding_mean_kl"] > 0
    assert result.metrics["merged_mean_kl"] < 1e-3 and result.metrics["probe_tokens"] > 100
    assert (result.merged / "tokenizer.json").exists() and (result.merged / "chat_template.jinja").exists()
    assert json.loads((result.merged / "config.json").read_text())["dtype"] == "bfloat16"


def edited(adapter: Path, dest: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Path:
    shutil.copytree(adapter, dest)
    save_file(change(load_file(adapter / "adapter_model.safetensors")), dest / "adapter_model.safetensors")
    return dest


def test_a_missing_magnitude_vector_is_named(adapter: Path, base: Path, tmp_path: Path) -> None:
    broken = edited(
        adapter, tmp_path / "broken", lambda tensors: {n: t for n, t in tensors.items() if "magnitude" not in n and "layers.1.mlp.up_proj.lora_B" not in n}
    )
    with pytest.raises(UserError, match=r"lacks (15|1) tensors"):
        merge.merge_streaming(base, broken, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_merge_without_magnitudes_fails_the_gate(
    adapter: Path, base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a script that knows LoRA only would merge it: the gate says by how much."""
    if "lora" in str(adapter.parent.name):
        pytest.skip("a LoRA adapter has no magnitudes to leave out")
    loud = edited(adapter, tmp_path / "loud", lambda tensors: {n: t * 1.2 if "magnitude" in n else t for n, t in tensors.items()})
    real = merge.merged_weight
    monkeypatch.setattr(merge, "merged_weight", lambda w, layer, s: real(w, {n: t for n, t in layer.items() if "magnitude" not in n}, s))
    with pytest.raises(gates.GateFailed, match="mean KL, merged against adapter is") as failed:
        merge.merge(make_spec(), base, loud, dataset, tmp_path)
    assert not failed.value.gates[0].passed and not failed.value.gates[2].passed and failed.value.metrics["merged_mean_kl"] > 0.01


def test_an_adapter_of_another_model_is_refused(adapter: Path, base: Path, tmp_path: Path) -> None:
    other = edited(adapter, tmp_path / "other", lambda tensors: {n.replace("layers.1", "layers.7"): t for n, t in tensors.items()})
    with pytest.raises(UserError, match=r"has no model\.layers\.7"):
        merge.merge_streaming(base, other, tmp_path / "merged")
    config = json.loads((adapter / "adapter_config.json").read_text())
    odd = shutil.copytree(adapter, tmp_path / "odd")
    (odd / "adapter_config.json").write_text(json.dumps({**config, "rank_pattern": {"q_proj": 3}}))
    with pytest.raises(UserError, match="rank_pattern"):
        merge.merge_streaming(base, odd, tmp_path / "merged")


def test_an_adapter_that_changes_nothing_is_refused(adapter: Path, base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    """Nothing is wrong with the merge: it is the base model under another name."""

    def untrained(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights = load_file(base / "model.safetensors")
        norms = {
            f"base_model.model.{name.removesuffix('.weight')}.lora_magnitude_vector": one.float().norm(dim=1) for name, one in weights.items() if one.ndim == 2
        }
        return {name: norms[name] if "magnitude" in name else one * (0 if "lora_B" in name else 1) for name, one in tensors.items()}

    nothing = edited(adapter, tmp_path / "nothing", untrained)
    with pytest.raises(gates.GateFailed, match="mean KL, base against adapter is .* at least") as failed:
        merge.merge(make_spec(), base, nothing, dataset, tmp_path)
    assert [gate.passed for gate in failed.value.gates] == [True, False, True, True]


DAMAGES: dict[str, Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], dict[str, torch.Tensor]]] = {
    "no k_proj is merged": lambda merged, base: {**merged, **{n: t.bfloat16() for n, t in base.items() if "k_proj.weight" in n}},
    "one layer is left out": lambda merged, base: {**merged, **{n: t.bfloat16() for n, t in base.items() if "layers.0." in n}},
    "one number is one step off": lambda merged, base: {
        **merged,
        "lm_head.weight": merged["lm_head.weight"].index_put((torch.tensor([3]), torch.tensor([5])), torch.tensor(2.0).bfloat16()),
    },
    "a matrix is missing": lambda merged, base: {n: t for n, t in merged.items() if "layers.1.mlp.up_proj" not in n},
    "a norm is 1 % larger": lambda merged, base: {**merged, "model.norm.weight": merged["model.norm.weight"] * 1.02},
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_tensor_that_is_not_what_base_and_adapter_say(name: str, adapter: Path, base: Path, dataset: Path, make_spec: MakeSpec, tmp_path: Path) -> None:
    """Each passed the gates on answers alone. tests/benchmarks/training_damage.py has the whole table."""
    merged = merge.merge_streaming(base, adapter, tmp_path / "merged")
    file = merged / "model.safetensors"
    save_file(DAMAGES[name](load_file(file), load_file(base / "model.safetensors")), file, metadata={"format": "pt"})
    assert parity.unlike_tensors(base, adapter, merged)


def test_files_beside_the_tensors(adapter: Path, base: Path, tmp_path: Path) -> None:
    merged = merge.merge_streaming(base, adapter, tmp_path / "merged")
    assert parity.unlike_files(base, adapter, merged) == []
    (merged / "chat_template.jinja").write_text((merged / "chat_template.jinja").read_text() + " ")
    config = json.loads((merged / "config.json").read_text())
    (merged / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert parity.unlike_files(base, adapter, merged) == ["chat_template.jinja is not that of the adapter", "config.json differs in rms_norm_eps"]

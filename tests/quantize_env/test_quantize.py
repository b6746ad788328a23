"""autoawq, fixed: the model survives a CPU, beats round-to-nearest, and the gate says when it does not. And the other backend."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from runners.compression import awq_autoawq, gates, packed, quantize
from runners.compression.parity import Tensors
from runners.errors import UserError
from runners.spec import Spec
from runners.training.examples import load_tokenizer, training_split

with warnings.catch_warnings(record=True):
    from awq.modules.linear import WQLinear_GEMM
    from awq.quantize.quantizer import AwqQuantizer


def changed(spec: Spec, **values: Any) -> Spec:
    return spec.model_copy(update={"quantize": spec.quantize.model_copy(update=values)})


@pytest.fixture(scope="module")
def result(spec: Spec, merged: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> quantize.QuantizeResult:
    return quantize.quantize(spec, merged, dataset, tmp_path_factory.mktemp("work"))


def test_passes_its_gates_and_beats_round_to_nearest(result: quantize.QuantizeResult) -> None:
    assert len(result.gates) == 5 and all(gate.passed for gate in result.gates)
    assert result.metrics["quantized_mean_kl"] < 0.6 * result.metrics["round_to_nearest_mean_kl"]


def plain_names(folder: Path) -> set[str]:
    """What the tensors of a folder are called in a model that is not quantized."""
    tensors = Tensors(folder)
    stems = packed.stems(tensors)
    return {f"{stem}.weight" for stem in stems} | (tensors.file_of.keys() - {name for stem in stems for name in packed.parts(tensors, stem)})


def test_the_files_are_awq_gemm(result: quantize.QuantizeResult, merged: Path) -> None:
    config = json.loads((result.quantized / "config.json").read_text())["quantization_config"]
    assert config | {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm", "zero_point": True} == config
    assert plain_names(result.quantized) == plain_names(merged)
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (result.quantized / name).read_bytes() == (merged / name).read_bytes()
    assert json.loads((result.quantized / "generation_config.json").read_text()).get("do_sample") is not True
    assert result.metrics["bytes"] < 0.75 * result.metrics["merged_bytes"]


def test_the_maintained_backend_passes_the_same_gates(spec: Spec, merged: Path, dataset: Path, tmp_path: Path) -> None:
    """llm-compressor in its own environment, read back from compressed-tensors by the same gate."""
    found = quantize.quantize(changed(spec, backend="llmcompressor"), merged, dataset, tmp_path)
    assert all(gate.passed for gate in found.gates) and found.metrics["backend"] == "llmcompressor"
    config = json.loads((found.quantized / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "compressed-tensors" and config["config_groups"]["group_0"]["weights"]["group_size"] == 64
    assert plain_names(found.quantized) == plain_names(merged)


def test_what_transformers_own_layout_says_is_what_we_read_back(result: quantize.QuantizeResult) -> None:
    """autoawq's own layer, run on the packed tensors, gives what the dequantized weight gives."""
    from safetensors.torch import load_file

    tensors = load_file(result.quantized / "model.safetensors")
    stem = "model.layers.0.mlp.down_proj"
    out, width = tensors[f"{stem}.scales"].shape[1], tensors[f"{stem}.qweight"].shape[0]
    layer = WQLinear_GEMM(4, 64, width, out, False, "cpu")
    layer.qweight, layer.qzeros, layer.scales = (tensors[f"{stem}.{part}"] for part in ("qweight", "qzeros", "scales"))
    weight = packed.Plain(result.quantized, "cpu").weight(f"{stem}.weight")
    x = torch.randn(3, width)
    assert torch.allclose(layer(x).float(), x.half().float() @ weight.T, rtol=2e-2, atol=2e-2)


def test_packing_equals_autoawqs() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(128, 96, bias=True).half()
    quantizer = object.__new__(AwqQuantizer)
    quantizer.group_size, quantizer.zero_point, quantizer.w_bit = 64, True, 4
    ours = awq_autoawq.packed(layer, 4, 64)
    wide = nn.Linear(128, 96, bias=True)
    # What autoawq packs: a weight already rounded to the stored scales.
    scales, zeros = ours.scales, packed.unpack(ours.qzeros, packed.GEMM_ORDER)
    wide.weight.data = packed.from_gemm(ours.qweight, ours.qzeros, ours.scales).plain()
    wide.bias.data = layer.bias.data.float()
    theirs = WQLinear_GEMM.from_linear(wide, 4, 64, scales=scales.float(), zeros=zeros.float())
    assert torch.equal(ours.qweight, theirs.qweight) and torch.equal(ours.qzeros, theirs.qzeros) and torch.equal(ours.bias, theirs.bias)
    assert float((packed.from_gemm(ours.qweight, ours.qzeros, ours.scales).plain() - layer.weight.float()).abs().max()) <= float(scales.max()) * 0.51


def test_the_clipping_error_is_autoawqs() -> None:
    """The quadratic form picks the thresholds that the sum over tokens picks."""
    torch.manual_seed(0)
    quantizer = object.__new__(awq_autoawq.MendedQuantizer)
    quantizer.group_size, quantizer.zero_point, quantizer.w_bit = 64, True, 4
    weight, tokens = torch.randn(64, 128), torch.randn(300, 128) * (1 + 5 * (torch.arange(128) % 32 == 0))
    ours = quantizer._compute_best_clip(weight, tokens)
    theirs = AwqQuantizer._compute_best_clip(quantizer, weight.clone(), tokens.clone())
    assert ours.shape == theirs.shape and float((ours == theirs).float().mean()) > 0.99


def test_as_shipped_autoawq_ruins_the_weights_and_ours_does_not(spec: Spec, merged: Path, dataset: Path) -> None:
    """The fault, and that it is fixed: after the search for scales the layer's weights are what they were."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {}
        for kind in (AwqQuantizer, awq_autoawq.MendedQuantizer):
            torch.manual_seed(0)
            layer = nn.Linear(128, 64, bias=False)
            before = layer.weight.detach().clone()
            quantizer = object.__new__(kind)
            quantizer.group_size, quantizer.zero_point, quantizer.w_bit, quantizer.duo_scaling = 64, True, 4, True
            quantizer.n_parallel_calib_samples, quantizer.max_chunk_memory = None, 2**30
            x = torch.randn(1, 50, 128)
            with torch.no_grad():
                quantizer._compute_best_scale(x, layer.weight.abs().mean(0), x.abs().mean((0, 1)), layer, [layer], layer(x), {})
            found[kind] = float((layer.weight - before).abs().max())
    assert found[awq_autoawq.MendedQuantizer] == 0.0
    assert found[AwqQuantizer] > 0.01


def test_a_failed_gate_says_by_how_much(
    result: quantize.QuantizeResult, spec: Spec, merged: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With autoawq's fault put back the model is worse, and the stage refuses it with the figures."""
    monkeypatch.setattr(awq_autoawq.MendedQuantizer, "_compute_best_scale", AwqQuantizer._compute_best_scale)
    bound = 1.2 * result.metrics["quantized_mean_kl"]
    with pytest.raises(gates.GateFailed, match=r"mean KL, quantized against merged is 0\.\d+, at most 0\.\d+ is allowed") as failed:
        quantize.quantize(changed(spec, max_mean_kl=bound), merged, dataset, tmp_path)
    assert len(failed.value.gates) == 5 and failed.value.metrics["quantized_mean_kl"] > bound


def test_calibration_rows_lose_nothing_and_come_from_the_training_split(spec: Spec, merged: Path, dataset: Path) -> None:
    tokenizer = load_tokenizer(merged)
    examples = training_split(spec, dataset, tokenizer)
    blocks = quantize.calibration_blocks(examples, spec.quantize)
    assert [len(block) for block in blocks] == [128] * 8
    assert blocks == quantize.calibration_blocks(examples, spec.quantize)
    assert blocks != quantize.calibration_blocks(examples, spec.quantize.model_copy(update={"seed": 1}))
    assert "<|im_start|>assistant" in tokenizer.decode([token for block in blocks for token in block])
    with pytest.raises(UserError, match="tokens for calibration"):
        quantize.calibration_blocks(examples[:1], spec.quantize.model_copy(update={"calibration_sequence_tokens": 4096}))


def test_a_width_that_the_group_does_not_divide() -> None:
    smollm2 = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "head_dim": 64}
    with pytest.raises(UserError, match="hidden_size 576") as refused:
        quantize.check_widths(smollm2, 128)
    assert "64 or 32" in str(refused.value)
    quantize.check_widths(smollm2, 64)
    with pytest.raises(UserError, match="serve the merged model"):
        quantize.check_widths(smollm2 | {"hidden_size": 100}, 128)


def test_round_to_nearest_is_within_half_a_step() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 256)
    groups = weight.reshape(5, -1, 64)
    step = (groups.amax(-1) - groups.amin(-1)) / 15
    worst = (gates.round_to_nearest(weight, 64) - weight).reshape(5, -1, 64).abs().amax(-1)
    assert bool((worst <= step * 1.01).all())
